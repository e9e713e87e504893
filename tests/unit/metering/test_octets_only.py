"""Flows reported with octets and no packets (Cisco ASA: NSEL), or with packets and no octets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from tests.unit.factories import ACK, SECOND, START_NS, batch, counters, key

Ticks = Sequence[tuple[int, int]]
"""Packets and octets that were reported in each second; (0, 0): nothing was."""


def at(seconds: float) -> int:
    return START_NS + round(seconds * SECOND)


def column(flows: FlowTable, name: str, source_port: int) -> int:
    slot = np.flatnonzero((flows.columns["source_port"] == source_port) & flows.visible)
    return int(flows.columns[name][slot[0]])


@pytest.mark.parametrize("company", [False, True], ids=["alone", "among flows with packets"])
@pytest.mark.parametrize("ticks", [
    [(0, 1_000_000), (0, 0), (0, 0)],
    [(0, 0), (0, 700), (0, 700), (0, 0)],
    [(0, 5), (3, 400), (0, 6), (0, 0), (0, 9)],
    [(3, 0), (0, 0), (2, 0)],
    [(0, 10)] * 20,
    [(0, 1 << 40), *[(0, 0)] * 12, (0, 1)],
])
def test_the_delta_of_each_tick_is_what_was_reported_in_it(ticks: Ticks, company: bool) -> None:
    flows = FlowTable(TableConfig(idle_timeout_s=1000), np.random.default_rng(0))
    flows.update(batch([], at(0)))
    begun = False
    for second, (packets, octets) in enumerate(ticks, 1):
        entries = [(key(source_port=port), counters(5, 500, at(second - 0.5), at(second - 0.1), ACK))
                   for port in (1, 2) if company]
        if packets or octets:
            begun = True
            entries.append((key(source_port=9), counters(packets, octets, at(second - 0.5), at(second - 0.1), ACK)))
        flows.update(batch(entries, at(second)))
        if not begun:
            continue
        past = ticks[:second]
        window = past[-10:]
        assert column(flows, "octet_delta", 9) == octets and column(flows, "packet_delta", 9) == packets
        assert column(flows, "octet_total", 9) == sum(o for _, o in past)
        assert column(flows, "octets_10s", 9) == sum(o for _, o in window)
        assert column(flows, "packets_10s", 9) == sum(p for p, _ in window)
        assert column(flows, "octet_rate_peak", 9) == max(o for _, o in past)


def test_a_flow_with_octets_only_is_reported_by_the_active_timeout() -> None:
    flows = FlowTable(TableConfig(idle_timeout_s=1000, active_timeout_s=10), np.random.default_rng(0))
    found = [record for second in range(1, 32) for record in flows.update(batch(
        [(key(), counters(0, 100, at(second - 0.5), at(second - 0.1), ACK))] if second < 22 else [], at(second)))]
    assert [(int(record["packet_delta"]), int(record["octet_delta"])) for record in found] == [
        (0, 1100), (0, 1000)]  # the first packet was at 0.5 s: due at 10.5 s and 20.5 s
