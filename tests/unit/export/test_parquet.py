"""Parquet files, as pyarrow reads them."""

from __future__ import annotations

import importlib.util
import json
import resource
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowtop.errors import FlowtopError
from flowtop.export.context import ExportContext
from flowtop.export.opening import open_exporter
from flowtop.export.statistics import ExportState, MeteringFacts
from flowtop.export.transports.parquet import ParquetTransport
from flowtop.export.url import parse_export_url
from tests.unit.export.flows import flows, until

SECOND_MS = 1_000


def rows(path: Path) -> list[dict[str, Any]]:
    """Rows without what they have no value for."""
    return [{name: value for name, value in row.items() if value is not None}
            for row in pq.read_table(path).to_pylist()]


def test_a_file_has_what_json_lines_have_and_types(tmp_path: Path) -> None:
    for url in (f"parquet:{tmp_path}/x.parquet", f"jsonl:{tmp_path}/x.jsonl"):
        exporter = open_exporter(url, None)
        exporter.start()
        exporter.consume(flows(2_000))
        figures = exporter.stop(60.0)
        assert (figures.sent_records, figures.not_sent_records, figures.state) == (2_000, 0, ExportState.STOPPED)
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    for line in lines:
        del line["agent"]
        for name in ("flowStartMilliseconds", "flowEndMilliseconds"):
            line[name] = datetime.fromtimestamp(line[name] / SECOND_MS, UTC)
    assert rows(tmp_path / "x.parquet") == lines
    schema = pq.read_schema(tmp_path / "x.parquet")
    assert schema.field("octetDeltaCount").type == pa.uint64() and schema.field("sourceIPv6Address").type == pa.string()
    times = {schema.field(name).type for name in ("tcpSynMilliseconds", "flowEndMilliseconds")}
    assert times == {pa.timestamp("ms", "UTC")}


class Context:
    """The exporter, as far as this transport asks for it."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.written: list[int] = []

    def monotonic(self) -> float:
        return self.time_s

    def wall(self) -> float:
        return self.time_s

    def metering(self) -> object:
        return MeteringFacts()

    def wrote(self, messages: int, octets: int) -> None:
        del octets
        self.written.append(messages)


def open_transport(path: Path, most_records: int) -> tuple[ParquetTransport, Context, ExportContext]:
    transport = ParquetTransport(parse_export_url(f"parquet:{path}?rotate-time=60s"), None, most_records)
    context = Context()
    seen: Any = context
    transport.open(seen)
    return transport, context, seen


def test_each_file_is_complete_when_it_has_most_records_and_when_its_time_has_come(tmp_path: Path) -> None:
    transport, context, seen = open_transport(tmp_path / "x.parquet", 10)
    transport.send(flows(25), seen)
    transport.tick(seen)
    assert context.written == [10, 10]
    context.time_s = 61.0
    transport.tick(seen)
    transport.send(flows(1, 26), seen)
    transport.finish(seen)
    ids = [sorted(row["flowId"] for row in rows(path)) for path in tmp_path.iterdir()]
    assert sorted(ids) == [[*range(1, 11)], [*range(11, 21)], [*range(21, 26)], [26]]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert len(transport.abandon()[0]) == 0


def test_without_any_record_there_is_a_file_with_its_columns(tmp_path: Path) -> None:
    transport, _, seen = open_transport(tmp_path / "x.parquet", 10)
    transport.finish(seen)
    assert rows(tmp_path / "x.parquet") == [] and "octetDeltaCount" in pq.read_schema(tmp_path / "x.parquet").names


def test_what_could_not_be_written_is_given_back_and_no_half_file_is_left(tmp_path: Path) -> None:
    transport, _, seen = open_transport(tmp_path / "x.parquet", 300)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            transport.send(flows(1_000), seen)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not [path for path in tmp_path.iterdir() if path.stat().st_size]
    back, begun = transport.abandon()
    assert (back["flow_id"].tolist(), begun) == ([*range(1, 1_001)], 0)
    transport.open(seen)
    transport.send(back, seen)
    transport.finish(seen)
    assert sorted(row["flowId"] for path in tmp_path.iterdir() for row in rows(path)) == [*range(1, 1_001)]


def test_the_package_that_is_not_installed_is_said_before_anything_starts(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FlowtopError, match="the package pyarrow is not installed") as caught:
        open_exporter(f"parquet:{tmp_path}/x.parquet", None)
    assert "pip install pyarrow" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_has_room_again_gets_every_record_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ParquetTransport, "retry_s", 0.01)
    (tmp_path / "there").mkdir()
    exporter = open_exporter(f"parquet:{tmp_path}/there/x.parquet?rotate-time=10ms", None)
    (tmp_path / "there").rename(tmp_path / "away")
    exporter.start()
    exporter.consume(flows(50))
    until(lambda: exporter.statistics().state is ExportState.WAITING, exporter.statistics)
    assert exporter.statistics().queued_records == 50, exporter.statistics()
    (tmp_path / "away").rename(tmp_path / "there")
    figures = exporter.stop(60.0)
    assert (figures.sent_records, figures.not_sent_records) == (50, 0)
    assert sorted(row["flowId"] for path in (tmp_path / "there").iterdir() for row in rows(path)) == [*range(1, 51)]
