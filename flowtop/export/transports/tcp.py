"""IPFIX over TCP (RFC 7011 section 10.4) and TLS (section 11.1), and JSON Lines over TCP.

What a broken connection may have lost is sent again. TCP acknowledges what the collector's kernel has received, not
what the collector has read. The unread amount is limited by about the widest window that the kernel has offered. So the
newest messages of that size are kept, regardless of age; if the connection breaks, their records are sent again. If a
collector closes in order, it had read everything: with unread data, its kernel would reset the connection (RFC 2525
section 2.17).
"""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
import struct
import termios
from collections import deque
from dataclasses import dataclass

import numpy as np

from flowtop.export.context import Abandoned, ExportContext
from flowtop.export.lines import LineSession
from flowtop.export.session import SentCounts, TransportSession
from flowtop.export.transports.resolve import Address, resolve
from flowtop.export.url import ExportUrl
from flowtop.model.record import FLOW_RECORD_DTYPE, FlowRecords, joined
from flowtop.wire.flow_templates import flow_templates

CONNECT_S = 10.0
"""Time limit of the connection, and of the TLS handshake."""
REPORT_S = 60.0
UNREAD_S = 5.0
"""A collector that closes in order may not have stored what it read within this time."""
UNREAD_OCTETS = 16 * 1024 * 1024
"""Limit of kept messages that the collector's kernel has acknowledged."""
_LEAST_UNREAD_OCTETS = 256 * 1024
_SND_WND = 228  # Of tcpi_snd_wnd in struct tcp_info (linux/tcp.h), from Linux 5.4 on.
_CHATTER_READS = 64
_CLOSE_S = 1.0
"""At the end: how long a collector may take to read acknowledged data and close."""
_VERDICT_S = 0.3
_BLOCKED_S = 1.0
_CHECK_S = 1.0
_MESSAGE_OCTETS = 16_384  # One TLS record; longer messages gain nothing over TCP.


@dataclass(slots=True)
class _Kept:
    """Flow Records of one message: its end in the stream, and the time when it was acknowledged."""

    records: FlowRecords
    end: int
    taken_at: float | None = None


