"""Sampling in every form: parameters of RFC 5477 and RFC 7014, what selects the sampler, and what is not known."""

from __future__ import annotations

import struct

import pytest

from flowtop.capture.collector import sampling as module
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.model.exporters import CollectingStatistics, collecting_record, faults
from tests.unit.capture.collector.exports import NOW_S, ipfix, set_of, template

UDP = Session(("192.0.2.1", 40_001), "192.0.2.1", True)
TCP = Session("tcp", "192.0.2.1", False)
PACKETS, OCTETS = 10, 1_000
OPTIONS, FLOWS = 300, 256
KEY = ((8, 4), (12, 4), (2, 4), (1, 4))
"""Addresses, packets, octets."""

WIDTHS = {1: "B", 2: "H", 4: "I", 8: "Q"}
Field = tuple[int, int, int | float]
"""Element, octets, value; a float is a floating-point number."""


def encoded(fields: tuple[Field, ...]) -> bytes:
    return b"".join(struct.pack(">" + ("d" if length == 8 else "f") if isinstance(value, float) else
                                ">" + WIDTHS[length], value) for _, length, value in fields)


def options(*fields: Field, scope: Field = (144, 4, 1), number: int = OPTIONS) -> bytes:
    """An Options Template and a record of it."""
    all_fields = (scope, *fields)
    return template(number, [field[:2] for field in all_fields], scope=1) + set_of(number, encoded(all_fields))


def flows(*fields: Field, count: int = 1) -> bytes:
    """A Template of flows with more fields, and records of it with different sources."""
    more = encoded(fields)
    records = b"".join(struct.pack(">IIII", source, 2, PACKETS, OCTETS) + more for source in range(count))
    return template(FLOWS, (*KEY, *(field[:2] for field in fields))) + set_of(FLOWS, records)


def factor(process: CollectingProcess) -> float:
    """How many times as many packets were counted as were reported; octets have the same factor."""
    _, counters, _ = process.drain()
    packets, octets = int(counters["packets"].sum()), int(counters["octets"].sum())
    records = process.statistics().records
    assert octets * PACKETS == packets * OCTETS
    return packets / PACKETS / records


def collected(*sets: bytes, session: Session = UDP) -> tuple[float, CollectingStatistics]:
    process = CollectingProcess()
    assert process.receive(ipfix(*sets), session, NOW_S)
    return factor(process), process.statistics()


