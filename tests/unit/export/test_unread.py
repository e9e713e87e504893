"""What a TCP collector's kernel took and the collector never read is sent again; what it has read is not."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowtop import files
from flowtop.export.exporter import Exporter
from flowtop.export.opening import open_exporter
from flowtop.export.statistics import ExportStatistics
from tests.unit.export.flows import flows, until


def sent_long_ago(tmp_path: Path, collector: Callable[[socket.socket], None]) -> ExportStatistics:
    """Send 5 records; an hour later the collector does what it does, and goes. Gives the last figures."""
    later_s = [0.0]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        exporter = open_exporter(f"ipfix+tcp://127.0.0.1:{listener.getsockname()[1]}", tmp_path,
                                 monotonic=lambda: time.monotonic() + later_s[0])
        exporter.start()
        connection, _ = listener.accept()
        exporter.consume(flows(5))
        until(lambda: exporter.statistics().sent_records == 5, exporter.statistics)
        until(lambda: ticks_on(exporter), exporter.statistics)  # the collector's kernel has it, and that was seen
        later_s[0] = 3_600.0
        collector(connection)
    until(lambda: exporter.statistics().last_error != "", exporter.statistics)
    return exporter.stop(0.0)


def ticks_on(exporter: Exporter) -> bool:
    """Make its thread look at its connection; whether it rests again."""
    exporter.resume()
    threading.Event().wait(0.05)
    return exporter.statistics().queued_records == 0


def test_what_a_collector_never_read_is_sent_again_however_long_ago_it_was_sent(tmp_path: Path) -> None:
    figures = sent_long_ago(tmp_path, lambda connection: connection.close())  # with data unread: a reset
    assert (figures.sent_records, figures.spooled_records, figures.repeated_records) == (0, 5, 5)


def test_what_a_collector_has_read_long_ago_is_not_sent_again_when_it_closes(tmp_path: Path) -> None:
    def read_and_close(connection: socket.socket) -> None:
        connection.settimeout(0.3)
        try:
            while connection.recv(65_536):
                pass
        except TimeoutError:
            connection.close()

    figures = sent_long_ago(tmp_path, read_and_close)
    assert (figures.sent_records, figures.spooled_records, figures.repeated_records) == (5, 0, 0)


@pytest.mark.parametrize("url", ["file:{0}", "file:{0}?compress=gzip", "jsonl:{0}?compress=gzip", "csv:{0}",
                                 "jsonl:{0}"])
@pytest.mark.parametrize("read", ["an octet", "all"])
def test_records_that_stay_in_a_named_pipe_are_not_sent_whatever_they_are_in(
        tmp_path: Path, url: str, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They fit in the pipe; its reader takes some and leaves."""
    monkeypatch.setattr(files, "_special", True)  # as with --allow-special
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    exporter = open_exporter(url.format(path), tmp_path)
    exporter.start()
    exporter.consume(flows(60))
    until(lambda: exporter.statistics().sent_records == 60, exporter.statistics)
    until(lambda: ticks_on(exporter), exporter.statistics)
    until(lambda: waiting(reader) > 600, exporter.statistics)  # what was compressed is flushed after a second
    os.read(reader, 1 if read == "an octet" else waiting(reader))
    os.close(reader)
    until(lambda: exporter.statistics().last_error != "", exporter.statistics)
    figures = exporter.stop(0.0)
    sent = 0 if read == "an octet" else 60
    assert (figures.sent_records, figures.not_sent_records) == (sent, 60 - sent)


def waiting(reader: int) -> int:
    """Octets in a pipe."""
    return int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), sys.byteorder)
