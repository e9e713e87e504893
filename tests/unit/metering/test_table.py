"""Accumulation, rates, expiry and books of the flow table. test_dedupe.py has the duplicates."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.metering.flows import LATER, TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.flows import FLOW_COLUMN_DTYPES
from flowtop.model.kinds import Direction, EndReason, Kind, Tunnel
from flowtop.model.record import CARRIED, FlowBatch, FlowRecords, Merge
from flowtop.query.books import close_books
from tests.unit.factories import (
    ACK,
    FIN,
    PSH,
    RST,
    SECOND,
    START_NS,
    SYN,
    UNIX_OFFSET_NS,
    batch,
    counters,
    key,
    observation,
)


def table(**config: Any) -> FlowTable:
    return FlowTable(TableConfig(**config), np.random.default_rng(0))


def at(seconds: float) -> int:
    return START_NS + round(seconds * SECOND)


def shown(flows: FlowTable) -> list[dict[str, Any]]:
    """Every visible flow's columns as plain values, in order of birth."""
    columns, visible = flows.columns, flows.visible
    names = list(FLOW_COLUMN_DTYPES)
    rows = zip(*(columns[name][visible].tolist() for name in names), strict=True)
    return sorted((dict(zip(names, row, strict=True)) for row in rows), key=lambda row: row["flow_id"])


def tick(flows: FlowTable, seconds: float, *entries: Any) -> FlowRecords:
    return flows.update(batch(entries, at(seconds)))


# ---- accumulation


def test_a_flow_has_its_first_packets_properties_and_the_sum_of_all() -> None:
    flows = table()
    tick(flows, 1, (key(), counters(2, 300, at(0.1), at(0.5), SYN, tos=8, ttl=60, socket_cookie=77)))
    tick(flows, 2, (key(), counters(3, 500, at(1.1), at(1.9), ACK | PSH, tos=4, ttl=50, source_mac=b"\6" * 6)))
    (row,) = shown(flows)
    assert (row["packet_total"], row["octet_total"]) == (5, 800)
    assert (row["packet_delta"], row["octet_delta"]) == (3, 500)
    assert (row["first_ns"], row["last_ns"]) == (at(0.1), at(1.9))
    assert row["tcp_control_bits"] == SYN | ACK | PSH
    assert (row["tos"], row["ttl"], row["source_mac"]) == (8, 60, b"\2\0\0\0\0\1")
    assert row["flow_id"] == 1
    (record,) = flows.end_all(at(2))
    assert record["socket_cookie"] == 77


@pytest.mark.parametrize(("merge", "found"), [
    ("first", [60, 9]), ("last", [50, 9]), ("max", [70, 9]), ("min", [40, 9]), ("sum", [220, 9]),
    ("or", [60 | 70 | 40 | 50, 9])])
def test_what_counters_carry_is_merged_as_declared(monkeypatch: pytest.MonkeyPatch, merge: Merge,
                                                   found: list[int]) -> None:
    monkeypatch.setitem(CARRIED, "ttl", merge)
    if merge != "first":
        monkeypatch.setitem(LATER, "ttl", merge)
    flows = table()
    tick(flows, 1, (key(), counters(1, 1, at(0.5), ttl=60)), (key(source_port=2), counters(1, 1, at(0.5), ttl=9)))
    tick(flows, 2, (key(), counters(1, 1, at(1.5), ttl=70)))
    tick(flows, 3, (key(), counters(1, 1, at(0.7), ttl=40)))  # it came late: the last packet is the one before
    assert flows.columns["ttl"].tolist()[0] == {"last": 70, "sum": 170, "or": 60 | 70 | 40}.get(
        merge, {"first": 60, "max": 70, "min": 40}.get(merge))
    tick(flows, 4, (key(), counters(1, 1, at(3.5), ttl=50)))
    assert flows.columns["ttl"].tolist() == found
    assert sorted(flows.end_all(flows.now_ns)["ttl"].tolist()) == sorted(found)


