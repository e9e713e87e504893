"""DTLS (RFC 6347, RFC 9147) of the collector, with pyOpenSSL: one UDP socket, a connection for each exporter.

Without a valid cookie nothing is kept of a sender, so that forged addresses take no memory (RFC 6347 section 4.2.1).
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flowtop.capture.collector.connections import Places, Standing
from flowtop.capture.collector.url import ListenUrl, no_password
from flowtop.errors import EXIT_UNAVAILABLE, EXIT_USAGE, FlowtopError

MAX_PEERS = 256
_HANDSHAKE_S = 30.0
"""Time for a handshake, in which datagrams may be lost and are sent again."""
_DTLS_1_2 = 0xFEFD
_MTU = 1_280 - 48
"""Octets of a datagram that no path has to fragment."""
_LONGEST = 65_535
_RECORD_HEADER = 13
_HANDSHAKE, _CLIENT_HELLO = 22, 1

Peer = tuple[Any, ...]
"""Address and port of an exporter, as from recvfrom."""


class DtlsServer:
    """Turns datagrams of DTLS into what exporters sent. Not thread-safe.

    Args:
        url: with the certificate; with `ca`, exporters need one too.
        send: sends a datagram to a peer.
        now: returns s.

    Attributes:
        failed: handshakes that failed so far, and connections given up because there were too many.
        strange: datagrams so far that begin no handshake, of senders without a connection.
        ended: peers whose connection has ended, since the owner cleared the list.

    Raises FlowtopError: pyOpenSSL is not installed, or the certificate cannot be used.
    """

    def __init__(self, url: ListenUrl, send: Callable[[bytes, Peer], None], now: Callable[[], float]) -> None:
        self._ssl = _openssl(url)
        self._context = self._made_context(url)
        self._secret = secrets.token_bytes(32)
        self._send = send
        self._now = now
        self._places = Places(MAX_PEERS)
        self._authenticates = bool(url.ca)
        self._connections: dict[Peer, Any] = {}
        self._ready: set[Peer] = set()
        self.failed = self.strange = 0
        self.ended: list[Peer] = []

    def take(self, datagram: bytes, peer: Peer) -> Iterator[bytes]:
        """Take one datagram; returns the messages in it, each in one record."""
        connection = self._connections.get(peer)
        hello = _is_client_hello(datagram)
        if not hello and (connection is None or len(datagram) < _RECORD_HEADER):
            self.strange += 1
            return
        if connection is None or (hello and peer in self._ready):
            self._listen(datagram, peer)  # a restarted exporter may use its port again
            return
        self._places.use(peer)
        connection.bio_write(datagram)
        if peer not in self._ready and not self._shake_hands(connection, peer):
            return
        yield from self._read(connection, peer)

    def prove(self, peer: Peer) -> None:
        """Note that a peer has sent a valid message."""
        self._places.prove(peer, Standing.EXPORTER)

    def repeat(self) -> None:
        """Send again what no peer has answered in time, give up handshakes that take too long; call it about once a
        second."""
        self._places.give_up_overdue(self._now())
        for peer, connection in list(self._connections.items()):
            if peer not in self._ready and connection.DTLSv1_get_timeout() == 0.0:
                try:
                    connection.DTLSv1_handle_timeout()
                except self._ssl.Error:
                    self._fail(peer)
                    continue
                self._flush(connection, peer)

    def close(self) -> None:
        """Tell all peers that this is the end."""
        for peer, connection in self._connections.items():
            try:
                connection.shutdown()
            except self._ssl.Error:
                continue
            self._flush(connection, peer)
        self._connections.clear()

    def _listen(self, datagram: bytes, peer: Peer) -> None:
        """Take a ClientHello: answer it with a cookie, or begin the handshake if it has the right one."""
        connection = self._ssl.Connection(self._context, None)
        connection.set_app_data(peer)
        connection.set_ciphertext_mtu(_MTU)
        connection.set_accept_state()
        connection.bio_write(datagram)
        try:
            connection.DTLSv1_listen()
        except self._ssl.Error:  # WantReadError: the cookie was sent; others: no ClientHello
            self._flush(connection, peer)
            return
        if peer in self._connections:
            self._forget(peer)
        self._places.add(peer, peer[0], lambda: self._fail(peer), self._now() + _HANDSHAKE_S)
        self._connections[peer] = connection
        self._shake_hands(connection, peer)

    def _shake_hands(self, connection: Any, peer: Peer) -> bool:
        """Continue the handshake; returns whether it is done."""
        try:
            connection.do_handshake()
        except self._ssl.WantReadError:
            self._flush(connection, peer)
            return False
        except self._ssl.Error:
            self._flush(connection, peer)  # the alert
            self._fail(peer)
            return False
        self._flush(connection, peer)
        self._ready.add(peer)
        self._places.greeted(peer)
        if self._authenticates:
            self._places.prove(peer, Standing.AUTHENTICATED)
        return True

    def _read(self, connection: Any, peer: Peer) -> Iterator[bytes]:
        while True:
            try:
                yield connection.recv(_LONGEST)
            except self._ssl.WantReadError:
                self._flush(connection, peer)
                return
            except self._ssl.Error:  # ZeroReturnError: the exporter has closed the connection
                self._flush(connection, peer)
                self._forget(peer)
                return

    def _fail(self, peer: Peer) -> None:
        self.failed += 1
        self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        if self._connections.pop(peer, None) is None:
            return
        self._places.remove(peer)
        if peer in self._ready:
            self._ready.discard(peer)
            self.ended.append(peer)

    def _flush(self, connection: Any, peer: Peer) -> None:
        """Send what the connection has to send, records together as far as a datagram has room."""
        datagram = b""
        for record in _records(connection, self._ssl.WantReadError):
            if datagram and len(datagram) + len(record) > _MTU:
                self._send(datagram, peer)
                datagram = b""
            datagram += record
        if datagram:
            self._send(datagram, peer)

    def _made_context(self, url: ListenUrl) -> Any:
        ssl = self._ssl
        context = ssl.Context(ssl.DTLS_SERVER_METHOD)
        context.set_min_proto_version(_DTLS_1_2)
        context.set_options(ssl.OP_NO_QUERY_MTU | ssl.OP_COOKIE_EXCHANGE)
        context.set_cookie_generate_callback(lambda connection: self._cookie(connection.get_app_data()))
        context.set_cookie_verify_callback(lambda connection, cookie: hmac.compare_digest(
            cookie, self._cookie(connection.get_app_data())))
        try:
            context.use_certificate_chain_file(url.cert)
            if _is_encrypted(url.key or url.cert):
                no_password()
            context.use_privatekey_file(url.key or url.cert)
            if url.ca:
                context.load_verify_locations(url.ca)
                context.set_verify(ssl.VERIFY_PEER | ssl.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *found: bool(found[-1]))
        except ssl.Error as error:
            reason = error.args[0][-1][-1] if error.args and error.args[0] else "not a PEM file"
            raise FlowtopError(f"cannot use the certificate for {url}: {reason.lower()}",
                               hint="cert, key and ca are PEM files", exit_code=EXIT_USAGE) from error
        return context

    def _cookie(self, peer: Peer) -> bytes:
        return hmac.new(self._secret, repr(peer).encode(), hashlib.sha256).digest()


def _records(connection: Any, nothing: type[Exception]) -> Iterator[bytes]:
    """The records that the connection has to send (RFC 6347 section 4.1)."""
    octets = b""
    while True:
        try:
            octets += connection.bio_read(_LONGEST)
        except nothing:
            break
    while octets:
        length = _RECORD_HEADER + int.from_bytes(octets[11:13], "big")
        yield octets[:length]
        octets = octets[length:]


def _is_encrypted(path: str) -> bool:
    """Whether a PEM file has an encrypted key, for whose password OpenSSL would ask on the terminal."""
    try:
        return b"ENCRYPTED" in Path(path).read_bytes()
    except OSError:
        return False  # OpenSSL says why


def _is_client_hello(datagram: bytes) -> bool:
    """Whether a datagram begins a handshake: epoch 0, not encrypted."""
    return (len(datagram) > _RECORD_HEADER and datagram[0] == _HANDSHAKE and datagram[3:5] == b"\0\0"
            and datagram[_RECORD_HEADER] == _CLIENT_HELLO)


def _openssl(url: ListenUrl) -> Any:
    try:
        ssl = importlib.import_module("OpenSSL.SSL")
    except ImportError as error:
        raise FlowtopError(f"cannot listen on {url}: DTLS needs pyOpenSSL, as Python's ssl module has no DTLS",
                           hint="pip install 'flowtop[dtls]', or use TLS: tls://...",
                           exit_code=EXIT_UNAVAILABLE) from error
    if not hasattr(ssl.Connection, "DTLSv1_listen"):
        raise FlowtopError(f"cannot listen on {url}: this pyOpenSSL is too old for DTLS",
                           hint="pip install --upgrade 'flowtop[dtls]'", exit_code=EXIT_UNAVAILABLE)
    return ssl
