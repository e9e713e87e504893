"""What is inside the shared captures' tunnels, as tshark's table of innermost headers has it."""

from __future__ import annotations

import json

import pytest

from flowtop.capture.files.capture import FileConfig
from tests.oracle.test_read import CAPTURES, EXPECTED, NOT_ETHERNET, corrected, expected_table, names
from tests.unit.capture.files.reading import read


@pytest.mark.skipif(not EXPECTED.exists(), reason=f"needs the capture files in {CAPTURES}")
@pytest.mark.parametrize("name", [name for name in names() if name != NOT_ETHERNET])
def test_innermost_flows_are_those_tshark_finds_and_outer_ones_stay_visible(name: str) -> None:
    expected = json.loads(EXPECTED.read_text())[name]
    outer, innermost = (corrected(name, expected_table(expected[part])) for part in ("outer", "innermost"))
    found = read(CAPTURES / name, FileConfig(str(CAPTURES / name), decap=True))
    assert dict(found.flows) == innermost
    as_they_were = {flow: innermost.get(flow, (0, 0)) for flow in outer}
    assert dict(found.parents) == {
        flow: (packets - as_they_were[flow][0], octets - as_they_were[flow][1])
        for flow, (packets, octets) in outer.items() if packets > as_they_were[flow][0]}
    around = sum(octets for _, octets in outer.values()) - sum(octets for _, octets in innermost.values())
    assert found.total("encapsulation_octets") == around
