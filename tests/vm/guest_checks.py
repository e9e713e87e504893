"""What makes the old-kernel run worth anything; run inside the machine only (see run_on_debian_kernel.sh)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from flowtop.capture.ebpf.compiler import kernel_release

pytestmark = pytest.mark.core

LARGEST = " or ".join(("host 127.0.0.1", *(f"host 2001:db8::{number:x}" for number in range(31))))
"""The largest filter that is pushed down: so this is what the verifier has most to do with."""
WATCH_THREE_PINGS = """
ip link set lo up
"$0" -m flowtop -b -o json -i lo "$2" >"$1" & flowtop=$!
until [ -s "$1" ]; do kill -0 "$flowtop"; sleep 0.5; done
ping -q -c 3 -i 0.2 127.0.0.1 >&2
tc filter show dev lo ingress
tc filter show dev lo egress
echo ---
kill -TERM "$flowtop"
wait "$flowtop"
tc filter show dev lo ingress
tc filter show dev lo egress
tc qdisc show dev lo
"""


def test_this_is_the_kernel_series_asked_for() -> None:
    series = os.environ["FLOWTOP_VM_SERIES"]
    assert series == "newest" or platform.release().startswith(series + ".")


def test_flowtop_counts_and_leaves_nothing(tmp_path: Path) -> None:
    rounds = tmp_path / "rounds.json"
    result = subprocess.run(["unshare", "--net", "bash", "-euc", WATCH_THREE_PINGS, sys.executable, str(rounds),
                             LARGEST], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    attached, left = result.stdout.split("---\n")
    tcx = kernel_release() >= (6, 6)
    assert attached.count("flowtop") == (0 if tcx else 2), "TCX, or one clsact filter each way"
    assert "flowtop" not in left and "clsact" not in left
    last = json.loads(rounds.read_text().splitlines()[-1])
    totals = last["totals"]
    # Three echo requests and three replies of 84 octets, each leaving and arriving on loopback.
    assert (totals["observedPackets"], totals["accountedPackets"]) == (12, 12)
    assert totals["observedOctets"] == totals["accountedOctets"] == 12 * 84
    if kernel_release() >= (6, 1) and Path("/sys/kernel/btf/vmlinux").exists():  # what owners need
        assert any(flow.get("processName") == "ping" for flow in last["flows"])
