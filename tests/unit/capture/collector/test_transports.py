"""DTLS and SCTP: openssl's client and SOCK_SEQPACKET sockets as exporters; the clear message where they are not."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flowtop.capture.collector import sockets
from flowtop.errors import EXIT_UNAVAILABLE, EXIT_USAGE, FlowtopError
from flowtop.model.exporters import CollectingStatistics
from tests.unit.capture.collector.exports import FLOW, flow, ipfix, set_of, template
from tests.unit.capture.collector.test_capture import MESSAGE, PATIENCE_S, batch_with, listening, port_of

ANNOUNCED = ipfix(template(256, FLOW))


def data(number: int, count: int = 1) -> bytes:
    return ipfix(set_of(256, b"".join(flow(number + at) for at in range(count))), sequence=number)


def statistics_when(capture: Any, done: Callable[[CollectingStatistics], bool]) -> CollectingStatistics:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        capture.wait(0.02)
        found: CollectingStatistics = capture.drain().collecting
        if done(found):
            return found
        assert time.monotonic() < deadline, found


# ---- SCTP

@pytest.fixture
def sctp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], socket.socket]:
    """Local sockets of the same kind: connections that keep the limits of messages. Connects a new exporter."""
    path = str(tmp_path / "socket")

    class Connection(socket.socket):
        """Reports MSG_EOR as SCTP does; local sockets do not."""

        def recvmsg(self, *given: int) -> Any:
            octets, ancillary, flags, address = super().recvmsg(*given)
            return octets, ancillary, flags | (socket.MSG_EOR if octets else 0), address

    class Listening(socket.socket):
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def setsockopt(self, *_: object) -> None:  # type: ignore[override]
            pass

        def bind(self, _: object) -> None:
            super().bind(path)

        def getsockname(self) -> tuple[str, int]:
            return "127.0.0.1", 4739

        def accept(self) -> tuple[socket.socket, Any]:
            descriptor, _ = self._accept()  # type: ignore[attr-defined]
            return Connection(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=descriptor), ("192.0.2.7", 5000)

    made = socket.socket

    def choose(family: int = -1, kind: int = -1, protocol: int = -1, fileno: int | None = None) -> socket.socket:
        return Listening() if protocol == socket.IPPROTO_SCTP else made(family, kind, protocol, fileno)

    monkeypatch.setattr(sockets.socket, "socket", choose)

    def connect() -> socket.socket:
        exporter = made(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        exporter.connect(path)
        return exporter

    yield connect
    monkeypatch.undo()


@pytest.mark.parametrize("messages", [
    [MESSAGE], [ANNOUNCED, data(0, 2)], [ANNOUNCED + data(0), data(1)], [ANNOUNCED, data(0), data(1)]])
def test_messages_of_sctp_become_flows(sctp: Callable[[], socket.socket], messages: list[bytes]) -> None:
    with listening("sctp://:4739") as capture, sctp() as exporter:
        for octets in messages:
            exporter.sendall(octets)
        batch = batch_with(capture, 2)
        assert int(batch.counters["octets"].sum()) == 600
        assert set(batch.interfaces.values()) == {"192.0.2.7/7 if3"} and batch.attached == ("sctp://127.0.0.1:4739",)


@pytest.mark.parametrize("bad", [b"GET / HTTP/1.1", data(9)[:-5], b"\0\x0a", b"\0\x0a\0\x03" + bytes(20),
                                 ipfix(b"\1\0\0\1")])
def test_an_invalid_message_of_sctp_costs_that_message(sctp: Callable[[], socket.socket], bad: bytes) -> None:
    with listening("sctp://:4739") as capture, sctp() as exporter:
        for octets in (ANNOUNCED, bad, data(1, 2)):
            exporter.sendall(octets)
        found = statistics_when(capture, lambda found: found.records >= 2)
        skipped = sum(number for _, number in found.skipped)
        assert (found.records, found.refused_messages + skipped) == (2, 1)


def test_templates_end_with_their_association(sctp: Callable[[], socket.socket]) -> None:
    with listening("sctp://:4739") as capture:
        for octets in (ANNOUNCED, data(0)):
            with sctp() as exporter:
                exporter.sendall(octets)
        found = statistics_when(capture, lambda found: found.messages == 2)
        assert found.records == 0 and found.waiting_sets + found.dropped_sets == 1


def has_sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(has_sctp(), reason="this kernel has SCTP")
def test_a_kernel_without_sctp_is_told() -> None:
    with pytest.raises(FlowtopError) as refusal, listening("sctp://:0"):
        pass
    assert "this kernel has no SCTP" in refusal.value.message and "modprobe sctp" in (refusal.value.hint or "")
    assert refusal.value.exit_code == EXIT_UNAVAILABLE


@pytest.mark.skipif(not has_sctp(), reason="this kernel has no SCTP")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_sctp_of_the_kernel(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with listening(f"sctp://[{address}]:0" if ":" in address else f"sctp://{address}:0") as capture, socket.socket(
            family, socket.SOCK_STREAM, socket.IPPROTO_SCTP) as exporter:
        exporter.connect((address, port_of(capture)))
        exporter.sendall(MESSAGE)
        assert int(batch_with(capture, 2).counters["octets"].sum()) == 600


# ---- DTLS

def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA of exporters, a certificate that it signed, and the server's."""
    directory = tmp_path_factory.mktemp("pki")
    new = ("req", "-newkey", "rsa:3072", "-nodes", "-days", "2")  # a flight of more than one datagram
    for name in ("server", "ca", "stranger"):
        openssl(*new, "-x509", "-subj", f"/CN={name}", "-keyout", directory / f"{name}.key", "-out",
                directory / f"{name}.pem")
    openssl(*new, "-subj", "/CN=exporter", "-keyout", directory / "exporter.key", "-out", directory / "exporter.csr")
    openssl("x509", "-req", "-in", directory / "exporter.csr", "-CA", directory / "ca.pem", "-CAkey",
            directory / "ca.key", "-CAcreateserial", "-days", "2", "-out", directory / "exporter.pem")
    return directory


