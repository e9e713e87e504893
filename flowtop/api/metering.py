"""Adds batches to a flow table and answers queries, in the caller's thread; the time comes from the batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, OBSERVATION_DTYPE, FlowBatch
from flowtop.query.books import close_books, passed
from flowtop.query.pager import Pager
from flowtop.query.query import Page, Query, Traffic
from flowtop.text.lookups import Lookups

LEAST_TICK_S = 1.0
"""Minimum time over which rates are computed: ticks and files may be shorter."""
LONGEST_S = 1e9
_MOST_FLOWS = 100_000_000

Dedupe = Literal["mark", "drop", "off"]


def table_config(*, idle_timeout: float, active_timeout: float, linger: float, max_flows: int,
                 dedupe: Dedupe) -> TableConfig:
    """The configuration of a flow table; timeouts in seconds. Raises FlowtopError: a value out of range."""
    for name, value, least, most in (("idle_timeout", idle_timeout, 0.001, LONGEST_S),
                                     ("active_timeout", active_timeout, 0.001, LONGEST_S),
                                     ("linger", linger, 0, LONGEST_S), ("max_flows", max_flows, 1, _MOST_FLOWS)):
        whole = isinstance(value, int) or name != "max_flows"
        if not (whole and least <= value <= most):  # also false for NaN
            raise FlowtopError(f"{name} is {value}", hint=f"from {least} to {most:.0f}", exit_code=EXIT_USAGE)
    if dedupe not in get_args(Dedupe):
        raise FlowtopError(f"dedupe is {dedupe!r}", hint=f"one of {', '.join(get_args(Dedupe))}", exit_code=EXIT_USAGE)
    return TableConfig(idle_timeout_s=idle_timeout, active_timeout_s=active_timeout, linger_s=linger,
                       least_tick_s=LEAST_TICK_S, max_flows=max_flows, dedupe=dedupe)


class Metering:
    """One flow table and the answers to queries.

    Args:
        config: timeouts and limits.
    """

    def __init__(self, config: TableConfig) -> None:
        self._table = FlowTable(config)
        self._pager = Pager()
        self._batch = FlowBatch(np.zeros(0, FLOW_KEY_DTYPE), np.zeros(0, FLOW_COUNTERS_DTYPE),
                                np.zeros(0, OBSERVATION_DTYPE), 0, 0)
        self._first_ns: int | None = None
        self._tick = 0
        self._tunnels = False

    def take(self, batch: FlowBatch, *, close_tick: bool) -> None:
        """Add a batch to the flows; with `close_tick` the tick ends after it."""
        self._table.accumulate(batch)
        if len(batch.keys):
            if self._first_ns is None:
                self._first_ns = int(batch.counters["first_ns"].min())
            self._tunnels = self._tunnels or bool(batch.keys["tunnel"].any())
        # Keep books and names but not flows, whose buffers may be used again.
        self._batch = replace(batch, keys=batch.keys[:0].copy(), counters=batch.counters[:0].copy(),
                              observations=batch.observations.copy(), interfaces=dict(batch.interfaces),
                              other_ifindexes=None, segments=None, steps=None, described=None, reported=None)
        if close_tick:
            self._table.close_tick()
            self._tick += 1

    def end(self) -> None:
        """End every flow with FORCED_END: no more batches follow."""
        self._table.end_all(self._table.now_ns)

    def page(self, query: Query) -> Page:
        """The answer to a query. Raises FlowtopError: see Answerer.answer."""
        return self._pager.page(query, self._table, self.now())

    def now(self) -> Page:
        """A page without rows and numbers of flows."""
        table, totals, batch = self._table, self._table.totals, self._batch
        tick_s = table.tick_s
        return Page(
            query=Query(), tick=self._tick, unix_ms=(table.now_ns + table.unix_offset_ns) // 1_000_000,
            uptime_s=0.0 if self._first_ns is None else (table.now_ns - self._first_ns) / 1e9,
            tick_s=tick_s, rows=(), matched=0, flows=0, active_flows=0, anchor_rank=None,
            books=close_books(totals, batch.observations),
            ingress=Traffic(totals.tick_ingress_octets / tick_s, totals.tick_ingress_packets / tick_s),
            egress=Traffic(totals.tick_egress_octets / tick_s, totals.tick_egress_packets / tick_s),
            lookups=Lookups(dict(batch.interfaces), texts=batch.texts, passed=passed(batch.observations)),
            attached=batch.attached, source=batch.source, collecting=batch.collecting, tunnels=self._tunnels)
