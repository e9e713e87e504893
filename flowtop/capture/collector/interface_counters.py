"""Counters of interfaces that sFlow agents report: the last of each interface, and its rates."""

from __future__ import annotations

from typing import Any

from flowtop.capture.collector.points import ObservationPoints
from flowtop.capture.collector.shares import Shares
from flowtop.model.exporters import InterfaceCounters
from flowtop.wire.sflow import SflowDatagram
from flowtop.wire.sflow_records import COUNTER_STRUCTURES, INTERFACE, PORT_NAME, ShortRecordError, record_values

MAX_INTERFACES = 16_384
"""Limit of interfaces, since a hostile sender can name many; the least recently reported are left out."""
_DUPLEX = {1: "full", 2: "half", 3: "in", 4: "out"}
_UNKNOWN_U4, _UNKNOWN_U8 = 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
_ADMIN_UP, _OPER_UP = 1, 2

_Key = tuple[str, int, int]
"""Agent, sub-agent, interface."""


class InterfaceBook:
    """The last counters of each interface.

    Attributes:
        shares: which of them are kept.
    """

    def __init__(self) -> None:
        self.shares: Shares[_Key] = Shares(MAX_INTERFACES)
        self._last: dict[_Key, InterfaceCounters] = {}
        self._uptime_ms: dict[_Key, int] = {}
        self._rows: tuple[InterfaceCounters, ...] | None = ()

    def note(self, datagram: SflowDatagram, points: ObservationPoints) -> int:
        """Take the counter samples of a datagram, and names of interfaces; returns the number of records too short."""
        short = 0
        for sample in datagram.counters:
            name = ""
            for record in sorted(sample.records, key=lambda record: record[0] != PORT_NAME):
                try:
                    if record[0] == PORT_NAME:
                        name = record_values(COUNTER_STRUCTURES, record)[1]["name"].strip()[:64]
                        if name and sample.source <= _UNKNOWN_U4:  # of kind 0: an interface
                            points.names.store("interface", datagram.agent, datagram.sub_agent, sample.source, name)
                    elif record[0] == INTERFACE:
                        self._see(datagram, record_values(COUNTER_STRUCTURES, record)[1], name)
                except ShortRecordError:
                    short += 1
        return short

    def _see(self, datagram: SflowDatagram, values: dict[str, Any], name: str) -> None:
        key = datagram.agent, datagram.sub_agent, values["ifIndex"]
        before = self._last.get(key)
        if before is not None:
            self.shares.use(key)
        elif (gone := self.shares.add(key, datagram.agent)) is not None:
            del self._last[gone], self._uptime_ms[gone]
        passed_ms = datagram.uptime_ms - self._uptime_ms.get(key, datagram.uptime_ms)
        received, sent = (_known(values[name], _UNKNOWN_U8) for name in ("inOctets", "outOctets"))
        self._last[key] = InterfaceCounters(
            *key, name=name or (before.name if before else ""), type=values["ifType"], speed_bps=values["speed"],
            duplex=_DUPLEX.get(values["direction"], ""), admin_up=bool(values["status"] & _ADMIN_UP),
            oper_up=bool(values["status"] & _OPER_UP),
            in_octets=received, in_packets=_packets(values, "in"), in_discards=_known(values["inDiscards"]),
            in_errors=_known(values["inErrors"]),
            out_octets=sent, out_packets=_packets(values, "out"), out_discards=_known(values["outDiscards"]),
            out_errors=_known(values["outErrors"]),
            in_rate_bps=_rate(before.in_octets, received, passed_ms) if before else None,
            out_rate_bps=_rate(before.out_octets, sent, passed_ms) if before else None)
        self._uptime_ms[key] = datagram.uptime_ms
        self._rows = None

    def rows(self) -> tuple[InterfaceCounters, ...]:
        """The last counters of all interfaces, sorted by exporter and number."""
        if self._rows is None:
            self._rows = tuple(counters for _, counters in sorted(self._last.items()))
        return self._rows


def _known(value: int, unknown: int = _UNKNOWN_U4) -> int | None:
    """The counter; None for the highest number, which means that it is not counted."""
    return None if value == unknown else value


def _packets(values: dict[str, Any], way: str) -> int | None:
    """Packets of all kinds that are counted; None if none is."""
    counts = [_known(values[f"{way}{kind}Packets"]) for kind in ("Unicast", "Multicast", "Broadcast")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _rate(was: int | None, now: int | None, passed_ms: int) -> float | None:
    """Bits per second; None if unknown, or if the agent has restarted."""
    if was is None or now is None or now < was or passed_ms <= 0:
        return None
    return round((now - was) * 8000 / passed_ms, 1)
