"""Connections of strangers to an open port: resets, silence, unfinished handshakes, no descriptor left."""

from __future__ import annotations

import os
import resource
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from flowtop.capture.collector.capture import CollectorCapture
from flowtop.capture.collector.connections import HANDSHAKE_S, MAX_CONNECTIONS, Places, Standing, descriptor_budget
from flowtop.capture.collector.url import parse_listen_url
from tests.unit.capture.collector.exports import FLOW, flow, ipfix, set_of, template
from tests.unit.capture.collector.test_capture import MESSAGE, PATIENCE_S, listening, port_of
from tests.unit.capture.collector.test_transports import statistics_when

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close sends RST."""


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    for name in ("server", "exporter"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", "-days", "2",
                        "-addext", "subjectAltName=IP:127.0.0.1"], cwd=directory, check=True, capture_output=True)
    return directory


def url_of(pki: Path) -> str:
    return f"tls://:0?cert={pki}/server.pem&key={pki}/server.key&ca={pki}/exporter.pem"


@contextmanager
def exporter_of(pki: Path, port: int, pump: CollectorCapture) -> Iterator[ssl.SSLSocket]:
    """An exporter with a certificate; its handshake runs beside the collector, which `pump` serves."""
    context = ssl.create_default_context(cafile=str(pki / "server.pem"))
    context.load_cert_chain(pki / "exporter.pem", pki / "exporter.key")
    with socket.create_connection(("127.0.0.1", port)) as raw, \
            context.wrap_socket(raw, server_hostname="127.0.0.1", do_handshake_on_connect=False) as exporter:
        exporter.settimeout(PATIENCE_S)

        def begin() -> None:
            exporter.do_handshake()
            exporter.sendall(MESSAGE)

        thread = threading.Thread(target=begin)
        thread.start()
        statistics_when(pump, lambda found: found.records >= 2)
        thread.join()
        yield exporter


@pytest.mark.parametrize("octets", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "a part of a handshake"])
@pytest.mark.parametrize("served", [False, True], ids=["before it is accepted", "after"])
def test_a_client_that_resets_ends_nothing(pki: Path, octets: bytes, served: bool) -> None:
    with listening(url_of(pki)) as capture, exporter_of(pki, port_of(capture), capture) as exporter:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port_of(capture))) as stranger:
                stranger.sendall(octets)
                if served:
                    capture.wait(0.02)
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        found = statistics_when(capture, lambda found: found.refused_connections >= 5)
        exporter.sendall(ipfix(set_of(256, flow(3)), sequence=2))
        found = statistics_when(capture, lambda found: found.records >= 3)
        assert (found.refused_connections, found.exporters) == (5, 1)


@pytest.mark.parametrize("octets", [b"", b"\x16\x03\x01\x02\x00\x01\x00"], ids=["silent", "unfinished"])
def test_strangers_take_no_place_from_an_exporter(pki: Path, monkeypatch: pytest.MonkeyPatch, octets: bytes) -> None:
    monkeypatch.setattr("flowtop.capture.collector.capture.descriptor_budget", lambda: 16)  # 4 for newcomers
    with listening(url_of(pki)) as capture, exporter_of(pki, port_of(capture), capture) as exporter, \
            ExitStack() as strangers:
        for _ in range(60):
            stranger = strangers.enter_context(socket.create_connection(("127.0.0.1", port_of(capture))))
            stranger.sendall(octets)
            capture.wait(0.001)
        found = statistics_when(capture, lambda found: found.refused_connections >= 56)
        exporter.sendall(ipfix(set_of(256, flow(3)), sequence=2))
        found = statistics_when(capture, lambda found: found.records >= 3)
        assert found.refused_connections == 56  # of 60, 4 have a place
        with exporter_of(pki, port_of(capture), capture):  # and others can still come
            assert statistics_when(capture, lambda found: found.records >= 5).exporters == 2


def test_a_handshake_has_a_deadline(pki: Path) -> None:
    now_ns = [0]
    capture = CollectorCapture((parse_listen_url(url_of(pki)),), clock_ns=lambda: now_ns[0], unix_ns=lambda: 10**18)
    capture.open(lambda text: None)
    try:
        with socket.create_connection(("127.0.0.1", port_of(capture))) as stranger:
            for listener in capture._listeners:
                assert listener._accept()
            now_ns[0] = int((HANDSHAKE_S - 1) * 1e9)
            batch = capture.drain()
            assert batch.collecting is not None and batch.collecting.refused_connections == 0
            now_ns[0] = int((HANDSHAKE_S + 1) * 1e9)
            batch = capture.drain()
            assert batch.collecting is not None and batch.collecting.refused_connections == 1
            stranger.settimeout(PATIENCE_S)
            assert stranger.recv(1) == b""
    finally:
        capture.close()


def test_without_descriptors_connections_are_refused_and_exporters_stay() -> None:
    with listening("tcp://:0") as capture, ExitStack() as strangers:
        exporter = strangers.enter_context(socket.create_connection(("127.0.0.1", port_of(capture))))
        exporter.sendall(MESSAGE)
        statistics_when(capture, lambda found: found.records >= 2)
        for _ in range(20):  # they wait in the kernel's queue
            strangers.enter_context(socket.create_connection(("127.0.0.1", port_of(capture))))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        last = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        free = [os.dup(0)]
        while free[-1] <= last + 1:
            free.append(os.dup(0))  # no gap is left below the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], hard))
        try:
            found = statistics_when(capture, lambda found: found.refused_connections >= 19)
            exporter.sendall(ipfix(template(256, FLOW), set_of(256, flow(5)), sequence=2))
            found = statistics_when(capture, lambda found: found.records >= 3)
            assert found.refused_connections <= 20 and found.exporters == 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in free:
                os.close(descriptor)


# ---- places, without sockets

class Given:
    """Places whose connections are only named; `over` has those that were given up, in order."""

    def __init__(self, limit: int) -> None:
        self.places = Places(limit)
        self.over: list[str] = []

    def add(self, key: str, deadline_s: float = float("inf")) -> None:
        def give_up() -> None:
            self.over.append(key)
            self.places.remove(key)

        self.places.add(key, key[0], give_up, deadline_s)


def test_the_source_with_most_newcomers_loses_the_one_silent_longest() -> None:
    given = Given(16)  # 4 newcomers
    for key in ("a1", "b1", "b2", "b3"):
        given.add(key)
    given.places.use("b1")
    given.add("c1")
    assert given.over == ["b2"]
    given.add("d1")  # b has two now, the others one
    assert given.over == ["b2", "b3"]


def test_exporters_take_places_from_their_equals_only() -> None:
    given = Given(8)  # 2 newcomers, 6 others
    for number in range(6):
        given.add(f"a{number}")
        given.places.prove(f"a{number}", Standing.AUTHENTICATED if number < 5 else Standing.EXPORTER)
    assert not given.over
    given.add("b1")
    given.places.prove("b1", Standing.EXPORTER)
    assert given.over == ["a5"]
    given.add("c1")
    given.places.prove("c1", Standing.AUTHENTICATED)
    assert given.over == ["a5", "b1"]
    given.add("d1")
    given.places.prove("d1", Standing.EXPORTER)
    assert given.over == ["a5", "b1", "d1"]
    given.add("e1")
    given.places.prove("e1", Standing.AUTHENTICATED)
    assert given.over == ["a5", "b1", "d1", "a0"] and len(given.places) == 6


def test_deadlines_end_with_the_handshake() -> None:
    given = Given(16)
    for key in ("a1", "a2"):
        given.add(key, 10.0)
    given.places.greeted("a1")
    given.places.give_up_overdue(9.9)
    assert not given.over
    given.places.give_up_overdue(10.0)
    assert given.over == ["a2"]


@pytest.mark.parametrize(("limit", "least", "most"), [(40, 4, 24), (100_000, MAX_CONNECTIONS, MAX_CONNECTIONS)])
def test_connections_leave_descriptors_to_others(monkeypatch: pytest.MonkeyPatch, limit: int, least: int,
                                                 most: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert least <= descriptor_budget() <= most
