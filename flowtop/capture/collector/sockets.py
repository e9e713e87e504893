"""Sockets of the collector: datagrams, also encrypted, and streams that are split into messages."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import count

from flowtop.capture.collector.connections import HANDSHAKE_S, Places, SpareDescriptor, Standing
from flowtop.capture.collector.dtls import DtlsServer, Peer
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.capture.collector.url import AllowedSources, ListenUrl, no_password
from flowtop.errors import EXIT_NO_PERMISSION, EXIT_UNAVAILABLE, EXIT_USAGE, FlowtopError
from flowtop.wire.ipfix_decoder import split_messages
from flowtop.wire.ipfix_template import IpfixDecodeError

BURST = 512
"""Limit of datagrams read from one socket before others are served."""
_BUFFER_OCTETS = 16_777_216
_LONGEST = 65_535
_SO_MEMINFO, _MEMINFO_DROPS = 55, 8
_SO_RCVBUFFORCE = 33
_CHUNK = 262_144
_END_OF_RECORD = 0x80
"""MSG_EOR: the end of a message of SCTP."""
_DATAGRAMS = ("udp", "dtls")
_TURNS = 16
"""Limit of reads from one connection before others are served."""
_TURN_S = 0.05
"""Limit of time for datagrams before others are served, such as a signal that ends the run."""
_LAST_S = 0.2
"""Limit of time for what the sockets have buffered at the end."""
_NO_CONNECTION = (errno.EAGAIN, errno.EINTR)
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_BROKEN = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)
"""Errors of accept(2): the others are of a connection that has failed before it was accepted."""


class Listener:
    """Listens on one address; owns its sockets.

    Args:
        url: the address.
        selector: the sockets are registered here, with a callback for when they become readable.
        process: receives the messages.
        now: returns s since 1970 UTC.
        places: of the connections of all addresses.
        spare: descriptor for when there is no other.

    Raises FlowtopError: the address is in use or not local, or the certificate cannot be read.
    """

    def __init__(self, url: ListenUrl, selector: selectors.BaseSelector, process: CollectingProcess,
                 now: Callable[[], float], places: Places, spare: SpareDescriptor) -> None:
        self._url = url
        self._selector = selector
        self._process = process
        self._now = now
        self._context = _tls_context(url) if url.transport == "tls" else None
        self._connections: dict[int, _Connection] = {}
        self._places = places
        self._spare = spare
        self._dropped = 0
        self._numbers = count()
        self._allowed = AllowedSources(url.allow) if url.allow else None
        self.socket = _bound(url)
        self._name = self.address
        self._dtls: DtlsServer | None = None
        self._failed = self._strange = 0
        if url.transport == "dtls":
            try:
                self._dtls = DtlsServer(url, self._send, now)
            except FlowtopError:
                self.socket.close()
                raise
        take = self._take_datagrams if url.transport in _DATAGRAMS else self._accept
        selector.register(self.socket, selectors.EVENT_READ, take)

    @property
    def address(self) -> str:
        """The address in use, with the port chosen by the system."""
        host, port = self.socket.getsockname()[:2]
        return str(ListenUrl(self._url.transport, host, port))

    def close(self) -> None:
        """Close every socket."""
        for connection in list(self._connections.values()):
            self._end(connection)
        if self._dtls is not None:
            self._dtls.close()
        self._selector.unregister(self.socket)
        self.socket.close()

    def take_all(self) -> None:
        """Receive what the sockets have buffered, before the last drain; not for ever where more keeps coming."""
        until_s = self._now() + _LAST_S

        def goes_on() -> bool:
            return not self._process.full and self._now() < until_s

        while self._url.transport not in _DATAGRAMS and goes_on() and self._accept():
            pass
        for connection in list(self._connections.values()):
            while goes_on() and self._read(connection):
                pass
        while self._url.transport in _DATAGRAMS and goes_on() and self._take_datagrams():
            pass

    def count_drops(self) -> None:
        """Count the datagrams that the kernel dropped as the socket's buffer was full; give up handshakes that take too
        long. Call it about once a second."""
        if self._url.transport not in _DATAGRAMS:
            self._places.give_up_overdue(self._now())
            return
        if self._dtls is not None:
            self._dtls.repeat()
            self._settle_dtls()
        info = self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_MEMINFO_DROPS + 1))
        dropped = struct.unpack_from("=I", info, 4 * _MEMINFO_DROPS)[0]
        self._process.count("dropped_by_kernel", (dropped - self._dropped) % (1 << 32))
        self._dropped = dropped

    def _take_datagrams(self) -> int:
        """Receive up to BURST datagrams, for a limited time; returns their number."""
        receive, process, now_s = self.socket.recvfrom, self._process, self._now()
        number, until_s = 0, now_s + _TURN_S
        with suppress(BlockingIOError, ConnectionError, InterruptedError):
            while number < BURST and not process.full and (number % 8 or self._now() < until_s):
                octets, source = receive(_LONGEST)
                number += 1
                if self._allowed is not None and source[0] not in self._allowed:
                    process.count("refused_sources")
                    continue
                session = self._session(source)
                if self._dtls is None:
                    process.receive(octets, session, now_s)
                    continue
                for message in self._dtls.take(octets, source):
                    if process.receive(message, session, now_s):
                        self._dtls.prove(source)
                self._end_sessions(self._dtls)  # before the new session of the same port is heard
        if self._dtls is not None:
            self._settle_dtls()
        return number

    def _session(self, source: Peer) -> Session:
        return Session((self._name, *source[:2]), _plain(source[0]), True, self._url.sampling)

    def _send(self, datagram: bytes, peer: Peer) -> None:
        with suppress(OSError):  # the peer sends its part of the handshake again
            self.socket.sendto(datagram, peer)

    def _settle_dtls(self) -> None:
        """Count handshakes that failed and datagrams that are no DTLS; end the sessions of ended connections."""
        assert self._dtls is not None
        self._process.count("refused_connections", self._dtls.failed - self._failed)
        for _ in range(self._dtls.strange - self._strange):
            self._process.refuse("version")
        self._failed, self._strange = self._dtls.failed, self._dtls.strange
        self._end_sessions(self._dtls)

    def _end_sessions(self, dtls: DtlsServer) -> None:
        while dtls.ended:
            self._process.end(self._session(dtls.ended.pop()))

    # ---- streams

    def _accept(self) -> bool:
        """Accept one connection; returns whether there was one, also one that had failed or was refused."""
        try:
            connection, source = self.socket.accept()
        except OSError as error:
            if error.errno in _BROKEN:
                raise
            if error.errno not in _NO_DESCRIPTOR:
                return error.errno not in _NO_CONNECTION
            if self._places.give_up_newcomer():
                return True  # its descriptor is there for the next
            refused = self._spare.refuse(self.socket)
            self._process.count("refused_connections", refused)
            return refused
        if self._allowed is not None and source[0] not in self._allowed:
            self._process.count("refused_sources")
            connection.close()
            return True
        try:
            connection.setblocking(False)
            if self._context is not None:
                connection.getpeername()  # one that was reset has no peer; SSLSocket would lose its descriptor
                connection = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):  # it was reset before it was accepted
            self._process.count("refused_connections")
            connection.close()
            return True
        number = next(self._numbers)
        mine = _Connection(number, connection, Session((self._name, number), _plain(source[0]), False,
                                                       self._url.sampling))
        mine.shaking_hands = self._context is not None
        deadline = {"deadline_s": self._now() + HANDSHAKE_S} if mine.shaking_hands else {}
        self._places.add(mine.session.key, mine.session.exporter, lambda: self._refuse(mine), **deadline)
        self._connections[number] = mine
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._serve(mine))
        return True

    def _refuse(self, connection: _Connection) -> None:
        """End a connection that has no place, or whose handshake has failed."""
        self._process.count("refused_connections")
        self._end(connection)

    def _serve(self, connection: _Connection) -> None:
        """Read from a connection, up to _TURNS times; more if TLS holds decrypted data, which no selector reports."""
        turns = 0
        while self._read(connection):
            turns += 1
            if turns >= _TURNS and not connection.decrypted:
                return

    def _read(self, connection: _Connection) -> bool:
        """Read once; returns whether more may follow."""
        if connection.number not in self._connections:
            return False
        try:
            if connection.shaking_hands:
                self._shake_hands(connection)
            octets, whole = self._receive(connection.socket)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except ssl.SSLWantWriteError:
            self._selector.modify(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE,
                                  lambda: self._serve(connection))
            return False
        except OSError:
            (self._refuse if connection.shaking_hands else self._end)(connection)
            return False
        if not octets:
            if connection.rest:
                self._process.refuse("length")
            self._end(connection)
            return False
        self._places.use(connection.session.key)
        self._take_stream(connection, octets, whole)
        return True

    def _receive(self, connection: socket.socket) -> tuple[bytes, bool]:
        """Octets of a connection, and whether a message of SCTP ends with them."""
        if self._url.transport != "sctp":
            return connection.recv(_CHUNK), False
        octets, _, flags, _ = connection.recvmsg(_CHUNK)
        return octets, bool(flags & _END_OF_RECORD)

    def _shake_hands(self, connection: _Connection) -> None:
        assert isinstance(connection.socket, ssl.SSLSocket)
        connection.socket.do_handshake()
        connection.shaking_hands = False
        self._places.greeted(connection.session.key)
        if self._url.ca:
            self._places.prove(connection.session.key, Standing.AUTHENTICATED)
        self._selector.modify(connection.socket, selectors.EVENT_READ, lambda: self._serve(connection))

    def _take_stream(self, connection: _Connection, octets: bytes, whole: bool) -> None:
        """Split the stream into messages. An invalid one ends the connection, as the next message cannot be located.

        Of SCTP, which has messages of its own, only the invalid one is lost (RFC 7011 section 10.2.5).

        Args:
            whole: a message of SCTP ends here.
        """
        sctp = self._url.transport == "sctp"
        try:
            messages, connection.rest = split_messages(connection.rest + octets)
        except IpfixDecodeError as refusal:
            self._process.refuse(refusal.fault)
            connection.rest = b""
            if not sctp:
                self._end(connection)
            return
        now_s = self._now()
        for message in messages:
            valid = self._process.receive(message, connection.session, now_s)
            if not valid and not sctp:
                self._end(connection)
            elif valid and not connection.proved:
                connection.proved = True
                self._places.prove(connection.session.key, Standing.EXPORTER)
            if connection.number not in self._connections:
                return
        if whole and connection.rest:
            self._process.refuse("length")
            connection.rest = b""

    def _end(self, connection: _Connection) -> None:
        if self._connections.pop(connection.number, None) is None:
            return
        self._places.remove(connection.session.key)
        self._process.end(connection.session)
        self._selector.unregister(connection.socket)
        with suppress(OSError):
            connection.socket.close()


class _Connection:
    """An exporter's connection: its socket, and the start of an incomplete message."""

    def __init__(self, number: int, connection: socket.socket, session: Session) -> None:
        self.number = number
        self.socket = connection
        self.session = session
        self.rest = b""
        self.shaking_hands = False
        self.proved = False

    @property
    def decrypted(self) -> bool:
        """Whether TLS holds octets that were already read from the network."""
        return isinstance(self.socket, ssl.SSLSocket) and self.socket.pending() > 0


