#!/usr/bin/env bash
# The Debian package: check.sh BUILD WORK. Makes it from a built tree, and looks at what is in it.
set -euo pipefail

build=$1 work=$2

rm -rf "$work"
mkdir -p "$work"
cpack --config "$build/CPackConfig.cmake" -B "$work"
deb=$(echo "$work"/taskpool_*.deb)

contents=$(dpkg-deb -c "$deb")
wanted=(
  './usr/bin/taskpool$'
  './usr/lib/.*libtaskpool\.a$'
  './usr/include/taskpool/task_pool\.hpp$'
  './usr/lib/.*cmake/taskpool/taskpool-config\.cmake$'
  './usr/lib/.*pkgconfig/taskpool\.pc$'
  './usr/share/man/man1/taskpool\.1$'
  './usr/share/doc/taskpool/copyright$'
)
for path in "${wanted[@]}"; do
  grep -q -- " $path" <<<"$contents" || { printf '%s\nthe package has no %s\n' "$contents" "$path" >&2; exit 1; }
done
if grep -v ' \./$\| \./usr/' <<<"$contents"; then
  echo "the package reaches beyond /usr" >&2
  exit 1
fi

depends=$(dpkg-deb -f "$deb" Depends)
[[ $depends == *libc6* && $depends == *libfmt* ]] || { echo "the package depends on: $depends" >&2; exit 1; }

dpkg-deb -x "$deb" "$work/root"
file "$work/root/usr/bin/taskpool" | grep -q 'ELF.* stripped' || { echo "taskpool is not a stripped program" >&2; exit 1; }
"$work/root/usr/bin/taskpool" --version
echo "package: $(basename "$deb"), depends on $depends"
