"""A Collecting Process for the caller's own sockets: messages in, a flow table to ask."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from itertools import count

from flowtop.api.metering import LEAST_TICK_S, Dedupe, Metering, table_config
from flowtop.api.table import Table
from flowtop.capture.collector.capture import collected_batch
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.model.exporters import CollectingStatistics
from flowtop.wire.ipfix_decoder import split_messages
from flowtop.wire.ipfix_template import IpfixDecodeError

SourceAddress = tuple[str, int] | tuple[str, int, int, int]
"""Address and port of an exporter, as `socket.recvfrom` gives them; IPv6 may have its flow information and scope."""

_LAST_S = float(1 << 32)
"""The year 2106: later times would overflow sums of nanoseconds."""


class Collector:
    """Collects what exporters send: NetFlow 5, NetFlow 9, IPFIX and sFlow 5. For one thread at a time.

    Whatever arrives is counted, and nothing that arrives raises: see `statistics`. Exporters, Templates, sets that wait
    for one, interfaces and flows are bounded.

    Args:
        idle_timeout: seconds without a record that end a flow.
        active_timeout: seconds after which a flow that goes on is reported.
        linger: seconds for which a flow that has ended stays in the table.
        max_flows: flows alive at once; past it the least recently used end.
        dedupe: what becomes of flows whose packets another exporter or interface has counted too: as of `read`.
        correct_clocks: move times of exporters whose clock is off by two minutes or more.
        clock: seconds since 1970 UTC: when something arrives that says no other time.

    Raises FlowtopError: a timeout or bound that cannot be.
    """

    def __init__(self, *, idle_timeout: float = 90.0, active_timeout: float = 60.0, linger: float = 300.0,
                 max_flows: int = 1_000_000, dedupe: Dedupe = "off",
                 correct_clocks: bool = True, clock: Callable[[], float] = time.time) -> None:
        self._collecting = CollectingProcess(correct_clocks)
        self._metering = Metering(table_config(idle_timeout=idle_timeout, active_timeout=active_timeout, linger=linger,
                                               max_flows=max_flows, dedupe=dedupe))
        self._clock = clock
        self._time_s: float | None = None
        self._given_s: float | None = None
        self._ticked_s = 0.0
        self._waiting = False
        self._numbers = count(1)
        self.table = Table(self._metering, self._update)
        """What was collected so far."""

    def receive(self, datagram: bytes, source: SourceAddress, *, at: float | None = None) -> bool:
        """Take one datagram.

        Args:
            datagram: its payload.
            source: who sent it: address and port tell Transport Sessions apart.
            at: when it arrived, in seconds since 1970 UTC; None: now. What is collected later than it was sent, from a
                file, has its own time so, and the table's time is then that of the newest.

        Returns:
            False: it could not be read, which `statistics` counts.

        Raises FlowtopError: `source` is no address, or `at` no such time.
        """
        address, port = _address(source), source[1]
        return self._take(datagram, Session((address, port), address, datagram=True), at)

    def connection(self, source: SourceAddress) -> Connection:
        """A Transport Session over TCP or TLS, or an IPFIX file: a stream of IPFIX messages.

        Raises FlowtopError: `source` is no address.
        """
        return Connection(self, Session(next(self._numbers), _address(source), datagram=False))

    @property
    def statistics(self) -> CollectingStatistics:
        """What arrived, what was refused and why, what is missing."""
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
        """The time it is, in s since 1970 UTC: never less than before."""
        now_s = self._clock() if at is None else at
        if not 0 <= now_s < _LAST_S:  # as of a NaN
            raise FlowtopError(f"{now_s} is no time", hint="seconds since 1970 UTC", exit_code=EXIT_USAGE)
        self._given_s = at
        if self._time_s is None:
            self._time_s = self._ticked_s = now_s
            self._metering.take(collected_batch(self._collecting, round(now_s * 1e9)), close_tick=False)
        self._time_s = max(self._time_s, now_s)
        return self._time_s

    def _update(self) -> None:
        """Bring the table up to now; before anything has arrived its time has not begun."""
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
    """One stream of IPFIX messages to a Collector. Made by `Collector.connection`."""

    def __init__(self, collector: Collector, session: Session) -> None:
        self._collector = collector
        self._session = session
        self._rest = b""
        self._over = False

    def receive(self, octets: bytes, *, at: float | None = None) -> bool:
        """Take what has been read from the stream, whole messages or not.

        Args:
            octets: what follows what was received before.
            at: as of Collector.receive.

        Returns:
            False: it holds something that is no IPFIX message. There is no telling where the next one begins: the
            connection has to be closed (RFC 7011 section 10.2.5), and whatever else is received is refused.
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
        """It has ended, and its Templates with it; part of a message is refused."""
        if not self._over and self._rest:
            self._collector._refuse("length")
        self._finish()

    def _finish(self) -> None:
        self._over, self._rest = True, b""
        self._collector._end(self._session)


def _address(source: SourceAddress) -> str:
    """An exporter's address: without its zone, and as IPv4 where it came to an IPv6 socket."""
    try:
        address = ipaddress.ip_address(source[0].partition("%")[0])
    except ValueError:
        raise FlowtopError(f"{source[0]!r} is no IP address", hint="an exporter is told by (address, port)",
                           exit_code=EXIT_USAGE) from None
    return str(getattr(address, "ipv4_mapped", None) or address)
