"""Details of a flow, of a real flow table: what it did lately, the way back, other Observation Points, its end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flowtop.metering import rates
from flowtop.metering.flows import FlagLog, TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import Direction, EndReason, Kind, Tunnel
from flowtop.model.record import FLOW_RECORD_DTYPE
from flowtop.query.details import Watch
from tests.unit.factories import ACK, FIN, PSH, SYN, batch, counters, key

SECOND = 1_000_000_000
START_NS = 100 * SECOND
THERE = ("10.0.0.1", "10.0.0.2", 1000, 443, 6)
BACK = ("10.0.0.2", "10.0.0.1", 443, 1000, 6)


def metered(*ticks: list[tuple[tuple[Any, ...], int, int]], **config: Any) -> FlowTable:
    """A table after ticks of a second each: (key's fields, packets, octets) of each flow in each."""
    table = FlowTable(TableConfig(**config))
    for number, listed in enumerate(ticks):
        now = START_NS + (number + 1) * SECOND
        table.update(batch([(key(*fields), counters(packets, octets, now - SECOND // 4))
                            for fields, packets, octets in listed], now))
    return table


def flow_ids(table: FlowTable) -> list[int]:
    return [int(flow_id) for flow_id in table.columns["flow_id"][table.visible]]


def test_history_is_what_the_flow_sent_each_second() -> None:
    sizes = [500, 0, 1200, 70]
    table = metered(*([(THERE, 1, size)] if size else [] for size in sizes))
    details = Watch().look(1, table)
    assert details is not None
    assert details.rates == (500 / 1.25, 1200, 70), "what is too short for a bucket goes with the second after it"
    assert details.rates_s == pytest.approx(1.25 + 1 + 1), "from the first packet on"
    assert details.row.octet_total == sum(sizes)


def test_a_sliver_at_the_end_of_a_file_is_no_burst() -> None:
    table = FlowTable(TableConfig(least_tick_s=1.0))
    now = START_NS + SECOND // 1000
    table.update(batch([(key(*THERE), counters(1, 1000, START_NS)), (key(*BACK), counters(1, 40, now))], now))
    details = Watch().look(1, table)
    assert details is not None and details.row.octet_rate == 1000
    assert details.rates == (1000,)


def test_history_goes_back_two_minutes_and_not_before_a_flows_birth() -> None:
    other = ("10.0.0.3", "10.0.0.4", 5, 6, 17)
    ticks = [[(THERE, 1, 100 + number)] + ([(other, 1, 50)] if number > 140 else []) for number in range(150)]
    table = metered(*ticks)
    details = Watch().look(1, table)
    assert details is not None
    assert [round(rate) for rate in details.rates] == [100 + number for number in range(150)][-len(details.rates):]
    assert 119 <= details.rates_s <= 121
    young = Watch().look(2, table)
    assert young is not None and [round(rate) for rate in young.rates] == [50] * 9


def test_history_past_the_windows_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "HISTORY_OCTETS", 10 * 5)
    details = Watch().look(1, metered(*[[(THERE, 1, 100)] for _ in range(150)]))
    assert details is not None
    assert 70 <= details.rates_s <= 72, "ten buckets of one slot and one small number: 5 octets each"


def test_a_slots_next_flow_has_nothing_of_the_last_ones_history() -> None:
    other = ("10.0.0.3", "10.0.0.4", 5, 6, 17)
    table = metered([(THERE, 1, 9000)], *[[] for _ in range(10)], [(other, 1, 50)], idle_timeout_s=2, linger_s=1)
    [flow_id] = flow_ids(table)
    details = Watch().look(flow_id, table)
    assert details is not None and sum(details.rates) < 100


@pytest.mark.parametrize(("there", "back"), [
    (THERE, BACK),
    (("10.0.0.1", "10.0.0.2", 0, 8 << 8, 1), ("10.0.0.2", "10.0.0.1", 0, 0, 1)),
    (("2001:db8::1", "2001:db8::2", 0, 128 << 8, 58), ("2001:db8::2", "2001:db8::1", 0, 129 << 8, 58)),
    (("10.0.0.1", "10.0.0.2", 0, 0, 47), ("10.0.0.2", "10.0.0.1", 0, 0, 47)),
])
def test_the_way_back_is_found(there: tuple[Any, ...], back: tuple[Any, ...]) -> None:
    near = ("10.0.0.2", "10.0.0.1", 443, 1001, 6)
    table = metered([((*there, Direction.INGRESS, 2), 1, 100), ((*near, Direction.EGRESS, 2), 1, 7),
                     ((*back, Direction.EGRESS, 3), 1, 200), ((*back, Direction.EGRESS, 2), 1, 200)], dedupe="off")
    details = Watch().look(1, table)
    assert details is not None and details.reverse is not None
    assert (details.reverse.octet_total, details.reverse.ifindex) == (200, 2), "at the same interface"
    answer = Watch().look(details.reverse.flow_id, table)
    assert answer is not None and answer.reverse is not None and answer.reverse.flow_id == 1


def test_what_nobody_answers_has_no_way_back() -> None:
    unreachable = ("10.0.0.2", "10.0.0.1", 0, 3 << 8, 1)
    table = metered([(THERE, 1, 100), (unreachable, 1, 90)])
    for flow_id in (1, 2):
        details = Watch().look(flow_id, table)
        assert details is not None and details.reverse is None


def test_other_observation_points_of_the_same_packets() -> None:
    table = metered([((*THERE, Direction.INGRESS, 2), 1, 100), ((*THERE, Direction.EGRESS, 3), 1, 100),
                     ((*BACK, Direction.INGRESS, 3), 1, 100)])
    details = Watch().look(1, table)
    assert details is not None
    assert [(row.ifindex, row.direction, row.duplicate) for row in details.points] == [(3, Direction.EGRESS, True)]


def in_vni(vni: int, *fields: Any) -> tuple[Any, ...]:
    """Fields of a key with addresses, ports, protocol, direction and ifindex given."""
    return (*fields, 0, 0, Kind.FLOW, vni, Tunnel.VXLAN if vni else Tunnel.NONE)


def test_other_tunnels_are_neither_the_same_packets_nor_the_way_back() -> None:
    table = metered([
        (in_vni(10, *THERE, Direction.INGRESS, 2), 1, 100), (in_vni(10, *BACK, Direction.INGRESS, 2), 1, 11),
        (in_vni(30, *THERE, Direction.INGRESS, 2), 1, 100), (in_vni(30, *BACK, Direction.INGRESS, 2), 1, 33),
        (in_vni(0, *THERE, Direction.INGRESS, 2), 1, 100), (in_vni(30, *THERE, Direction.EGRESS, 3), 1, 100),
        (in_vni(0, *THERE, Direction.EGRESS, 7), 1, 100)])
    details = Watch().look(1, table)
    assert details is not None and details.reverse is not None and details.reverse.octet_total == 11
    assert [row.ifindex for row in details.points] == [7]  # the tunnel's device
    outside = Watch().look(5, table)
    assert outside is not None and outside.reverse is None


def test_the_way_back_is_in_the_same_vlan_if_it_has_one_there() -> None:
    table = metered([((*THERE, Direction.INGRESS, 2, 10), 1, 100), ((*BACK, Direction.EGRESS, 2, 10), 1, 11),
                     ((*BACK, Direction.EGRESS, 2, 20), 1, 22), ((*THERE, Direction.INGRESS, 2, 20), 1, 100)])
    details = Watch().look(1, table)
    assert details is not None and details.reverse is not None and details.reverse.octet_total == 11
    assert details.points == ()


def test_what_was_reported_and_what_is_due() -> None:
    ticks = [[(THERE, 2, 100)] for _ in range(8)]
    table = metered(*ticks, active_timeout_s=5)
    details = Watch().look(1, table)
    assert details is not None
    first_ns = START_NS + SECOND - SECOND // 4
    assert details.reported_packets in (10, 12), "by the tick after five seconds"
    offset_ms = table.unix_offset_ns // 1_000_000
    assert details.reported_ms is not None and details.due_ms == details.reported_ms + 5_000
    assert details.reported_ms - offset_ms >= first_ns // 1_000_000 + 5_000
    fresh = Watch().look(1, metered(ticks[0]))
    assert fresh is not None and (fresh.reported_packets, fresh.reported_ms) == (0, None)


def test_a_flow_can_be_read_of_after_it_has_ended_and_left() -> None:
    table, watch = metered([(THERE, 3, 300)], idle_timeout_s=2, linger_s=2), Watch()
    ends: list[tuple[int, bool]] = []
    for number in range(2, 9):
        details = watch.look(1, table)
        assert details is not None
        ends.append((details.row.end_reason, details.gone))
        table.update(batch([], START_NS + number * SECOND))
    assert ends[0] == (EndReason.NONE, False)
    assert (EndReason.IDLE_TIMEOUT, False) in ends
    assert ends[-1] == (EndReason.IDLE_TIMEOUT, True)
    assert details.row.octet_total == 300 and details.due_ms is None
    assert Watch().look(1, table) is None, "another asker never saw it"
    assert watch.look(None, table) is None
    assert watch.look(1, table) is None, "it was let go of"


def test_flags_are_known_by_the_tick_in_which_they_came() -> None:
    table = FlowTable(TableConfig())
    for second, bits in enumerate((SYN, SYN | ACK, ACK, 0, PSH | ACK, FIN | ACK), 1):
        now = START_NS + second * SECOND
        table.update(batch([(key(*THERE), counters(1, 100, now - SECOND // 4, tcp_bits=bits))], now))
    details = Watch().look(1, table)
    assert details is not None
    start_ms = (START_NS + table.unix_offset_ns) // 1_000_000
    assert details.flags == tuple((start_ms + 1000 * second, bits)
                                  for second, bits in ((1, SYN), (2, ACK), (5, PSH), (6, FIN)))


def test_what_is_forgotten_of_flags_is_the_oldest() -> None:
    log = FlagLog(events=4)
    for at in range(6):
        log.add(at, np.array([at, 100], np.uint64), np.array([1 << at, 2], np.uint16))
    assert log.of(3) == []
    assert log.of(4) == [(4, 16)] and log.of(100) == [(4, 2), (5, 2)]
    log.add(6, np.arange(5, dtype=np.uint64), np.ones(5, np.uint16))
    assert log.of(100) == [] and log.nbytes == 0, "more at once than are kept"


def test_the_next_record_is_told_and_the_only_one_of_a_flow_that_ended() -> None:
    table, watch, records = FlowTable(TableConfig(active_timeout_s=3, idle_timeout_s=5, linger_s=60)), Watch(), []
    looks = []
    for second in range(1, 15):
        now = START_NS + second * SECOND
        entries = [(key(*THERE), counters(2, 500, now))] if second < 6 else []
        entries += [(key(*BACK), counters(1, 70, now, tcp_bits=FIN))] if second == 1 else []
        looks.append(watch.look(1, table) if second > 1 else None)
        records += table.update(batch(entries, now)).tolist()
    names = FLOW_RECORD_DTYPE.names or ()
    told = [int(look.record["octet_delta"][0]) for look in looks[1:6] if look is not None and look.record is not None]
    assert told == [500, 1000, 1500, 0, 500], "a record was made in the fourth tick"
    last = watch.look(1, table)
    assert last is not None and last.row.end_reason and last.records > 1 and last.record is None
    only = Watch().look(2, table)
    [made] = [dict(zip(names, record, strict=True)) for record in records if record[0] == 2]
    assert only is not None and only.records == 1 and only.record is not None
    assert dict(zip(names, only.record.tolist()[0], strict=True)) == made
    assert sum(record[0] == 1 for record in records) == last.records
