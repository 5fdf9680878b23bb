#!/usr/bin/env bash
# The library as its users meet it: check.sh SOURCE STATIC_BUILD WORK
# Installs it from a built static tree and from a shared one made here, moves both prefixes away from where they were
# installed, and builds a small program by find_package and pkg-config; then by add_subdirectory and FetchContent.
set -euo pipefail

source=$1 static_build=$2 work=$3
here=$source/tests/consumers

build_and_run() { # NAME PROJECT [CMAKE ARGUMENTS...]
  local folder=$work/$1 project=$2
  shift 2
  cmake -S "$here/$project" -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release "$@"
  cmake --build "$folder"
  "$folder/consumer"
}

rm -rf "$work"
mkdir -p "$work"
cmake -S "$source" -B "$work/shared_build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
  -DTASKPOOL_BUILD_TESTS=OFF -DTASKPOOL_BUILD_EXAMPLES=OFF -DTASKPOOL_BUILD_BENCH=OFF
cmake --build "$work/shared_build"

for kind in static shared; do
  if [[ $kind == static ]]; then build=$static_build; else build=$work/shared_build; fi
  cmake --install "$build" --prefix "$work/staged_$kind"
  mv "$work/staged_$kind" "$work/$kind"
  build_and_run "find_package_$kind" find_package -DCMAKE_PREFIX_PATH="$work/$kind"
  "$work/find_package_$kind/asio_consumer"
  "$work/find_package_$kind/boost_asio_consumer"
  pc_dir=$(dirname "$(find "$work/$kind" -name taskpool.pc)")
  PKG_CONFIG_PATH=$pc_dir "$here/pkg_config/build.sh" "$work/pkg_config_$kind"
  "$work/$kind/bin/taskpool" --version
done

build_and_run add_subdirectory add_subdirectory -DTASKPOOL_SOURCE="$source"
build_and_run fetch_content fetch_content -DTASKPOOL_SOURCE="$source" -DBUILD_SHARED_LIBS=ON
echo "consumers: all built and ran"