def test_keys_that_differ_in_any_field_are_different_flows() -> None:
    keys = [key(), key(source="10.0.0.9"), key(destination="10.0.0.9"), key(source_port=9), key(destination_port=9),
            key(protocol=17), key(direction=1), key(ifindex=9), key(vlan_id=9), key(customer_vlan_id=9),
            key(kind=Kind.FRAGMENT), key("2001:db8::1", "2001:db8::2")]
    flows = table()
    tick(flows, 1, *((k, counters()) for k in keys))
    tick(flows, 2, *((k, counters(2)) for k in keys))
    assert [row["packet_total"] for row in shown(flows)] == [3] * len(keys)


def test_a_batch_larger_than_a_chunk_is_wholly_taken() -> None:
    flows = table()
    entries = [(key(source=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"), counters(n)) for n in range(20_000)]
    wanted = batch(entries, at(1))
    flows.update(wanted)
    assert flows.live_flows == 20_000
    assert flows.totals.accounted_packets == 20_000 * 19_999 // 2


def test_arrays_that_the_capture_reuses_are_not_kept() -> None:
    flows = table()
    first = batch([(key(), counters(1, 100))], at(1))
    flows.accumulate(first)
    first.keys[:] = key(source_port=9)
    first.counters[:] = counters(50, 5000)
    flows.accumulate(batch([(key(), counters(2, 200))], at(1.5)))
    flows.close_tick()
    (row,) = shown(flows)
    assert (row["packet_delta"], row["octet_delta"], row["octet_total"]) == (3, 300, 300)


def test_rates_seen_in_mid_tick_are_those_of_the_last_whole_tick() -> None:
    flows = table()
    tick(flows, 1, (key(), counters(1, 100, at(0))))
    flows.accumulate(batch([(key(), counters(1, 900))], at(1.5)))
    (row,) = shown(flows)
    assert (row["octet_delta"], row["octets_10s"], flows.tick_s) == (100, 100, 1.0)
    assert flows.totals.tick_ingress_octets == 100
    flows.close_tick()
    (row,) = shown(flows)
    assert (row["octet_delta"], row["octets_10s"], flows.tick_s) == (900, 1000, 0.5)
    assert flows.totals.tick_ingress_octets == 900


# ---- rates


def test_windows_and_peak_of_a_flow_follow_its_traffic() -> None:
    """1 s ticks, octets of tick n: 1000 * n until tick 80, then nothing; the oracle is a sum over the list."""
    flows = table(idle_timeout_s=1000, active_timeout_s=1000)
    octets = [1000 * n if n <= 80 else 0 for n in range(1, 151)]
    for n, amount in enumerate(octets, 1):
        tick(flows, n, *([(key(), counters(1, amount, at(n - 1), at(n - 0.5)))] if amount else []))
        (row,) = shown(flows)
        assert row["octet_delta"] == octets[n - 1]
        assert row["octets_10s"] == sum(octets[max(0, n - 10):n])
        assert row["octets_60s"] == sum(octets[max(0, n - 60):n])
        assert row["packets_10s"] == sum(1 for o in octets[max(0, n - 10):n] if o)
        assert row["octet_rate_peak"] == max(octets[:n])
        assert flows.window_10s_s == pytest.approx(min(n, 10))
        assert flows.window_60s_s == pytest.approx(min(n, 60))


def test_with_short_ticks_windows_cover_what_they_say() -> None:
    flows = table(idle_timeout_s=1000)
    for n in range(1, 301):
        tick(flows, n / 10, (key(), counters(1, 50, at((n - 1) / 10), at(n / 10))))
        (row,) = shown(flows)
        assert row["octets_10s"] / flows.window_10s_s == pytest.approx(500)
        assert flows.window_10s_s <= 11.1
    assert flows.window_10s_s >= 10


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(50, 4000), st.dictionaries(st.integers(0, 5), st.integers(1, 10**6))),
                min_size=1, max_size=60), st.sampled_from([3, 1000]))
