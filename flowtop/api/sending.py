"""Sends records of the caller's Templates to a collector: an ExportSession with a socket."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterable
from types import TracebackType

from flowtop.api.ipfix import ExportSession
from flowtop.api.templates import Values
from flowtop.errors import EXIT_UNAVAILABLE, EXIT_USAGE, FlowtopError
from flowtop.export.opening import tls_context
from flowtop.export.transports.udp import datagram_socket, path_octets
from flowtop.export.url import ExportUrl, parse_export_url
from flowtop.wire.ipfix_template import Template

_ATTEMPTS = 3
_CLOSE_S = 1.0


class Sender:
    """Sends IPFIX to one collector, in the caller's thread: `send` returns when the kernel has accepted everything.

    Over UDP messages fit the path MTU, and Templates are sent repeatedly. Over TCP and TLS a lost connection raises;
    `reconnect` then starts a new session, and the caller has to send again what may be lost.

    Args:
        url: `ipfix://HOST[:PORT]` (UDP), `ipfix+tcp://`, `ipfix+tls://`, with these options of the command
            line's `-e`: domain, refresh, refresh-packets, ca, cert, key, servername.
        templates: sent at once; others are sent before their first records.
        timeout_s: for connecting, and for a collector that does not read.

    Raises FlowtopError: not the URL of a collector, or the collector cannot be reached.
    """

    def __init__(self, url: str, templates: Iterable[Template] = (), *, timeout_s: float = 10.0) -> None:
        self._url = parse_export_url(url)
        if self._url.kind not in ("udp", "tcp", "tls"):
            raise FlowtopError(f"{url} is not the URL of a collector", exit_code=EXIT_USAGE,
                               hint="use ipfix://HOST, ipfix+tcp://HOST or ipfix+tls://HOST; write files yourself")
        self._timeout_s = timeout_s
        self._tls = tls_context(self._url) if self._url.kind == "tls" else None
        self.session = ExportSession(domain=self._url.domain, datagram=self._url.kind == "udp",
                                     refresh_s=self._url.refresh_s, refresh_messages=self._url.refresh_packets)
        """The session that makes the messages: for its sequence number and statistics."""
        self.refused = 0
        """Datagrams that the collector's host refused because nothing listens at the port."""
        self._socket = self._connected()
        self._begin(templates)

    def send(self, template: Template, records: Iterable[Values]) -> int:
        """Send records, and Templates first when they are due: see ExportSession.messages.

        Returns:
            Number of messages sent.

        Raises:
            EncodeError: a Template or a value cannot be encoded; nothing was sent.
            FlowtopError: the connection is lost or the collector does not read; some messages may have arrived.
        """
        self._follow_path()
        messages = self.session.messages(template, records)
        self._write(messages)
        return len(messages)

    def reconnect(self) -> None:
        """Start a new session over a new connection. Raises FlowtopError: the collector cannot be reached."""
        self._socket.close()
        self.session = self.session.renewed()
        self._socket = self._connected()
        self._begin(())

    def close(self) -> None:
        """End the session; over TCP wait up to a second for the collector to read the rest."""
        try:
            if self._url.kind == "tcp":
                self._socket.shutdown(socket.SHUT_WR)
                self._socket.settimeout(_CLOSE_S)
                self._socket.recv(1)
            elif isinstance(self._socket, ssl.SSLSocket):
                self._socket.settimeout(_CLOSE_S)
                self._socket.unwrap()
        except OSError:
            pass  # the session ends in any case
        finally:
            self._socket.close()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _begin(self, templates: Iterable[Template]) -> None:
        """Send Templates; close the socket if that fails."""
        try:
            self._follow_path()
            for template in templates:
                self.session.add(template)
            self._write(self.session.announcement())
        except FlowtopError:
            self._socket.close()
            raise

    def _follow_path(self) -> None:
        """Limit datagrams to the current path MTU."""
        if self.session.datagram:
            self.session.max_octets = path_octets(self._socket)

    def _connected(self) -> socket.socket:
        try:
            return self._any_address()
        except (OSError, UnicodeError) as error:  # UnicodeError: not a valid host name
            raise _lost(self._url, error) from error

    def _any_address(self) -> socket.socket:
        url = self._url
        if url.kind == "udp":
            addresses = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_DGRAM)
            for number, (family, _, _, _, address) in enumerate(addresses, 1):
                try:
                    return datagram_socket(family, address)
                except OSError:  # no route, for example: to IPv6 where there is none
                    if number == len(addresses):
                        raise
        connection = socket.create_connection((url.host, url.port), self._timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return connection
        try:
            return self._tls.wrap_socket(connection, server_hostname=url.servername or url.host)
        except BaseException:
            connection.close()
            raise

    def _write(self, messages: Iterable[bytes]) -> None:
        for message in messages:
            try:
                self._datagram(message) if self.session.datagram else self._socket.sendall(message)
            except OSError as error:
                raise _lost(self._url, error) from error

    def _datagram(self, message: bytes) -> None:
        """Send one datagram; try again when the call only returned the ICMP error of an earlier datagram."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._socket.send(message)
            except ConnectionRefusedError:
                self.refused += 1
                if attempt == _ATTEMPTS:
                    raise
            else:
                return


def _lost(url: ExportUrl, error: OSError | UnicodeError) -> FlowtopError:
    reason = (getattr(error, "strerror", "") or str(error)).lower()
    hint = ("the path MTU became smaller: send again" if getattr(error, "errno", 0) == errno.EMSGSIZE
            else "is the collector running, and the port open?")
    return FlowtopError(f"cannot send to {url.host} port {url.port}: {reason}", hint=hint, exit_code=EXIT_UNAVAILABLE)