def _plain(address: str) -> str:
    """An IPv4 address of an IPv6 socket in IPv4 notation; link-local addresses without their zone."""
    return address.removeprefix("::ffff:").partition("%")[0]


def _bound(url: ListenUrl) -> socket.socket:
    kind = socket.SOCK_DGRAM if url.transport in _DATAGRAMS else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in url.address else socket.AF_INET
    try:
        made = socket.socket(family, kind, socket.IPPROTO_SCTP if url.transport == "sctp" else 0)
    except OSError as error:
        raise _why(url, error) from error
    try:
        made.setblocking(False)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT does not block the port
        else:
            _enlarge(made)
        made.bind((url.address, url.port))
        if kind == socket.SOCK_STREAM:
            made.listen(64)
    except OSError as error:
        made.close()
        raise _why(url, error) from error
    return made


def _enlarge(made: socket.socket) -> None:
    """Enlarge the receive buffer for bursts, beyond the system's limit if permitted."""
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_OCTETS)
    except OSError:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)


def _why(url: ListenUrl, error: OSError) -> FlowtopError:
    if error.errno == errno.EADDRINUSE:
        return FlowtopError(f"cannot listen on {url}: the port is in use",
                            hint="another collector uses it: see ss -lnp, or choose another port",
                            exit_code=EXIT_UNAVAILABLE)
    if error.errno == errno.EADDRNOTAVAIL:
        return FlowtopError(f"cannot listen on {url}: no such address on this host",
                            hint="see ip addr, or use 0.0.0.0 or [::] for all addresses", exit_code=EXIT_USAGE)
    if error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
        return FlowtopError(f"cannot listen on {url}: this kernel has no SCTP",
                            hint="as root: modprobe sctp (Debian, Ubuntu: part of the kernel or linux-modules-extra); "
                                 "or use tcp://", exit_code=EXIT_UNAVAILABLE)
    if error.errno == errno.EACCES:
        return FlowtopError(f"cannot listen on {url}: permission denied",
                            hint="ports below 1024 need root", exit_code=EXIT_NO_PERMISSION)
    return FlowtopError(f"cannot listen on {url}: {os.strerror(error.errno or 0).lower()}",
                        exit_code=EXIT_UNAVAILABLE)


def _tls_context(url: ListenUrl) -> ssl.SSLContext:
    """TLS 1.2 or later; with `ca`, exporters need a certificate (RFC 7011 section 11.3)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0  # exporters that never read would reset the connection and lose data
    try:
        context.load_cert_chain(url.cert, url.key or None, no_password)
        if url.ca:
            context.load_verify_locations(url.ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FlowtopError(f"cannot use the certificate for {url}: {reason.lower()}",
                           hint="cert, key and ca are PEM files", exit_code=EXIT_USAGE) from error
    return context
