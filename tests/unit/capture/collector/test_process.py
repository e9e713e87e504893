"""The Collecting Process: Templates late, withdrawn, expired; sampling, names, gaps, bounds; refusals counted."""

from __future__ import annotations

import struct
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.capture.collector import process as module
from flowtop.capture.collector import sessions
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.model.exporters import Exporter, collecting_record, exporter_of, faults, observation_point_name
from flowtop.model.kinds import Kind, Tunnel
from flowtop.model.record import FLOW_RECORD_DTYPE
from flowtop.wire.flow_templates import PROFILES, announcement, flow_sets, flow_templates
from flowtop.wire.ipfix import encode_messages
from tests.unit.capture.collector.exports import FLOW, NOW_S, flow, ipfix, set_of, template
from tests.unit.wire.patience import patient

UDP = Session("udp", "192.0.2.1", True)
TCP = Session("tcp", "192.0.2.1", False)
SET = 256
UNKNOWN = 2
"""The direction of records that do not tell it."""


def drained(process: CollectingProcess) -> dict[tuple[str, int], tuple[int, int]]:
    """Packets and octets by destination and interface, and the points' books equal their sum."""
    keys, counters, _ = process.drain()
    names = process.points.interfaces()
    assert len(np.unique(keys)) == len(keys)
    return {(".".join(map(str, bytes(key["destination_address"])[:4])) + f" {names[int(key['ifindex'])]}",
             int(key["direction"])): (int(counter["packets"]), int(counter["octets"]))
            for key, counter in zip(keys, counters, strict=True)}


def counted(process: CollectingProcess) -> dict[str, Any]:
    """The counters that are not at rest."""
    statistics = process.statistics()
    return {name: value for name in statistics.__dataclass_fields__
            if (value := getattr(statistics, name)) not in (0, ()) and name not in ("exporters", "sampling_interval")}


def test_records_of_a_key_add_up_and_the_books_equal_them() -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(SET, FLOW), set_of(SET, flow(1) + flow(2) + flow(1, 5, 700))), UDP, NOW_S)
    process.receive(ipfix(set_of(SET, flow(1, 1, 50)), sequence=3), UDP, NOW_S)
    assert drained(process) == {("10.1.0.1 192.0.2.1/7 if3", UNKNOWN): (8, 1050),
                                ("10.1.0.2 192.0.2.1/7 if3", UNKNOWN): (2, 300)}
    books = process.points.observations()
    assert (int(books["packets"].sum()), int(books["octets"].sum())) == (10, 1350)
    assert counted(process) == {"messages": 2, "records": 4}
    assert drained(process) == {}


def test_data_before_its_template_waits_for_it() -> None:
    process = CollectingProcess()
    process.receive(ipfix(set_of(SET, flow(1))), UDP, NOW_S)
    process.receive(ipfix(set_of(SET, flow(9)), domain=8), UDP, NOW_S)
    assert drained(process) == {} and counted(process)["waiting_sets"] == 2
    process.receive(ipfix(template(SET, FLOW)), UDP, NOW_S + 5)
    assert drained(process) == {("10.1.0.1 192.0.2.1/7 if3", UNKNOWN): (2, 300)}
    assert counted(process) == {"messages": 3, "records": 1, "waiting_sets": 1}


def test_what_waits_is_given_up_after_a_time() -> None:
    process = CollectingProcess()
    process.receive(ipfix(set_of(SET, flow(1))), UDP, NOW_S)
    process.receive(ipfix(template(300, FLOW), at=int(NOW_S) + 4000), UDP, NOW_S + 4000)
    assert counted(process)["dropped_sets"] == 1


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtop.capture.collector.waiting.MAX_SETS", 3)
    process = CollectingProcess()
    monkeypatch.setattr("flowtop.capture.collector.waiting.OF_SOURCE", 1)
    for number in range(5):
        process.receive(ipfix(set_of(SET, flow(number))), UDP, NOW_S)
    process.receive(ipfix(template(SET, FLOW)), UDP, NOW_S)
    assert [key[0].split()[0] for key in drained(process)] == ["10.1.0.2", "10.1.0.3", "10.1.0.4"]
    assert counted(process)["dropped_sets"] == 2


def test_templates_belong_to_their_session() -> None:
    for one, other in ((UDP, Session("udp2", "192.0.2.2", True)), (TCP, Session("tcp2", "192.0.2.1", False)),
                       (UDP, TCP), (TCP, UDP)):
        process = CollectingProcess()
        process.receive(ipfix(template(SET, FLOW)), one, NOW_S)
        process.receive(ipfix(set_of(SET, flow(1))), other, NOW_S)
        assert drained(process) == {}


