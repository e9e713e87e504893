"""All exports of a run: each gets every record it is for, from the moment it is added to the moment it is ended."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from flowtop.errors import FlowtopError
from flowtop.export.exporter import Exporter
from flowtop.export.exports import Exports
from flowtop.export.statistics import ExportState, MeteringFacts
from flowtop.model.kinds import Kind
from flowtop.text.lookups import Lookups
from tests.unit.export.flows import RecordingTransport, flows, until


class Opener:
    """Opens exporters over transports that record; keeps them by URL."""

    def __init__(self) -> None:
        self.transports: dict[str, RecordingTransport] = {}

    def __call__(self, url: str, state_directory: Path) -> Exporter:
        self.transports[url] = RecordingTransport()
        return Exporter(url, self.transports[url])


def test_every_export_gets_what_is_handed_over_between_its_beginning_and_its_end(tmp_path: Path) -> None:
    opener = Opener()
    exports = Exports(tmp_path, open_exporter=opener)
    exports.consume(flows(1))
    assert exports.add("file:a") == 1
    exports.consume(flows(1, 2))
    assert exports.add("file:b") == 2
    exports.consume(flows(1, 3))
    exports.end(1)
    exports.consume(flows(1, 4))
    figures = exports.stop()
    assert opener.transports["file:a"].received == [2, 3]
    assert opener.transports["file:b"].received == [3, 4]
    assert [(export.number, export.statistics.url, export.statistics.state) for export in figures] == [
        (1, "file:a", ExportState.STOPPED), (2, "file:b", ExportState.STOPPED)]
    assert sum(export.statistics.not_sent_records for export in figures) == 0


def test_an_export_with_a_condition_gets_what_it_keeps_and_counts_nothing_else(tmp_path: Path) -> None:
    opener = Opener()
    exports = Exports(tmp_path, open_exporter=opener)
    exports.add("file:odd-on-eth0", keep=lambda records, lookups: (records["flow_id"] % 2 == 1) & np.isin(
        records["ifindex"], [index for index, name in lookups.interfaces.items() if name == "eth0"]))
    exports.add("file:all")
    exports.update(MeteringFacts(Lookups({3: "eth0"})))
    exports.consume(flows(10))
    exports.update(MeteringFacts(Lookups({3: "wg0"})))
    exports.consume(flows(10, 11))
    figures = exports.stop()
    assert opener.transports["file:odd-on-eth0"].received == [1, 3, 5, 7, 9]
    assert opener.transports["file:all"].received == list(range(1, 21))
    assert [export.statistics.not_sent_records for export in figures] == [0, 0]


def test_an_export_added_without_a_condition_has_the_runs_as_it_is_then(tmp_path: Path) -> None:
    opener = Opener()
    scopes = iter([lambda records, lookups: records["flow_id"] > 8, None])
    exports = Exports(tmp_path, open_exporter=opener, scope=lambda: next(scopes))
    exports.add("file:own", keep=lambda records, lookups: records["flow_id"] == 2)
    exports.add("file:some")
    exports.add("file:all")
    exports.consume(flows(10))
    exports.stop()
    assert [transport.received for transport in opener.transports.values()] == [[2], [9, 10], list(range(1, 11))]


def test_a_filter_that_fails_ends_its_export_with_a_word_and_no_other(tmp_path: Path) -> None:
    def broken(*arguments: object) -> npt.NDArray[np.bool_]:
        raise ZeroDivisionError("a bug")

    opener = Opener()
    exports = Exports(tmp_path, open_exporter=opener)
    exports.add("file:broken", keep=broken)
    exports.add("file:all")
    exports.consume(flows(3))
    until(lambda: exports.statistics()[0].statistics.state is ExportState.STOPPED, exports.statistics)
    exports.consume(flows(2, 4))
    first, second = (export.statistics for export in exports.stop())
    assert (first.sent_records, first.not_sent_records, first.not_sent_packets) == (0, 5, 15)
    assert first.last_error == "the filter failed: ZeroDivisionError: a bug"
    assert (second.sent_records, second.not_sent_records) == (5, 0)


def test_an_export_may_leave_out_what_another_interface_s_flow_stands_for(tmp_path: Path) -> None:
    opener = Opener()
    exports = Exports(tmp_path, open_exporter=opener)
    exports.add("file:all")
    exports.add("file:once?duplicates=drop")
    exports.add("file:once-and-odd?duplicates=drop", keep=lambda records, lookups: records["flow_id"] % 2 == 1)
    records = flows(6)
    records["duplicate"][[1, 2]] = True
    exports.consume(records)
    only_duplicates = flows(2, 7)
    only_duplicates["duplicate"] = True
    exports.consume(only_duplicates)
    figures = exports.stop()
    assert opener.transports["file:all"].received == [1, 2, 3, 4, 5, 6, 7, 8]
    assert opener.transports["file:once?duplicates=drop"].received == [1, 4, 5, 6]
    assert opener.transports["file:once-and-odd?duplicates=drop"].received == [1, 5]
    assert [export.statistics.not_sent_records for export in figures] == [0, 0, 0]


def test_pausing_one_export_holds_its_records_and_no_others(tmp_path: Path) -> None:
    opener = Opener()
    exports = Exports(tmp_path, open_exporter=opener)
    exports.add("file:a")
    exports.add("file:b")
    exports.pause(1)
    until(lambda: exports.statistics()[0].statistics.state is ExportState.PAUSED, exports.statistics)
    exports.consume(flows(5))
    until(lambda: exports.statistics()[1].statistics.sent_records == 5, exports.statistics)
    assert exports.statistics()[0].statistics.queued_records == 5
    exports.resume(1)
    until(lambda: exports.statistics()[0].statistics.sent_records == 5, exports.statistics)
    exports.stop()


def test_ending_all_takes_as_long_as_one_and_a_second_caller_can_cut_it_short(tmp_path: Path) -> None:
    opener = Opener()
    exports = Exports(tmp_path, open_exporter=opener)
    for name in "abc":
        exports.add(f"file:{name}")
        opener.transports[f"file:{name}"].hang.set()
    exports.consume(flows(5))
    begin = time.monotonic()
    waiting = threading.Thread(target=exports.stop, args=(3_600.0,))
    waiting.start()
    figures = exports.stop(0.0)
    waiting.join()
    assert time.monotonic() - begin < 60, "an hour was asked for first"
    assert [export.statistics.not_sent_records for export in figures] == [5, 5, 5]


def test_two_exports_of_a_run_never_write_the_same_file(tmp_path: Path) -> None:
    exports = Exports(tmp_path)
    path = tmp_path / "flows.jsonl"
    assert exports.add(f"jsonl:{path}") == 1
    (tmp_path / "sub").mkdir()
    with pytest.raises(FlowtopError, match=r"export 1 writes to .*flows\.jsonl already"):
        exports.add(f"csv:{tmp_path}/sub/../flows.jsonl")
    exports.end(1)
    until(lambda: exports.statistics()[0].statistics.state is ExportState.STOPPED, exports.statistics)
    assert exports.add(f"jsonl:{path}") == 2
    exports.stop()


def test_an_export_that_cannot_be_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    exports = Exports(tmp_path)
    with pytest.raises(FlowtopError, match="scheme"):
        exports.add("gopher://collector")
    with pytest.raises(FlowtopError, match="cannot write"):
        exports.add(f"file:{tmp_path}/nowhere/flows.ipfix")
    with pytest.raises(FlowtopError, match="File name too long"):
        exports.add(f"file:{tmp_path}/{'a' * 300}")
    with pytest.raises(FlowtopError, match="control characters"):
        exports.add(f"file:{tmp_path}/a%00b")
    assert exports.statistics() == exports.stop() == ()
    with pytest.raises(FlowtopError, match="ending"):
        exports.add("file:late")
    with pytest.raises(IndexError):
        exports.pause(1)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_exports_imports_nothing_of_them() -> None:
    code = """
