#!/usr/bin/env bash
# run.sh ROOT TARGET SECONDS: one fuzz target, for ./dev fuzz. What it finds new is kept in build/fuzz/corpus for the
# next time; the inputs in tests/fuzz/corpus stay as they were written.
set -euo pipefail
build=$1/build/fuzz
mkdir -p "$build/corpus/$2"
export ASAN_SYMBOLIZER_PATH=/usr/lib/llvm-16/bin/llvm-symbolizer
exec "$build/tests/fuzz/$2" -max_total_time="$3" -timeout=20 -rss_limit_mb=1024 -max_len=4096 \
  -artifact_prefix="$build/$2-" "$build/corpus/$2" "$1/tests/fuzz/corpus/$2" >"$build/$2.log" 2>&1
