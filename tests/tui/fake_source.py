"""A PageSource of fixed flows: pages come when the test says so, on a clock that stands."""

from __future__ import annotations

import ipaddress
import random
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from flowtop.errors import FlowtopError
from flowtop.model.devices import DeviceView
from flowtop.model.exporters import CollectingStatistics
from flowtop.model.record import SourceState, Unobserved
from flowtop.model.rows import FlowRow
from flowtop.query.pager import Pager
from flowtop.query.past import Past
from flowtop.query.query import NO_HISTORY, Books, Page, Query, SelfUsage, Traffic
from flowtop.query.trouble import Trouble
from flowtop.text.lookups import Here, Lookups, Networks
from flowtop.tui.source import PageListener
from tests.tui.row_table import SECOND_NS, RowTable

START_MS = 1_767_225_600_000
"""2026-01-01 00:00:00 UTC."""

INTERFACES = {1: "lo", 2: "eth0", 3: "wg0", 4: "eth0.20"}
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
IN, OUT = 0, 1
_START_NS = 1_000_000 * SECOND_NS
"""START_MS on the clock of packets."""
_SEED = 7


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


def answered(flows: Sequence[FlowRow], every: int = 3, later_ms: int = 1) -> list[FlowRow]:
    """The flows, and the other way of all but each `every`-th: a third of their rate, so much later."""
    rates = [name for name in FlowRow._fields if "_rate" in name and not name.endswith("peak")]
    counts = ["packet_delta", "octet_delta", "packet_total", "octet_total"]
    answers = [row._replace(
        flow_id=row.flow_id + 5_000, source_address=row.destination_address, source_port=row.destination_port,
        destination_address=row.source_address, destination_port=row.source_port, direction=1 - row.direction,
        start_ms=row.start_ms + later_ms, **{name: getattr(row, name) / 3 for name in rates},
        **{name: getattr(row, name) // 3 for name in counts})
        for number, row in enumerate(flows) if number % every]
    return [*flows, *answers]


class FakeSource:
    """Flows that the test may change between ticks; the real pager answers what is asked of them.

    Args:
        flows: what is in the table.
        silent: answer nothing until `tick` (so that a test sees what is on screen meanwhile).
        fail: raised by `start`.
        keep_ticks: that can be looked back at; 0: none is kept.
        keep_flows: of each of these at most.

    Attributes:
        openers: flow_ids of those that sent a SYN without ACK.
        linger_s: how long flows are listed after their end, as pages say.
        leave: `stop` waits for it.
    """

    def __init__(self, flows: Iterable[FlowRow] = (), *, silent: bool = False, fail: FlowtopError | None = None,
                 keep_ticks: int = 300, keep_flows: int = 1_000) -> None:
        self.flows = list(flows)
        self.silent = silent
        self.asked: list[Query] = []
        self.stopped = 0
        self.ticks = 0
        self.skipped_s = 0
        self.books = Books(
            observed_packets=12_345_678, observed_octets=9_876_543_210, accounted_packets=12_345_666,
            accounted_octets=9_876_542_000, ignored_packets=12, ignored_octets=1_210, duplicate_packets=3_201,
            duplicate_octets=2_900_000, ignored_by_kind=(12, 0, 0, 0), interface_packets=12_345_678, coverage=1.0,
        )
        self.attached: Sequence[str] = ("eth0", "eth0.20", "wg0")
        self.unobserved: tuple[Unobserved, ...] = ()
        self.interfaces = dict(INTERFACES)
        self.capture_filter = ""
        self.source: SourceState | None = None
        self.collecting: CollectingStatistics | None = None
        self.devices: dict[int, DeviceView] = {}
        self.history = NO_HISTORY
        self.troubles: tuple[Trouble, ...] = ()
        self.networks: Networks | None = None
        self.here: Here | None = None
        self.egress = _traffic(51_500_000.0, (9, 21, 40, 52, 63, 55, 38, 30, 24, 18, 29, 51))
        self.ingress = _traffic(151_300_000.0, (60, 70, 90, 81, 99, 120, 151, 143, 122, 130, 149, 151))
        self.listener: PageListener | None = None
        self.linger_s = 10.0
        self.openers: set[int] = set()
        self.leave = threading.Event()
        self.leave.set()
        self._fail = fail
        self._table = RowTable(START_MS * 1_000_000 - _START_NS)
        self._pager = Pager(Past(keep_ticks - 1, keep_flows) if keep_ticks else None, seed=_SEED)

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

    def tick(self, flows: Iterable[FlowRow] | None = None, seconds: int = 1) -> None:
        """A tick passes, that many seconds long; the flows may be others now."""
        self.flows = self.flows if flows is None else list(flows)
        self.ticks += 1
        self.skipped_s += seconds - 1
        self.books = replace(self.books, observed_packets=self.books.observed_packets + 1_000,
                             accounted_packets=self.books.accounted_packets + 1_000)
        self._show()
        self._pager.remember(self._table, self._now())
        self._send()

    def page(self, query: Query) -> Page:
        """The answer to a query, for the one asker whose order, mark and pause are kept."""
        self._show()
        return self._pager.page(query, self._table, self._now())

    def look(self, query: Query) -> Page:
        """The answer to a query of now, for somebody else: for expectations."""
        self._show()
        return Pager(seed=_SEED).page(query, self._table, self._now())

    def biflow(self, flow_id: int) -> int:
        """flow_id of the biflow that a flow is in."""
        rank = self.look(Query(biflow=True, anchor=flow_id)).anchor_row
        assert rank is not None
        return rank

    def _show(self) -> None:
        self._table.show(self.flows, _START_NS + self._passed_s * SECOND_NS, self.openers)

    @property
    def _passed_s(self) -> int:
        return self.ticks + self.skipped_s

    def _now(self) -> Page:
        return Page(
            query=Query(), tick=self.ticks, unix_ms=START_MS + 1000 * self._passed_s, uptime_s=750.0 + self._passed_s,
            tick_s=1.0, rows=(), matched=0, flows=0, active_flows=0, anchor_rank=None, linger_s=self.linger_s,
            tunnels=any(row.tunnel for row in self.flows), capture_filter=self.capture_filter, source=self.source,
            collecting=self.collecting, books=self.books, ingress=self.ingress, egress=self.egress,
            history=self.history, troubles=self.troubles,
            lookups=Lookups(self.interfaces, networks=self.networks, here=self.here, devices=self.devices),
            attached=tuple(self.attached), unobserved=self.unobserved,
            usage=SelfUsage(cpu=0.013, resident_octets=84_000_000))

    def _send(self) -> None:
        if self.listener is not None and self.asked:
            self.listener.on_page(self.page(self.asked[-1]))


def _traffic(octet_rate: float, shape: tuple[int, ...]) -> Traffic:
    return Traffic(octet_rate, octet_rate / 900, tuple(octet_rate * step / shape[-1] for step in shape))
