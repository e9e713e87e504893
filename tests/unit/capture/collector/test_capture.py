"""Listening: UDP, TCP and TLS on loopback, streams cut anywhere, ports in use; sockets leave nothing behind."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowtop.capture.collector.capture import CollectorCapture
from flowtop.capture.collector.url import ListenUrl, parse_listen_url
from flowtop.errors import EXIT_UNAVAILABLE, EXIT_USAGE, FlowtopError
from flowtop.model.record import FlowBatch
from tests.unit.capture.collector.exports import FLOW, NOW_S, flow, ipfix, set_of, template

PATIENCE_S = 20.0
MESSAGE = ipfix(template(256, FLOW), set_of(256, flow(1) + flow(2)))


@contextmanager
def listening(*urls: str) -> Iterator[CollectorCapture]:
    capture = CollectorCapture(tuple(map(parse_listen_url, urls)), unix_ns=lambda: int(NOW_S * 1e9))
    capture.open(lambda text: None)
    try:
        yield capture
    finally:
        capture.close()


def port_of(capture: CollectorCapture) -> int:
    return int(capture.addresses[0].rpartition(":")[2])


def batch_with(capture: CollectorCapture, records: int) -> FlowBatch:
    """The first batch after which so many records have come."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        capture.wait(0.02)
        batch = capture.drain()
        assert batch.collecting is not None
        if batch.collecting.records >= records:
            return batch
        assert time.monotonic() < deadline, batch.collecting


@pytest.mark.parametrize(("text", "expected"), [
    ("udp://", "udp://127.0.0.1:2055"), ("2055", "udp://127.0.0.1:2055"), (":9995", "udp://127.0.0.1:9995"),
    ("udp://:9996", "udp://127.0.0.1:9996"), ("ipfix://", "udp://127.0.0.1:4739"),
    ("sflow://", "udp://127.0.0.1:6343"),
    ("tcp://0.0.0.0", "tcp://0.0.0.0:4739"), ("udp://[::]:2055", "udp://[::]:2055"), ("netflow://[::1]", "udp://[::1]:2055"),
    ("tls://192.0.2.1?cert=a&key=b", "tls://192.0.2.1:4740"), ("udp://localhost:1", "udp://127.0.0.1:1"),
    ("udp://:2055?sampling=1000", "udp://127.0.0.1:2055"), ("tls://?cert=a&sampling=2", "tls://127.0.0.1:4740"),
])
def test_where_a_url_listens(text: str, expected: str) -> None:
    assert str(parse_listen_url(text)) == expected


@pytest.mark.parametrize("text", ["", "http://", "udp:/x", "udp://example.com", "udp://:99999", "tcp://:x", "udp://[::1",
                                  "udp://u@127.0.0.1", "udp:///path", "tls://", "udp://?cert=a", "tls://?cert=a&x=y",
                                  "eth0", "70000", "udp://?sampling=", "udp://?sampling=1.5", "tcp://?sampling=-1",
                                  "udp://?sampling=1k", "udp://?sampling=16777217", "udp://?sampling=\u0661",
                                  "udp://?sampled=1", "udp://?sampling=5&sampling=6", "tls://?cert=a&cert=b",
                                  "udp://\x1b[31m:1", "tcp://\n:1", "\x07", "udp://?sampling=%1b1", "tls://?cert=%00a"])
def test_what_is_no_place_to_listen_at_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(FlowtopError) as refusal:
        parse_listen_url(text)
    assert refusal.value.exit_code == EXIT_USAGE and refusal.value.hint and "\n" not in refusal.value.message


def test_datagrams_become_flows_and_the_exporter_is_named() -> None:
    with listening("udp://:0") as capture, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as exporter:
        exporter.sendto(MESSAGE, ("127.0.0.1", port_of(capture)))
        batch = batch_with(capture, 2)
        assert len(batch.keys) == 2 and int(batch.counters["octets"].sum()) == 600
        assert [batch.interfaces[int(number)] for number in batch.keys["ifindex"]] == ["127.0.0.1/7 if3"] * 2
        assert batch.attached == capture.addresses and batch.unix_offset_ns == 0
        assert (batch.counters["last_ns"] <= batch.now_ns).all()


@pytest.mark.parametrize(("text", "interval"), [
    ("udp://", 0), ("udp://?sampling=1000", 1_000), ("sflow://:1?sampling=0", 0), ("tcp://[::1]?sampling=1", 1),
    ("tls://?key=b&sampling=512&cert=a", 512), ("ipfix://?sampling=16777216", 16_777_216)])
def test_the_sampling_interval_in_a_url(text: str, interval: int) -> None:
    assert parse_listen_url(text).sampling == interval


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_flows_of_exporters_that_do_not_report_their_sampling_are_multiplied(scheme: str) -> None:
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    with listening(f"{scheme}://:0?sampling=1000") as capture, socket.socket(socket.AF_INET, kind) as exporter:
        exporter.connect(("127.0.0.1", port_of(capture)))
        exporter.sendall(MESSAGE)
        batch = batch_with(capture, 2)
        assert int(batch.counters["octets"].sum()) == 600_000
        assert batch.collecting is not None and batch.collecting.sampling_interval == 1_000


