#!/usr/bin/env bash
# Runs the tests of device kinds, hooks and what is left behind on several kernels of Debian, one after another.
#
#   tests/vm/matrix.sh [SERIES...]     default: 5.10 6.1 6.12 newest ("newest": that of Debian unstable)
#
# Needs and environment: as run_on_debian_kernel.sh, which runs each.
# What each said is in build/matrix/SERIES.log. Exit status: 0, or 1 if one failed.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
logs=$here/../../build/matrix
mkdir -p "$logs"
[ $# -gt 0 ] || set -- 5.10 6.1 6.12 newest
failed=0
for series; do
    if FLOWTOP_VM_SERIES=$series FLOWTOP_VM_TIMEOUT=${FLOWTOP_VM_TIMEOUT:-3600} "$here/run_on_debian_kernel.sh" \
        tests/kernel/test_devices.py tests/kernel/test_attach.py tests/kernel/test_copies.py -m "core or devices" -q >"$logs/$series.log" 2>&1; then
        echo "Linux $series: $(grep -E '^[0-9]+ passed' "$logs/$series.log" | tail -n 1)"
    else
        failed=1
        echo "Linux $series: FAILED"
        grep -E '^(FAILED|ERROR|E  |vm:)' "$logs/$series.log" | tail -n 40
    fi
done
exit "$failed"
