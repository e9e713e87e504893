"""IPFIX files read back: a capture's flows survive the way through `-e file:` and `-r`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowtop.elements import TCP_MEMBERS
from tests.oracle.test_read import CAPTURES, EXPECTED, names
from tests.unit.capture.files import writers as w
from tests.unit.test_reading import CAPTURE

_NOT_EXPORTED = ("flowId", "ipTTL", *TCP_MEMBERS)


def flows(*options: str) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Flows in an order of their own, without what IPFIX does not tell, and the totals."""
    done = subprocess.run([sys.executable, "-m", "flowtop", "-b", "-o", "json", *options], capture_output=True,
                          check=True, timeout=120)
    [only] = map(json.loads, done.stdout.splitlines())
    kept = [{name: value for name, value in flow.items() if name not in _NOT_EXPORTED} for flow in only["flows"]]
    return sorted(kept, key=lambda flow: json.dumps(flow, sort_keys=True)), only["totals"]


def round_trip(capture: Path, ipfix: Path) -> None:
    before, books = flows("-r", str(capture), "-e", f"file:{ipfix}?profile=strict")
    after, again = flows("-r", str(ipfix))
    assert after == before
    assert (again["observedPackets"], again["observedOctets"]) == (books["accountedPackets"], books["accountedOctets"])


@pytest.mark.skipif(not EXPECTED.exists(), reason=f"needs the capture files in {CAPTURES}")
@pytest.mark.parametrize("name", names())
def test_round_trip_of_captures(tmp_path: Path, name: str) -> None:
    round_trip(CAPTURES / name, tmp_path / "flows.ipfix")


def test_round_trip_of_a_flow_that_comes_back_after_its_timeout(tmp_path: Path) -> None:
    (tmp_path / "x.pcap").write_bytes(CAPTURE)
    round_trip(tmp_path / "x.pcap", tmp_path / "flows.ipfix")


def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    capture, ipfix = tmp_path / "x.pcap", tmp_path / "flows.ipfix"
    capture.write_bytes(CAPTURE)
    flows("-r", str(capture), "-e", f"file:{ipfix}")
    whole = ipfix.read_bytes()
    ipfix.write_bytes(whole[:-5])
    done = subprocess.run([sys.executable, "-m", "flowtop", "-b", "-o", "json", "-r", str(ipfix)], capture_output=True,
                          check=False, timeout=60)
    assert done.returncode == 65
    assert done.stderr.decode().splitlines()[0] == "flowtop: flows.ipfix is cut off in the middle of a message"
    assert json.loads(done.stdout)["totals"]["observedPackets"] == 4, "reports stand at the end"
    ipfix.write_bytes(whole + b"\0" * 40)
    done = subprocess.run([sys.executable, "-m", "flowtop", "-b", "-o", "json", "-r", str(ipfix)], capture_output=True,
                          check=False, timeout=60)
    assert "something that is no IPFIX message" in done.stderr.decode()
    assert json.loads(done.stdout)["totals"]["observedPackets"] == 4


def test_times_of_the_file_end_flows(tmp_path: Path) -> None:
    """Two packets of one flow an hour apart, exported, are two flows when read back."""
    frame = CAPTURE[24 + 16:24 + 16 + 74]
    capture, ipfix = tmp_path / "x.pcap", tmp_path / "flows.ipfix"
    capture.write_bytes(w.pcap([(1_700_000_000 * w.SECOND, frame), (1_700_003_600 * w.SECOND, frame)]))
    flows("-r", str(capture), "-e", f"file:{ipfix}")
    found, _ = flows("-r", str(ipfix))
    assert [flow["packetTotalCount"] for flow in found] == [1, 1]
