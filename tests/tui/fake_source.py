"""A PageSource of fixed flows: pages come when the test says so, sorted in plain Python, on a clock that stands."""

from __future__ import annotations

import ipaddress
import math
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from flowtop.errors import FlowtopError
from flowtop.model.exporters import CollectingStatistics
from flowtop.model.kinds import Kind
from flowtop.model.record import SourceState
from flowtop.model.rows import FlowRow
from flowtop.query.query import Books, Details, Kept, Page, Query, SelfUsage, Traffic
from flowtop.text.lookups import Lookups
from flowtop.tui.source import PageListener
from tests.tui.fake_biflows import WAY_FIELDS, biflow_id, biflows, way_value
from tests.tui.fake_filter import passes
from tests.tui.fake_groups import grouped

START_MS = 1_767_225_600_000
"""2026-01-01 00:00:00 UTC."""

INTERFACES = {1: "lo", 2: "eth0", 3: "wg0", 4: "eth0.20"}
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
IN, OUT = 0, 1

SORT_FIELDS: dict[str, Callable[[FlowRow], Any]] = {
    "exporter": lambda row: row.ifindex,
    "domain": lambda row: row.ifindex,
    "interface": lambda row: row.ifindex,
    "direction": lambda row: row.direction,
    "vlan": lambda row: (row.vlan_id, row.customer_vlan_id),
    "tunnel": lambda row: row.tunnel,
    "vni": lambda row: row.tunnel_id,
    "protocol": lambda row: row.protocol,
    "source": lambda row: (row.ip_version, row.source_address, row.source_port),
    "destination": lambda row: (row.ip_version, row.destination_address, row.destination_port),
    "dscp": lambda row: row.tos >> 2,
    "flags": lambda row: row.tcp_control_bits,
    "rate": lambda row: row.octet_rate,
    "rate_10s": lambda row: row.octet_rate_10s,
    "rate_60s": lambda row: row.octet_rate_60s,
    "peak": lambda row: row.octet_rate_peak,
    "pps": lambda row: row.packet_rate,
    "bytes": lambda row: row.octet_total,
    "packets": lambda row: row.packet_total,
    "flows": lambda row: row.flows,
    "age": lambda row: row.age_s,
    "rtt": lambda row: row.rtt_us,
    "retransmits": lambda row: row.retransmitted,
    "outoforder": lambda row: row.out_of_order,
    "cwnd": lambda row: row.congestion_window,
    "ttl": lambda row: row.ttl,
    "state": lambda row: (bool(row.end_reason), row.duplicate, row.closing),
}
"""How this fake orders each column of the registry; a test fails when one is missing."""
SORT_FIELDS |= {f"{column_id}_{way}": partial(way_value, column_id=f"{column_id}_{way}")
                for column_id in WAY_FIELDS for way in ("forward", "reverse")}


