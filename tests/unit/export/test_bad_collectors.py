"""Collectors that cannot be found, close at once, or say nothing: a state that can be read, and no record lost."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from flowtop.export.opening import open_exporter
from flowtop.export.statistics import ExportState
from tests.unit.export.flows import flows, until


@pytest.mark.parametrize("scheme", ["ipfix+udp", "ipfix+tcp"])
def test_a_name_that_does_not_resolve_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                             scheme: str) -> None:
    def unknown(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    export = open_exporter(f"{scheme}://collector.invalid", tmp_path)
    export.start()
    export.consume(flows(5))
    until(lambda: export.statistics().state is ExportState.WAITING, export.statistics)
    assert export.statistics().last_error == "cannot resolve collector.invalid: Name or service not known"
    figures = export.stop(0.05)
    assert figures.sent_records == 0
    assert figures.spooled_records + figures.not_sent_records == 5


def test_a_resolver_that_hangs_does_not_hold_up_the_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ever = threading.Event()

    def hang(*arguments: object, **options: object) -> list[object]:
        ever.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    export = open_exporter("ipfix+tcp://collector.invalid", tmp_path)
    export.start()
    export.consume(flows(5))
    assert export.stop(0.05).spooled_records == 5
    ever.set()


def test_a_collector_that_closes_at_once_is_told_and_costs_no_record(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        export = open_exporter(f"ipfix+tcp://127.0.0.1:{listener.getsockname()[1]}", tmp_path)
        export.start()
        listener.accept()[0].close()
        until(lambda: export.statistics().state is ExportState.WAITING, export.statistics)
        export.consume(flows(5))
        figures = export.stop(0.05)
    assert figures.spooled_records == 5
    assert any(word in figures.last_error for word in ("closed", "reset", "Broken pipe"))


def test_a_server_that_never_answers_the_handshake_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        export = open_exporter(f"ipfix+tls://127.0.0.1:{listener.getsockname()[1]}", tmp_path)
        export.start()
        export.consume(flows(5))
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(1) == b"\x16"
            figures = export.stop(0.05)
    assert (figures.sent_records, figures.spooled_records) == (0, 5)


@pytest.mark.parametrize("kind", ["file", "jsonl", "csv"])
def test_a_full_disk_under_a_file_is_told_and_its_records_are_counted(tmp_path: Path, kind: str) -> None:
    export = open_exporter(f"{kind}:/dev/full", tmp_path)
    export.start()
    export.consume(flows(5))
    until(lambda: export.statistics().state is ExportState.WAITING, export.statistics)
    figures = export.stop(0.05)
    assert figures.last_error == "No space left on device"
    assert (figures.sent_records, figures.not_sent_records, figures.not_sent_packets) == (0, 5, 15)


def test_a_resolver_that_fails_in_its_own_way_is_an_answer_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise UnicodeError("label empty or too long")

    monkeypatch.setattr(socket, "getaddrinfo", broken)
    export = open_exporter("ipfix://collector.invalid", tmp_path)
    export.start()
    until(lambda: export.statistics().state is ExportState.WAITING, export.statistics)
    assert export.statistics().last_error == "cannot resolve collector.invalid: label empty or too long"
    export.stop(0.05)