def test_window_sums_are_the_traffic_of_the_time_they_cover(
        ticks: list[tuple[int, dict[int, int]]], idle_timeout_s: float) -> None:
    flows = table(idle_timeout_s=idle_timeout_s, linger_s=2)
    tick(flows, 0)
    now_ms, history = 0, list[tuple[int, dict[int, int]]]()
    for length_ms, traffic in ticks:
        entries = [(key(source_port=p), counters(1, o, at(now_ms / 1000))) for p, o in traffic.items()]
        now_ms += length_ms
        history.append((now_ms, traffic))
        tick(flows, now_ms / 1000, *entries)
        covered_ms = flows.window_10s_s * 1000
        assert min(now_ms, 10_000) - 1 <= covered_ms <= now_ms + 1
        for row in shown(flows):
            # However slots are used again, a flow has no other's traffic.
            assert row["octets_10s"] <= row["octets_60s"] <= row["octet_total"]
            if idle_timeout_s == 1000:
                assert row["octets_10s"] == sum(traffic.get(row["source_port"], 0) for end_ms, traffic in history
                                                if end_ms > now_ms - covered_ms + 0.5)


def test_a_new_flow_in_a_used_slot_has_nothing_of_the_old_one() -> None:
    flows = table(idle_timeout_s=2, linger_s=0)
    tick(flows, 1, (key(source_port=1), counters(1, 10**9, at(0))))
    for n in range(2, 6):
        tick(flows, n)
    assert shown(flows) == []
    tick(flows, 6, (key(source_port=2), counters(1, 100, at(5.5))))
    for n in range(7, 30):
        (row,) = shown(flows)
        assert (row["octets_60s"], row["octet_total"], row["octet_rate_peak"]) == (100 * (n - 6), 100 * (n - 6), 100)
        tick(flows, n, (key(source_port=2), counters(1, 100, at(n - 0.5))))


# ---- expiry


def test_idle_flows_end_by_idle_timeout_with_everything_reported() -> None:
    flows = table(idle_timeout_s=15)
    assert len(tick(flows, 1, (key(), counters(4, 400, at(0.25), at(0.5), ACK)))) == 0
    assert len(tick(flows, 15.4)) == 0
    (record,) = tick(flows, 15.5)
    assert record["end_reason"] == EndReason.IDLE_TIMEOUT
    assert (record["packet_delta"], record["octet_delta"], record["packet_total"], record["octet_total"]) == (
        4, 400, 4, 400)
    assert record["start_ms"] == (at(0.25) + UNIX_OFFSET_NS) // 10**6
    assert record["end_ms"] == (at(0.5) + UNIX_OFFSET_NS) // 10**6
    assert record["tcp_control_bits"] == ACK
    assert record["source_port"] == 1000 and record["flow_id"] == 1
    assert bytes(record["source_address"]) == b"\x0a\0\0\1" + bytes(12)


@pytest.mark.parametrize("bits", [FIN, RST, FIN | ACK])
def test_flows_end_when_fin_or_rst_was_seen_and_quiet_follows(bits: int) -> None:
    flows = table(end_timeout_s=2)
    tick(flows, 1, (key(), counters(tcp_bits=bits, first_ns=at(1))))
    assert len(tick(flows, 2, (key(), counters(tcp_bits=ACK, first_ns=at(2))))) == 0
    assert len(tick(flows, 3)) == 0
    (record,) = tick(flows, 4)
    assert record["end_reason"] == EndReason.END_OF_FLOW


def test_long_flows_are_reported_each_active_timeout_with_what_is_new() -> None:
    flows = table(active_timeout_s=60)
    records = [r for n in range(1, 126) for r in tick(flows, n, (key(), counters(1, 10, at(n - 1), at(n - 0.5))))]
    assert [r["end_reason"] for r in records] == [EndReason.ACTIVE_TIMEOUT] * 2
    assert [r["packet_delta"] for r in records] == [60, 60]
    assert [r["packet_total"] for r in records] == [60, 120]
    assert [(r["octet_delta"], r["octet_total"]) for r in records] == [(600, 600), (600, 1200)]
    (last,) = flows.end_all(at(125))
    assert (last["end_reason"], last["packet_delta"], last["packet_total"]) == (EndReason.FORCED_END, 5, 125)