def flow(flow_id: int, source: str, destination: str, ports: tuple[int, int] = (0, 0), *, protocol: int = TCP,
         direction: int = IN, ifindex: int = 2, rate: float = 0.0, octets: int = 0, age_s: float = 1.0,
         **other: Any) -> FlowRow:
    """A row: addresses as text, `rate` in octets/s, the rest worked out from these unless given in `other`."""
    addresses = [ipaddress.ip_address(text) for text in (source, destination)]
    packed = [address.packed.ljust(16, b"\0") for address in addresses]
    values: dict[str, Any] = {
        "flow_id": flow_id, "source_address": packed[0], "destination_address": packed[1], "source_port": ports[0],
        "destination_port": ports[1], "protocol": protocol, "ip_version": addresses[0].version, "kind": 0,
        "direction": direction, "vlan_id": 0, "customer_vlan_id": 0, "ifindex": ifindex,
        "source_mac": bytes.fromhex("02000000000a"), "destination_mac": bytes.fromhex("02000000000b"),
        "tcp_control_bits": 0b11010 if protocol == TCP else 0, "tos": 0, "ttl": 64, "end_reason": 0,
        "closing": False, "duplicate": False, "packet_delta": int(rate / 900), "octet_delta": int(rate),
        "packet_total": max(1, octets // 900), "octet_total": octets, "octet_rate": rate,
        "octet_rate_10s": rate * 0.9, "octet_rate_60s": rate * 0.7, "octet_rate_peak": rate * 1.6,
        "packet_rate": rate / 900, "packet_rate_10s": rate / 1000, "packet_rate_60s": rate / 1300,
        "start_ms": START_MS - int(age_s * 1000), "end_ms": START_MS, "age_s": age_s, "idle_s": 0.2,
    }
    if protocol == TCP and direction == OUT:  # a local socket's
        values |= {"rtt_us": 900 + flow_id * 7919 % 90_000, "congestion_window": 10 + flow_id % 7,
                   "retransmitted": flow_id % 5 // 4 * flow_id}
    return FlowRow(**{**values, **other})


def random_flows(count: int, seed: int = 7) -> list[FlowRow]:
    """`count` flows with ids from 1, of which no two have the same rate."""
    dice = random.Random(seed)
    rates = dice.sample(range(100, 100 + 40 * count), count)
    return [
        flow(index + 1, f"198.51.100.{dice.randrange(1, 255)}", f"10.0.{dice.randrange(4)}.{dice.randrange(1, 255)}",
             (dice.choice((22, 53, 80, 443, 8080)), dice.randrange(32768, 61000)),
             protocol=dice.choice((TCP, TCP, UDP)), direction=dice.choice((IN, OUT)), rate=float(rates[index]),
             octets=rates[index] * dice.randrange(1, 500), age_s=float(dice.randrange(1, 4000)))
        for index in range(count)
    ]


class FakeSource:
    """Answers from a list of flows that the test may change between ticks.

    Args:
        flows: what is in the table.
        silent: answer nothing until `tick` (so that a test sees what is on screen meanwhile).
        fail: raised by `start`.
    """

    def __init__(self, flows: Iterable[FlowRow] = (), *, silent: bool = False,
                 fail: FlowtopError | None = None) -> None:
        self.flows = list(flows)
        self.silent = silent
        self.asked: list[Query] = []
        self.stopped = 0
        self.ticks = 0
        self.books = Books(
            observed_packets=12_345_678, observed_octets=9_876_543_210, accounted_packets=12_345_666,
            accounted_octets=9_876_542_000, ignored_packets=12, ignored_octets=1_210, duplicate_packets=3_201,
            duplicate_octets=2_900_000, ignored_by_kind=(12, 0, 0, 0), interface_packets=12_345_678, coverage=1.0,
        )
        self.attached: Sequence[str] = ("eth0", "eth0.20", "wg0")
        self.interfaces = dict(INTERFACES)
        self.capture_filter = ""
        self.source: SourceState | None = None
        self.collecting: CollectingStatistics | None = None
        self.egress = _traffic(51_500_000.0, (9, 21, 40, 52, 63, 55, 38, 30, 24, 18, 29, 51))
        self.ingress = _traffic(151_300_000.0, (60, 70, 90, 81, 99, 120, 151, 143, 122, 130, 149, 151))
        self.listener: PageListener | None = None
        self._last_details: Details | None = None
        self._fail = fail
        self._holds: dict[int, dict[int, int]] = {}
        self._frozen: tuple[int, tuple[list[FlowRow], int, Books]] | None = None
        self._past: dict[int, tuple[list[FlowRow], Books]] = {}
        self._mark: tuple[int, int, dict[int, FlowRow]] | None = None
        self.leave = threading.Event()
        self.leave.set()
        self.keep_ticks = 300
        self.keep_flows = 1_000
        self.linger_s = 10.0
        self.openers: set[int] = set()
        """flow_ids of those that sent a SYN without ACK."""

    def start(self, listener: PageListener) -> None:
        """Keep the listener; pages come with `tick`."""
        if self._fail is not None:
            raise self._fail
        self.listener = listener

    def ask(self, query: Query) -> None:
        """Answer at once, as the pipeline does once it has ticked."""
        self.asked.append(query)
        if self.ticks and not self.silent:
            self._send()

    def stop(self) -> None:
        """Count it; when `leave` lets it."""
        assert self.leave.wait(60)
        self.stopped += 1

    def tick(self, flows: Iterable[FlowRow] | None = None) -> None:
        """A second passes; the flows may be others now."""
        self.flows = self.flows if flows is None else list(flows)
        self.ticks += 1
        self.books = replace(self.books, observed_packets=self.books.observed_packets + 1_000,
                             accounted_packets=self.books.accounted_packets + 1_000)
        self._past[self.ticks] = self.flows, self.books
        for tick in [tick for tick in self._past if tick <= self.ticks - self.keep_ticks]:
            del self._past[tick]
        self._send()

    def page(self, query: Query) -> Page:
        """The answer to a query now, of the past when it asks for that."""
        kept = Kept(min(self._past), max(self._past), float(max(self._past) - min(self._past))) if self._past else None
        frozen = self._moment(query)
        if query.at is None or kept is None:
            marked_s = self._marked_s(query)
            flows, ticks, books = frozen or (self.flows, self.ticks, self.books)
            page = replace(self._page(query, self._since_mark(flows), ticks, books), kept=kept, marked_s=marked_s)
            present = replace(self._page(Query(), [], self.ticks, self.books), kept=kept)
            return page if frozen is None else replace(page, present=present, flows_kept=len(flows))
        tick = min(max(query.at, kept.first_tick), kept.last_tick)
        flows, books = self._past[tick]
        present = replace(self._page(Query(), [], self.ticks, self.books), kept=kept)
        fastest = sorted(flows, key=lambda row: -row.octet_rate)[:self.keep_flows]
        page = self._page(replace(query, hold=None), fastest, tick, books)
        return replace(page, query=query, kept=kept, present=present, flows=len(flows), flows_kept=len(fastest),
                       details=self._details(query.details))

    def _moment(self, query: Query) -> tuple[list[FlowRow], int, Books] | None:
        if query.freeze is None:
            self._frozen = None
        elif self._frozen is None or self._frozen[0] != query.freeze:
            self._frozen = query.freeze, (self.flows, self.ticks, self.books)
        return None if self._frozen is None else self._frozen[1]

    def _marked_s(self, query: Query) -> float | None:
        if query.mark is None:
            self._mark = None
        elif self._mark is None or self._mark[0] != query.mark:
            self._mark = query.mark, self.ticks, {row.flow_id: row for row in self.flows}
        return None if self._mark is None else float(self.ticks - self._mark[1])

    def _since_mark(self, flows: list[FlowRow]) -> list[FlowRow]:
        then = {} if self._mark is None else self._mark[2]
        return [row if row.flow_id not in then else row._replace(
            octet_total=row.octet_total - then[row.flow_id].octet_total,
            packet_total=row.packet_total - then[row.flow_id].packet_total) for row in flows]

    def _page(self, query: Query, flows: list[FlowRow], tick: int, books: Books) -> Page:
        order = self._order(query, flows)
        end = None if query.limit is None else query.offset + query.limit
        passing = self._passing(query, flows)
        anchor = query.anchor
        if query.biflow:
            anchor = next((biflow_id(row) for row in flows if row.flow_id == anchor), anchor)
        ranks = [rank for rank, row in enumerate(order) if row.flow_id == anchor]
        return Page(
            query=query, tick=tick, unix_ms=START_MS + 1000 * tick, uptime_s=750.0 + tick, tick_s=1.0,
            rows=tuple(order[query.offset:end]), matched=len(order), flows=len(flows),
            matched_flows=len(passing), details=self._details(query.details),
            hidden=len(self._passing(replace(query, ended=True), flows)) - len(passing),
            joined=self._joined(query, order), linger_s=self.linger_s,
            active_flows=sum(not row.end_reason for row in flows), anchor_rank=ranks[0] if ranks else None,
            anchor_row=anchor if ranks else None,
            tunnels=any(row.tunnel for row in flows),
            capture_filter=self.capture_filter, source=self.source, collecting=self.collecting,
            books=books, ingress=self.ingress, egress=self.egress, lookups=Lookups(self.interfaces),
            attached=tuple(self.attached), usage=SelfUsage(cpu=0.013, resident_octets=84_000_000),
        )

    def _details(self, flow_id: int | None) -> Details | None:
        """Two minutes of a rate that goes up and down, the answers, a second Observation Point; the last, once gone."""
        row = next((row for row in self.flows if row.flow_id == flow_id), None)
        if row is None:
            last = self._last_details
            return replace(last, gone=True) if last is not None and last.row.flow_id == flow_id else None
        back = (row.destination_address, row.source_address, row.destination_port, row.source_port)
        reverse = next((other for other in self.flows if back == (
            other.source_address, other.destination_address, other.source_port, other.destination_port)), None)
        points = tuple(other for other in self.flows if other is not row and other[1:6] == row[1:6])
        ended = bool(row.end_reason)
        now_ms = START_MS + 1000 * self.ticks
        self._last_details = Details(
            row, tuple(row.octet_rate * (1 + 0.6 * math.sin(tick / 7)) for tick in range(120)), 120.0, reverse, points,
            _flags(row, now_ms), 3, row.packet_total * 9 // 10, now_ms - 12_000, None if ended else now_ms + 48_000)
        return self._last_details

    @staticmethod
    def _passing(query: Query, flows: list[FlowRow]) -> list[FlowRow]:
        filters = [wanted.text for wanted in (query.filter, query.scope) if wanted is not None]
        return [row for row in flows if all(passes(row, text) for text in filters)
                and (query.ended or not row.end_reason
                     or query.anchor in (row.flow_id, biflow_id(row) if query.biflow else row.flow_id))]

    def _order(self, query: Query, flows: list[FlowRow]) -> list[FlowRow]:
        group = tuple(field for field in query.group if field != "flow")
        passing = self._passing(query, flows)
        rows = (grouped(passing, group) if group
                else biflows(flows, passing, self.openers) if query.biflow else passing)
        field = (lambda row: row.group[group.index(query.sort)]) if query.sort in group else SORT_FIELDS[query.sort]
        live = sorted(rows, key=lambda row: row.flow_id)
        live.sort(key=field, reverse=query.descending)
        live.sort(key=lambda row: row.kind == Kind.PARENT)
        if query.hold is None:
            return live
        held = self._holds.setdefault(query.hold, {row.flow_id: rank for rank, row in enumerate(live)})
        return sorted(live, key=lambda row: held.get(row.flow_id, len(held)))

    def _joined(self, query: Query, order: list[FlowRow]) -> int:
        held = None if query.hold is None else self._holds[query.hold]
        return 0 if held is None else sum(row.flow_id not in held for row in order)

    def _send(self) -> None:
        if self.listener is not None and self.asked:
            self.listener.on_page(self.page(self.asked[-1]))


def _flags(row: FlowRow, now_ms: int) -> tuple[tuple[int, int], ...]:
    """A TCP flow's handshake a minute ago, data two seconds later, what ended it now."""
    times = (now_ms - 60_000, 0b10010), (now_ms - 58_000, 0b1000), (now_ms, 0b101)
    return tuple((at_ms, row.tcp_control_bits & bits) for at_ms, bits in times if row.tcp_control_bits & bits)


def _traffic(octet_rate: float, shape: tuple[int, ...]) -> Traffic:
    return Traffic(octet_rate, octet_rate / 900, tuple(octet_rate * step / shape[-1] for step in shape))