def test_over_udp_templates_expire_and_over_tcp_they_live_with_the_session() -> None:
    for session, expected in ((UDP, 0), (TCP, 1)):
        process = CollectingProcess()
        process.receive(ipfix(template(SET, FLOW)), session, NOW_S)
        process.receive(ipfix(domain=9, at=int(NOW_S) + 3600), session, NOW_S + 3600)
        process.receive(ipfix(set_of(SET, flow(1)), at=int(NOW_S) + 3601), session, NOW_S + 3601)
        assert len(drained(process)) == expected
    process.end(TCP)
    process.receive(ipfix(set_of(SET, flow(1))), TCP, NOW_S + 3602)
    assert len(drained(process)) == 0


def test_a_withdrawn_template_is_gone() -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(SET, FLOW)), TCP, NOW_S)
    process.receive(ipfix(set_of(2, struct.pack(">HH", SET, 0))), TCP, NOW_S)
    process.receive(ipfix(set_of(SET, flow(1))), TCP, NOW_S)
    assert drained(process) == {} and counted(process)["waiting_sets"] == 1


@pytest.mark.parametrize(("octets", "fault"), [(b"\0\3" + bytes(40), "version"), (b"\0\x0a\0\x10", "length")])
def test_every_kind_of_refusal_is_counted(octets: bytes, fault: str) -> None:
    process = CollectingProcess()
    assert not process.receive(octets, UDP, NOW_S)
    assert process.statistics().refused == ((fault, 1),) and process.statistics().refused_messages == 1


@pytest.mark.parametrize(("octets", "part"), [
    (ipfix(b"\1\0\0\1"), "set"), (ipfix(template(SET, ((8, 0),))), "template"),
    (ipfix(template(SET, ((82, 65_535),)), set_of(SET, b"\5a")), "record"),
])
def test_every_kind_of_part_that_is_skipped_is_counted(octets: bytes, part: str) -> None:
    process = CollectingProcess()
    assert process.receive(octets, TCP, NOW_S)
    statistics = process.statistics()
    assert (statistics.refused, statistics.skipped) == ((), ((part, 1),))
    assert faults(statistics) == [(f"skipped ({part})", 1)]
    assert collecting_record(statistics)["skipped"] == {part: 1}


def test_sampling_told_by_options_is_applied_by_sampler() -> None:
    process = CollectingProcess()
    sampled = ((8, 4), (12, 4), (2, 4), (1, 4), (48, 2))
    process.receive(ipfix(
        template(SET, sampled), template(300, ((144, 4), (48, 2), (49, 1), (50, 4)), scope=1),
        set_of(300, struct.pack(">IHBI", 1, 5, 2, 1000) + struct.pack(">IHBI", 1, 6, 2, 10)),
        set_of(SET, b"".join(struct.pack(">IIIIH", 1, sampler, 2, 300, sampler) for sampler in (5, 6, 7))),
    ), UDP, NOW_S)
    assert list(drained(process).values()) == [(2000, 300_000), (20, 3000), (2, 300)]
    statistics = process.statistics()
    assert (statistics.sampling_interval, statistics.sampled_packets, statistics.options_records) == (1000, 4, 2)


@pytest.mark.parametrize(("fields", "values", "interval"), [
    (((149, 4), (34, 4), (35, 1)), struct.pack(">IIB", 7, 64, 1), 64),
    (((149, 4), (305, 4), (306, 4)), struct.pack(">III", 7, 1, 99), 100),
    (((149, 4), (309, 4), (310, 4)), struct.pack(">III", 7, 2, 1000), 500),
    (((149, 4), (311, 8)), struct.pack(">Id", 7, 0.25), 4),
    (((149, 4), (34, 4)), struct.pack(">II", 7, 0), 1),
])
def test_sampling_has_as_many_forms_as_the_registry(fields: Any, values: bytes, interval: int) -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(300, fields, scope=1), template(SET, FLOW), set_of(300, values),
                          set_of(SET, flow(1))), UDP, NOW_S)
    assert list(drained(process).values()) == [(2 * interval, 300 * interval)]


def test_sampling_in_the_record_itself_goes_before_all_other() -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(SET, ((8, 4), (12, 4), (2, 4), (1, 4), (34, 4))),
                          set_of(SET, struct.pack(">IIIII", 1, 2, 3, 100, 8))), UDP, NOW_S)
    assert list(drained(process).values()) == [(24, 800)]