@pytest.mark.parametrize(("text", "networks"), [
    ("udp://:2055", []), ("udp://:2055?allow=192.0.2.0/24,2001:db8::1", ["192.0.2.0/24", "2001:db8::1/128"]),
    ("tcp://:1?allow=192.0.2.7/24&sampling=2", ["192.0.2.0/24"])])
def test_the_networks_that_a_url_allows(text: str, networks: list[str]) -> None:
    assert list(map(str, parse_listen_url(text).allow)) == networks


@pytest.mark.parametrize("text", ["udp://:1?allow=", "udp://:1?allow=192.0.2.0/33", "udp://:1?allow=192.0.2.0/24,router"])
def test_what_is_no_network_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(FlowtopError, match="is no network"):
        parse_listen_url(text)


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_who_is_not_allowed_is_counted_and_not_heard(scheme: str, host: str) -> None:
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    own = {"127.0.0.1": "127.0.0.0/30", "::1": "::1"}[host]
    for allowed, refused in ((own, 0), ("192.0.2.0/24,2001:db8::/32", 1)):
        with listening(f"{scheme}://{f'[{host}]' if ':' in host else host}:0?allow={allowed}") as capture, \
                socket.socket(family, kind) as exporter:
            exporter.connect((host, port_of(capture)))
            exporter.sendall(MESSAGE)
            deadline = time.monotonic() + PATIENCE_S
            while not (found := capture.drain().collecting) or not found.messages + found.refused_sources:
                capture.wait(0.02)
                assert time.monotonic() < deadline
            assert (found.messages, found.refused_sources, found.exporters) == (1 - refused, refused, 1 - refused)


def test_a_stream_may_be_cut_anywhere() -> None:
    stream = MESSAGE + ipfix(set_of(256, flow(3)), sequence=2) * 3
    with listening("tcp://:0") as capture:
        with socket.create_connection(("127.0.0.1", port_of(capture))) as exporter:
            exporter.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for place in range(0, len(stream), 37):
                exporter.sendall(stream[place:place + 37])
        batch = batch_with(capture, 5)
        assert batch.collecting is not None
        assert (batch.collecting.records, batch.collecting.messages, batch.collecting.refused) == (5, 4, ())


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n\r\n", MESSAGE[:2] + b"\0\3" + bytes(20)])
def test_a_stream_that_is_none_is_closed_and_counted(octets: bytes) -> None:
    with listening("tcp://:0") as capture, socket.create_connection(("127.0.0.1", port_of(capture))) as exporter:
        exporter.settimeout(PATIENCE_S)
        exporter.sendall(octets)
        deadline = time.monotonic() + PATIENCE_S
        while not (statistics := capture.drain().collecting) or not statistics.refused:
            capture.wait(0.02)
            assert time.monotonic() < deadline
        assert exporter.recv(1) == b"" and statistics.refused_messages == 1


def test_templates_end_with_their_connection() -> None:
    with listening("tcp://:0") as capture:
        for octets in (ipfix(template(256, FLOW)), ipfix(set_of(256, flow(1)))):
            with socket.create_connection(("127.0.0.1", port_of(capture))) as exporter:
                exporter.sendall(octets)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            capture.wait(0.02)
            statistics = capture.drain().collecting
            assert statistics is not None and time.monotonic() < deadline
            if statistics.messages == 2:
                break
        assert statistics.records == 0


