"""The exports of a run: what is said of each at the end, and the exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowtop.cli.run import exporting
from flowtop.errors import EXIT_INTERRUPTED, EXIT_NOT_SENT, EXIT_OK, FlowtopError
from flowtop.export.backlog import QueueBounds
from flowtop.export.exporter import Exporter
from flowtop.export.exports import Exports, default_state_directory
from flowtop.export.spool import Spool
from tests.unit.export.flows import RecordingTransport, flows


def run(tmp_path: Path, *, away: bool = False, spooling: bool = False, records: int = 100, status: int = EXIT_OK,
        room: int = 1_000, error: FlowtopError | None = None) -> tuple[int, list[str]]:
    """Export so many records to a transport that takes them, or not; gives the status, and the lines said."""
    def opened(url: str, directory: Path | None) -> Exporter:
        assert directory is not None
        transport = RecordingTransport()
        transport.fail_open = away
        spool = Spool(directory / "spool", domain=1, wall=lambda: 1.7e9) if spooling else None
        return Exporter(url, transport, spool, bounds=QueueBounds(records=room))

    def session(exports: Exports) -> int:
        if records:
            exports.consume(flows(records))
        if error:
            raise error
        return status

    lines: list[str] = []
    exports = Exports(tmp_path, flush_s=0.1 if away else 20.0, open_exporter=opened)
    return exporting(exports, [("file:a\u202e[2J", None)], session, lines.append), lines


def test_all_sent_is_status_0_and_one_line(tmp_path: Path) -> None:
    assert run(tmp_path) == (EXIT_OK, ["export file:a?[2J: 100 flow records sent"])


def test_records_given_up_are_told_with_the_reason_and_have_a_status_of_their_own(tmp_path: Path) -> None:
    assert run(tmp_path, away=True) == (
        EXIT_NOT_SENT, ["export file:a?[2J: 0 flow records sent, 100 NOT SENT, Connection refused"])
    assert run(tmp_path, room=60) == (EXIT_NOT_SENT, ["export file:a?[2J: 60 flow records sent, 40 NOT SENT"])


def test_records_that_wait_in_the_spool_are_not_lost(tmp_path: Path) -> None:
    assert run(tmp_path, away=True, spooling=True) == (
        EXIT_OK, ["export file:a?[2J: 0 flow records sent, 100 spooled for the next run, Connection refused"])


def test_what_the_run_itself_ended_with_goes_first(tmp_path: Path) -> None:
    assert run(tmp_path, away=True, status=EXIT_INTERRUPTED)[0] == EXIT_INTERRUPTED


def test_a_run_that_failed_at_once_says_only_why(tmp_path: Path) -> None:
    lines: list[str] = []
    exports = Exports(tmp_path)

    def fail(_: Exports) -> int:
        raise FlowtopError("no such interface")

    with pytest.raises(FlowtopError, match="no such interface"):
        exporting(exports, [(f"file:{tmp_path}/a", None)], fail, lines.append)
    with pytest.raises(FlowtopError, match="cannot write"):
        exporting(Exports(tmp_path), [(f"file:{tmp_path}/{name}", None) for name in ("b", "none/c")], fail,
                  lines.append)
    assert lines == []


def test_spools_are_the_system_s_for_root_and_the_user_s_for_others() -> None:
    assert default_state_directory({"XDG_STATE_HOME": "/x"}, 0) == Path("/var/lib/flowtop")
    assert default_state_directory({"XDG_STATE_HOME": "/x"}, 1000) == Path("/x/flowtop")
    assert default_state_directory({"HOME": "/home/x"}, 1000) == Path("/home/x/.local/state/flowtop")


NOBODY = 2**31 - 5
"""A user id without an entry in passwd(5)."""


def test_only_an_export_that_needs_a_spool_needs_a_home_directory(tmp_path: Path) -> None:
    assert default_state_directory({}, NOBODY) is None
    exports = Exports(default_state_directory({}, NOBODY))
    exports.add(f"file:{tmp_path}/flows.ipfix")
    with pytest.raises(FlowtopError, match="no home directory") as caught:
        exports.add("ipfix+tcp://127.0.0.1:9")
    assert "--state-directory" in caught.value.hint
    exports.stop()