def test_interfaces_are_named_by_options_whenever_they_come() -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(SET, FLOW), set_of(SET, flow(1, interface=3) + flow(2, interface=4))), UDP, NOW_S)
    assert [name for name, _ in drained(process)] == ["10.1.0.1 192.0.2.1/7 if3", "10.1.0.2 192.0.2.1/7 if4"]
    process.receive(ipfix(template(300, ((10, 4), (82, 65_535)), scope=1),
                          set_of(300, struct.pack(">IB", 3, 8) + b"Gi0/1\0\0\0")), UDP, NOW_S)
    process.receive(ipfix(template(301, ((10, 4), (82, 16)), scope=1),
                          set_of(301, struct.pack(">I16s", 4, b"wan")), domain=0), UDP, NOW_S)
    assert sorted(process.points.interfaces().values()) == ["192.0.2.1/7 Gi0/1", "192.0.2.1/7 wan"]


def test_points_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtop.capture.collector.points.MAX_POINTS", 2)
    process = CollectingProcess()
    process.receive(ipfix(template(SET, FLOW), set_of(SET, b"".join(flow(n, interface=n) for n in range(1, 6)))), UDP,
                    NOW_S)
    points = sorted(name.partition(" ")[2] for name, _ in drained(process))
    assert points == [*(f"192.0.2.1/7 if{number}" for number in range(2, 6)), "others"]
    found = process.points.observations()  # what had a number before is with others: the books are whole
    assert {process.points.interfaces()[int(row["ifindex"])]: int(row["packets"]) for row in found} == {
        "others": 6, "192.0.2.1/7 if4": 2, "192.0.2.1/7 if5": 2}
    assert process.statistics().evicted_state == 3


def test_a_clock_that_is_far_off_is_moved_to_ours_and_counted() -> None:
    process = CollectingProcess()
    old = int(NOW_S) - 86_400
    record = flow(1, start_ms=old * 1000 - 9000, end_ms=old * 1000 - 1000)
    process.receive(ipfix(template(SET, FLOW), set_of(SET, record), at=old), UDP, NOW_S)
    _, counters, _ = process.drain()
    assert counters["first_ns"].tolist() == [(int(NOW_S) - 9) * 10**9]
    assert counters["last_ns"].tolist() == [(int(NOW_S) - 1) * 10**9]
    assert process.statistics().corrected_clocks == 1


def test_records_that_tell_of_no_traffic_or_too_much_are_counted() -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(SET, FLOW), template(300, ((8, 4), (12, 4), (230, 1))), set_of(300, bytes(9) * 2),
                          set_of(SET, flow(1, 0, 0) + flow(2, 1, 1 << 60))), UDP, NOW_S)
    assert drained(process) == {} and counted(process)["unusable_records"] == 4


def test_of_too_many_exporters_the_one_silent_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    process = CollectingProcess()
    one, two, three = (Session(number, f"192.0.2.{number}", True) for number in range(3))
    for session in (one, two):
        process.receive(ipfix(template(SET, FLOW), set_of(SET, flow(1))), session, NOW_S)
    for session in (one, three):  # the first is heard again, so the second has to go
        process.receive(ipfix(template(SET, FLOW), set_of(SET, flow(1)), sequence=1), session, NOW_S)
    for session in (one, three):  # without Templates: these are known
        process.receive(ipfix(set_of(SET, flow(2)), sequence=2), session, NOW_S)
    assert process.statistics().waiting_sets == 0
    assert len(drained(process)) > 0


def test_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 3)
    process = CollectingProcess()
    for number in range(5):
        session = Session(number, f"192.0.2.{number}", True)
        process.receive(ipfix(template(SET, FLOW), set_of(SET, flow(number))), session, NOW_S)
    assert process.statistics().exporters == 3 and process.statistics().evicted_sessions == 2
    assert len(drained(process)) == 5, "what they told before they were forgotten counts"


def test_hostile_exporters_cannot_grow_memory_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FIELDS", 5_000)
    process = CollectingProcess()
    tracemalloc.start()
    try:
        for number in range(3_000):
            session = Session(number % 1_500, f"192.0.2.{number % 250}", True)
            process.receive(ipfix(*(template(256 + part, FLOW) for part in range(5)), set_of(999, bytes(4_000)),
                                  domain=number), session, NOW_S)
        assert tracemalloc.get_traced_memory()[0] < 25_000_000
    finally:
        tracemalloc.stop()
    statistics = process.statistics()
    assert statistics.waiting_sets * 4_000 <= 8_000_000 and statistics.dropped_sets > 0
    assert statistics.evicted_sessions > 0


