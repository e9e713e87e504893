#!/usr/bin/env bash
# Runs tests on another Linux: a kernel of Debian, by default Debian 12's (6.1: no TCX, so the clsact path), booted by
# virtme-ng over this file system in software emulation. Nothing is installed: the kernel packages are only unpacked.
# `matrix.sh` runs the tests of device kinds on several.
#
#   tests/vm/run_on_debian_kernel.sh [PYTEST ARGUMENT...]     default: those marked core
#
# Needs apt-get and dpkg, qemu-system-x86, kmod, udev, busybox-static, file, and a Python with flowtop[test] (its virtme-ng too).
# Environment:
#   FLOWTOP_VM_SERIES     5.10, 6.1 (default), 6.12, or newest: that of Debian unstable
#   PYTHON                that Python (default .venv/bin/python)
#   FLOWTOP_VM_TIMEOUT    seconds for everything inside, boot included (default 1800)
#   FLOWTOP_TEST_SCALE    share of the tests' usual work: emulation is about 20 times slower (default 0.05)
#   FLOWTOP_VM_ONLY       kinds of devices that test_devices.py makes (default all)
#   FLOWTOP_DEBIAN_ARCHIVE  as in debian.sh
#   FLOWTOP_VM_CPUS, FLOWTOP_VM_MEMORY   (defaults 1, 2G; emulated CPUs spin waiting for each other: two are 2 to 4
#                         times slower than one on a busy host, but only two exercise membarrier)
# Exit status: pytest's own; 70 when the machine did not get as far as pytest; 124 when it took too long.
set -euo pipefail

series=${FLOWTOP_VM_SERIES:-6.1}
repository=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-$repository/.venv/bin/python}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/flowtop/kernels

. "$repository/tests/vm/debian.sh"

# The kernel package that linux-image-amd64 is in the given apt configuration, e.g. linux-image-6.1.0-44-amd64; nothing
# if it is of another series.
newest_package() {
    local pattern=${series//./\\.}\\.
    [ "$series" != newest ] || pattern=[0-9]
    apt-cache "$@" depends linux-image-amd64 2>/dev/null |
        sed -n "s/^ *Depends: \(linux-image-$pattern[^ ]*\)\( .*\)\?$/\1/p" | head -n 1
}

# The packages of a kernel: newer Debians have its modules in another one than its image.
kernel_packages() {
    echo "$1"
    apt-cache "${apt_options[@]}" depends "$1" | sed -n "s/^ *Depends: \(linux-\(modules\|binary\)-[^ ]*\)$/\1/p"
}

# Sets `image` to the unpacked vmlinuz; downloads it on first use.
fetch_kernel() {
    local package apt_options=() partial
    package=$(newest_package)
    [ "$series" != newest ] || package=
    if [ -z "$package" ]; then
        say "linux-image-amd64 is not Linux $series here: asking for that of Debian's $suite"
        private_apt_options
        package=$(newest_package "${apt_options[@]}")
    fi
    [ -n "$package" ] || { say "no Linux $series package found (run apt-get update?)"; return 70; }
    image=$cache/$package/boot/vmlinuz-${package#linux-image-}
    [ -e "$image" ] && return
    say "downloading $package"
    partial=$(mktemp -d "$cache/partial.XXXXXX")
    (cd "$partial" && kernel_packages "$package" | xargs apt-get "${apt_options[@]}" -qq -o APT::Sandbox::User=root download >&2 &&
        for archive in *.deb; do dpkg -x "$archive" unpacked; done)
    rm -rf "${cache:?}/$package"
    mv "$partial/unpacked" "$cache/$package"
    rm -rf "$partial"
    # Newer Debians have the image beside its modules.
    [ -e "$cache/$package/lib" ] || ln -s usr/lib "$cache/$package/lib"
    [ -e "$image" ] || { mkdir -p "${image%/*}" && ln -s "../lib/modules/${package#linux-image-}/vmlinuz" "$image"; }
}

mkdir -p "$cache"
fetch_kernel

# The guest can write here and nowhere else. The exit status travels in a file: a crash, a panic or a boot that
# fails leaves none, and is never taken for success. (`| cat`: qemu reopens its standard output, which would
# overwrite the start of a log file.)
results=$(mktemp -d "$cache/results.XXXXXX")
trap 'rm -rf "$results"' EXIT
# Only files that have such tests: each one that is imported takes seconds in there.
[ $# -gt 0 ] || { mapfile -t files < <(cd "$repository" && grep -l 'mark\.core' tests/kernel/test_*.py) && set -- "${files[@]}" -m core; }
printf '%s\n' "$@" >"$results/arguments"
cat >"$results/environment" <<ENVIRONMENT
export FLOWTOP_REQUIRE_KERNEL=1 FLOWTOP_VM_SERIES=$series FLOWTOP_TEST_SCALE=${FLOWTOP_TEST_SCALE:-0.05}
${FLOWTOP_VM_ONLY:+export FLOWTOP_VM_ONLY=\"$FLOWTOP_VM_ONLY\"}
ENVIRONMENT

# Inside nothing is written beside the sources, so what Python compiles would be compiled by every process in there.
(cd "$repository" && "$python" -m compileall -q flowtop && "$python" -m pytest -q --collect-only tests/vm/guest_checks.py "$@" >/dev/null) ||
    say "tests cannot be collected here"

say "booting ${image##*/} (software emulation: half a minute or more)"
started=$SECONDS
machine_status=0
PATH=$(dirname "$python"):$PATH timeout --kill-after=10 "${FLOWTOP_VM_TIMEOUT:-1800}" \
    vng --disable-kvm --disable-monitor --run "$image" --user root --cwd "$repository" --rwdir "$results" \
    --cpus "${FLOWTOP_VM_CPUS:-1}" --memory "${FLOWTOP_VM_MEMORY:-2G}" \
    -- "$repository/tests/vm/guest.sh" "$python" "$results" </dev/null 2>&1 | cat || machine_status=$?
say "the machine ran $((SECONDS - started)) s on Linux $(cat "$results/release" 2>/dev/null || echo "(none: it did not boot)")"

[ -z "${FLOWTOP_VM_JUNIT:-}" ] || cp "$results/junit.xml" "$FLOWTOP_VM_JUNIT" || say "no junit.xml came back"
if [ "$machine_status" -eq 124 ] || [ "$machine_status" -eq 137 ]; then
    say "stopped: still running after ${FLOWTOP_VM_TIMEOUT:-1800} s"
    exit 124
fi
if [ ! -s "$results/status" ]; then
    say "the machine ended without a result (virtme-ng said $machine_status)"
    exit 70
fi
exit "$(cat "$results/status")"
