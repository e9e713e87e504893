"""IPFIX over UDP (RFC 7011 section 10.3): messages fit the path MTU, Templates are repeated; and JSON Lines."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Any

import numpy as np

from flowtop.export.context import ExportContext
from flowtop.export.lines import LineSession
from flowtop.export.session import SentCounts, TransportSession
from flowtop.export.transports.resolve import resolve
from flowtop.export.url import ExportUrl
from flowtop.model.record import FLOW_RECORD_DTYPE, FlowRecords, joined
from flowtop.wire.flow_templates import flow_templates

UNKNOWN_MTU_OCTETS = 512
"""Maximum message size if the path MTU is unknown (RFC 7011 section 10.3.3)."""
REPORT_S = 60.0
_IP_MTU_DISCOVER, _IP_PMTUDISC_WANT, _IP_PMTUDISC_DO, _IP_MTU = 10, 1, 2, 14  # linux/in.h: not in Python's socket
_IPV6_MTU_DISCOVER, _IPV6_MTU = 23, 24  # linux/in6.h
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_EXTENDED_ERROR = struct.Struct("=IBBBxII")
"""struct sock_extended_err (linux/errqueue.h): errno, origin, ICMP type, ICMP code, info, data."""
_OF_ICMP = (2, 3)  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6
_VERDICT_S = 0.1
"""At the end: how long to wait for the refusal of the last datagrams."""
_HEADERS = {socket.AF_INET: 20 + 8, socket.AF_INET6: 40 + 8}
_MAX_DATAGRAM = 9_000 - 28
"""Loopback allows 64 KiB, but nfacctd 1.7.7 reads 10,000 octets: use what fits a jumbo frame."""
_SMALLEST_MTU = 296
"""Smallest plausible MTU; smaller values from the kernel are ignored."""
_LEAST_RECORD_OCTETS = 50
_LEAST_LINE_OCTETS = 500
_QUIET_DATAGRAMS = 3
"""This many datagrams in a row without a refusal mean that the collector listens (again)."""


def datagram_socket(family: int, address: tuple[Any, ...], *, fragments: bool = False) -> socket.socket:
    """A socket to one collector that never fragments: the kernel answers EMSGSIZE when the path has become narrower.

    Args:
        fragments: let the kernel send a longer datagram in fragments.

    Raises OSError: there is no way there.
    """
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    discovery = _IP_PMTUDISC_WANT if fragments else _IP_PMTUDISC_DO
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, discovery)
        else:
            made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, discovery)
        made.connect(address)
    except OSError:
        made.close()
        raise
    return made


def path_octets(connected: socket.socket) -> int:
    """Largest message that fits a datagram on the path as it is known now."""
    try:
        if connected.family == socket.AF_INET6:
            mtu = connected.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
        else:
            mtu = connected.getsockopt(socket.IPPROTO_IP, _IP_MTU)
    except OSError:
        return UNKNOWN_MTU_OCTETS
    return min(max(mtu, _SMALLEST_MTU) - _HEADERS[connected.family], _MAX_DATAGRAM)


class UdpTransport:
    """Sends datagrams to one collector.

    Args:
        url: of kind udp or jsonl+udp. A line that is longer than the path MTU is sent in IP fragments.
    """

    def __init__(self, url: ExportUrl) -> None:
        self._url = url
        self._templates = flow_templates(url.profile)
        self._counts = SentCounts()
        self._lines = url.kind == "jsonl+udp"
        self._socket: socket.socket | None = None
        self._unsent: FlowRecords | None = None
        self._quiet = 0

    @property
    def retry_s(self) -> float:
        """Seconds between attempts to resolve and to send."""
        return 5.0

    @property
    def file_octets(self) -> int | None:
        """None: there is no file."""
        return None

    def open(self, context: ExportContext) -> None:
        """Resolve and connect, and send the Templates. Raises OSError, Abandoned."""
        addresses = resolve(self._url.host, self._url.port, socket.SOCK_DGRAM, context)
        for number, address in enumerate(addresses, 1):
            try:
                self._connect(*address)
                break
            except OSError:  # For example, no route to IPv6.
                if number == len(addresses):
                    raise
        self._session: TransportSession | LineSession = LineSession() if self._lines else TransportSession(
            self._templates, self._url.domain, self._counts, biflow=self._url.biflow)
        self._reported_at = context.monotonic()
        self._announce(context)

    def _connect(self, family: socket.AddressFamily, address: tuple[str, int] | tuple[str, int, int, int]) -> None:
        """Connect the socket. Raises OSError."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._socket = datagram_socket(family, address, fragments=self._lines)
        # Each ICMP error waits in a queue then; else the socket keeps the last one only.
        if family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        else:
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)

    def send(self, records: FlowRecords, context: ExportContext) -> None:
        """Send records. Raises OSError, Abandoned; then `abandon` returns those not sent."""
        self._unsent = records
        while self._unsent is not None:
            self._refresh(context)
            self._send_until_refresh(self._session.arranged(self._unsent), context)

    def tick(self, context: ExportContext) -> float:
        """Send Templates when they are due, and reports."""
        self._note_refusals(context)
        self._refresh(context)
        now = context.monotonic()
        return max(0.0, min(self._announced_at + self._url.refresh_s, self._reported_at + REPORT_S) - now)

    def finish(self, context: ExportContext) -> None:
        """Send the last reports."""
        self._write(self._session.reports(context, self.max_octets()), context)
        assert self._socket is not None
        if context.wait(self._socket, write=False, timeout_s=_VERDICT_S):
            self._note_refusals(context)

    def abandon(self) -> tuple[FlowRecords, int]:
        """Close; returns the unsent records of the last `send`, and 0."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        unsent, self._unsent = self._unsent, None
        return np.empty(0, FLOW_RECORD_DTYPE) if unsent is None else unsent, 0

    def max_octets(self) -> int:
        """Maximum message size for the currently known path MTU."""
        assert self._socket is not None
        return path_octets(self._socket)

    def _refresh(self, context: ExportContext) -> None:
        """Send Templates by time and by packets, changed interface tables, and reports once a minute."""
        now = context.monotonic()
        if now - self._announced_at >= self._url.refresh_s or self._since_announced >= self._url.refresh_packets:
            self._announce(context)
        self._write(self._session.changed_interfaces(context, self.max_octets()), context)
        if now - self._reported_at >= REPORT_S:
            self._reported_at = now
            self._write(self._session.reports(context, self.max_octets()), context)

    def _announce(self, context: ExportContext) -> None:
        self._announced_at, self._since_announced = context.monotonic(), 0
        self._write(self._session.announcement(context, self.max_octets()), context)
        self._since_announced = 0
        if not self._lines:
            context.announced()

    def _send_until_refresh(self, records: FlowRecords, context: ExportContext) -> None:
        """Send until Templates are due or the path MTU has changed; `_unsent` has the rest."""
        # Encode only what may be sent until then: the rest would be encoded again.
        least = _LEAST_LINE_OCTETS if self._lines else _LEAST_RECORD_OCTETS
        datagrams = max(1, self._url.refresh_packets - self._since_announced)
        most = datagrams * max(self.max_octets() // least, 2) // 2 * 2
        records, later = records[:most], records[most:]
        flows = self._session.flows(records, context, self.max_octets())
        try:
            self._write(flows.preceding, context)
        except OSError:  # a new session begins
            self._session.not_sent(flows, 0, context)
            raise
        sent = octets = 0
        try:
            for message in flows.messages:
                if self._since_announced >= self._url.refresh_packets:
                    break
                self._datagram(message, context)
                sent, octets = sent + 1, octets + len(message)
        except OSError as error:
            if error.errno != errno.EMSGSIZE or self.max_octets() >= len(flows.messages[sent]):
                raise
        finally:
            context.wrote(sent, octets)
            unsent = (self._session.not_sent(flows, sent, context) if sent < len(flows.messages)
                      else records[:0])
            unsent = joined((unsent, later)) if len(later) else unsent
            self._unsent = unsent if len(unsent) else None

    def _write(self, messages: list[bytes], context: ExportContext) -> None:
        """Send messages that are not Flow Records. Raises OSError, also EMSGSIZE, after which a new session begins."""
        for message in messages:
            self._datagram(message, context)
        context.wrote(len(messages), sum(map(len, messages)))

    def _datagram(self, message: bytes, context: ExportContext) -> None:
        """Send one datagram. If it gets the ICMP error of an earlier one, it is sent again and the refusal is noted."""
        assert self._socket is not None
        self._since_announced += 1
        for attempt in range(3):
            try:
                self._socket.send(message)
            except OSError as error:
                if self._note_refusals(context) and attempt < 2:
                    continue
                if error.errno != errno.ENOBUFS or attempt == 2:
                    raise
                context.wait(None, write=False, timeout_s=0.01)
            else:
                break
        self._quiet += 1
        if self._quiet == _QUIET_DATAGRAMS + 1:  # the refused one was counted too
            context.refused("")

    def _note_refusals(self, context: ExportContext) -> int:
        """Count the datagrams that were refused since the last call; returns how many. A send's error is theirs."""
        assert self._socket is not None
        count, why = 0, 0
        while True:
            try:
                _, ancillary, _, _ = self._socket.recvmsg(0, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
            except OSError:  # there are no more
                break
            for level, kind, octets in ancillary:
                if (level, kind) not in ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)):
                    continue
                number, origin, *_ = _EXTENDED_ERROR.unpack_from(octets)
                if origin in _OF_ICMP and number != errno.EMSGSIZE:
                    count, why = count + 1, number
        if count:
            self._quiet = 0
            context.refused("port unreachable" if why == errno.ECONNREFUSED else os.strerror(why).lower(), count)
        return count
