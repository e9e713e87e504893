"""Capture files read as tshark reads them: the shared ones by its table of them, generated ones by its own words."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.unit.capture.files.reading import Read, read

CAPTURES = Path(__file__).parents[2].parent / "shared" / "data" / "pcap"
EXPECTED = CAPTURES / "expected.json"
NOT_ETHERNET = "link-type-12.pcap"
"""Says Ethernet, holds an IPv4 packet: tshark takes its addresses for MACs, and its table of it is empty."""
LYING = {"ntp-corrupted.pcap": 32}
"""Octets of the packet whose length is larger than the frame: tshark adds up what the header says, and calls it wrong
("IPv4 total length exceeds packet length (32 bytes)")."""

Table = dict[tuple[Any, ...], tuple[int, int]]


def expected_table(rows: list[dict[str, Any]]) -> Table:
    """tshark's rows, with later fragments (ports null) in the row of the first fragment: the one that has ports."""
    table: defaultdict[tuple[Any, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for row in rows:
        key = (row["src"], row["dst"], row["proto"], row["sport"], row["dport"])
        if row["sport"] is None:
            [key] = [(other["src"], other["dst"], other["proto"], other["sport"], other["dport"]) for other in rows
                     if (other["src"], other["dst"], other["proto"]) == key[:3] and other["sport"] is not None]
        table[key] = table[key][0] + row["packets"], table[key][1] + row["octets"]
    return dict(table)


def corrected(name: str, table: Table) -> Table:
    """tshark's table of a capture, with the octets that are there where a header says more."""
    return {key: (packets, LYING.get(name, octets)) for key, (packets, octets) in table.items()}


def names() -> list[str]:
    return sorted(json.loads(EXPECTED.read_text())) if EXPECTED.exists() else ["none"]


@pytest.mark.skipif(not EXPECTED.exists(), reason=f"needs the capture files in {CAPTURES}")
@pytest.mark.parametrize("name", names())
def test_captures_give_the_flow_table_tshark_gives(name: str) -> None:
    expected = json.loads(EXPECTED.read_text())[name]
    found = read(CAPTURES / name)
    if name == NOT_ETHERNET:
        frame_octets = 256  # its header says 0x576
        assert dict(found.flows) == {("10.171.169.243", "192.168.255.1", 6, 10250, 41252): (1, frame_octets)}
    else:
        assert dict(found.flows) == corrected(name, expected_table(expected["outer"]))
    assert (found.total("packets"), found.fault) == (expected["packets"], "")
    assert found.total("lying_lengths") == (name in (NOT_ETHERNET, *LYING))


@pytest.mark.skipif(not EXPECTED.exists(), reason=f"needs the capture files in {CAPTURES}")
@pytest.mark.skipif(not all(map(shutil.which, ("editcap", "mergecap"))), reason="needs editcap and mergecap (tshark)")
@pytest.mark.parametrize("form", ["pcap", "nsecpcap", "pcapng"])
def test_every_format_holds_the_same_flows(tmp_path: Path, form: str) -> None:
    files = [path for path in sorted(CAPTURES.glob("*.pcap")) if path.name != NOT_ETHERNET]
    merged, converted = tmp_path / "merged.pcapng", tmp_path / f"converted.{form}"
    subprocess.run(["mergecap", "-F", "pcapng", "-w", merged, *files], check=True)
    subprocess.run(["editcap", "-F", form, merged, converted], check=True)
    whole: defaultdict[tuple[Any, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for path in files:
        for key, (packets, octets) in read(path).flows.items():
            whole[key] = whole[key][0] + packets, whole[key][1] + octets
    found = read(converted)
    assert added_up(found) == whole
    assert found.fault == ""


def added_up(found: Read) -> Table:
    return dict(found.flows)