FORMS: list[tuple[tuple[Field, ...], float]] = [
    # NetFlow 9
    (((34, 4, 100),), 100), (((34, 2, 512), (35, 1, 2)), 512), (((50, 4, 1_000), (49, 1, 2)), 1_000),
    (((49, 1, 1), (50, 2, 64)), 64), (((34, 4, 0), (50, 4, 200)), 200), (((34, 4, 1), (35, 1, 1)), 1),
    (((34, 4, 1), (49, 1, 2), (50, 4, 100)), 100), (((50, 4, 1), (34, 4, 64)), 64), (((34, 4, 1), (50, 4, 1)), 1),
    (((34, 4, 0),), 1),
    # 1: systematic count-based, so many packets and then a space
    (((304, 2, 1), (305, 4, 1), (306, 4, 99)), 100), (((305, 4, 1), (306, 4, 999)), 1_000),
    (((304, 2, 1), (305, 4, 10), (306, 4, 90)), 10), (((304, 2, 1), (305, 4, 100), (306, 4, 0)), 1),
    (((304, 1, 1), (305, 2, 2), (306, 2, 3)), 2.5), (((305, 4, 1_000),), 1_000),
    (((306, 4, 99),), 100), (((304, 2, 1), (305, 4, 1)), 1),
    # 2: systematic time-based, in microseconds
    (((304, 2, 2), (307, 4, 1_000), (308, 4, 9_000)), 10), (((307, 4, 50), (308, 4, 50)), 2),
    # 3: n out of N, also with parameters of other algorithms (IOS XR)
    (((304, 2, 3), (309, 4, 1), (310, 4, 256)), 256), (((304, 2, 3), (309, 4, 5), (310, 4, 1_000)), 200),
    (((304, 2, 3), (305, 4, 1), (309, 4, 1), (310, 4, 256)), 256),
    (((304, 2, 3), (305, 4, 256), (309, 4, 1), (310, 4, 256)), 256),
    (((304, 2, 3), (305, 4, 1), (306, 4, 0), (309, 4, 1), (310, 4, 4_000)), 4_000),
    (((305, 4, 1), (309, 4, 1), (310, 4, 256)), 256), (((304, 2, 3), (34, 4, 128)), 128),
    (((304, 2, 1), (305, 4, 1), (306, 4, 31), (309, 4, 1), (310, 4, 4)), 32),
    # 4: uniform probability
    (((304, 2, 4), (311, 8, 0.01)), 100), (((311, 8, 0.25),), 4), (((304, 2, 4), (311, 4, 0.125)), 8),
    (((304, 2, 4), (311, 8, 1.0)), 1),
    # 5: a filter selects all packets that it is about
    (((304, 2, 5),), 1),
    # 6 to 8: hash-based, by the selected part of the output range
    (((304, 2, 6), (329, 8, 0), (330, 8, 0xFFFF_FFFF), (331, 8, 0), (332, 8, 0x0FFF_FFFF)), 16),
    (((304, 2, 8), (329, 8, 0), (330, 8, 999), (331, 8, 100), (332, 8, 119)), 50),
    (((304, 2, 7), (309, 4, 1), (310, 4, 12)), 12),
    # Selection of flows (RFC 7014): ipt_NETFLOW
    (((390, 2, 1), (396, 8, 1), (397, 8, 15)), 16), (((396, 4, 2), (397, 4, 6)), 4),
    (((390, 2, 2), (398, 8, 100), (399, 8, 900)), 10), (((390, 2, 3), (309, 4, 1), (310, 4, 20)), 20),
    (((390, 2, 4), (311, 8, 0.5)), 2), (((390, 2, 6), (309, 4, 1), (310, 4, 7)), 7),
    # Of both, one after the other
    (((304, 2, 1), (305, 4, 1), (306, 4, 9), (390, 2, 1), (396, 8, 1), (397, 8, 4)), 50),
    (((34, 4, 10), (390, 2, 3), (309, 4, 1), (310, 4, 3)), 30),
]


@pytest.mark.parametrize("session", [UDP, TCP], ids=["udp", "tcp"])
@pytest.mark.parametrize(("fields", "interval"), FORMS)
def test_sampling_of_every_form_in_options(fields: tuple[Field, ...], interval: float, session: Session) -> None:
    found, statistics = collected(options(*fields), flows(), session=session)
    assert found == interval and statistics.unknown_sampling == 0
    assert statistics.sampled_packets == (PACKETS if interval > 1 else 0)


@pytest.mark.parametrize(("fields", "interval"), FORMS)
def test_sampling_of_every_form_in_the_records_themselves(fields: tuple[Field, ...], interval: float) -> None:
    found, statistics = collected(flows(*fields))
    assert found == interval and statistics.unknown_sampling == 0


@pytest.mark.parametrize(("fields", "interval"), FORMS)
def test_sampling_of_every_form_by_selector(fields: tuple[Field, ...], interval: float) -> None:
    other = options((302, 4, 8), (34, 4, 7_777), number=301)
    found, statistics = collected(other, options((302, 4, 9), *fields), flows((302, 2, 9)))
    assert found == interval and statistics.unknown_sampling == 0


# ---- what selects the sampler

