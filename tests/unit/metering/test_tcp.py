"""The TCP columns of the flow table."""

from __future__ import annotations

import numpy as np
import pytest

from flowtop.capture.ebpf.maps import merge_duplicates
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import Direction, Kind
from tests.unit.factories import FIN, RST, SECOND, START_NS, SYN, batch, counters, key

SOCKET = ("rtt_us", "congestion_window", "retransmitted")
TIMES = ("syn_ns", "fin_ns", "rst_ns")


def at(seconds: float) -> int:
    return START_NS + round(seconds * SECOND)


def values(flows: FlowTable, *names: str) -> tuple[int, ...]:
    """Of the one flow that has not ended."""
    live = flows.visible & (flows.columns["end_reason"] == 0)
    found = [flows.columns[name][live].tolist() for name in names]
    return tuple(int(value) for (value,) in found)


# ---- what local sockets say

def socket(rtt_us: int, window: int, retransmitted: int) -> dict[str, int]:
    return {"smoothed_rtt_us": rtt_us, "congestion_window": window, "retransmitted": retransmitted}


def test_the_latest_that_a_socket_said_counts_and_nothing_is_no_news() -> None:
    flows = FlowTable(TableConfig())
    flows.update(batch([(key(direction=Direction.EGRESS), counters(**socket(0, 10, 0)))], at(1)))
    assert values(flows, *SOCKET) == (0, 10, 0), "of a SYN: no round trip yet"
    flows.update(batch([(key(direction=Direction.EGRESS), counters(**socket(41_000, 20, 3)))], at(2)))
    flows.update(batch([(key(direction=Direction.EGRESS), counters(**socket(40_000, 7, 5)))], at(3)))
    flows.update(batch([(key(direction=Direction.EGRESS), counters())], at(4)))
    assert values(flows, *SOCKET) == (40_000, 7, 5)


def test_what_a_socket_has_sent_again_is_not_of_the_flow_that_it_receives() -> None:
    flows = FlowTable(TableConfig())
    flows.update(batch([(key(direction=Direction.INGRESS), counters(**socket(41_000, 20, 3)))], at(1)))
    assert values(flows, *SOCKET) == (41_000, 20, 0)


@pytest.mark.parametrize("kind", [Kind.AGGREGATE, Kind.FRAGMENT])
def test_what_is_no_flow_takes_nothing_of_a_connection(kind: Kind) -> None:
    flows = FlowTable(TableConfig())
    flows.update(batch([(key(kind=kind), counters(**socket(41_000, 20, 3), syn_ns=at(0.5), rst_ns=at(0.6)))], at(1)))
    assert values(flows, *SOCKET, *TIMES) == (0,) * 6


def test_times_are_those_of_the_first_packet_with_the_bit() -> None:
    flows = FlowTable(TableConfig(end_timeout_s=100))
    flows.update(batch([(key(), counters(2, 80, at(0), at(1), SYN, syn_ns=at(0)))], at(1)))
    flows.update(batch([(key(), counters(1, 40, at(1.5), at(1.5), SYN | FIN, syn_ns=at(1.5), fin_ns=at(1.5)))], at(2)))
    flows.update(batch([(key(), counters(2, 80, at(2.1), at(2.5), RST, rst_ns=at(2.5), fin_ns=at(2.1)))], at(3)))
    assert values(flows, *TIMES) == (at(0), at(1.5), at(2.5))


def test_a_file_out_of_order_may_bring_the_first_later() -> None:
    flows = FlowTable(TableConfig(end_timeout_s=100))
    for seconds in (1.0, 0.4, 0.7):
        flows.update(batch([(key(), counters(1, 40, at(seconds), tcp_bits=SYN, syn_ns=at(seconds)))], at(2)))
    assert values(flows, "syn_ns") == (at(0.4),)


def test_a_new_flow_has_nothing_of_the_one_before() -> None:
    flows = FlowTable(TableConfig(linger_s=0))
    flows.update(batch([(key(), counters(1, 40, at(0), at(0), RST, rst_ns=at(0), **socket(9, 9, 9)))], at(0.5)))
    flows.update(batch([], at(5)))
    flows.update(batch([], at(6)))
    flows.update(batch([(key(), counters(1, 40, at(6.5)))], at(7)))
    assert values(flows, *SOCKET, *TIMES) == (0,) * 6


def test_both_sides_of_a_last_drain_become_one() -> None:
    keys = np.concatenate((key(), key(source_port=7), key()))
    entries = np.concatenate((
        counters(1, 40, at(2), **socket(40_000, 7, 5), syn_ns=at(2.2), rst_ns=at(2.5)), counters(1, 40, at(1)),
        counters(1, 40, at(1), **socket(41_000, 9, 3), syn_ns=at(1.1))))
    merged_keys, merged = merge_duplicates(keys, entries)
    found = merged[merged_keys["source_port"] == 1000]
    assert [int(found[name][0]) for name in ("smoothed_rtt_us", "congestion_window", "retransmitted", *TIMES)] == [
        40_000, 7, 5, at(1.1), 0, at(2.5)]
