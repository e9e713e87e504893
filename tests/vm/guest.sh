#!/usr/bin/env bash
# Runs inside the machine that run_on_debian_kernel.sh boots: guest.sh PYTHON RESULTS-DIRECTORY
set -uo pipefail
python=$1 results=$2
uname -r >"$results/release"
. "$results/environment"
mapfile -t arguments <"$results/arguments"
ip link set lo up
modprobe tun  # the one whose device node has to be there before it is asked for
# The file system is the host's, read-only: no caches are written. Modules load on demand, as on any Debian.
export FLOWTOP_PROGRAM_CACHE=/tmp/programs PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis HOME=/tmp TERM=dumb
"$python" -m pytest -p no:cacheprovider --junitxml="$results/junit.xml" tests/vm/guest_checks.py "${arguments[@]}" 2>&1
echo $? >"$results/status"