def test_ended_flows_stay_visible_until_their_time_and_their_rates_fall() -> None:
    flows = table(idle_timeout_s=5, linger_s=10)
    tick(flows, 0)
    tick(flows, 1, (key(), counters(1, 100, at(0.9))))
    for n in range(2, 6):
        tick(flows, n)
    assert shown(flows)[0]["end_reason"] == EndReason.NONE
    for n in range(6, 16):
        tick(flows, n)
        (row,) = shown(flows)
        assert row["end_reason"] == EndReason.IDLE_TIMEOUT
        assert row["octets_10s"] == (100 if n <= 10 else 0)
        assert flows.live_flows == 0
    tick(flows, 16)
    assert shown(flows) == []


def test_without_lingering_an_ended_flow_is_still_shown_for_one_tick() -> None:
    flows = table(idle_timeout_s=5, linger_s=0)
    tick(flows, 1, (key(), counters(first_ns=at(1))))
    tick(flows, 6)
    assert [row["end_reason"] for row in shown(flows)] == [EndReason.IDLE_TIMEOUT]
    tick(flows, 7)
    assert shown(flows) == []


def test_a_packet_after_the_end_starts_another_flow() -> None:
    flows = table(end_timeout_s=2)
    tick(flows, 1, (key(), counters(5, 500, at(1), tcp_bits=FIN)))
    tick(flows, 3)
    tick(flows, 4, (key(), counters(1, 40, at(4), tcp_bits=ACK)))
    old, new = shown(flows)
    assert (old["flow_id"], old["end_reason"], old["packet_total"]) == (1, EndReason.END_OF_FLOW, 5)
    assert (new["flow_id"], new["end_reason"], new["packet_total"]) == (2, EndReason.NONE, 1)
    assert new["tcp_control_bits"] == ACK


def test_past_max_flows_the_least_recently_active_end_for_lack_of_resources() -> None:
    flows = table(max_flows=8)
    tick(flows, 1, *((key(source_port=p), counters(first_ns=at(p / 10))) for p in range(8)))
    records = tick(flows, 2, (key(source_port=0), counters(first_ns=at(1.5))),
                   *((key(source_port=p), counters(first_ns=at(1.6))) for p in (100, 101, 102)))
    assert sorted(records["source_port"].tolist()) == [1, 2, 3]
    assert set(records["end_reason"].tolist()) == {EndReason.LACK_OF_RESOURCES}
    assert flows.totals.evicted_flows == 3
    assert flows.live_flows == 8
    assert len(shown(flows)) == 8 + 3  # what ended is shown once
    tick(flows, 3)
    assert len(shown(flows)) == 8 + 2  # then a quarter of max_flows may linger


def test_a_flood_leaves_the_table_within_its_bounds() -> None:
    flows = table(max_flows=1000)
    total = 0
    for n in range(12):
        entries = [(key(source=f"10.{n}.{i >> 8}.{i & 255}"), counters(first_ns=at(n))) for i in range(3000)]
        total += len(tick(flows, n + 1, *entries))
        assert flows.live_flows == 1000
        assert len(shown(flows)) == 1000 + (3000 if n else 2000), "what ended in this tick is shown once"
    assert total == 12 * 3000 - 1000
    tick(flows, 13)
    assert len(shown(flows)) == 1250
    assert len(flows.columns["flow_id"]) <= 1000 + 2 * 3000


def test_aggregates_and_fragments_expire_like_other_flows() -> None:
    flows = table(idle_timeout_s=5)
    tick(flows, 1, (key(kind=Kind.AGGREGATE), counters(7, 700, at(1))),
         (key(kind=Kind.FRAGMENT), counters(2, 50, at(1))))
    assert (flows.totals.aggregated_packets, flows.totals.aggregated_octets) == (7, 700)
    assert sorted(r["kind"] for r in tick(flows, 6)) == [Kind.AGGREGATE, Kind.FRAGMENT]