def test_what_lies_in_the_sockets_at_the_end_is_taken() -> None:
    capture = CollectorCapture((parse_listen_url("udp://:0"), parse_listen_url("tcp://:0")))
    capture.open(lambda text: None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as exporter, socket.create_connection(
            ("127.0.0.1", int(capture.addresses[1].rpartition(":")[2]))) as stream:
        exporter.sendto(MESSAGE, ("127.0.0.1", port_of(capture)))
        stream.sendall(MESSAGE)
        batch = capture.close()
    assert int(batch.counters["octets"].sum()) == 1200 and batch.attached == ("udp://127.0.0.1:" + str(
        port_of_text(batch.attached[0])), "tcp://127.0.0.1:" + str(port_of_text(batch.attached[1])))


def port_of_text(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_a_port_in_use_is_one_clear_line(scheme: str) -> None:
    with listening(f"{scheme}://:0") as capture:
        second = CollectorCapture((parse_listen_url(f"{scheme}://:{port_of(capture)}"),))
        with pytest.raises(FlowtopError, match="the port is in use") as refusal:
            second.open(lambda text: None)
        assert refusal.value.exit_code == EXIT_UNAVAILABLE and refusal.value.hint


def test_an_address_of_another_host_is_one_clear_line() -> None:
    with pytest.raises(FlowtopError, match="no such address"):
        CollectorCapture((ListenUrl("udp", "192.0.2.77", 0),)).open(lambda text: None)


def test_wake_ends_a_wait() -> None:
    with listening("udp://:0") as capture:
        threading.Timer(0.05, capture.wake).start()
        begin = time.monotonic()
        capture.wait(PATIENCE_S)
        assert time.monotonic() - begin < PATIENCE_S / 2


def test_datagrams_that_find_the_buffer_full_are_counted() -> None:
    with listening("udp://:0") as capture, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as exporter:
        listener = next(iter(capture._listeners)).socket
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        datagram = ipfix(set_of(999, bytes(1000)))
        for _ in range(200):
            exporter.sendto(datagram, ("127.0.0.1", port_of(capture)))
        capture.wait(0.05)
        statistics = capture.drain().collecting
        assert statistics is not None and statistics.dropped_by_kernel > 0
        assert statistics.dropped_by_kernel + statistics.messages == 200


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two self-signed certificates: server.pem, exporter.pem."""
    directory = tmp_path_factory.mktemp("pki")
    for name in ("server", "exporter"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}", "-days", "2",
                        "-addext", "subjectAltName=IP:127.0.0.1"], cwd=directory, check=True, capture_output=True)
    return directory


def test_tls_with_and_without_the_exporters_certificate(pki: Path) -> None:
    url = f"tls://:0?cert={pki}/server.pem&key={pki}/server.key&ca={pki}/exporter.pem"
    with listening(url) as capture:
        port = port_of(capture)
        stop = threading.Event()
        statistics = []

        def serve() -> None:
            while not stop.is_set():
                capture.wait(0.02)
                statistics.append(capture.drain().collecting)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            context = ssl.create_default_context(cafile=str(pki / "server.pem"))
            with socket.create_connection(("127.0.0.1", port)) as raw, \
                    pytest.raises((ssl.SSLError, ConnectionError)), \
                    context.wrap_socket(raw, server_hostname="127.0.0.1") as stranger:
                stranger.settimeout(PATIENCE_S)
                stranger.sendall(MESSAGE)
                stranger.recv(1)
                raise ConnectionResetError
            context.load_cert_chain(pki / "exporter.pem", pki / "exporter.key")
            with socket.create_connection(("127.0.0.1", port)) as raw, \
                    context.wrap_socket(raw, server_hostname="127.0.0.1") as exporter:
                for number in range(200):
                    exporter.sendall(MESSAGE if not number else ipfix(set_of(256, flow(3) * 300), sequence=number))
            deadline = time.monotonic() + PATIENCE_S
            while not statistics or not statistics[-1] or statistics[-1].records < 2 + 199 * 300:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            stop.set()
            thread.join()
        last = statistics[-1]
        assert last is not None and last.refused_connections == 1 and last.records == 2 + 199 * 300


def test_an_unreadable_certificate_is_one_clear_line(pki: Path, tmp_path: Path) -> None:
    for url in (f"tls://:0?cert={tmp_path}/none.pem", f"tls://:0?cert={pki}/server.key&key={pki}/server.key"):
        with pytest.raises(FlowtopError, match="cannot use the certificate"):
            CollectorCapture((parse_listen_url(url),)).open(lambda text: None)


def test_an_encrypted_key_is_one_clear_line_and_no_prompt(pki: Path, capfd: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["openssl", "pkey", "-in", "server.key", "-aes256", "-passout", "pass:x", "-out", "encrypted.key"],
                   cwd=pki, check=True, capture_output=True)
    for scheme in ("tls", "dtls"):
        if scheme == "dtls":
            pytest.importorskip("OpenSSL.SSL")
        with pytest.raises(FlowtopError, match="private key of the collector is encrypted") as refusal:
            CollectorCapture((parse_listen_url(f"{scheme}://:0?cert={pki}/server.pem&key={pki}/encrypted.key"),)).open(
                lambda text: None)
        assert refusal.value.exit_code == EXIT_USAGE
    assert capfd.readouterr() == ("", "")


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtop.capture.collector.capture.descriptor_budget", lambda: 12)  # 3 for newcomers
    with listening("tcp://:0") as capture:
        made = [socket.create_connection(("127.0.0.1", port_of(capture))) for _ in range(5)]
        deadline = time.monotonic() + PATIENCE_S
        while not (statistics := capture.drain().collecting) or statistics.refused_connections < 2:
            capture.wait(0.02)
            assert time.monotonic() < deadline
        for connection in made:
            connection.settimeout(PATIENCE_S)
        assert made[0].recv(1) == b"" and made[1].recv(1) == b""
        made[4].sendall(MESSAGE)
        assert batch_with(capture, 2).collecting is not None
        for connection in made:
            connection.close()


def test_an_exporter_that_speaks_for_hours_in_one_octet_pieces_costs_no_more_than_a_message() -> None:
    with listening("tcp://:0") as capture, socket.create_connection(("127.0.0.1", port_of(capture))) as exporter:
        exporter.sendall(struct.pack(">HH", 10, 65_535))
        for _ in range(20):
            exporter.sendall(b"\0")
            capture.wait(0.001)
        assert capture.drain().collecting is not None