SCOPES: list[tuple[Field, tuple[Field, ...], tuple[Field, ...]]] = [
    # scope, fields of the options, fields of the flow
    ((144, 4, 1), (), ()), ((143, 4, 7), (), ()), ((149, 4, 7), (), ()), ((149, 4, 0), (), ()), ((141, 4, 2), (), ()),
    ((130, 4, 0xC0000201), (), ()), ((138, 8, 5), (), ()), ((145, 2, FLOWS), (), ()),
    ((144, 4, 1), ((48, 1, 3),), ((48, 1, 3),)), ((144, 4, 1), ((48, 2, 3),), ((48, 4, 3),)),
    ((48, 1, 3), (), ((48, 1, 3),)), ((302, 8, 3), (), ((302, 4, 3),)),
    ((302, 4, 3), (), ((48, 1, 3),)), ((144, 4, 1), ((48, 2, 3),), ((302, 8, 3),)),  # one has replaced the other
    ((302, 4, 3), (), ()), ((144, 4, 1), ((48, 2, 3),), ()),  # the only sampler, and flows without one
    ((301, 8, 44), (), ((301, 8, 44),)), ((301, 8, 44), (), ()),
    ((10, 4, 12), (), ((10, 4, 12),)), ((10, 4, 12), (), ((10, 2, 12), (14, 2, 13))), ((14, 4, 12), (), ((14, 4, 12),)),
    ((10, 4, 12), (), ((14, 4, 12),)),  # the interface where it was observed
    ((10, 4, 12), (), ((10, 4, 3), (14, 4, 12), (61, 1, 1))), ((10, 4, 12), (), ((10, 4, 12), (14, 4, 3), (61, 1, 0))),
    ((10, 4, 0), (), ((10, 4, 12),)),  # softflowd: no interface, so any
    ((10, 4, 12), (), ()), ((141, 4, 2), (), ((141, 4, 2),)),
]


@pytest.mark.parametrize(("scope", "more", "of_flow"), SCOPES)
@pytest.mark.parametrize("form", [((34, 4, 50),), ((305, 4, 1), (306, 4, 49)),
                                  ((304, 2, 3), (309, 4, 2), (310, 4, 100))])
def test_a_sampler_is_found_by_what_it_is_for(scope: Field, more: tuple[Field, ...], of_flow: tuple[Field, ...],
                                              form: tuple[Field, ...]) -> None:
    found, statistics = collected(options(*more, *form, scope=scope), flows(*of_flow))
    assert found == 50 and statistics.unknown_sampling == 0


@pytest.mark.parametrize(("scope", "of_flow"), [
    ((10, 4, 12), ((10, 4, 13),)), ((14, 4, 12), ((14, 4, 13),)), ((10, 4, 12), ((10, 4, 3), (14, 4, 12))),
    ((10, 4, 12), ((10, 4, 3), (14, 4, 12), (61, 1, 0))), ((145, 2, 999), ()), ((141, 4, 2), ((141, 4, 3),)),
    ((302, 4, 5), ((302, 4, 0),)),
])
def test_a_sampler_of_other_flows_does_not_apply(scope: Field, of_flow: tuple[Field, ...]) -> None:
    found, statistics = collected(options((34, 4, 50), scope=scope), flows(*of_flow))
    assert found == 1 and statistics.unknown_sampling == 0


def test_the_most_specific_sampler_of_a_flow_applies() -> None:
    announced = (options((34, 4, 2)), options((34, 4, 3), scope=(10, 4, 12), number=301),
                 options((34, 4, 5), scope=(302, 4, 9), number=302))
    for of_flow, interval in (((), 2), (((10, 4, 12),), 3), (((10, 4, 12), (302, 4, 9)), 5),
                              (((10, 4, 12), (302, 4, 8)), 3), (((10, 4, 1), (302, 4, 8)), 2),
                              (((34, 4, 7), (302, 4, 9)), 7)):
        assert collected(*announced, flows(*of_flow))[0] == interval


@pytest.mark.parametrize(("selectors", "interval"), [
    (((302, 4, 1),), 10), (((302, 4, 1), (302, 4, 2)), 40), (((302, 4, 1), (302, 4, 3)), 10),
    (((302, 4, 3), (302, 4, 2), (302, 4, 1)), 40), (((302, 4, 2), (302, 4, 2)), 16),
])
@pytest.mark.parametrize("sequence_first", [True, False])
def test_a_selection_sequence_is_all_its_selectors_in_turn(selectors: tuple[Field, ...], interval: float,
                                                           sequence_first: bool) -> None:
    announced = [options((304, 2, 1), (305, 4, 1), (306, 4, 9), scope=(302, 4, 1), number=301),
                 options((304, 2, 3), (309, 4, 1), (310, 4, 4), scope=(302, 4, 2), number=302),
                 options((304, 2, 5), scope=(302, 4, 3), number=303)]
    report = options((10, 4, 1), *selectors, scope=(301, 8, 77))
    sets = [report, *announced] if sequence_first else [*announced, report]
    found, statistics = collected(*sets, flows((301, 8, 77)))
    assert found == interval and statistics.unknown_sampling == 0


