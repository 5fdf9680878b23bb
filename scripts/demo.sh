#!/usr/bin/env bash
# The main job on a stream of events made here: notifications that must reach each user in order, one at a time, while
# different users are served in parallel. Compared with the same work done one at a time, and with xargs -P, which knows
# no keys. `./dev demo` builds and calls it; TASKPOOL names the executable, whose build folder has the demo's programs.
set -euo pipefail
export LC_ALL=C

events=2000
users=200
slots=8

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
taskpool=${TASKPOOL:-$root/build/release/bin/taskpool}
programs=$(dirname "$(dirname "$taskpool")")/demo

fail() {
  echo "demo: $*" >&2
  exit 1
}

[[ -x $taskpool && -x $programs/send ]] || fail "not built; ./dev demo builds all it needs"

work=$(mktemp -d "${TMPDIR:-/tmp}/taskpool-demo.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

now() { echo "${EPOCHREALTIME/[.,]/}"; } # in microseconds

without_keys() { tr '\n' '\0' <"$work/events" | xargs -0 -n 1 -P "$slots" "$programs/send" "$1"; }

# When stderr is no terminal, the progress is plain lines.
progress=()
[[ -t 2 ]] || progress=(--progress=plain)
by_user() { # SLOTS JOURNAL
  "$taskpool" run -k .user -j "$1" ${progress[@]+"${progress[@]}"} -a "$work/events" -- "$programs/send" "$2" {}
}
one_at_a_time() { by_user 1 "$1"; }
with_keys() { by_user "$slots" "$1"; }

table=
base=
row() { # NAME COMMAND: runs it, checks its journal, adds a line to the table
  local journal=$work/journal
  : >"$journal"
  local begin end seconds
  begin=$(now)
  "$2" "$journal" || fail "$1 failed"
  end=$(now)
  seconds=$(awk -v us=$((end - begin)) 'BEGIN { print us / 1e6 }')
  local checked lost repeated
  checked=$("$programs/check_journal" "$work/events" "$journal") || fail "$1: the journal could not be checked"
  read -r all seen busiest lost repeated violations <<<"$checked"
  ((lost == 0 && repeated == 0)) || fail "$1: $lost events were lost and $repeated repeated"
  base=${base:-$seconds}
  table+=$(printf '%-22s %7.2f s %9.1f %18d' "$1" "$seconds" \
    "$(awk -v a="$base" -v b="$seconds" 'BEGIN { print a / b }')" "$violations")$'\n'
}

"$programs/make_events" "$events" "$users" >"$work/events"
echo "$events notifications, such as"
head -n 1 "$work/events" | sed 's/^/  /'
echo "each sent by a command that waits for an answer for 3 to 7 ms; to each user in order, one at a time."
echo

echo "one at a time: taskpool run -k .user -j 1"
row "taskpool run -j 1" one_at_a_time
echo "in parallel, without keys: xargs -P $slots"
row "xargs -P $slots" without_keys
echo "in parallel, by user: taskpool run -k .user -j $slots"
row "taskpool run -j $slots" with_keys

cat <<END

$all events of $seen users, $busiest of them for the busiest one

                          time  speed-up   order violations
$table
Checked in the journals: every event was sent exactly once. A violation is a send that began before the same user's
previous one had ended.
END
((violations == 0)) || fail "taskpool run broke the order"
