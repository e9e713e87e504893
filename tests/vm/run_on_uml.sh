#!/usr/bin/env bash
# Runs tests on another Linux as a process: User Mode Linux of Debian, over this file system. Ten times as fast as the
# emulation of run_on_debian_kernel.sh, but with one processor, without type information (BTF), and without some devices.
# Nothing is installed: the package is only unpacked.
#
#   tests/vm/run_on_uml.sh [PYTEST ARGUMENT...]     default: tests/kernel/test_devices.py -m devices
#
# Needs apt-get and dpkg, kmod, busybox-static, a C compiler, and a Python with flowtop[test].
# Environment:
#   FLOWTOP_VM_SERIES     5.10, 6.1 (default), 6.12, or newest: that of Debian unstable
#   PYTHON                that Python (default .venv/bin/python)
#   FLOWTOP_VM_TIMEOUT    seconds for everything inside (default 1800)
#   FLOWTOP_VM_JUNIT      where to put junit.xml
#   FLOWTOP_DEBIAN_ARCHIVE  as in debian.sh
# Exit status: pytest's own; 70 when the machine did not get as far as pytest; 124 when it took too long.
set -euo pipefail

series=${FLOWTOP_VM_SERIES:-6.1}
repository=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-$repository/.venv/bin/python}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/flowtop/uml
mkdir -p "$cache"
. "$repository/tests/vm/debian.sh"

kernel=$cache/$suite/usr/bin/linux.uml
if [ ! -e "$kernel" ]; then
    say "downloading user-mode-linux of Debian's $suite"
    private_apt_options
    partial=$(mktemp -d "$cache/partial.XXXXXX")
    (cd "$partial" && apt-get "${apt_options[@]}" -qq download user-mode-linux libc6 >&2 &&
        dpkg -x ./user-mode-linux_*.deb unpacked && dpkg -x ./libc6_*.deb unpacked/libc)
    rm -rf "${cache:?}/$suite"
    mv "$partial/unpacked" "$cache/$suite"
    rm -rf "$partial"
fi

results=$(mktemp -d "$cache/results.XXXXXX")
trap 'rm -rf "$results"' EXIT
mkdir -p "$results/root/lib"
ln -s "$cache/$suite/usr/lib/uml/modules" "$results/root/lib/modules"
cc -O2 -shared -fPIC -o "$results/any_alignment.so" "$repository/tests/vm/uml/any_alignment.c" -ldl
[ $# -gt 0 ] || set -- tests/kernel/test_devices.py -m devices
printf '%s\n' "$@" >"$results/arguments"
cat >"$results/environment" <<ENVIRONMENT
export FLOWTOP_REQUIRE_KERNEL=1 FLOWTOP_VM_SERIES=$series FLOWTOP_TEST_SCALE=${FLOWTOP_TEST_SCALE:-0.05}
export FLOWTOP_VM_LACKS="xfrm wireguard netkit l2tp" FLOWTOP_REPOSITORY=$repository FLOWTOP_PYTHON=$python
ENVIRONMENT

# The kernel of a newer Debian needs its C library: in a mount namespace of its own, over this machine's.
with_its_libc='
    if ! "$1" --version >/dev/null 2>&1; then
        for library in "$0"/*.so*; do
            [ ! -e "/usr/lib/x86_64-linux-gnu/${library##*/}" ] ||
                busybox mount --bind "$library" "/usr/lib/x86_64-linux-gnu/${library##*/}"
        done
    fi
    exec "$@"'
started=$SECONDS
machine_status=0
timeout --kill-after=10 "${FLOWTOP_VM_TIMEOUT:-1800}" \
    unshare -m busybox sh -c "$with_its_libc" "$cache/$suite/libc/usr/lib/x86_64-linux-gnu" \
    "$kernel" mem="${FLOWTOP_VM_MEMORY:-1500M}" root=/dev/root rootfstype=hostfs rootflags=/ ro \
    init="$repository/tests/vm/uml/init.sh" flowtop_results="$results" umid="flowtop$$" con=null con0=null,fd:1 \
    </dev/null >"$results/console" 2>&1 || machine_status=$?
cat "$results/output" 2>/dev/null || tail -n 20 "$results/console"
say "the machine ran $((SECONDS - started)) s on Linux $(cat "$results/release" 2>/dev/null || echo "(none: it did not boot)")"

[ -z "${FLOWTOP_VM_JUNIT:-}" ] || cp "$results/junit.xml" "$FLOWTOP_VM_JUNIT" || say "no junit.xml came back"
if [ "$machine_status" -eq 124 ] || [ "$machine_status" -eq 137 ]; then
    say "stopped: still running after ${FLOWTOP_VM_TIMEOUT:-1800} s"
    exit 124
fi
[ -s "$results/status" ] || { say "the machine ended without a result (status $machine_status)"; exit 70; }
exit "$(cat "$results/status")"
