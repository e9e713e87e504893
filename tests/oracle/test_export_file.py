"""Files: each opens alone with ipfixDump and tshark; lines have the keys of the batch output."""

from __future__ import annotations

import csv
import gzip
import io
import json
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from flowtop.errors import FlowtopError
from flowtop.export.backlog import QueueBounds
from flowtop.export.opening import open_exporter
from flowtop.export.statistics import ExportStatistics, MeteringFacts
from flowtop.fields.records import flow_record, plain_records
from flowtop.fields.registry import MEASURES
from flowtop.model.kinds import Tunnel
from flowtop.model.record import FlowRecords
from flowtop.model.rows import FlowRow
from flowtop.text.lookups import Lookups
from tests.oracle.collectors import ipfix_dump, tshark_file
from tests.unit.export.flows import flows, until
from tests.unit.factories import flow_row

INTERFACES = Lookups({3: "eth0"})


def export(url: str, tmp_path: Path, records: FlowRecords) -> ExportStatistics:
    exporter = open_exporter(url, tmp_path / "state")
    exporter.update(MeteringFacts(INTERFACES))
    exporter.start()
    exporter.consume(records)
    figures = exporter.stop(10.0)
    assert (figures.sent_records, figures.not_sent_records, figures.last_error) == (len(records), 0, "")
    return figures


def flow_ids(octets: bytes, directory: Path) -> list[int]:
    """As ipfixDump and tshark both read them, without complaint."""
    records, complaints = ipfix_dump(octets, directory)
    assert not complaints
    ids = [int(dict(values)["flowId"]) for template, values in records if template < 263]
    seen, complaints = tshark_file(directory / "messages.ipfix")
    assert not complaints
    assert len([template for template, _ in seen if template < 263]) == len(ids)
    return ids


def test_a_file_opens_with_ipfixdump_and_tshark_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "flows.ipfix"
    figures = export(f"file:{path}", tmp_path, flows(3_000))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert figures.file_octets == figures.sent_octets == path.stat().st_size
    assert sorted(flow_ids(path.read_bytes(), tmp_path)) == list(range(1, 3_001))


def test_each_rotated_file_opens_alone_and_together_they_have_everything(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    directory.mkdir()
    export(f"file:{directory / 'flows.ipfix'}?rotate-size=64k", tmp_path, flows(3_000))
    files = sorted(directory.iterdir())
    assert len(files) >= 3
    found = [flow_ids(path.read_bytes(), tmp_path) for path in files]
    assert all(found)
    assert sorted(identity for ids in found for identity in ids) == list(range(1, 3_001))


def test_a_file_of_before_is_put_aside_and_gzip_is_gzip(tmp_path: Path) -> None:
    path = tmp_path / "flows.ipfix.gz"
    export(f"file:{path}", tmp_path, flows(10))
    export(f"file:{path}", tmp_path, flows(10, 11))
    old, = tmp_path.glob("flows-*.ipfix.gz")
    assert sorted(flow_ids(gzip.decompress(old.read_bytes()), tmp_path)) == list(range(1, 11))
    assert sorted(flow_ids(gzip.decompress(path.read_bytes()), tmp_path)) == list(range(11, 21))


def test_lines_are_what_the_batch_output_says_of_the_same_flow(tmp_path: Path) -> None:
    records = flows(6)
    records["protocol"][[1, 2]] = [1, 58]
    records["kind"][[3, 4]] = [1, 2]
    records["duplicate"][5] = True
    records["tunnel"][0], records["tunnel_id"][0] = Tunnel.VXLAN, 4_242
    path = tmp_path / "flows.jsonl"
    export(f"jsonl:{path}", tmp_path, records)
    expected = [flow_record(row_of(record), INTERFACES) for record in records]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line.pop("agent")["name"] for line in lines} == {socket.gethostname()}
    assert lines == expected
    path = tmp_path / "flows.csv"
    export(f"csv:{path}", tmp_path, records)
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [{name: value for name, value in row.items() if value} for row in rows] == [
        {name: str(value) for name, value in record.items()} for record in expected]


def row_of(record: Any) -> FlowRow:
    row = flow_row(**{name: record[name].item() for name in record.dtype.names if name in FlowRow._fields})
    return row._replace(more={field_id: int(measure.records(record)) for field_id, measure in MEASURES.items()
                              if measure.records is not None})


def test_an_interface_name_cannot_speak_to_a_terminal() -> None:
    record, = plain_records(flows(1), Lookups({3: "e\x1b[2J"}))
    assert record["interfaceName"] == "e"


@pytest.mark.parametrize("path", ["none/flows", "."])
def test_a_path_that_cannot_be_written_is_said_before_anything_starts(tmp_path: Path, path: str) -> None:
    with pytest.raises(FlowtopError, match="cannot write"):
        open_exporter(f"file:{tmp_path / path}", tmp_path)


def test_what_was_given_up_is_told_in_band(tmp_path: Path) -> None:
    path = tmp_path / "flows.ipfix"
    exporter = open_exporter(f"file:{path}", tmp_path, bounds=QueueBounds(records=100), wall=lambda: 1_700_000_100.0)
    exporter.consume(flows(130))
    exporter.start()
    figures = exporter.stop(10.0)
    assert (figures.sent_records, figures.not_sent_records) == (100, 30)
    records, complaints = ipfix_dump(path.read_bytes(), tmp_path)
    assert not complaints
    report, = [dict(values) for _, values in records if "notSentFlowTotalCount" in dict(values)]
    assert (report["notSentFlowTotalCount"], report["notSentPacketTotalCount"], report["notSentOctetTotalCount"]) == (
        "30", str(sum(range(101, 131))), str(100 * sum(range(101, 131))))


@pytest.mark.parametrize("profile", ["default", "strict", "nfdump", "pmacct"])
def test_the_sequence_holds_while_the_clock_steps_back_and_interfaces_change(tmp_path: Path, profile: str) -> None:
    path = tmp_path / "flows.ipfix"
    wall = iter(range(1_700_000_000, 1_600_000_000, -1_000))
    exporter = open_exporter(f"file:{path}?profile={profile}&domain=9", tmp_path, wall=lambda: float(next(wall)))
    exporter.start()
    for start in range(1, 501, 100):
        names = {number: f"veth{number}" for number in range(3, 3 + start)}
        exporter.update(MeteringFacts(Lookups(names), start, start))
        exporter.consume(flows(100, start))
        until(lambda known=start + 99: exporter.statistics().sent_records == known, exporter.statistics)
    exporter.stop(10.0)
    assert sorted(flow_ids(path.read_bytes(), tmp_path)) == list(range(1, 501))
