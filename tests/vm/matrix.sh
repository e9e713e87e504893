#!/usr/bin/env bash
# Runs the tests of device kinds, hooks and what is left behind on several kernels of Debian, one after another: in User
# Mode Linux; and the kinds of devices that it lacks, and what the kernel sends itself, in an emulated machine.
#
#   tests/vm/matrix.sh [SERIES...]     default: 5.10 6.1 6.12 newest ("newest": that of Debian unstable)
#
# Needs and environment: as run_on_uml.sh and run_on_debian_kernel.sh, which run each. MATRIX_MACHINES="uml": only these.
# What each said is in build/matrix/SERIES-MACHINE.log. Exit status: 0, or 1 if one failed.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
logs=$here/../../build/matrix
mkdir -p "$logs"
[ $# -gt 0 ] || set -- 5.10 6.1 6.12 newest
lacking="xfrm wireguard netkit l2tp"

on_uml() {
    "$here/run_on_uml.sh" tests/kernel/test_devices.py tests/kernel/test_attach.py tests/kernel/test_copies.py \
        -m "core or devices" -q
}
on_emulator() {
    FLOWTOP_VM_ONLY="veth $lacking" "$here/run_on_debian_kernel.sh" tests/kernel/test_devices.py \
        tests/kernel/test_kernel_traffic.py -m devices -q
}

failed=0
for series; do
    for machine in ${MATRIX_MACHINES:-uml emulator}; do
        log=$logs/$series-$machine.log
        if FLOWTOP_VM_SERIES=$series "on_$machine" >"$log" 2>&1; then
            echo "Linux $series ($machine): $(grep -E '^[0-9]+ passed' "$log" | tail -n 1)"
        else
            failed=1
            echo "Linux $series ($machine): FAILED"
            grep -E '^(FAILED|ERROR|E  |vm:)' "$log" | tail -n 40
        fi
    done
done
exit "$failed"
