"""flowtop.Sender against sockets of the test: UDP, TCP and TLS on loopback, connections that are lost."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import flowtop
from flowtop import ipfix
from tests.unit.library.test_sessions import TEMPLATE, sets_of

RECORD = ("192.0.2.1", 1, 2, "eth0")
PATIENCE_S = 20.0


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.settimeout(PATIENCE_S)
        yield made


class Server:
    """Takes connections one after the other, and what comes over each to its end."""

    def __init__(self, listener: socket.socket) -> None:
        self.port = listener.getsockname()[1]
        self.streams: list[bytes] = []
        self._listener = listener
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                octets = b"".join(iter(lambda: connection.recv(65_536), b""))  # noqa: B023 - used at once
            if octets == b"":
                return
            self.streams.append(octets)

    def end(self) -> list[bytes]:
        """All that came; a connection without anything ends the server."""
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(PATIENCE_S)
        return self.streams


@contextmanager
def server() -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Server(listener)


def decoded(stream: bytes) -> list[flowtop.Message]:
    """The messages of a stream, by their lengths."""
    decoder, messages = flowtop.Decoder(), []
    while stream:
        length = int.from_bytes(stream[2:4], "big")
        messages.append(decoder.decode(stream[:length], datagram=False))
        stream = stream[length:]
    return messages


def test_over_udp_templates_come_first_and_datagrams_fit_the_path(receiver: socket.socket) -> None:
    port = receiver.getsockname()[1]
    with flowtop.Sender(f"ipfix://127.0.0.1:{port}?domain=5&refresh-packets=3", [TEMPLATE]) as sender:
        sent = sender.send(TEMPLATE, [RECORD] * 2_000)
        assert sender.session.max_octets > 1_400, "loopback's MTU is larger than 512"
        datagrams = [receiver.recv(65_535) for _ in range(sent + 1)]
    assert sets_of(datagrams[0]) == [2]
    assert [sets_of(octets) for octets in datagrams].count([2]) > 1
    decoder = flowtop.Decoder()
    messages = [decoder.decode(octets) for octets in datagrams]
    assert sum(len(message.records) for message in messages) == 2_000
    assert {message.domain for message in messages} == {5}


def test_nobody_listens_over_udp(receiver: socket.socket) -> None:
    port = receiver.getsockname()[1]
    receiver.close()
    with flowtop.Sender(f"ipfix://127.0.0.1:{port}", [TEMPLATE]) as sender:
        for _ in range(3):
            sender.send(TEMPLATE, [RECORD])
        assert sender.refused > 0


def test_over_tcp_a_session_is_a_stream_and_another_begins_anew() -> None:
    with server() as serving:
        with flowtop.Sender(f"ipfix+tcp://127.0.0.1:{serving.port}", [TEMPLATE]) as sender:
            sender.send(TEMPLATE, [RECORD] * 3)
            sender.reconnect()
            sender.send(TEMPLATE, [RECORD] * 2)
            other = ipfix.template(257, ["octetDeltaCount"])
            sender.send(other, [(7,)])
        streams = [decoded(stream) for stream in serving.end()]
    assert [[(message.sequence, [one.id for one in message.templates], len(message.records)) for message in stream]
            for stream in streams] == [[(0, [256], 0), (0, [], 3)],
                                       [(0, [256], 0), (0, [], 2), (2, [257], 0), (2, [], 1)]]


def test_over_tls_the_server_is_verified(tmp_path: Path) -> None:
    import ssl

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    received: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    received.append(b"".join(iter(lambda: secured.recv(65_536), b"")))
            except OSError:
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve, args=(listener,))
        serving.start()
        url = f"ipfix+tls://127.0.0.1:{listener.getsockname()[1]}?servername=localhost"
        with pytest.raises(flowtop.FlowtopError, match="cannot send to"):
            flowtop.Sender(url)
        with flowtop.Sender(f"{url}&ca={certificate}", [TEMPLATE]) as sender:
            sender.send(TEMPLATE, [RECORD])
        serving.join(PATIENCE_S)
    assert [len(message.records) for message in decoded(received[0])] == [0, 1]


def test_a_collector_that_is_not_there_or_goes_raises_flowtops_error() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        url = f"ipfix+tcp://127.0.0.1:{listener.getsockname()[1]}"
        sender = flowtop.Sender(url, [TEMPLATE])
        connection, _ = listener.accept()
        connection.close()
        with pytest.raises(flowtop.FlowtopError, match="cannot send to"):
            for _ in range(100):
                sender.send(TEMPLATE, [RECORD] * 1_000)
        sender.close()
    with pytest.raises(flowtop.FlowtopError, match=r"cannot send to 127\.0\.0\.1 port"):
        flowtop.Sender(url)


@pytest.mark.parametrize("url", ["file:flows.ipfix", "jsonl:-", "http://x", "ipfix://",
                                 "ipfix+tcp://" + "a" * 70 + ".x"])
def test_what_is_no_collector_is_refused(url: str) -> None:
    with pytest.raises(flowtop.FlowtopError):
        flowtop.Sender(url)