def test_exporters_that_never_come_back_cost_each_other_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message of another exporter, with a set that waits and one that counts: what is held is not searched."""
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 50)
    process = CollectingProcess()
    for number in range(2_000):
        octets = ipfix(template(SET, FLOW), set_of(SET, flow(number)), set_of(999, bytes(8)), domain=number)
        process.receive(octets, Session(number, "192.0.2.1", True), NOW_S + number / 50)
    statistics = process.statistics()
    assert (statistics.exporters, statistics.evicted_sessions, statistics.waiting_sets) == (50, 1_950, 50)
    assert statistics.dropped_sets == 1_950 and len(process._sequences) == 50
    assert len(process.drain()[0]) == 2_000


def test_domains_and_names_are_bounded_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtop.capture.collector.sequences.MAX_ALL_STREAMS", 5)
    monkeypatch.setattr("flowtop.capture.collector.names.MAX_ALL_NAMES", 3)
    process = CollectingProcess()
    for number in range(10):
        process.receive(ipfix(template(300, ((10, 4), (82, 4)), scope=1), set_of(300, struct.pack(">I4s", 3, b"wan")),
                              template(SET, FLOW), set_of(SET, flow(number)), domain=number),
                        Session(number % 2, "192.0.2.1", True), NOW_S)
    assert len(process._sequences) == 5
    assert len(process.points.names) == 3 and len(drained(process)) == 10


# ---- names of Observation Points


@pytest.mark.parametrize("point", [Exporter("192.0.2.1", 7, "eth0"), Exporter("2001:db8::1", 0, ""),
                                   Exporter("192.0.2.1", 4_294_967_295, "Gi0/1 uplink")])
def test_an_exporter_is_told_back_from_its_points_name(point: Exporter) -> None:
    assert exporter_of(observation_point_name(point)) == point


@pytest.mark.parametrize("name", [
    "eth0", "a/7 eth0", "192.0.2.1 eth0", "/x/y.pcap", "192.0.2.1/x y", "", "192.0.2.1/7"])
def test_no_other_name_is_an_exporters(name: str) -> None:
    assert exporter_of(name) is None


# ---- whatever comes


@patient
@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=120), st.lists(st.tuples(
    st.integers(0, 200), st.integers(0, 255)), max_size=5)), max_size=12), st.integers(0, 1 << 40))
def test_a_hostile_exporter_ends_in_flows_or_counters(parts: list[Any], second: int) -> None:
    process = CollectingProcess()
    carried = (*FLOW, (138, 8), (351, 8), (296, 4))  # observationPointId, layer2SegmentId, greKey
    good = [
        ipfix(template(SET, carried), set_of(SET, flow(3) + struct.pack(">QQI", 1 << 34, 1 << 56 | 5, 6))),
        ipfix(template(SET, FLOW), template(300, ((149, 4), (34, 4)), scope=1), set_of(SET, flow(1) * 3),
              set_of(300, bytes(8))),
        struct.pack(">HHIIII", 9, 0, 1000, int(NOW_S), 1, 1) + set_of(0, template(SET, FLOW)[4:])
        + set_of(SET, flow(2)),
        struct.pack(">HHIIIIHH", 5, 2, 1000, int(NOW_S), 0, 0, 0, 100) + bytes(range(96)),
    ]
    for which, tail, changes in parts:
        octets = bytearray(good[which] + tail)
        for place, value in changes:
            octets[place % len(octets)] = value
        process.receive(bytes(octets), (UDP, TCP)[which % 2], second / 1000)
    keys, counters, _ = process.drain()
    books = process.points.observations()
    assert int(counters["octets"].sum()) == int(books["octets"].sum())
    assert int(counters["packets"].sum()) == int(books["packets"].sum())
    assert (counters["first_ns"] <= counters["last_ns"]).all() and len(keys) == len(counters)
    assert (keys["tunnel"] <= max(Tunnel)).all()


def test_both_interfaces_of_a_record_are_kept_and_named() -> None:
    process = CollectingProcess()
    fields = [(8, 4), (12, 4), (10, 4), (14, 4), (1, 4), (2, 4)]
    names = template(300, [(10, 4), (82, 4)], scope=1), set_of(300, struct.pack(">I4s", 7, b"wan0"))
    records = b"".join(struct.pack(">4s4sIIII", b"\1\2\3\4", bytes([5, 6, 7, egress]), 3, egress, 9, 1)
                       for egress in (7, 0))
    process.receive(ipfix(template(SET, fields), set_of(SET, records), *names), UDP, NOW_S)
    keys, _, others = process.drain()
    called = process.points.interfaces()
    assert [(called[int(key["ifindex"])], called.get(int(other))) for key, other in zip(keys, others, strict=True)] == [
        ("192.0.2.1/7 if3", "192.0.2.1/7 wan0"), ("192.0.2.1/7 if3", None)]


KEY = "kind", "ip_version", "protocol", "destination_port", "direction", "vlan_id", "tunnel", "tunnel_id"
CARRIED = (0, 0), (1, 0), (2, 0), (2, 7), (2, 2**32 - 1), (3, 7), (4, 0), (4, 7), (5, 7), (6, 7)
"""record.Tunnel and id."""
KEYS = st.tuples(
    st.sampled_from((Kind.FLOW, Kind.FLOW, Kind.FRAGMENT)), st.sampled_from((4, 6)), st.sampled_from((1, 6, 17, 58)),
    st.sampled_from((0, 53, 0x0800)), st.integers(0, 1), st.sampled_from((0, 9)), st.sampled_from(CARRIED),
).map(lambda key: (*key[:3], key[3] * (key[0] == Kind.FLOW), *key[4:6], *key[6]))
"""Values of KEY that are often equal but for one; a fragment has no ports."""


@patient
@given(st.lists(KEYS, min_size=1, max_size=40), st.sampled_from(sorted(PROFILES)))
def test_what_flowtop_exports_it_collects_under_the_same_keys(told: list[tuple[int, ...]], profile: str) -> None:
    records = np.zeros(len(told), FLOW_RECORD_DTYPE)
    for name, values in zip(KEY, zip(*told, strict=True), strict=True):
        records[name] = values
    records["packet_delta"] = records["octet_delta"] = 1 << np.arange(len(told))
    templates = flow_templates(PROFILES[profile])
    sets, _ = flow_sets(records, templates)
    process = CollectingProcess()
    for octets in encode_messages([*announcement(templates), *announcement(templates, tunnelled=True), *sets], domain=1,
                                  sequence=0, export_time_s=int(NOW_S)).messages:
        process.receive(octets, TCP, NOW_S)
    keys, counters, _ = process.drain()
    expected: Counter[tuple[int, ...]] = Counter()
    for number, key in enumerate(told):
        expected[key] += 1 << number
    assert dict(zip(keys[list(KEY)].tolist(), counters["packets"].tolist(), strict=True)) == expected


@pytest.mark.parametrize("version", [9, 10])
def test_flows_that_differ_in_their_vni_only_are_different_flows(version: int) -> None:
    process = CollectingProcess()
    records = set_of(SET, b"".join(flow(1, packets=n) + struct.pack(">Q", 0x01 << 56 | vni)
                                   for n, vni in ((1, 100), (2, 200), (4, 100), (8, 300))))
    announced = template(SET, (*FLOW, (351, 8)))
    if version == 10:
        process.receive(ipfix(announced, records), UDP, NOW_S)
    else:
        process.receive(struct.pack(">HHIIII", 9, 5, 1000, int(NOW_S), 1, 1) + set_of(0, announced[4:]) + records, UDP,
                        NOW_S)
    keys, counters, _ = process.drain()
    assert {(int(key["tunnel"]), int(key["tunnel_id"])): int(packets)
            for key, packets in zip(keys, counters["packets"], strict=True)} == {(4, 100): 5, (4, 200): 2, (4, 300): 8}


def test_templates_that_differ_in_lengths_and_padding_are_read_together() -> None:
    process = CollectingProcess()
    for place in range(64):
        lengths = 1 + place % 8, 1 + place // 8, 2 + place % 3
        fields = ((8, 4), (12, 4), (1, lengths[0]), (210, 1 + place), (2, lengths[1]), (10, lengths[2]), (999, 3))
        record = b"".join((b"\x0a\0\0\1", bytes((10, 1, 0, place)), (place + 1).to_bytes(lengths[0], "big"),
                           bytes([255]) * (1 + place), (2 * place + 1).to_bytes(lengths[1], "big"),
                           (7).to_bytes(lengths[2], "big"), b"\1\2\3"))
        process.receive(ipfix(template(256 + place % 2, fields), set_of(256 + place % 2, record)),
                        Session(1, "192.0.2.1", True), NOW_S)
    assert list(map(len, process._layouts.values())) == [2], "one of each id"
    keys, counters, _ = process.drain()
    found = {bytes(key["destination_address"])[3]: (int(count["octets"]), int(count["packets"]))
             for key, count in zip(keys, counters, strict=True)}
    assert found == {place: (place + 1, 2 * place + 1) for place in range(64)}
    assert {process.points.interfaces()[number] for number in keys["ifindex"].tolist()} == {"192.0.2.1/7 if7"}