# ---- books


def test_the_books_close_when_the_capture_says_what_it_observed() -> None:
    flows = table()
    first = observation(direction=0, ifindex=2, packets=14, octets=1400, lost_packets=1, lost_octets=60,
                        ignored_packets=[1, 0, 2, 0], ignored_octets=[28, 0, 72, 0], interface_packets=14)
    second = observation(direction=1, ifindex=2, packets=12, octets=2500, unjoined_fragments=2, lying_lengths=4,
                         filtered_packets=7, filtered_octets=2000)
    flows.update(batch([(key(), counters(10, 1240)), (key(direction=1), counters(5, 500))], at(1),
                       np.concatenate((first, second))))
    totals = flows.totals
    assert (totals.observed_packets, totals.accounted_packets, totals.ignored_packets, totals.lost_packets) == (
        26, 15, 3, 1)
    assert (totals.filtered_packets, totals.filtered_octets) == (7, 2000)
    assert totals.ignored_by_kind == (1, 0, 2, 0)
    books = close_books(totals, np.concatenate((first, second)))
    assert (books.unexplained_packets, books.unexplained_octets) == (0, 0)
    assert (totals.unjoined_fragments, totals.lying_lengths) == (2, 4)
    first["packets"] += 1
    flows.update(batch([], at(2), first))
    assert close_books(flows.totals, first).unexplained_packets == 15 - 15 - 3 - 1


def test_a_ticks_traffic_is_told_by_direction() -> None:
    flows = table()
    tick(flows, 1, (key(source_port=1), counters(1, 10)),
         (key(source_port=2, direction=Direction.EGRESS), counters(3, 50)))
    totals = flows.totals
    assert (totals.tick_ingress_packets, totals.tick_ingress_octets) == (1, 10)
    assert (totals.tick_egress_packets, totals.tick_egress_octets) == (3, 50)
    tick(flows, 2)
    assert (flows.totals.tick_ingress_octets, flows.totals.tick_egress_octets) == (0, 0)


def test_a_parent_is_a_flow_to_look_at_whose_packets_are_in_no_sum() -> None:
    flows = table()
    parent = key(protocol=17, destination_port=4789, kind=Kind.PARENT, tunnel=Tunnel.VXLAN, tunnel_id=42)
    again = key(protocol=17, destination_port=4789, kind=Kind.PARENT, tunnel=Tunnel.VXLAN, tunnel_id=42, ifindex=9)
    tick(flows, 1, (key("10.9.0.1", tunnel=Tunnel.VXLAN, tunnel_id=42), counters(2, 100)), (parent, counters(2, 200)),
         (again, counters(2, 200)))
    totals = flows.totals
    assert (totals.accounted_packets, totals.accounted_octets) == (2, 100)
    assert (totals.duplicate_packets, totals.duplicate_octets) == (0, 0)
    assert (totals.tick_ingress_packets, totals.tick_ingress_octets) == (2, 100)
    assert int(np.count_nonzero(flows.visible)) == 3
    told = {(int(r["kind"]), int(r["ifindex"])): int(r["octet_delta"]) for r in flows.end_all(at(2))}
    assert told == {(Kind.FLOW, 2): 100, (Kind.PARENT, 2): 200, (Kind.PARENT, 9): 200}


def test_a_carried_flow_and_the_same_one_at_the_tunnels_device_are_one_conversation() -> None:
    flows = table()
    tick(flows, 1, (key(ifindex=2, tunnel=Tunnel.VXLAN, tunnel_id=42), counters(1, 50, at(0.1))),
         (key(ifindex=3), counters(1, 50, at(0.101))))
    assert (flows.totals.accounted_octets, flows.totals.duplicate_octets) == (100, 50)


# ---- the invariant