def url_of(pki: Path, *, ca: bool = False, address: str = "") -> str:
    pytest.importorskip("OpenSSL.SSL")
    return f"dtls://{address}:0?cert={pki}/server.pem&key={pki}/server.key" + (f"&ca={pki}/ca.pem" if ca else "")


def client(port: int, *arguments: str | Path, host: str = "127.0.0.1") -> subprocess.Popen[bytes]:
    """openssl's client: what is written to its standard input is sent, each time as one record."""
    return subprocess.Popen(["openssl", "s_client", "-dtls", "-quiet", "-connect", f"{host}:{port}", *arguments],
                            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # without close_notify
    process.wait()
    if process.stdin:
        with suppress(BrokenPipeError):
            process.stdin.close()


def write(process: subprocess.Popen[bytes], octets: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(octets)
    process.stdin.flush()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_records_of_dtls_become_flows(pki: Path, host: str) -> None:
    with listening(url_of(pki, address=host)) as capture:
        process = client(port_of(capture), host=host)
        try:
            write(process, MESSAGE)
            batch = batch_with(capture, 2)
            assert int(batch.counters["octets"].sum()) == 600
            assert set(batch.interfaces.values()) == {f"{host.strip('[]')}/7 if3"}
            write(process, data(5))
            assert batch_with(capture, 3).collecting == statistics_when(capture, lambda found: found.messages == 2)
        finally:
            end(process)


def test_several_exporters_of_dtls_at_once(pki: Path) -> None:
    with listening(url_of(pki)) as capture:
        processes = [client(port_of(capture)) for _ in range(5)]
        try:
            for number, process in enumerate(processes):
                write(process, ipfix(template(256, FLOW), set_of(256, flow(number))))
            found = statistics_when(capture, lambda found: found.records >= 5)
            assert (found.messages, found.exporters, found.refused_connections) == (5, 5, 0)
        finally:
            for process in processes:
                end(process)


@pytest.mark.parametrize(("name", "accepted"), [("exporter", True), ("stranger", False), (None, False)])
def test_with_ca_exporters_need_a_certificate(pki: Path, name: str | None, accepted: bool) -> None:
    own = ("-cert", pki / f"{name}.pem", "-key", pki / f"{name}.key") if name else ()
    with listening(url_of(pki, ca=True)) as capture:
        process = client(port_of(capture), *own)
        try:
            write(process, MESSAGE)
            found = statistics_when(capture, lambda found: bool(found.records or found.refused_connections))
            assert (found.records, found.refused_connections) == ((2, 0) if accepted else (0, 1))
        finally:
            end(process)


def test_an_exporter_that_starts_again_at_the_same_port_is_a_new_session(pki: Path) -> None:
    url = url_of(pki)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        own = f"127.0.0.1:{probe.getsockname()[1]}"
    with listening(url) as capture:
        for messages, octets in ((1, ANNOUNCED), (2, data(0))):
            process = client(port_of(capture), "-bind", own)
            write(process, octets)
            found = statistics_when(capture, lambda found, n=messages: found.messages == n)  # type: ignore[misc]
            end(process)
        assert found.records == 0 and found.waiting_sets + found.dropped_sets == 1


class EachHelloBegins:
    """DTLS without its cryptography: `hello` begins a new connection of that peer, all else is a message."""

    failed = strange = 0

    def __init__(self, *_: object) -> None:
        self.ended: list[tuple[str, int]] = []

    def take(self, datagram: bytes, peer: tuple[str, int]) -> Iterator[bytes]:
        if datagram == b"hello":
            self.ended.append(peer)
        else:
            yield datagram

    def prove(self, peer: tuple[str, int]) -> None: ...

    def repeat(self) -> None: ...

    def close(self) -> None: ...


def test_the_session_before_has_ended_when_what_follows_waits_beside_the_new_ones_hello(
        pki: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtop.capture.collector.sockets.DtlsServer", EachHelloBegins)
    with listening(url_of(pki)) as capture, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as exporter:
        exporter.connect(("127.0.0.1", port_of(capture)))
        exporter.send(ANNOUNCED)
        statistics_when(capture, lambda found: found.messages == 1)
        exporter.send(b"hello")
        exporter.send(data(0))
        found = statistics_when(capture, lambda found: found.messages == 2)
        assert found.records == 0 and found.waiting_sets + found.dropped_sets == 1


@pytest.mark.parametrize("octets", [
    b"", b"\0\x0a", MESSAGE, b"\x16\xfe\xfd" + bytes(10), random.Random(1).randbytes(200),
    b"\x17\xfe\xfd\0\1" + bytes(80)], ids=["nothing", "start", "ipfix", "header", "random", "record"])
def test_what_is_no_dtls_is_counted_and_keeps_nothing(pki: Path, octets: bytes) -> None:
    with listening(url_of(pki)) as capture, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(20):
            sender.sendto(octets, ("127.0.0.1", port_of(capture)))
        process = client(port_of(capture))
        try:
            write(process, MESSAGE)
            found = statistics_when(capture, lambda found: found.records >= 2)
            assert (found.messages, found.exporters, found.refused) == (1, 1, (("version", 20),))
        finally:
            end(process)


def test_a_certificate_that_cannot_be_read_is_told(pki: Path, tmp_path: Path) -> None:
    pytest.importorskip("OpenSSL.SSL")
    (tmp_path / "x").write_text("no certificate")
    for path in (tmp_path / "x", tmp_path / "not there"):
        with pytest.raises(FlowtopError) as refusal, listening(f"dtls://:0?cert={path}&key={pki}/server.key"):
            pass
        assert refusal.value.exit_code == EXIT_USAGE and "cannot use the certificate" in refusal.value.message


def test_without_pyopenssl_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenSSL.SSL", None)
    monkeypatch.setitem(sys.modules, "OpenSSL", None)
    with pytest.raises(FlowtopError) as refusal, listening("dtls://:0?cert=x"):
        pass
    assert "DTLS needs pyOpenSSL" in refusal.value.message and "flowtop[dtls]" in (refusal.value.hint or "")


@pytest.mark.parametrize("text", ["dtls://", "dtls://:1?key=x", "sctp://:1?cert=x"])
def test_urls_that_are_not_valid(text: str) -> None:
    with pytest.raises(FlowtopError) as refusal, listening(text):
        pass
    assert refusal.value.exit_code == EXIT_USAGE