# ---- what is not known

UNKNOWN: list[tuple[bytes, tuple[Field, ...]]] = [
    (b"", ((48, 1, 3),)), (b"", ((302, 8, 3),)), (b"", ((301, 8, 3),)), (b"", ((35, 1, 2),)), (b"", ((49, 1, 1),)),
    (b"", ((304, 2, 3),)), (b"", ((304, 2, 2), (307, 4, 0), (308, 4, 5))), (b"", ((390, 2, 9),)),
    (options((34, 4, 50), scope=(302, 4, 4)), ((302, 4, 3),)),  # another sampler is known
    (options((304, 2, 3), scope=(302, 4, 3)), ((302, 4, 3),)), (options((304, 2, 4), (311, 8, 0.0)), ()),
    (options((304, 2, 3)), ()), (options((304, 2, 6), (329, 8, 0), (330, 8, 99)), ()), (options((304, 2, 42)), ()),
    (options((48, 2, 3), (49, 1, 2)), ((48, 2, 3),)),  # ASR 9000 without interval
    (options((302, 4, 1), (302, 4, 2), scope=(301, 8, 3)), ((301, 8, 3),)),  # selectors that nobody announced
    (options((34, 4, 50), scope=(302, 4, 4)) + options((34, 4, 60), scope=(302, 4, 5), number=301), ()),
    (options((34, 4, 50), scope=(141, 4, 4)) + options((34, 4, 60), scope=(141, 4, 5), number=301), ()),
]


@pytest.mark.parametrize(("announced", "of_flow"), UNKNOWN)
def test_sampling_with_an_unknown_interval_is_counted(announced: bytes, of_flow: tuple[Field, ...]) -> None:
    found, statistics = collected(announced, flows(*of_flow, count=3))
    assert found == 1 and statistics.unknown_sampling == 3
    assert ("unknown sampling", 3) in faults(statistics)
    assert collecting_record(statistics)["unknownSampling"] == 3


@pytest.mark.parametrize(("announced", "of_flow"), UNKNOWN)
def test_a_sampling_interval_of_the_user_fills_what_is_not_known(announced: bytes, of_flow: tuple[Field, ...]) -> None:
    session = Session("udp", "192.0.2.1", True, 1_000)
    found, statistics = collected(announced, flows(*of_flow), session=session)
    assert found == 1_000 and statistics.unknown_sampling == 0


@pytest.mark.parametrize(("announced", "of_flow", "interval"), [
    (b"", (), 1_000), (b"", ((34, 4, 1),), 1), (b"", ((34, 4, 20),), 20), (options((34, 4, 20)), (), 20),
    (options((34, 4, 1)), (), 1), (options((34, 4, 0)), (), 1_000), (b"", ((34, 4, 0),), 1_000),
    (options((305, 4, 1), (306, 4, 0)), (), 1), (options((34, 4, 20), scope=(302, 4, 1)), ((302, 4, 1),), 20),
    (options((34, 4, 20), scope=(302, 4, 1)), ((302, 4, 2),), 1_000),
])
def test_an_exporter_that_reports_its_sampling_wins(announced: bytes, of_flow: tuple[Field, ...],
                                                    interval: float) -> None:
    session = Session("udp", "192.0.2.1", True, 1_000)
    assert collected(announced, flows(*of_flow), session=session)[0] == interval


def test_no_sign_of_sampling_is_no_fault() -> None:
    for of_flow in ((), ((48, 1, 0),), ((302, 4, 0),), ((35, 1, 0),), ((304, 2, 0),), ((10, 4, 3),)):
        assert collected(options((82, 1, 65), scope=(10, 4, 3)), flows(*of_flow))[1].unknown_sampling == 0


