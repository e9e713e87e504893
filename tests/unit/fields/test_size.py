"""The average packet size, against the packets that were sent: of flows, groups, biflows, since a mark, in exports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowtop.fields.columns import Wording
from flowtop.fields.registry import COLUMNS
from flowtop.filters.filter import compile_filter
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.query.answer import Answerer
from flowtop.query.query import Query
from flowtop.text.lookups import NO_LOOKUPS
from tests.kernel import frames as f
from tests.unit.capture.files import writers as w
from tests.unit.factories import SECOND, START_NS, batch, counters, key

SIZES = {1: [60, 1500, 1500], 2: [40], 3: [100, 101]}
"""IP octets of each packet, by source port."""
BACK = [52, 53]
"""Of the answers to 1."""


def mean(sizes: list[int]) -> int:
    return sum(sizes) // len(sizes)


def table() -> FlowTable:
    flows = FlowTable(TableConfig())
    entries = [(key(source_port=port), counters(len(sizes), sum(sizes))) for port, sizes in SIZES.items()]
    answers = (key("10.0.0.2", "10.0.0.1", 80, 1), counters(len(BACK), sum(BACK), START_NS + 1))
    flows.update(batch([*entries, answers], START_NS + SECOND))
    return flows


def sizes(flows: FlowTable, answerer: Answerer | None = None, **query: Any) -> list[int]:
    rows = (answerer or Answerer()).answer(Query(**{"limit": None, "sort": "size"} | query), flows).rows
    return [row.more["size"] for row in rows]


def test_of_flows_groups_and_biflows() -> None:
    flows = table()
    assert sizes(flows) == [mean(SIZES[1]), mean(SIZES[3]), mean(BACK), mean(SIZES[2])]
    there = [size for one in SIZES.values() for size in one]
    assert sizes(flows, group=("source",)) == [mean(there), mean(BACK)]
    assert sizes(flows, group=("protocol",)) == [mean([*there, *BACK])]
    assert sizes(flows, biflow=True) == [mean([*SIZES[1], *BACK]), mean(SIZES[3]), mean(SIZES[2])]
    row = Answerer().answer(Query(sort="size"), flows).rows[0]
    assert COLUMNS["size"].text(row, Wording(), NO_LOOKUPS) == "1020"


def test_from_a_mark_on_it_is_of_what_came_since() -> None:
    flows, answerer = table(), Answerer()
    assert sizes(flows, answerer, mark=1) == [0, 0, 0, 0]
    flows.update(batch([(key(source_port=2), counters(2, 3000))], START_NS + 2 * SECOND))
    assert sizes(flows, answerer, mark=1) == [1500, 0, 0, 0]
    assert sizes(flows, answerer)[:2] == [mean(SIZES[1]), mean([*SIZES[2], 3000, 0])]


@pytest.mark.parametrize(("text", "ports"), [("size > 1k", {1}), ("size < 100", {2, 80}), ("size = 100", {3})])
def test_filters(text: str, ports: set[int]) -> None:
    answer = Answerer().answer(Query(filter=compile_filter(text)), table())
    assert {row.source_port for row in answer.rows} == ports


def test_of_a_file_in_json_and_in_exported_records(tmp_path: Path) -> None:
    payloads = {1: [0, 100, 1001], 2: [7]}
    frames = [f.ethernet(f.IPV4, f.ipv4(f.udp(port, 53, bytes(octets)), f.UDP))
              for port, each in payloads.items() for octets in each]
    (tmp_path / "x.pcap").write_bytes(w.pcap((number * w.SECOND, frame) for number, frame in enumerate(frames, 1)))
    done = subprocess.run([sys.executable, "-m", "flowtop", "-b", "-o", "json", "-r", str(tmp_path / "x.pcap"), "-e",
                           f"jsonl:{tmp_path / 'x.jsonl'}"], capture_output=True, check=True, timeout=60)
    headers = 20 + 8
    wanted = {port: mean([headers + octets for octets in each]) for port, each in payloads.items()}
    for flows in (json.loads(done.stdout)["flows"], map(json.loads, (tmp_path / "x.jsonl").read_text().splitlines())):
        assert {flow["sourceTransportPort"]: flow["meanPacketOctets"] for flow in flows} == wanted