import json, sys
from pathlib import Path
from flowtop.export.exports import Exports
from flowtop.export.statistics import MeteringFacts
exports = Exports(Path("unused"))
exports.update(MeteringFacts())
exports.stop()
print(json.dumps(sorted(sys.modules)))
"""
    modules = set(json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout))
    assert "numpy" not in modules and "ssl" not in modules
    assert {name for name in modules if name.startswith(("flowtop.wire", "flowtop.export."))} == {
        "flowtop.export.exports", "flowtop.export.statistics"}


def test_a_file_is_written_to_its_end_however_long_that_takes_unless_somebody_hurries(tmp_path: Path) -> None:
    exports = Exports(tmp_path, flush_s=0.0)
    exports.add(f"jsonl:{tmp_path}/flows.jsonl")
    for start in range(1, 30_000, 1_000):
        exports.consume(flows(1_000, start))
    figures, = exports.stop()
    assert (figures.statistics.sent_records, figures.statistics.not_sent_records) == (30_000, 0)
    assert (tmp_path / "flows.jsonl").read_text().count("\n") == 30_000

    opener = Opener()
    hurried = Exports(tmp_path, flush_s=3_600.0, open_exporter=opener)
    hurried.add("file:a")
    opener.transports["file:a"].hang.set()
    hurried.consume(flows(5))
    hurried.hurry()
    figures, = hurried.stop()
    assert figures.statistics.not_sent_records == 5


def test_a_udp_export_takes_the_first_address_that_there_is_a_way_to(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        # 255.255.255.255 is refused (EACCES) to a socket that did not ask for broadcast.
        monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: [
            (socket.AF_INET, socket.SOCK_DGRAM, 17, "", (host, port)) for host in ("255.255.255.255", "127.0.0.1")])
        exports = Exports(tmp_path)
        exports.add(f"ipfix://collector.test:{port}")
        exports.consume(flows(3))
        figures, = exports.stop()
        assert (figures.statistics.sent_records, figures.statistics.last_error) == (3, "")
        assert listener.recv(65_535)[:2] == b"\0\x0a"


def test_a_state_directory_that_cannot_be_used_is_an_error_of_usage(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FlowtopError, match="Not a directory") as refused:
        Exports(tmp_path / "file").add("ipfix+tcp://192.0.2.1")
    assert refused.value.exit_code == 2, "as README says of a path that cannot work"


def test_aggregates_of_an_export_without_duplicates_are_counted_as_they_cannot_be_told_apart() -> None:
    """An aggregate is the sum of flows that had no room: nobody knows at which interfaces else their packets were."""
    opener = Opener()
    exports = Exports(Path("state"), open_exporter=opener)
    exports.add("file:once?duplicates=drop")
    exports.add("file:all")
    records = flows(6)
    records["kind"][[1, 4, 5]] = Kind.AGGREGATE
    records["duplicate"][[2, 3]] = True
    exports.consume(records)
    once, everything = (export.statistics for export in exports.stop(10.0))
    assert (once.sent_records, once.unmarked_records) == (4, 3)
    assert (everything.sent_records, everything.unmarked_records) == (6, 0)