# The kernel adds octets only with a packet, so there is at least one of those.
_entry = st.tuples(
    st.integers(0, 7), st.sampled_from([Kind.FLOW, Kind.AGGREGATE, Kind.FRAGMENT]), st.integers(0, 1),
    st.integers(1, 3), st.sampled_from([0, 10]),
    st.integers(1, 2**33), st.integers(0, 2**40), st.sampled_from([0, 0, SYN, ACK, FIN, RST]), st.integers(0, 999))
_ticks = st.lists(st.tuples(st.integers(1, 30_000), st.lists(_entry, max_size=12)), max_size=15)


def _batch_of(entries: list[Any], now_ms: int, length_ms: int) -> FlowBatch:
    distinct = {entry[:5]: entry for entry in entries}
    return batch([
        (key(source_port=port, kind=kind, direction=direction, ifindex=ifindex, vlan_id=vlan),
         counters(packets, octets, at((now_ms - length_ms * share / 1000) / 1000), tcp_bits=bits))
        for port, kind, direction, ifindex, vlan, packets, octets, bits, share in distinct.values()], at(now_ms / 1000))


@settings(deadline=None, max_examples=100)
@given(_ticks, st.sampled_from(["mark", "drop", "off"]), st.sampled_from([1, 3, 1000]), st.booleans())
def test_records_tell_every_packet_and_octet_of_every_key_once(
        ticks: list[tuple[int, list[Any]]], dedupe: str, max_flows: int, two_batches: bool) -> None:
    flows = table(dedupe=dedupe, max_flows=max_flows, active_timeout_s=5)
    packets, octets, told_packets, told_octets = Counter[bytes](), Counter[bytes](), Counter[bytes](), Counter[bytes]()
    records: list[FlowRecords] = []
    now_ms = 0
    for length_ms, entries in ticks:
        now_ms += length_ms
        parts = [entries[::2], entries[1::2]] if two_batches else [entries]
        for part in parts:
            added = _batch_of(part, now_ms, length_ms)
            records.append(flows.accumulate(added))
            for k, c in zip(added.keys, added.counters, strict=True):
                packets[k.tobytes()] += int(c["packets"])
                octets[k.tobytes()] += int(c["octets"])
        records.append(flows.close_tick())
        assert flows.live_flows <= max_flows
    records.append(flows.end_all(at(now_ms / 1000)))
    assert flows.live_flows == 0
    key_names = list(batch([], 0).keys.dtype.names or ())
    for record in np.concatenate(records):
        name = np.array([tuple(record[field] for field in key_names)], batch([], 0).keys.dtype).tobytes()
        told_packets[name] += int(record["packet_delta"])
        told_octets[name] += int(record["octet_delta"])
    totals = flows.totals
    assert totals.accounted_packets == packets.total()
    assert totals.accounted_octets == octets.total()
    counting = np.concatenate(records)
    counting = counting[~counting["duplicate"]]
    assert int(counting["packet_delta"].sum()) == packets.total() - totals.duplicate_packets
    assert int(counting["octet_delta"].sum()) == octets.total() - totals.duplicate_octets
    if dedupe == "drop":
        assert told_packets.total() == packets.total() - totals.duplicate_packets
        assert told_octets.total() == octets.total() - totals.duplicate_octets
    else:
        assert +told_packets == +packets
        assert +told_octets == +octets


# ---- ticks that stay open