class TcpTransport:
    """A TCP connection to one collector, with TLS if there is a context.

    Args:
        url: of kind tcp, tls or jsonl+tcp.
        tls: context with certificates loaded; None: plain TCP. There is no fall-back from TLS.
        unread_s, unread_octets: see UNREAD_S and UNREAD_OCTETS.
    """

    def __init__(self, url: ExportUrl, tls: ssl.SSLContext | None = None, *, unread_s: float = UNREAD_S,
                 unread_octets: int = UNREAD_OCTETS) -> None:
        if (url.kind == "tls") != (tls is not None):
            raise ValueError(f"{url.kind} with{'out' if tls is None else ''} a TLS context")
        self._url = url
        self._tls = tls
        self._unread_s = unread_s
        self._unread_octets = unread_octets
        self._templates = flow_templates(url.profile)
        self._counts = SentCounts()
        self._socket: socket.socket | None = None
        self._kept: deque[_Kept] = deque()
        self._unsent: FlowRecords | None = None
        self._written = 0
        self._window = 0

    @property
    def retry_s(self) -> float:
        """Seconds between attempts to connect."""
        return self._url.reconnect_s

    @property
    def file_octets(self) -> int | None:
        """None: there is no file."""
        return None

    def open(self, context: ExportContext) -> None:
        """Connect to the first address that answers, and send the Templates. Raises OSError, Abandoned."""
        addresses = resolve(self._url.host, self._url.port, socket.SOCK_STREAM, context)
        for number, address in enumerate(addresses, 1):
            try:
                self._connect(address, context)
                break
            except OSError:
                self._close()
                if number == len(addresses):
                    raise
        if self._tls is not None:
            self._handshake(self._tls, context)
        self._session = self._begun_session()
        self._written = self._window = 0
        self._reported_at = context.monotonic()
        self._write_all(self._session.announcement(context, _MESSAGE_OCTETS), context)
        if self._url.kind != "jsonl+tcp":
            context.announced()

    def _begun_session(self) -> TransportSession | LineSession:
        if self._url.kind == "jsonl+tcp":
            return LineSession()
        return TransportSession(self._templates, self._url.domain, self._counts, biflow=self._url.biflow)

    def send(self, records: FlowRecords, context: ExportContext) -> None:
        """Send records. Raises OSError, Abandoned; then `abandon` returns them."""
        self._unsent = records
        self._look_for_close(context.monotonic())
        self._refresh(context)
        flows = self._session.flows(records, context, _MESSAGE_OCTETS)
        self._write_all(flows.preceding, context)
        start = 0
        for message, count in zip(flows.messages, flows.record_counts, strict=True):
            part = flows.records[start:start + count]
            self._unsent = flows.records[start:]
            self._write(message, context)
            start += count
            # From here on they are in `_kept`.
            self._kept.append(_Kept(part, self._written))
            self._unsent = None
        self._forget_taken(context.monotonic())

    def tick(self, context: ExportContext) -> float:
        """Check whether the collector has closed, and report once a minute."""
        self._look_for_close(context.monotonic())
        self._refresh(context)
        self._forget_taken(context.monotonic())
        return _CHECK_S

    def finish(self, context: ExportContext) -> None:
        """Send the last reports, then wait until the collector has closed, or its kernel has acknowledged everything.

        Raises OSError, Abandoned: not everything arrived in time.
        """
        assert self._socket is not None
        self._write_all(self._session.reports(context, _MESSAGE_OCTETS), context)
        if isinstance(self._socket, ssl.SSLSocket):
            # No unwrap, which would wait for an answer: only the close_notify is required.
            self._close_notify(self._socket)
        self._socket.shutdown(socket.SHUT_WR)
        deadline = context.monotonic() + _CLOSE_S
        try:
            while context.monotonic() < deadline or self._untaken():
                if context.wait(self._socket, write=False, timeout_s=0.05) and self._closed_by_peer():
                    break
        except Abandoned:
            if self._untaken():
                raise
        if self._untaken():
            raise ConnectionResetError("the collector closed the connection before it had received everything")
        self._kept.clear()
        self._close()

    def abandon(self) -> tuple[FlowRecords, int]:
        """Close; returns records that may not have been read, then unwritten ones, and the number of the former."""
        self._close()
        parts = [kept.records for kept in self._kept]
        written = sum(map(len, parts))
        if self._unsent is not None:
            parts.append(self._unsent)
        self._kept.clear()
        self._unsent = None
        return joined(parts) if parts else np.empty(0, FLOW_RECORD_DTYPE), written

    def _connect(self, address: Address, context: ExportContext) -> None:
        family, where = address
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket.connect(where)
        except BlockingIOError:
            if not context.wait(self._socket, write=True, timeout_s=CONNECT_S):
                raise TimeoutError(f"no answer from {self._url.host} in {CONNECT_S:.0f} s") from None
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, f"cannot connect to {where[0]} port {where[1]}: {os.strerror(error)}")

    def _handshake(self, tls: ssl.SSLContext, context: ExportContext) -> None:
        """Do the TLS handshake.

        Raises OSError: the server's certificate is invalid, it refuses ours, or it does not use TLS. Raises Abandoned.
        """
        assert self._socket is not None
        connection = tls.wrap_socket(self._socket, server_hostname=self._url.servername or self._url.host,
                                     do_handshake_on_connect=False)
        self._socket = connection
        deadline = context.monotonic() + CONNECT_S
        while context.monotonic() < deadline:
            try:
                connection.do_handshake()
            except ssl.SSLWantReadError:
                context.wait(connection, write=False, timeout_s=max(0.0, deadline - context.monotonic()))
            except ssl.SSLWantWriteError:
                context.wait(connection, write=True, timeout_s=max(0.0, deadline - context.monotonic()))
            except ssl.SSLCertVerificationError as error:
                raise OSError(error.errno, f"the collector's certificate is invalid: {error.verify_message}") from error
            except ssl.SSLError as error:
                raise _tls_error(error) from error
            else:
                # In TLS 1.3 our certificate is checked after the handshake: a ticket means accepted, an alert refused.
                if context.wait(connection, write=False, timeout_s=_VERDICT_S):
                    self._look_for_close(context.monotonic())
                return
        raise TimeoutError(f"no TLS handshake with {self._url.host} in {CONNECT_S:.0f} s")

    def _refresh(self, context: ExportContext) -> None:
        self._write_all(self._session.changed_interfaces(context, _MESSAGE_OCTETS), context)
        if context.monotonic() - self._reported_at >= REPORT_S:
            self._reported_at = context.monotonic()
            self._write_all(self._session.reports(context, _MESSAGE_OCTETS), context)

    def _write_all(self, messages: list[bytes], context: ExportContext) -> None:
        for message in messages:
            self._write(message, context)

    def _write(self, message: bytes, context: ExportContext) -> None:
        """Write one message completely, even if the collector does not read for long. Raises OSError, Abandoned."""
        assert self._socket is not None
        view, since, blocked = memoryview(message), context.monotonic(), False
        while view:
            try:
                view = view[self._socket.send(view):]
                continue
            except (BlockingIOError, ssl.SSLWantWriteError):
                ready = context.wait(self._socket, write=True, timeout_s=_BLOCKED_S)
            except ssl.SSLWantReadError:
                ready = context.wait(self._socket, write=False, timeout_s=_BLOCKED_S)
            if not ready and not blocked and context.monotonic() - since >= _BLOCKED_S:
                blocked = True
                context.blocked(True)
        if blocked:
            context.blocked(False)
        self._written += len(message)
        context.wrote(1, len(message))

    def _untaken(self) -> int:
        """Octets that the collector's kernel has not acknowledged (with TLS: of its records, a little more)."""
        assert self._socket is not None
        return int(struct.unpack("i", fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4)))[0])

    def _forget_taken(self, now: float) -> None:
        """Drop messages that are further back than the collector's kernel can hold unread."""
        taken = self._written - self._untaken()
        for kept in reversed(self._kept):
            if kept.taken_at is not None:
                break
            if kept.end <= taken:
                kept.taken_at = now
        self._window = max(self._window, self._offered_window())
        held = min(max(2 * self._window, _LEAST_UNREAD_OCTETS), self._unread_octets)
        while self._kept and self._kept[0].end <= taken - held:
            self._kept.popleft()

    def _offered_window(self) -> int:
        """The window offered by the collector's kernel; if ours does not report it, the maximum."""
        assert self._socket is not None
        facts = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        if len(facts) < _SND_WND + 4:
            return self._unread_octets
        return int(struct.unpack_from("I", facts, _SND_WND)[0])

    def _forget_read(self, now: float) -> None:
        """The collector has closed in order: drop messages that were acknowledged long enough ago."""
        while self._kept and (taken_at := self._kept[0].taken_at) is not None and now - taken_at >= self._unread_s:
            self._kept.popleft()

    def _look_for_close(self, now: float) -> None:
        if self._closed_by_peer():
            self._forget_read(now)
            raise ConnectionResetError("the collector closed the connection")

    def _closed_by_peer(self) -> bool:
        """Whether the other side has closed; data from it is dropped. Raises OSError: connection reset."""
        assert self._socket is not None
        try:
            # Read a limited amount; the rest is read next time.
            return any(not self._socket.recv(4096) for _ in range(_CHATTER_READS))
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except ssl.SSLEOFError:
            return True
        except ssl.SSLError as error:
            raise _tls_error(error) from error

    @staticmethod
    def _close_notify(connection: ssl.SSLSocket) -> None:
        try:
            connection.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError):
            return  # Sent; there may be no answer.

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _tls_error(error: ssl.SSLError) -> OSError:
    return OSError(error.errno, f"TLS failed: {(error.reason or str(error)).lower().replace('_', ' ')}")
