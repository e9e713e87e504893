"""A Collecting Process for the caller's own sockets: takes messages, and gives a flow table to query."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Mapping
from itertools import count

from flowtop.api.metering import LEAST_TICK_S, Dedupe, Metering, table_config
from flowtop.api.table import Table
from flowtop.capture.collector.capture import collected_batch
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.capture.collector.url import LARGEST_SAMPLING
from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.model.exporters import CollectingStatistics
from flowtop.model.tunnel_ports import added_ports
from flowtop.wire.ipfix_decoder import split_messages
from flowtop.wire.ipfix_template import IpfixDecodeError

SourceAddress = tuple[str, int] | tuple[str, int, int, int]
"""Address and port of an exporter, as from `socket.recvfrom`; for IPv6 optionally with flow information and scope."""

_LAST_S = float(1 << 32)
"""The year 2106: later times would overflow sums of nanoseconds."""


class Collector:
    """Collects NetFlow, IPFIX and sFlow 5 from exporters. Use it from one thread at a time.

    All input is counted, also invalid input, which raises nothing: see `statistics`. The numbers of exporters,
    Templates, sets that wait for a Template, interfaces and flows are limited.

    Args:
        idle_timeout: a flow ends after this many seconds without a record.
        active_timeout: a flow that continues is reported after this many seconds.
        linger: a flow that has ended stays in the table for this many seconds.
        max_flows: maximum number of active flows; when there are more, the least recently used ones end.
        dedupe: how to treat flows whose packets another exporter or interface has counted too: see `read`.
        correct_clocks: adjust the times of exporters whose clock is off by two minutes or more.
        clock: gives seconds since 1970 UTC: the arrival time of messages that are received without `at`.
        sampling: N of exporters that sample 1 in N packets and do not report it; what an exporter reports goes before.
            0: records are taken as reported.
        decap: take sampled packets (sFlow, and records that hold a packet) out of tunnels.
        tunnel_ports: with `decap`, UDP ports of "vxlan", "geneve" and "mpls" in addition to the standard ones.

    Raises FlowtopError: a timeout, limit, port or sampling interval out of range.
    """

    def __init__(self, *, idle_timeout: float = 90.0, active_timeout: float = 60.0, linger: float = 300.0,
                 max_flows: int = 1_000_000, dedupe: Dedupe = "off",
                 correct_clocks: bool = True, clock: Callable[[], float] = time.time,
                 sampling: float = 0, decap: bool = False,
                 tunnel_ports: Mapping[int, str] | None = None) -> None:
        if not 0 <= sampling <= LARGEST_SAMPLING:
            raise FlowtopError(f"{sampling} is not a sampling interval", hint="give N of 1 in N packets",
                               exit_code=EXIT_USAGE)
        self._sampling = float(sampling)
        ports = added_ports((label, port) for port, label in (tunnel_ports or {}).items())
        self._collecting = CollectingProcess(correct_clocks, ports if decap else None)
        self._metering = Metering(table_config(idle_timeout=idle_timeout, active_timeout=active_timeout, linger=linger,
                                               max_flows=max_flows, dedupe=dedupe))
        self._clock = clock
        self._time_s: float | None = None
        self._given_s: float | None = None
        self._ticked_s = 0.0
        self._waiting = False
        self._numbers = count(1)
        self.table = Table(self._metering, self._update)
        """The flows collected so far."""

    def receive(self, datagram: bytes, source: SourceAddress, *, at: float | None = None) -> bool:
        """Take one datagram.

        Args:
            datagram: its payload.
            source: address and port of the sender; each source is a Transport Session.
            at: arrival time in seconds since 1970 UTC; None: now. Set it for old datagrams, for example from a file;
                the table's time is then the latest of these times.

        Returns:
            False: it could not be decoded. `statistics` counts it.

        Raises FlowtopError: `source` is not an address, or `at` is out of range.
        """
        address, port = _address(source), source[1]
        return self._take(datagram, Session((address, port), address, True, self._sampling), at)

    def connection(self, source: SourceAddress) -> Connection:
        """A Transport Session over TCP or TLS, or an IPFIX file: a stream of IPFIX messages.

        Raises FlowtopError: `source` is not an address.
        """
        return Connection(self, Session(next(self._numbers), _address(source), False, self._sampling))

    @property
    def statistics(self) -> CollectingStatistics:
        """Counters: received, refused by reason, lost."""
        return self._collecting.statistics()

    def _take(self, octets: bytes, session: Session, at: float | None) -> bool:
        now_s = self._pass_time(at)
        accepted = self._collecting.receive(octets, session, now_s)
        self._waiting = True
        if self._collecting.full or now_s - self._ticked_s >= LEAST_TICK_S:
            self._close_tick()
        return accepted

    def _refuse(self, fault: str) -> None:
        self._collecting.refuse(fault)

    def _end(self, session: Session) -> None:
        self._collecting.end(session)

    def _pass_time(self, at: float | None) -> float:
        """The current time in s since 1970 UTC; it never goes back."""
        now_s = self._clock() if at is None else at
        if not 0 <= now_s < _LAST_S:  # also false for NaN
            raise FlowtopError(f"{now_s} is not a valid time", hint="give seconds since 1970 UTC", exit_code=EXIT_USAGE)
        self._given_s = at
        if self._time_s is None:
            self._time_s = self._ticked_s = now_s
            self._metering.take(collected_batch(self._collecting, round(now_s * 1e9)), close_tick=False)
        self._time_s = max(self._time_s, now_s)
        return self._time_s

    def _update(self) -> None:
        """Advance the table to the current time. Does nothing before the first message."""
        if self._time_s is None:
            return
        now_s = self._pass_time(self._given_s)
        if self._waiting or now_s - self._ticked_s >= LEAST_TICK_S:
            self._close_tick()

    def _close_tick(self) -> None:
        assert self._time_s is not None
        self._metering.take(collected_batch(self._collecting, round(self._time_s * 1e9)), close_tick=True)
        self._ticked_s, self._waiting = self._time_s, False


class Connection:
    """One stream of IPFIX messages to a Collector: see `Collector.connection`."""

    def __init__(self, collector: Collector, session: Session) -> None:
        self._collector = collector
        self._session = session
        self._rest = b""
        self._over = False

    def receive(self, octets: bytes, *, at: float | None = None) -> bool:
        """Take octets that were read from the stream. They need not be whole messages.

        Args:
            octets: the next octets of the stream.
            at: as for Collector.receive.

        Returns:
            False: not an IPFIX message. The start of the next message cannot be found, so the connection has to be
            closed (RFC 7011 section 10.2.5), and all further input is refused.
        """
        if self._over:
            return False
        try:
            messages, self._rest = split_messages(self._rest + octets)
        except IpfixDecodeError as refusal:
            self._collector._refuse(refusal.fault)
            self._finish()
            return False
        for message in messages:
            if not self._collector._take(message, self._session, at):
                self._finish()
                return False
        return True

    def close(self) -> None:
        """End the session and forget its Templates. An incomplete message is counted as refused."""
        if not self._over and self._rest:
            self._collector._refuse("length")
        self._finish()

    def _finish(self) -> None:
        self._over, self._rest = True, b""
        self._collector._end(self._session)


def _address(source: SourceAddress) -> str:
    """An exporter's address without zone; IPv4-mapped IPv6 addresses as IPv4."""
    try:
        address = ipaddress.ip_address(source[0].partition("%")[0])
    except ValueError:
        raise FlowtopError(f"{source[0]!r} is not an IP address", hint="give the exporter as (address, port)",
                           exit_code=EXIT_USAGE) from None
    return str(getattr(address, "ipv4_mapped", None) or address)
