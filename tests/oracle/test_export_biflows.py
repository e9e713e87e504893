"""`-e file:...?biflow=on`: tshark finds the same sums as without, and flowtop reads back the same flows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import flowtop
from tests.oracle.collectors import tshark_file
from tests.oracle.test_read import CAPTURES, EXPECTED, names
from tests.prepared import run_flowtop
from tests.unit.cli.test_reading import CAPTURE

_TIMES = ("flowStartMilliseconds", "flowEndMilliseconds", "flowDurationMilliseconds")


def export(capture: Path, urls: list[str], *options: str) -> None:
    exports = [argument for url in urls for argument in ("-e", url)]
    done = run_flowtop("-b", "-o", "none", "-r", capture, *exports, *options, timeout=120)
    assert done.returncode == 0, done.stderr


def sums(path: Path) -> tuple[Counter[str], int]:
    """tshark's sums of octets and packets, both directions, and the number of Data Records of flows."""
    records, complaints = tshark_file(path)
    assert complaints == []
    found: Counter[str] = Counter()
    count = 0
    for _, fields in records:
        mine = [(name, octets) for name, octets in fields if name in ("cflow.octets", "cflow.packets")]
        count += bool(mine)
        for name, octets in mine:
            found[name] += int.from_bytes(octets, "big")
    return found, count


def flows(path: Path) -> list[dict[str, Any]]:
    kept = [{name: value for name, value in flow.items() if name not in (*_TIMES, "flowId")}
            for flow in flowtop.read(path).query().as_dicts()]
    return sorted(kept, key=lambda flow: json.dumps(flow, sort_keys=True))


def check(capture: Path, directory: Path, *options: str) -> None:
    export(capture, [f"file:{directory}/one.ipfix", f"file:{directory}/both.ipfix?biflow=on"], *options)
    (theirs, ways), (found, records) = sums(directory / "one.ipfix"), sums(directory / "both.ipfix")
    assert found == theirs and records <= ways <= 2 * records
    mine, expected = flows(directory / "both.ipfix"), flows(directory / "one.ipfix")
    for one in (*mine, *expected):  # of a flow that is reported twice, the reason of the last one
        one.pop("flowEndReason", None)
    assert mine == expected


@pytest.mark.skipif(not EXPECTED.exists(), reason=f"needs the capture files in {CAPTURES}")
@pytest.mark.parametrize("name", names())
def test_captures(name: str, tmp_path: Path) -> None:
    check(CAPTURES / name, tmp_path)


def test_flows_that_are_reported_more_than_once(tmp_path: Path) -> None:
    (tmp_path / "x.pcap").write_bytes(CAPTURE)
    check(tmp_path / "x.pcap", tmp_path, "--active-timeout", "1", "--idle-timeout", "1")
