"""One packet at several Observation Points is counted once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import EndReason, Kind, Tunnel
from flowtop.model.record import FlowRecords
from tests.unit.factories import FIN, SECOND, START_NS, batch, counters, key

IN, OUT = 0, 1


def table(**config: Any) -> FlowTable:
    return FlowTable(TableConfig(**config), np.random.default_rng(0))


def at(seconds: float) -> int:
    return START_NS + round(seconds * SECOND)


def tick(flows: FlowTable, seconds: float, *entries: Any) -> FlowRecords:
    return flows.update(batch(entries, at(seconds)))


def duplicates(flows: FlowTable) -> set[tuple[int, int, int]]:
    """(ifindex, direction, vlan_id) of visible duplicates."""
    columns = flows.columns
    chosen = flows.visible & columns["duplicate"]
    return set(zip(*(columns[name][chosen].tolist() for name in ("ifindex", "direction", "vlan_id")), strict=True))


def test_a_forwarded_flow_counts_at_the_observation_point_that_saw_it_first() -> None:
    flows = table()
    tick(flows, 1, (key(ifindex=3, direction=OUT), counters(10, 1000, at(0.102))),
         (key(ifindex=2, direction=IN), counters(10, 1000, at(0.1))))
    assert duplicates(flows) == {(3, OUT, 0)}
    totals = flows.totals
    assert (totals.accounted_packets, totals.duplicate_packets, totals.duplicate_octets) == (20, 10, 1000)
    assert (totals.tick_ingress_octets, totals.tick_egress_octets) == (1000, 0)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("points", "primary"), [
    ([(2, OUT), (9, IN)], (9, IN)),
    ([(2, IN), (9, IN)], (2, IN)),
    ([(5, OUT), (2, OUT), (7, OUT)], (2, OUT)),
])
def test_first_seen_at_one_time_ingress_wins_then_the_lower_ifindex(
        points: list[tuple[int, int]], primary: tuple[int, int], turned: bool) -> None:
    flows = table()
    entries = [(key(ifindex=i, direction=d), counters(first_ns=at(0))) for i, d in points]
    tick(flows, 1, *(entries[::-1] if turned else entries))
    assert duplicates(flows) == {(i, d, 0) for i, d in points if (i, d) != primary}


def test_a_later_batch_does_not_change_who_is_primary() -> None:
    flows = table()
    tick(flows, 1, (key(ifindex=3, direction=OUT), counters(1, 100, at(0.5))))
    tick(flows, 2, (key(ifindex=2, direction=IN), counters(1, 100, at(0.4))),
         (key(ifindex=3, direction=OUT), counters(1, 100, at(1.5))))
    assert duplicates(flows) == {(2, IN, 0)}
    assert flows.totals.duplicate_packets == 1


def test_a_vlan_device_repeats_its_parents_traffic() -> None:
    flows = table()
    tick(flows, 1, (key(ifindex=2, vlan_id=10), counters(first_ns=at(0))),
         (key(ifindex=7, vlan_id=0), counters(first_ns=at(0))))
    assert duplicates(flows) == {(7, IN, 0)}


def test_equal_flows_in_two_vlans_of_one_interface_are_different_traffic() -> None:
    flows = table()
    tick(flows, 1, (key(ifindex=2, vlan_id=10), counters(first_ns=at(0))),
         (key(ifindex=2, vlan_id=20), counters(first_ns=at(0))))
    tick(flows, 2, (key(ifindex=2, vlan_id=30), counters(first_ns=at(1))),
         (key(ifindex=3, vlan_id=30), counters(first_ns=at(1))))
    assert duplicates(flows) == {(3, IN, 30)}


def test_aggregates_are_never_duplicates() -> None:
    flows = table()
    tick(flows, 1, *((key(ifindex=i, kind=Kind.AGGREGATE), counters(first_ns=at(0))) for i in (2, 3)))
    tick(flows, 30)
    assert duplicates(flows) == set()
    assert flows.totals.duplicate_packets == 0


def test_different_conversations_are_not_duplicates() -> None:
    flows = table()
    tick(flows, 1, (key(ifindex=2), counters()), (key(ifindex=3, source_port=9), counters()),
         (key(ifindex=4, protocol=17), counters()), (key(ifindex=5, kind=Kind.FRAGMENT), counters()))
    assert duplicates(flows) == set()


def test_the_tunnels_device_repeats_what_is_in_the_tunnel() -> None:
    flows = table()
    tick(flows, 1, (key(ifindex=2, tunnel=Tunnel.VXLAN, tunnel_id=10), counters(first_ns=at(0))),
         (key(ifindex=7), counters(first_ns=at(0.001))))
    assert duplicates(flows) == {(7, IN, 0)}


@pytest.mark.parametrize("other", [(Tunnel.VXLAN, 20), (Tunnel.GENEVE, 10)])
@pytest.mark.parametrize("later", [0, 1], ids=["at once", "later"])
def test_equal_flows_in_two_tunnels_are_different_traffic_and_each_counts_once(other: tuple[int, int],
                                                                               later: int) -> None:
    flows = table()
    ours = (key(ifindex=2, tunnel=Tunnel.VXLAN, tunnel_id=10), counters(1, 100, at(0)))
    theirs = [(key(ifindex=ifindex, direction=direction, tunnel=other[0], tunnel_id=other[1]),
               counters(1, 40, at(later + seconds)))
              for ifindex, direction, seconds in ((3, IN, 0.1), (4, OUT, 0.101))]
    for number, entries in enumerate([[ours], theirs] if later else [[ours, *theirs]], 1):
        tick(flows, number, *entries)
    assert duplicates(flows) == {(4, OUT, 0)}
    assert (flows.totals.accounted_octets, flows.totals.duplicate_octets) == (180, 40)


def test_the_flow_of_another_tunnel_goes_on_counting_when_the_first_ends() -> None:
    flows = table(idle_timeout_s=5, linger_s=100)
    there = {"tunnel": Tunnel.VXLAN, "tunnel_id": 20}
    tick(flows, 1, (key(ifindex=2, tunnel=Tunnel.VXLAN, tunnel_id=10), counters(first_ns=at(0))),
         (key(ifindex=3, **there), counters(first_ns=at(0.1))), (key(ifindex=4, **there), counters(first_ns=at(0.101))))
    for second in range(2, 9):
        tick(flows, second, (key(ifindex=4, **there), counters(first_ns=at(second - 0.5))),
             (key(ifindex=3, **there), counters(first_ns=at(second - 0.501))))
    assert (flows.columns["end_reason"] != 0).sum() == 1
    assert duplicates(flows) == {(4, IN, 0)}


def test_a_route_that_changes_inside_another_tunnel_is_followed() -> None:
    flows = table()
    there = {"tunnel": Tunnel.VXLAN, "tunnel_id": 20}
    first = key(ifindex=2, tunnel=Tunnel.VXLAN, tunnel_id=10)
    tick(flows, 1, (first, counters(first_ns=at(0))), (key(ifindex=3, **there), counters(first_ns=at(0.1))),
         (key(ifindex=4, **there), counters(first_ns=at(0.101))))
    for second in range(2, 6):  # the first tunnel goes on, and its flow stays who it is
        tick(flows, second, (first, counters(first_ns=at(second - 0.5))),
             (key(ifindex=4, **there), counters(first_ns=at(second - 0.5))))
    assert flows.totals.duplicate_packets == 1, "the one that interfaces 3 and 4 both had"
    assert duplicates(flows) == set()


def test_off_looks_for_none() -> None:
    flows = table(dedupe="off")
    tick(flows, 1, (key(ifindex=2), counters()), (key(ifindex=3), counters()))
    assert duplicates(flows) == set()
    assert flows.totals.duplicate_packets == 0


def test_when_the_primary_ends_a_duplicate_takes_its_place() -> None:
    flows = table(idle_timeout_s=5, end_timeout_s=1)
    tick(flows, 1, *((key(ifindex=i), counters(1, 100, at(0.001 * i), tcp_bits=FIN if i == 2 else 0))
                     for i in (2, 3, 4)))
    records = tick(flows, 2, (key(ifindex=3), counters(1, 100, at(1.5))), (key(ifindex=4), counters(1, 100, at(1.501))))
    assert records["ifindex"].tolist() == [2]
    tick(flows, 3, (key(ifindex=3), counters(1, 100, at(2.5))), (key(ifindex=4), counters(1, 100, at(2.501))))
    assert duplicates(flows) == {(4, IN, 0)}
    assert flows.totals.duplicate_packets == 2 + 1 + 1


def test_when_the_route_changes_the_duplicate_that_goes_on_takes_over() -> None:
    flows = table(idle_timeout_s=15)
    for n in range(4):
        tick(flows, n + 1, *((key(ifindex=i), counters(1, 100, at(n + 0.001 * i))) for i in (2, 3)))
    assert flows.totals.duplicate_packets == 4
    # Now only interface 3 sees it: all of these count. After 2 s, it also counts for what both had.
    for n in range(4, 14):
        tick(flows, n + 1, (key(ifindex=3), counters(1, 100, at(n + 0.3))))
    assert duplicates(flows) == {(2, IN, 0)}
    assert flows.totals.duplicate_packets == 4


def test_a_quiet_vlan_does_not_hand_over_while_another_of_its_observation_point_goes_on() -> None:
    flows = table(idle_timeout_s=60)
    tick(flows, 1, (key(ifindex=2, vlan_id=10), counters(first_ns=at(0))),
         (key(ifindex=2, vlan_id=20), counters(first_ns=at(0.1))), (key(ifindex=7), counters(first_ns=at(0.1))))
    for n in range(1, 10):
        tick(flows, n + 1, (key(ifindex=2, vlan_id=20), counters(first_ns=at(n))),
             (key(ifindex=7), counters(first_ns=at(n))))
    assert duplicates(flows) == {(7, IN, 0)}
    assert flows.totals.duplicate_packets == 10


def test_dropped_duplicates_are_not_shown_nor_recorded_but_booked() -> None:
    flows = table(dedupe="drop", idle_timeout_s=5)
    tick(flows, 1, *((key(ifindex=i), counters(4, 400, at(0.001 * i))) for i in (2, 3)))
    assert flows.columns["ifindex"][flows.visible].tolist() == [2]
    records = tick(flows, 7)
    assert records["ifindex"].tolist() == [2]
    assert (flows.totals.accounted_packets, flows.totals.duplicate_packets) == (8, 4)


def test_a_dropped_duplicate_that_takes_over_records_only_what_it_carried_since() -> None:
    flows = table(dedupe="drop", idle_timeout_s=5, end_timeout_s=1)
    tick(flows, 1, (key(ifindex=2), counters(4, 400, at(0.5), tcp_bits=FIN)),
         (key(ifindex=3), counters(4, 400, at(0.501))))
    first = tick(flows, 2)
    tick(flows, 3, (key(ifindex=3), counters(2, 200, at(2.5))))
    last = flows.end_all(at(3))
    told = [(r["ifindex"], r["packet_delta"], r["duplicate"]) for r in (*first, *last)]
    assert told == [(2, 4, False), (3, 2, False)]


_entry = st.tuples(st.integers(0, 3), st.sampled_from(list(Kind)), st.integers(0, 1), st.integers(1, 4),
                   st.sampled_from([0, 10]), st.integers(1, 50), st.sampled_from([0, 0, FIN]))
_ticks = st.lists(st.tuples(st.integers(200, 9_000), st.lists(_entry, max_size=16)), max_size=20)


@settings(deadline=None, max_examples=100)
@given(_ticks, st.sampled_from([2, 1000]))
def test_of_what_points_saw_at_one_time_the_most_counts(ticks: Any, max_flows: int) -> None:
    flows = table(max_flows=max_flows)
    now_ms = expected = 0
    ended: set[int] = set()
    for length_ms, entries in ticks:
        distinct = {entry[:5]: entry for entry in entries}
        now_ms += length_ms
        records = tick(flows, now_ms / 1000, *(
            (key(source_port=port, kind=kind, direction=direction, ifindex=ifindex, vlan_id=vlan),
             counters(packets, packets * 9, at((now_ms - 0.9 * length_ms) / 1000), tcp_bits=bits))
            for port, kind, direction, ifindex, vlan, packets, bits in distinct.values()))
        ended |= set(records["flow_id"][records["end_reason"] != EndReason.ACTIVE_TIMEOUT].tolist())
        points: dict[Any, dict[Any, int]] = defaultdict(lambda: defaultdict(int))
        for port, kind, direction, ifindex, _vlan, packets, _ in distinct.values():
            if kind == Kind.AGGREGATE:
                expected += packets
            elif kind != Kind.PARENT:
                points[port, kind][ifindex, direction] += packets
        expected += sum(max(by_point.values()) for by_point in points.values())
        assert flows.totals.accounted_packets - flows.totals.duplicate_packets == expected
    rest = set(flows.end_all(at(now_ms / 1000))["flow_id"].tolist())
    assert not ended & rest
    assert len(ended) + len(rest) == int(flows.columns["flow_id"].max(initial=0))


def test_many_conversations_on_two_interfaces_count_once() -> None:
    flows, n = table(), 9_000  # entries of more than one chunk
    for second in range(3):
        entries = [(key(source=f"10.0.{i >> 8}.{i & 255}", ifindex=ifindex, direction=ifindex - 2),
                    counters(3, 300, at(second + 0.001 * ifindex))) for i in range(n) for ifindex in (2, 3)]
        tick(flows, second + 1, *entries)
    assert flows.totals.accounted_packets == 2 * 3 * 3 * n
    assert flows.totals.duplicate_packets == 3 * 3 * n
    records = flows.end_all(at(3))
    assert int(records["packet_delta"][~records["duplicate"]].sum()) == 3 * 3 * n


# ---- packets that pass several points, cut into batches anywhere

class Way:
    """Points that packets pass, with the time from the first to each in ms."""

    def __init__(self, *points: tuple[int, int, float]) -> None:
        self.points = points


VETH_TO_UPLINK = Way((9, IN, 0), (5, IN, 0.1), (2, OUT, 0.3))
FORWARDED = Way((2, IN, 0), (3, OUT, 0.05))
OTHER_UPLINK = Way((2, IN, 0), (4, OUT, 0.05))
BACKUP = Way((6, IN, 0), (7, OUT, 3))
SINGLE, SINGLE_TOO = Way((2, OUT, 0)), Way((3, OUT, 0))


def metered(packets: list[tuple[float, Way]], ends_s: list[float],
            **config: Any) -> tuple[FlowTable, list[FlowRecords]]:
    """A table after batches that end at these times of packets (second, way), each 100 octets; and its records."""
    flows, records, begin = table(**config), [], 0.0
    seen = sorted((at(second + delay / 1000), ifindex, direction)
                  for second, way in packets for ifindex, direction, delay in way.points)
    for end in [*ends_s, max(ends_s) + 1000]:
        entries = []
        for point in sorted({(ifindex, direction) for _, ifindex, direction in seen}):
            times = [ns for ns, *where in seen if tuple(where) == point and at(begin) <= ns < at(end)]
            if times:
                entries.append((key(ifindex=point[0], direction=point[1], protocol=17),
                                counters(len(times), 100 * len(times), times[0], times[-1])))
        records.append(tick(flows, end, *entries))
        begin = end
    records.append(flows.end_all(at(begin)))
    return flows, records


def assert_each_counts_once(packets: int, flows: FlowTable, records: list[FlowRecords]) -> None:
    totals = flows.totals
    assert totals.accounted_packets - totals.duplicate_packets == packets
    assert totals.accounted_octets - totals.duplicate_octets == 100 * packets
    once = [part[~part["duplicate"]] for part in records]
    assert sum(int(part["packet_delta"].sum()) for part in once) == packets
    assert sum(int(part["octet_delta"].sum()) for part in once) == 100 * packets


def spaced(way: Way, start: float, count: int, gap: float) -> list[tuple[float, Way]]:
    return [(start + number * gap, way) for number in range(count)]


@pytest.mark.parametrize("dedupe", ["mark", "drop"])
@pytest.mark.parametrize("ends", [[3600.0], [60.0, 120.0], [float(n) for n in range(1, 60)],
                                  [n * 0.31 for n in range(1, 90)]], ids=["one", "minutes", "seconds", "often"])
@pytest.mark.parametrize("packets", [
    spaced(SINGLE, 0.1, 100, 0.02) + spaced(SINGLE_TOO, 2.3, 100, 0.02),
    spaced(FORWARDED, 0.1, 100, 0.02) + spaced(OTHER_UPLINK, 2.3, 100, 0.02),
    spaced(FORWARDED, 0.1, 300, 0.01) + spaced(BACKUP, 3.4, 40, 0.05),
    spaced(SINGLE, 0.1, 50, 0.001) + spaced(SINGLE_TOO, 0.2, 50, 0.001),
    spaced(VETH_TO_UPLINK, 0.1, 500, 0.011) + spaced(BACKUP, 10, 500, 0.011),
    spaced(SINGLE, 0.1, 1, 1) + spaced(SINGLE_TOO, 1.2, 1, 1) + spaced(Way((4, OUT, 0)), 2.3, 1, 1),
    spaced(VETH_TO_UPLINK, 0.1, 200, 0.013),
], ids=["failover", "uplink", "all-points", "burst", "long", "each-its-own", "no-change"])
def test_a_conversation_that_moves_loses_nothing(packets: Any, ends: list[float], dedupe: str) -> None:
    flows, records = metered(packets, ends, dedupe=dedupe)
    assert_each_counts_once(len(packets), flows, records)
    assert flows.totals.accounted_packets == sum(len(way.points) for _, way in packets)


@pytest.mark.parametrize("ways", [(SINGLE, SINGLE_TOO), (FORWARDED, BACKUP), (BACKUP, VETH_TO_UPLINK),
                                  (SINGLE, SINGLE_TOO, Way((4, OUT, 0))), (FORWARDED, BACKUP, SINGLE_TOO)])
def test_a_conversation_that_moves_with_every_batch_loses_nothing(ways: tuple[Way, ...]) -> None:
    packets = [packet for second in range(12) for packet in spaced(ways[second % len(ways)], second + 0.1, 20, 0.03)]
    flows, records = metered(packets, [float(second) for second in range(1, 14)])
    assert_each_counts_once(len(packets), flows, records)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=40), st.lists(st.integers(1, 30_000), max_size=12),
       st.sampled_from([VETH_TO_UPLINK, FORWARDED, BACKUP]), st.data())
def test_batches_may_end_while_packets_are_between_two_points(gaps_us: Any, lengths_us: Any, way: Way,
                                                              data: Any) -> None:
    starts = np.cumsum(gaps_us) / 1e6
    between = data.draw(st.lists(st.sampled_from(list(starts)), min_size=1, max_size=4))
    cuts = [*np.cumsum(lengths_us) / 1e6, *(start + way.points[-1][2] / 2000 for start in between)]
    packets = [(float(start), way) for start in starts]
    flows, records = metered(packets, sorted({float(cut) for cut in cuts}))
    assert_each_counts_once(len(packets), flows, records)


@pytest.mark.parametrize(("there", "here"), [(100, 90), (100, 99), (1, 0), (50, 1), (1000, 0)])
def test_packets_that_are_lost_between_two_points_count_where_they_were_seen(there: int, here: int) -> None:
    first, both = Way((2, IN, 0)), FORWARDED
    packets = [(second + number / (there + 1), both if number < here else first)
               for second in range(5) for number in range(there)]
    flows, records = metered(packets, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert_each_counts_once(5 * there, flows, records)


def test_more_packets_at_a_later_point_count_there() -> None:
    flows = table()
    tick(flows, 1, (key(ifindex=2), counters(90, 9000, at(0), at(0.9))),
         (key(ifindex=3, direction=OUT), counters(100, 10_000, at(0.001), at(0.901))))
    assert (flows.totals.duplicate_packets, flows.totals.duplicate_octets) == (90, 9000)
    records = flows.end_all(at(1))
    assert sorted((int(r["ifindex"]), bool(r["duplicate"]), int(r["packet_delta"]), int(r["octet_delta"]))
                  for r in records) == [(2, False, 90, 9000), (3, False, 10, 1000), (3, True, 90, 9000)]


def test_times_that_overlap_in_part_repeat_that_part() -> None:
    flows = table()
    tick(flows, 1, (key(ifindex=2), counters(100, 10_000, at(0), at(0.5))),
         (key(ifindex=3), counters(80, 8000, at(0.4), at(0.8))))
    assert flows.totals.duplicate_packets == 20, "a fifth of 100, a quarter of 80"


@pytest.mark.parametrize("cut", [0.3, 0.601, 0.605, 0.61, 1.0, 1.2])
@pytest.mark.parametrize("gap", [0.002, 0.012, 0.03])
def test_a_conversation_that_returns_to_its_first_path_loses_nothing(cut: float, gap: float) -> None:
    packets = [packet for number, way in enumerate((SINGLE, SINGLE_TOO, SINGLE))
               for packet in spaced(way, 0.1 + 0.55 * number, round(0.5 / gap), gap)]
    flows, records = metered(packets, [cut + 0.3 * number for number in range(8)])
    assert_each_counts_once(len(packets), flows, records)


# ---- address translation


def translated(flows: FlowTable, seconds: float, *entries: Any, before: dict[int, Any]) -> FlowRecords:
    """As `tick`; `before`: by number of an entry, its key before the translation."""
    made = batch(entries, at(seconds))
    conversations = made.keys.copy()
    for number, changed in before.items():
        conversations[number] = changed[0]
    return flows.update(replace(made, conversations=conversations.view(np.uint64).reshape(len(entries), -1)))


INSIDE = {"source": "10.88.0.2", "destination": "198.51.100.7", "source_port": 40000}
OUTSIDE = {"source": "192.0.2.1", "destination": "198.51.100.7", "source_port": 61000}
AT_UPLINK = {"ifindex": 3, "direction": OUT}


def test_both_sides_of_a_translation_count_once() -> None:
    flows = table()
    for n in range(3):
        translated(flows, n + 1, (key(**OUTSIDE, **AT_UPLINK), counters(10, 1000, at(n + 0.1))),
                   (key(**INSIDE), counters(10, 1000, at(n + 0.1))),
                   (key(source="192.0.2.9", **AT_UPLINK), counters(5, 500, at(n + 0.1))),
                   before={0: key(**INSIDE, **AT_UPLINK)})
    assert duplicates(flows) == {(3, OUT, 0)}
    assert (flows.totals.accounted_packets, flows.totals.duplicate_packets) == (75, 30)
    columns = flows.columns
    own = columns["source_port"][flows.visible & columns["duplicate"]].tolist()
    assert own == [61000], "the key stays what was on the wire"


def test_without_knowing_the_translation_both_sides_count() -> None:
    flows = table()
    tick(flows, 1, (key(**OUTSIDE, **AT_UPLINK), counters(10, 1000, at(0.1))),
         (key(**INSIDE), counters(10, 1000, at(0.1))))
    assert flows.totals.duplicate_packets == 0


def test_a_translated_side_takes_the_place_of_the_primary_and_gives_it_back() -> None:
    """The index of conversations finds it by the ends before the translation, whichever flow is its head."""
    flows, before = table(idle_timeout_s=5, end_timeout_s=1), {0: key(**INSIDE, **AT_UPLINK)}

    def uplink(second: float) -> Any:
        return key(**OUTSIDE, **AT_UPLINK), counters(1, 100, at(second))

    translated(flows, 1, uplink(0.1), (key(**INSIDE), counters(1, 100, at(0.1), tcp_bits=FIN)), before=before)
    records = translated(flows, 2, uplink(1.5), before=before)
    assert records["ifindex"].tolist() == [2]
    translated(flows, 3, uplink(2.5), (key(**INSIDE), counters(1, 100, at(2.501))), before=before)
    assert duplicates(flows) == {(2, IN, 0)}
    assert flows.totals.duplicate_packets == 2
    flows.end_all(at(4))
    translated(flows, 5, uplink(4.5), (key(**INSIDE), counters(1, 100, at(4.5))), before=before)
    assert flows.totals.duplicate_packets == 3


def test_slots_that_are_used_again_have_no_translation_any_more() -> None:
    flows = table(idle_timeout_s=1, linger_s=0)
    many = [(key(**OUTSIDE | {"source_port": port}, **AT_UPLINK), counters(1, 100, at(0.1)))
            for port in range(3000)]
    translated(flows, 1, *many, before={n: key(**INSIDE | {"source_port": n}, **AT_UPLINK) for n in range(3000)})
    for second in (3, 5):
        tick(flows, second)
    for second in (6, 7):
        tick(flows, second, *((key(**INSIDE | {"source_port": port}), counters(1, 100, at(second - 0.5)))
                              for port in range(3000)),
             *((key(**OUTSIDE | {"source_port": port}, **AT_UPLINK), counters(1, 100, at(second - 0.5)))
               for port in range(3000)))
    assert flows.totals.duplicate_packets == 0