def test_a_tick_that_stays_open_keeps_to_the_bounds_and_ends_idle_flows() -> None:
    """A reader that does not come: drains go on, nobody closes the tick."""
    flows = table(max_flows=100, idle_timeout_s=5)
    flows.accumulate(batch([(key(source_port=1), counters(first_ns=at(1)))], at(1)))
    ended = flows.accumulate(batch([], at(7)))
    assert ended["end_reason"].tolist() == [EndReason.IDLE_TIMEOUT]
    sizes = []
    for n in range(60):
        keys = np.repeat(key(), 5000)
        sources = [bytes((10, n, i >> 8, i & 255)).ljust(16, b"\0") for i in range(5000)]
        keys["source_address"] = np.array(sources, "V16")
        flows.accumulate(batch([(keys, np.repeat(counters(first_ns=at(8 + n)), 5000))], at(8 + n)))
        assert flows.live_flows <= 100
        sizes.append(flows.nbytes)
    assert sizes[-1] == sizes[40], "memory stands still once the room for unshown flows is full"
    assert flows.totals.unlisted_packets > 0
    flows.close_tick()
    listed = int(flows.columns["packet_delta"][flows.visible].sum())
    assert listed + flows.totals.unlisted_packets == flows.totals.accounted_packets == 60 * 5000 + 1


def test_what_ended_in_an_open_tick_is_shown_once_however_long_the_tick() -> None:
    flows = table(max_flows=1, linger_s=1)
    for second in range(1, 30):
        flows.accumulate(batch([(key(source_port=second), counters(first_ns=at(second)))], at(second)))
    flows.close_tick()
    assert sorted(row["source_port"] for row in shown(flows)) == list(range(1, 30))
    tick(flows, 31)
    assert [row["source_port"] for row in shown(flows)] == [29]


def test_a_flow_that_is_kept_stays_visible_after_its_end_until_another_one_is() -> None:
    flows = table(idle_timeout_s=2, linger_s=1, max_flows=4)
    now = START_NS + SECOND
    flows.update(batch([(key(source_port=port), counters(1, 100, now)) for port in range(1, 5)], now))
    ids = dict(zip(flows.columns["source_port"].tolist(), flows.columns["flow_id"].tolist(), strict=True))
    flows.keep(frozenset({ids[2]}))
    for _ in range(20):
        now += SECOND
        flows.update(batch([], now))
    assert flows.columns["source_port"][flows.visible].tolist() == [2]
    assert flows.live_flows == 0
    flows.update(batch([(key(source_port=port), counters(1, 100, now)) for port in range(1, 5)], now))
    assert flows.live_flows == 4 and len(flows.columns["source_port"][flows.visible]) == 5, "its next flow is another"
    assert flows.totals.evicted_flows == 0, "it takes no live flow's place"
    flows.keep(frozenset())
    assert len(flows.columns["source_port"][flows.visible]) == 4
    flows.update(batch([], now + SECOND))
    assert flows.live_flows == 4


@pytest.mark.parametrize("step_ms", [1_000, 300])
@pytest.mark.parametrize("members", [{3}, {3, 4}, set(range(1, 61)), {70}])
def test_the_history_of_several_flows_is_what_they_had_by_each_time(step_ms: int, members: set[int]) -> None:
    """Ports 1 to 60 talk in turn, 70 begins late; a bucket of ticks of 300 ms has several ticks."""
    table, sent = FlowTable(TableConfig(idle_timeout_s=1e4)), list[tuple[int, int, int]]()
    now_ns = START_NS
    for tick in range(24):
        now_ns += step_ms * 1_000_000
        ports = [port for port in [*range(1, 61), *([70] if tick > 12 else [])] if (tick + port) % 3]
        sent += [(now_ns, port, 100 + tick * port) for port in ports]
        table.update(batch([(key(source_port=port), counters(1, 100 + tick * port, now_ns - step_ms * 500_000))
                            for port in ports], now_ns))
    slots = np.flatnonzero(table.visible & np.isin(table.columns["source_port"], list(members)))
    assert len(slots) == len(members)
    halves = [slots[::2], slots[1::2]]
    ports = [set(table.columns["source_port"][half].tolist()) for half in halves]
    history = table.histories(halves)
    end_ns = now_ns
    for length_ns, octets in reversed(history):
        assert octets == [sum(size for at_ns, port, size in sent
                              if end_ns - length_ns < at_ns <= end_ns and port in its) for its in ports]
        end_ns -= length_ns
    assert sum(sum(octets) for _, octets in history) == sum(size for _, port, size in sent if port in members)