@pytest.mark.parametrize(("field", "interval", "unknown", "by_user"), [
    (0, 1, 0, 500), (100, 100, 0, 100), (0x4000 | 100, 100, 0, 100), (0x8000 | 1_000, 1_000, 0, 1_000),
    (0x4001, 1, 0, 1), (1, 1, 0, 1), (0x4000, 1, 1, 500), (0x8000, 1, 1, 500), (0x3FFF, 16_383, 0, 16_383),
])
def test_sampling_in_the_header_of_netflow_5(field: int, interval: int, unknown: int, by_user: int) -> None:
    """Two bits of mode, 14 of interval; many exporters leave the mode 0."""
    record = struct.pack(">IIIHHIIIIHHBBBBHHBBH", 1, 2, 0, 3, 4, PACKETS, OCTETS, 1, 2, 80, 443, 0, 16, 6, *[0] * 6)
    datagram = struct.pack(">HHIIIIHH", 5, 1, 1_000, int(NOW_S), 0, 1, 0, field) + record
    for session, expected in ((UDP, interval), (Session("udp", "192.0.2.1", True, 500), by_user)):
        process = CollectingProcess()
        process.receive(datagram, session, NOW_S)
        assert factor(process) == expected
        assert process.statistics().unknown_sampling == (unknown if session is UDP else 0)


# ---- in time

@pytest.mark.parametrize("session", [UDP, TCP], ids=["udp", "tcp"])
@pytest.mark.parametrize("scope", [(144, 4, 1), (302, 4, 5), (10, 4, 12), (143, 4, 1), (149, 4, 7)])
def test_a_change_applies_to_flows_after_it(scope: Field, session: Session) -> None:
    of_flow = {302: ((302, 4, 5),), 10: ((10, 4, 12),)}.get(scope[0], ())
    process = CollectingProcess()
    for interval in (10, 100, 1, 0, 4):
        process.receive(ipfix(options((34, 4, interval), scope=scope), flows(*of_flow)), session, NOW_S)
    assert factor(process) == (10 + 100 + 1 + 1 + 4) / 5


def test_a_first_announcement_applies_to_flows_of_the_same_tick() -> None:
    process = CollectingProcess()
    process.receive(ipfix(flows()), UDP, NOW_S)
    process.receive(ipfix(options((34, 4, 10))), UDP, NOW_S)
    assert factor(process) == 10


def test_the_options_of_a_connection_that_has_ended_apply_to_its_flows() -> None:
    process = CollectingProcess()
    process.receive(ipfix(flows(), options((34, 4, 10))), TCP, NOW_S)
    process.end(TCP)
    assert factor(process) == 10
    process.receive(ipfix(flows()), TCP, NOW_S)
    assert factor(process) == 0.5, "one more flow of two, not sampled"


def test_changes_all_the_time_are_bounded_in_cost_and_what_is_counted_is_right_at_last() -> None:
    process = CollectingProcess()
    for number in range(1_000):
        process.receive(ipfix(options((34, 4, 2 + number % 2)), flows()), UDP, NOW_S)
    assert process._announced.changes == 999 and 2 <= factor(process) <= 3
    process.receive(ipfix(options((34, 4, 8)), flows()), UDP, NOW_S)
    _, counters, _ = process.drain()
    assert counters["packets"].tolist() == [8 * PACKETS]


# ---- bounds

def test_samplers_are_bounded_and_what_is_not_kept_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SAMPLERS", 3)
    monkeypatch.setattr(module, "MAX_ALL_SAMPLERS", 5)
    process = CollectingProcess()
    for domain in (1, 2):
        for sampler in range(5):
            process.receive(ipfix(options((34, 4, 10), scope=(302, 4, sampler)), domain=domain), UDP, NOW_S)
    assert process.statistics().evicted_state == 7  # an exporter has 3 of 10
    assert ("other state forgotten", 7) in faults(process.statistics())
    process.receive(ipfix(options((34, 4, 20), scope=(302, 4, 4)), domain=2), UDP, NOW_S)  # a change needs no room
    assert process.statistics().evicted_state == 7
    process.end(UDP)
    assert len(process._announced.samplers.shares) == 0 and not process._announced.samplers._exporters
