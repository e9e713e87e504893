"""A PageSource of a real flow table on a clock that stands: ticks come when the test says so."""

from __future__ import annotations

from collections.abc import Mapping

from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.query.pager import Pager
from flowtop.query.past import Past
from flowtop.query.query import Books, Page, Query, Traffic
from flowtop.text.lookups import Lookups
from flowtop.tui.source import PageListener
from tests.unit.factories import SECOND, START_NS, UNIX_OFFSET_NS, batch, counters, key


class TableSource:
    """Flows are known by their source port: 7 is `10.0.0.7:7 → 192.0.2.1:80`; even ones are udp.

    Args:
        config: timeouts; a flow without packets ends after them.
    """

    def __init__(self, config: TableConfig) -> None:
        self.table = FlowTable(config)
        self.pager = Pager(Past())
        self.query = Query()
        self.now_ns = START_NS
        self.ticks = 0
        self.packets = 0
        self.stopped = 0
        self.listener: PageListener | None = None

    def start(self, listener: PageListener) -> None:
        """Keep the listener; pages come with `tick`."""
        self.listener = listener

    def ask(self, query: Query) -> None:
        """Answer at once, as the pipeline does."""
        self.query = query
        if self.ticks:
            self._send()

    def stop(self) -> None:
        """Count it."""
        self.stopped += 1

    def tick(self, octets: Mapping[int, int], tcp_bits: int = 0) -> None:
        """A second passes, in which these flows have so many octets, in one packet each."""
        self.now_ns += SECOND
        self.ticks += 1
        self.packets += len(octets)
        self.table.update(batch([
            (key(f"10.0.0.{port}", "192.0.2.1", port, protocol=6 if port % 2 else 17),
             counters(1, size, self.now_ns - SECOND // 2, tcp_bits=tcp_bits)) for port, size in octets.items()],
            self.now_ns))
        self.pager.remember(self.table, self._now())
        self._send()

    def _now(self) -> Page:
        return Page(
            query=Query(), tick=self.ticks, unix_ms=(self.now_ns + UNIX_OFFSET_NS) // 1_000_000,
            uptime_s=float(self.ticks), tick_s=1.0, rows=(), matched=0, flows=0, active_flows=0, anchor_rank=None,
            books=Books(observed_packets=self.packets, accounted_packets=self.packets), ingress=Traffic(),
            egress=Traffic(), lookups=Lookups({2: "eth0"}), attached=("eth0",), linger_s=self.table.config.linger_s)

    def _send(self) -> None:
        if self.listener is not None:
            self.listener.on_page(self.pager.page(self.query, self.table, self._now()))
