"""What an exporter announces in another domain or from another port: sampling, names and Templates of its flows."""

from __future__ import annotations

import struct
import time

import pytest

from flowtop.capture.collector.names import Table
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.model.exporters import CollectingStatistics, collecting_record, facts
from tests.unit.capture.collector.exports import FLOW, NOW_S, flow, ipfix, set_of, template

A, B, C, D = (Session(("192.0.2.1", port), "192.0.2.1", True) for port in (40_001, 40_002, 40_003, 40_004))
STRANGER = Session(("192.0.2.2", 40_001), "192.0.2.2", True)
TCP, TCP2 = Session(1, "192.0.2.1", False), Session(2, "192.0.2.1", False)
SET, OPTIONS = 256, 300
SAMPLED = (*FLOW, (48, 1))


def sampling(interval: int, sampler: int | None = None, scope: int = 1) -> bytes:
    """Options: system scope, interval, and perhaps a sampler's id."""
    if sampler is None:
        return template(OPTIONS, ((144, 4), (34, 4)), scope=1) + set_of(OPTIONS, struct.pack(">II", scope, interval))
    return (template(301, ((144, 4), (48, 1), (49, 1), (50, 4)), scope=1)
            + set_of(301, struct.pack(">IBBI", scope, sampler, 2, interval)))


def flows(sampler: int | None = None, number: int = 1) -> bytes:
    if sampler is None:
        return template(SET, FLOW) + set_of(SET, flow(number))
    return template(257, SAMPLED) + set_of(257, flow(number) + bytes([sampler]))


def packets(process: CollectingProcess) -> list[int]:
    _, counters, _ = process.drain()
    return [int(count) for count in counters["packets"]]


def netflow9(*sets: bytes, source_id: int = 7, sequence: int = 1) -> bytes:
    """A datagram by RFC 3954; sets are those of IPFIX, with the numbers that FlowSets have."""
    body = b"".join(sets)
    return struct.pack(">HHIIII", 9, 1, 1_000, int(NOW_S), sequence, source_id) + body


def v9_options(number: int, scopes: tuple[tuple[int, int], ...], fields: tuple[tuple[int, int], ...],
               record: bytes) -> bytes:
    specifiers = b"".join(struct.pack(">HH", *field) for field in scopes + fields)
    announced = struct.pack(">HHH", number, 4 * len(scopes), 4 * len(fields)) + specifiers
    return set_of(1, announced) + set_of(number, record)


# ---- sampling

@pytest.mark.parametrize(("options_session", "options_domain", "flow_session", "flow_domain", "joined"), [
    (A, 7, A, 7, (0, 0)), (A, 0, A, 7, (1, 0)), (A, 7, A, 0, (1, 0)), (A, 5, A, 7, (1, 0)), (A, 7, B, 7, (0, 1)),
    (A, 0, B, 7, (1, 1)), (A, 5, B, 7, (1, 1)), (TCP, 0, TCP, 7, (1, 0)), (TCP, 7, TCP, 7, (0, 0)),
])
@pytest.mark.parametrize("sampler", [None, 3])
def test_sampling_told_elsewhere_applies_and_is_counted(
        options_session: Session, options_domain: int, flow_session: Session, flow_domain: int,
        joined: tuple[int, int], sampler: int | None) -> None:
    process = CollectingProcess()
    process.receive(ipfix(sampling(100, sampler), domain=options_domain), options_session, NOW_S)
    process.receive(ipfix(flows(sampler), domain=flow_domain), flow_session, NOW_S)
    assert packets(process) == [200]
    statistics = process.statistics()
    assert (statistics.options_of_other_domain, statistics.options_of_other_port) == joined
    record = collecting_record(statistics)
    assert (record["optionsOfOtherDomain"], record["optionsOfOtherPort"]) == joined
    said = dict(facts(statistics))
    assert ("options of another domain" in said, "options of another port" in said) == tuple(map(bool, joined))


@pytest.mark.parametrize(("options_session", "flow_session"), [
    (A, STRANGER), (STRANGER, A), (TCP, TCP2), (TCP, A), (A, TCP)])
def test_sampling_of_another_exporter_or_connection_does_not_apply(options_session: Session,
                                                                   flow_session: Session) -> None:
    process = CollectingProcess()
    process.receive(ipfix(sampling(100)), options_session, NOW_S)
    process.receive(ipfix(flows()), flow_session, NOW_S)
    assert packets(process) == [2]


def test_the_nearest_options_win() -> None:
    announced = [(A, 7, 2), (A, 0, 3), (A, 9, 5), (B, 7, 7), (B, 0, 11), (B, 9, 13)]
    orders = {0: 2, 1: 3, 2: 5, 3: 7, 4: 11, 5: 13}
    for first, interval in orders.items():
        process = CollectingProcess()
        for session, domain, told in reversed(announced[first:]):
            process.receive(ipfix(sampling(told), domain=domain), session, NOW_S)
        process.receive(ipfix(flows()), A, NOW_S)
        assert packets(process) == [2 * interval]


def test_a_sampler_that_is_not_known_here_is_looked_for_elsewhere() -> None:
    process = CollectingProcess()
    process.receive(ipfix(sampling(10, sampler=1)), A, NOW_S)
    process.receive(ipfix(sampling(20, sampler=2), domain=0), A, NOW_S)
    process.receive(ipfix(sampling(30, sampler=3)), B, NOW_S)
    process.receive(ipfix(sampling(40, sampler=4), domain=0), B, NOW_S)
    process.receive(ipfix(template(257, SAMPLED), set_of(257, b"".join(
        flow(number) + bytes([number]) for number in range(6)))), A, NOW_S)
    assert packets(process) == [2, 20, 40, 60, 80, 2]
    statistics = process.statistics()
    assert (statistics.options_of_other_domain, statistics.options_of_other_port) == (2, 2)
    assert statistics.unknown_sampling == 1, "sampler 5; sampler 0 is none"


def test_domains_that_contradict_each_other_are_no_guess() -> None:
    process = CollectingProcess()
    for domain, interval in ((1, 10), (2, 20)):
        process.receive(ipfix(sampling(interval), domain=domain), A, NOW_S)
    process.receive(ipfix(flows()), A, NOW_S)
    assert packets(process) == [2] and process.statistics().unknown_sampling == 1
    process.receive(ipfix(sampling(30), domain=0), A, NOW_S)  # about the whole exporter
    process.receive(ipfix(set_of(SET, flow(1))), A, NOW_S)
    assert packets(process) == [60]
    process.receive(ipfix(sampling(10), domain=2), A, NOW_S)
    process.receive(ipfix(sampling(10), domain=0), A, NOW_S)
    process.receive(ipfix(set_of(SET, flow(1))), A, NOW_S)
    assert packets(process) == [20]


def test_of_two_ports_the_latest_change_wins() -> None:
    process = CollectingProcess()
    for session, interval in ((A, 10), (B, 20), (A, 10)):  # A repeats what it said before it was restarted as B
        process.receive(ipfix(sampling(interval)), session, NOW_S)
    process.receive(ipfix(flows()), C, NOW_S)
    assert packets(process) == [40]


def test_options_that_name_their_domain_are_about_it() -> None:
    process = CollectingProcess()
    for domain, interval in ((7, 10), (8, 20)):
        process.receive(ipfix(template(OPTIONS, ((149, 4), (34, 4)), scope=1),
                              set_of(OPTIONS, struct.pack(">II", domain, interval)), domain=0), A, NOW_S)
    for domain in (7, 8):
        process.receive(ipfix(flows(number=domain), domain=domain), A, NOW_S)
    assert packets(process) == [20, 40] and process.statistics().options_of_other_domain == 0


def test_options_with_a_scope_of_no_octets_are_about_their_message() -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(OPTIONS, ((149, 0), (34, 4)), scope=1), set_of(OPTIONS, struct.pack(">I", 10)),
                          flows()), A, NOW_S)
    assert packets(process) == [20]


def test_a_session_that_is_forgotten_takes_its_options_along() -> None:
    process = CollectingProcess()
    process.receive(ipfix(sampling(10)), A, NOW_S)
    process.receive(ipfix(flows()), B, NOW_S)
    process.end(A)
    process.receive(ipfix(set_of(SET, flow(2)), sequence=1), B, NOW_S)
    assert packets(process) == [20, 2]
    assert not process._announced.samplers._exporters


def test_netflow_5_has_no_options() -> None:
    process = CollectingProcess()
    process.receive(ipfix(sampling(10)), A, NOW_S)
    record = struct.pack(">IIIHHIIIIHHBBBBHHBBH", 1, 2, 0, 3, 4, 2, 300, 1, 2, 80, 443, 0, 16, 6, 0, 0, 0, 0, 0, 0)
    process.receive(struct.pack(">HHIIIIHH", 5, 1, 1_000, int(NOW_S), 0, 1, 0, 0) + record, A, NOW_S)
    assert packets(process) == [2]


# What devices send, in NetFlow 9

SYSTEM = ((1, 4),)


@pytest.mark.parametrize(("options", "source_id", "fields", "record", "interval"), [
    # Catalyst 9300: the sampler table has Source ID 0; flows have no sampler.
    (v9_options(260, SYSTEM, ((48, 4), (84, 32), (49, 1), (50, 4)),
                struct.pack(">II32sBI", 0, 1, b"SAMPLER", 2, 100)), 0, (), b"", 100),
    # IOS XE: the same with the sampler's id in flows, of another length.
    (v9_options(260, SYSTEM, ((48, 4), (84, 32), (49, 1), (50, 4)),
                struct.pack(">II32sBI", 0, 3, b"SAMPLER", 2, 1_000)), 0, ((48, 1),), b"\3", 1_000),
    # Nokia SR OS: system scope, and a Source ID of the card.
    (v9_options(256, SYSTEM, ((34, 4), (35, 1)), struct.pack(">IIB", 1, 10_000, 1)), 1, (), b"", 10_000),
    # ASR 9000: flows name the sampler, options are of the route processor.
    (v9_options(256, SYSTEM, ((48, 2), (49, 1), (50, 4), (84, 10)), struct.pack(">IHBI10s", 1, 2, 2, 8_000, b"fnf")),
     2048, ((48, 2),), b"\0\2", 8_000),
    # softflowd: scope interface 0.
    (v9_options(257, ((2, 4),), ((34, 4), (35, 1)), struct.pack(">IIB", 0, 64, 1)), 7, ((10, 4),), b"\0\0\0\5", 64),
    # Scope line card, cache, Template.
    (v9_options(257, ((3, 4),), ((34, 4),), struct.pack(">II", 2, 32)), 0, (), b"", 32),
    (v9_options(257, ((4, 4),), ((34, 4),), struct.pack(">II", 1, 16)), 0, (), b"", 16),
    (v9_options(257, ((5, 2),), ((34, 4),), struct.pack(">HI", 262, 8)), 0, (), b"", 8),
])
@pytest.mark.parametrize("session", [A, B])
def test_devices_that_announce_sampling_with_another_source_id(
        options: bytes, source_id: int, fields: tuple[tuple[int, int], ...], record: bytes, interval: int,
        session: Session) -> None:
    process = CollectingProcess()
    process.receive(netflow9(options, source_id=source_id), A, NOW_S)
    layout = ((8, 4), (12, 4), (2, 4), (1, 4), *fields)
    process.receive(netflow9(set_of(0, template(262, layout)[4:]),
                             set_of(262, struct.pack(">IIII", 1, 2, 2, 300) + record)), session, NOW_S)
    assert packets(process) == [2 * interval]
    assert process.statistics().unknown_sampling == 0


# ---- boot times

UPTIMES = ((8, 4), (12, 4), (2, 8), (1, 8), (22, 4), (21, 4))
HOUR_MS = 3_600_000
BOOT_MS = int(NOW_S) * 1000 - HOUR_MS


def booted(boot_ms: int = BOOT_MS, scope: int | None = None) -> bytes:
    """Options with systemInitTimeMilliseconds, of the exporter or of a domain."""
    fields, value = ((144, 4), 1) if scope is None else ((149, 4), scope)
    return template(OPTIONS, (fields, (160, 8)), scope=1) + set_of(OPTIONS, struct.pack(">IQ", value, boot_ms))


def since_boot(*uptimes: tuple[int, int]) -> bytes:
    return template(SET, UPTIMES) + set_of(SET, b"".join(
        struct.pack(">IIQQII", number, 2, 10, 1_000, *uptime) for number, uptime in enumerate(uptimes)))


@pytest.mark.parametrize(("options_session", "options_domain", "flow_session", "flow_domain", "joined"), [
    (A, 7, A, 7, (0, 0)), (A, 0, A, 7, (1, 0)), (A, 5, A, 7, (1, 0)), (A, 7, B, 7, (0, 1)), (A, 0, B, 7, (1, 1)),
    (A, 5, B, 7, (1, 1)), (TCP, 0, TCP, 7, (1, 0)), (TCP, 7, TCP, 7, (0, 0)),
])
@pytest.mark.parametrize("options_first", [True, False])
def test_a_boot_time_told_elsewhere_applies_and_is_counted(
        options_session: Session, options_domain: int, flow_session: Session, flow_domain: int,
        joined: tuple[int, int], options_first: bool) -> None:
    """Times are 59 min 50 s and 59 min 58 s after a boot an hour ago: 10 s and 2 s before now."""
    messages = [(ipfix(booted(), domain=options_domain), options_session),
                (ipfix(since_boot((HOUR_MS - 10_000, HOUR_MS - 2_000)), domain=flow_domain), flow_session)]
    process = CollectingProcess()
    for octets, session in messages if options_first else reversed(messages):
        process.receive(octets, session, NOW_S)
    rows, _ = process.take_rows()
    assert (rows["start_ms"] - int(NOW_S) * 1000).tolist() == [-10_000]
    assert (rows["end_ms"] - int(NOW_S) * 1000).tolist() == [-2_000]
    statistics = process.statistics()
    assert (statistics.options_of_other_domain, statistics.options_of_other_port) == joined


@pytest.mark.parametrize(("announced", "start_s"), [
    ([], 0), ([(STRANGER, 7, BOOT_MS)], 0), ([(TCP, 7, BOOT_MS)], 0),
    ([(A, 1, BOOT_MS + 4), (A, 2, BOOT_MS)], -10),  # rounded
    ([(A, 1, BOOT_MS), (A, 2, BOOT_MS - 600_000)], 0),  # line cards that contradict each other
    ([(A, 1, BOOT_MS - 600_000), (A, 0, BOOT_MS)], -10), ([(A, 7, BOOT_MS), (A, 0, BOOT_MS - 600_000)], -10),
    ([(B, 7, BOOT_MS - 600_000), (A, 2, BOOT_MS)], -10), ([(B, 7, BOOT_MS), (B, 0, BOOT_MS - 600_000)], -10),
    ([(B, 7, BOOT_MS - 600_000), (C, 7, BOOT_MS)], -10),  # the latest
])
def test_the_nearest_boot_time_counts_and_no_guess(announced: list[tuple[Session, int, int]], start_s: int) -> None:
    """Without one, a flow is of the time of its export."""
    process = CollectingProcess()
    for session, domain, boot_ms in announced:
        process.receive(ipfix(booted(boot_ms), domain=domain), session, NOW_S)
    process.receive(ipfix(since_boot((HOUR_MS - 10_000, HOUR_MS))), A, NOW_S)
    rows, _ = process.take_rows()
    assert (rows["start_ms"] - int(NOW_S) * 1000).tolist() == [start_s * 1000]


def test_a_boot_time_with_a_domain_as_scope_is_of_that_domain() -> None:
    process = CollectingProcess()
    for domain, boot_ms in ((7, BOOT_MS), (8, BOOT_MS - 60_000)):
        process.receive(ipfix(booted(boot_ms, scope=domain), domain=0), A, NOW_S)
    for domain in (7, 8):
        process.receive(ipfix(since_boot((HOUR_MS - 10_000, HOUR_MS)), domain=domain), A, NOW_S)
    rows, _ = process.take_rows()
    assert (rows["start_ms"] - int(NOW_S) * 1000).tolist() == [-10_000, -70_000]


def test_who_began_is_told_in_another_domain() -> None:
    """biflowDirection 2 (reverse initiator) for domain 0: the source of the record did not begin."""
    process = CollectingProcess()
    process.receive(ipfix(template(OPTIONS, ((144, 4), (239, 1)), scope=1), set_of(OPTIONS, b"\0\0\0\1\2"), domain=0),
                    A, NOW_S)
    fields = ((8, 4), (12, 4), (2, 8), (1, 8), (2, 8, 29305), (1, 8, 29305))
    process.receive(ipfix(template(SET, fields), set_of(SET, struct.pack(">IIQQQQ", 1, 2, 1, 2, 3, 4))), A, NOW_S)
    rows, _ = process.take_rows()
    own = CollectingProcess()
    own.receive(ipfix(template(SET, (*fields, (239, 1))), set_of(SET, struct.pack(">IIQQQQB", 1, 2, 1, 2, 3, 4, 2))), A,
                NOW_S)
    assert rows["record_bits"].tolist() == own.take_rows()[0]["record_bits"].tolist()


def test_announced_values_are_bounded_and_end_with_their_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtop.capture.collector.announced.MAX_VALUES", 3)
    process = CollectingProcess()
    for domain in range(5):
        process.receive(ipfix(booted(), domain=domain), A, NOW_S)
    assert process.statistics().evicted_state == 2
    process.receive(ipfix(since_boot((HOUR_MS - 10_000, HOUR_MS)), domain=4), A, NOW_S)
    process.end(A)
    assert process.take_rows()[0]["start_ms"].tolist() == [int(NOW_S) * 1000 - 10_000]
    assert not len(process._announced.boots) and not process._announced.boots._exporters


# ---- Templates

@pytest.mark.parametrize("data_first", [False, True])
@pytest.mark.parametrize("domain", [0, 7, 4_294_967_295])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_a_template_of_another_port_is_found(data_first: bool, domain: int, padding: int) -> None:
    process = CollectingProcess()
    announced = ipfix(template(SET, FLOW), domain=domain), A
    data = ipfix(set_of(SET, flow(1) + flow(2) + bytes(padding)), domain=domain), B
    for message, session in ((data, announced) if data_first else (announced, data)):
        process.receive(message, session, NOW_S)
    assert packets(process) == [2, 2]
    statistics = process.statistics()
    assert (statistics.templates_of_other_port, statistics.waiting_sets, statistics.records) == (1, 0, 2)
    assert collecting_record(statistics)["templatesOfOtherPort"] == 1
    assert ("templates of another port", "1") in facts(statistics)


@pytest.mark.parametrize(("announcer", "version", "domain", "id_"), [
    (STRANGER, 10, 7, SET), (TCP, 10, 7, SET), (A, 9, 7, SET), (A, 10, 8, SET), (A, 10, 7, SET + 1)])
def test_a_template_of_another_exporter_protocol_domain_or_id_is_not(announcer: Session, version: int, domain: int,
                                                                     id_: int) -> None:
    process = CollectingProcess()
    if version == 10:
        process.receive(ipfix(template(id_, FLOW), domain=domain), announcer, NOW_S)
    else:
        process.receive(netflow9(set_of(0, template(id_, FLOW)[4:]), source_id=domain), announcer, NOW_S)
    process.receive(ipfix(set_of(SET, flow(1))), B, NOW_S)
    assert packets(process) == [] and process.statistics().waiting_sets == 1
    process.receive(ipfix(template(SET, FLOW)), B, NOW_S)
    assert packets(process) == [2]


def test_over_tcp_every_connection_has_templates_of_its_own() -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(SET, FLOW)), TCP, NOW_S)
    process.receive(ipfix(template(SET, FLOW)), A, NOW_S)
    process.receive(ipfix(set_of(SET, flow(1))), TCP2, NOW_S)
    assert packets(process) == [] and process.statistics().waiting_sets == 1


OTHER = ((12, 4), (8, 4), *FLOW[2:])
"""Fields of the same lengths in another order."""


def test_the_own_template_goes_before_that_of_another_port() -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(SET, OTHER)), A, NOW_S)
    process.receive(ipfix(template(SET, FLOW), set_of(SET, flow(1))), B, NOW_S)
    keys, _, _ = process.drain()
    assert bytes(keys["source_address"][0])[:4] == b"\x0a\0\0\1"
    assert process.statistics().templates_of_other_port == 0


def test_ports_in_use_that_contradict_each_other_are_no_guess() -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(SET, OTHER)), A, NOW_S)
    process.receive(ipfix(template(SET, FLOW)), B, NOW_S + 1)
    process.receive(ipfix(set_of(SET, flow(1))), C, NOW_S + 2)
    assert packets(process) == [] and process.statistics().waiting_sets == 1
    # A is silent for over a minute, as after a restart from another port: B's is the exporter's.
    process.receive(ipfix(template(SET, FLOW)), B, NOW_S + 70)
    keys, _, _ = process.drain()
    assert [bytes(key)[:4] for key in keys["source_address"]] == [b"\x0a\0\0\1"]


@pytest.mark.parametrize("octets", [
    flow(1)[:-1], flow(1) + b"\1", flow(1) + bytes(8), bytes(10), flow(1) + flow(2)[:30], b""])
def test_a_set_that_does_not_fit_waits_for_its_own_template(octets: bytes) -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(SET, FLOW)), A, NOW_S)
    process.receive(ipfix(set_of(SET, octets)), B, NOW_S)
    process.receive(ipfix(template(SET, FLOW)), A, NOW_S)
    statistics = process.statistics()
    assert (statistics.waiting_sets, statistics.templates_of_other_port, statistics.refused) == (1, 0, ())
    process.receive(ipfix(template(SET, ((210, 1),))), B, NOW_S)
    assert process.statistics().waiting_sets == 0


def test_a_set_of_variable_length_has_to_fit_as_well() -> None:
    fields = (*FLOW, (82, 65_535))
    process = CollectingProcess()
    process.receive(ipfix(template(SET, fields)), A, NOW_S)
    process.receive(ipfix(set_of(SET, flow(1) + b"\4eth0")), B, NOW_S)
    process.receive(ipfix(set_of(SET, flow(2) + b"\x09eth0")), B, NOW_S)
    assert packets(process) == [2] and process.statistics().waiting_sets == 1


@pytest.mark.parametrize("gone", ["expired", "ended"])
def test_a_template_that_is_gone_is_not_found(gone: str) -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(SET, FLOW)), A, NOW_S)
    later_s = NOW_S + 3_600 * (gone == "expired")
    if gone == "ended":
        process.end(A)
    process.receive(ipfix(at=int(later_s)), B, later_s)
    process.receive(ipfix(set_of(SET, flow(1)), at=int(later_s)), B, later_s)
    assert packets(process) == [] and process.statistics().waiting_sets == 1
    assert not process._templates._places


def test_a_template_that_was_redefined_is_found_as_it_is_now() -> None:
    process = CollectingProcess()
    for fields, expected in ((FLOW, b"\x0a\0\0\1"), (OTHER, b"\x0a\1\0\1"), (FLOW, b"\x0a\0\0\1")):
        process.receive(ipfix(template(SET, fields)), A, NOW_S)
        process.receive(ipfix(set_of(SET, flow(1))), B, NOW_S)
        keys, _, _ = process.drain()
        assert [bytes(key)[:4] for key in keys["source_address"]] == [expected]


def test_an_options_template_of_another_port_is_found_too() -> None:
    process = CollectingProcess()
    announced, data = template(OPTIONS, ((144, 4), (34, 4)), scope=1), set_of(OPTIONS, struct.pack(">II", 1, 50))
    process.receive(ipfix(data), B, NOW_S)
    process.receive(ipfix(announced), A, NOW_S)
    process.receive(ipfix(flows()), C, NOW_S)
    assert packets(process) == [100]


def test_sets_of_other_ports_are_no_gap_in_the_sequence() -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(SET, FLOW)), A, NOW_S)
    for sequence in (0, 3, 6, 10):
        process.receive(ipfix(set_of(SET, flow(1) * 3), sequence=sequence), B, NOW_S)
    assert process.statistics().lost_records == 1


def test_a_set_before_its_template_in_the_same_message_is_decoded_with_it() -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(SET, OTHER)), A, NOW_S)
    process.receive(ipfix(set_of(SET, flow(1)), template(SET, FLOW)), B, NOW_S)
    keys, _, _ = process.drain()
    assert bytes(keys["source_address"][0])[:4] == b"\x0a\0\0\1"
    assert process.statistics().templates_of_other_port == 0 and process.statistics().waiting_sets == 0


def test_templates_of_many_ports_cost_no_time_a_set() -> None:
    """One address with many ports, Templates of many fields that differ in the last, and sets that wait."""
    process = CollectingProcess()
    ports = [Session(("192.0.2.1", port), "192.0.2.1", True) for port in range(200)]
    for number, session in enumerate(ports):
        process.receive(ipfix(template(SET, (*((210, 1) for _ in range(4_000)), (number + 1, 4)))), session, NOW_S)
    empty = ipfix(*(set_of(SET, b"") for _ in range(10_000)))
    begin = time.process_time()
    process.receive(empty, Session("new", "192.0.2.1", True), NOW_S)
    assert time.process_time() - begin < 1
    assert all(len(ports.sessions) <= 4 for ports in process._templates._places.values())


# ---- names

def interface(number: int, name: bytes) -> bytes:
    return template(302, ((10, 4), (82, 8)), scope=1) + set_of(302, struct.pack(">I8s", number, name))


@pytest.mark.parametrize(("announced", "name", "elsewhere"), [
    ([(A, 7, b"own")], "own", 0), ([(A, 0, b"zero")], "zero", 1), ([(A, 9, b"nine")], "nine", 1),
    ([(B, 7, b"port")], "port", 0), ([(B, 9, b"both")], "both", 1), ([(A, 8, b"x"), (A, 9, b"x")], "x", 1),
    ([(A, 8, b"x"), (A, 9, b"y")], "if3", 0), ([(A, 8, b"x"), (A, 9, b"y"), (A, 0, b"z")], "z", 1),
    ([(A, 7, b"own"), (A, 0, b"zero"), (A, 9, b"nine")], "own", 0), ([(STRANGER, 7, b"no")], "if3", 0),
])
def test_names_of_interfaces_are_found_in_other_domains(announced: list[tuple[Session, int, bytes]], name: str,
                                                        elsewhere: int) -> None:
    process = CollectingProcess()
    for session, domain, text in announced:
        process.receive(ipfix(interface(3, text), domain=domain), session, NOW_S)
    process.receive(ipfix(template(SET, FLOW), set_of(SET, flow(1))), A, NOW_S)
    process.drain()
    assert list(process.points.interfaces().values()) == [f"192.0.2.1/7 {name}"]
    assert process.statistics().names_of_other_domain == elsewhere


@pytest.mark.parametrize(("fields", "record", "table", "key", "name"), [
    (((10, 4), (82, 8)), struct.pack(">I8s", 5, b"Gi0/1"), "interface", 5, "Gi0/1"),
    (((10, 2), (83, 65_535)), struct.pack(">HB", 5, 6) + b"uplink", "interface", 5, "uplink"),
    (((14, 4), (83, 8), (82, 8)), struct.pack(">I8s8s", 5, b"uplink", b"Gi0/1"), "interface", 5, "Gi0/1"),
    (((252, 4), (82, 8)), struct.pack(">I8s", 5, b"xe-0"), "interface", 5, "xe-0"),
    (((253, 4), (82, 8)), struct.pack(">I8s", 5, b" xe-1 "), "interface", 5, "xe-1"),
    (((10, 4), (82, 8)), struct.pack(">I8s", 5, b"eth0\0xyz"), "interface", 5, "eth0"),
    (((95, 4), (96, 8)), bytes([3, 0, 0, 80]) + b"http\0\0\0\0", "application", bytes([3, 0, 0, 80]), "http"),
    (((95, 65_535), (96, 65_535)), b"\5" + bytes([20, 0, 0, 9, 1]) + b"\3voi", "application", bytes([20, 0, 0, 9, 1]),
     "voi"),
    (((234, 4), (236, 8)), struct.pack(">I8s", 12, b"red"), "vrf", 12, "red"),
    (((235, 2), (236, 8)), struct.pack(">H8s", 12, b"red"), "vrf", 12, "red"),
])
def test_tables_of_options_are_kept_by_exporter(fields: tuple[tuple[int, int], ...], record: bytes, table: Table,
                                                key: int | bytes, name: str) -> None:
    process = CollectingProcess()
    announced = template(OPTIONS, ((144, 4), *fields), scope=1), set_of(OPTIONS, bytes(4) + record)
    process.receive(ipfix(*announced, domain=5), A, NOW_S)
    names = process.points.names
    assert names.find(table, "192.0.2.1", 5, key) == (name, False)
    assert names.find(table, "192.0.2.1", 7, key) == (name, True)
    assert names.find(table, "192.0.2.2", 5, key) == ("", False)


@pytest.mark.parametrize(("announced", "name"), [
    ([(7, b"http")], "http"), ([(0, b"http")], "http"), ([(9, b"http")], "http"),
    ([(8, b"http"), (9, b"http")], "http"), ([(8, b"http"), (9, b"dns")], ""),
    ([(7, b"http"), (0, b"dns")], "http"), ([(0, b"http"), (9, b"dns")], "http"),
    ([(9, b"dns"), (9, b"http")], "http"),
])
@pytest.mark.parametrize("flows_first", [True, False])
def test_names_of_applications_are_found_as_those_of_interfaces(announced: list[tuple[int, bytes]], name: str,
                                                                flows_first: bool) -> None:
    """Without a name an application is its engine and selector (RFC 6759)."""
    table = template(OPTIONS, ((95, 4), (96, 4)), scope=1)
    options = [ipfix(table, set_of(OPTIONS, bytes([3, 0, 0, 80]) + text.ljust(4, b"\0")), domain=domain)
               for domain, text in announced]
    of_flow = ipfix(template(SET, (*FLOW, (95, 4))), set_of(SET, flow(1) + bytes([3, 0, 0, 80])))
    process = CollectingProcess()
    if flows_first:
        process.receive(of_flow, A, NOW_S)
        process.drain_all()
    for octets in options:
        process.receive(octets, A, NOW_S)
        process.texts()
    if not flows_first:
        process.receive(of_flow, A, NOW_S)
        process.drain_all()
    assert list(process.texts()["applications"].values()) == [name or "3:80"]


def test_names_beyond_the_limits_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowtop.capture.collector.names.MAX_NAMES", 2)
    process = CollectingProcess()
    records = b"".join(struct.pack(">I8s", number, b"if") for number in range(1, 6))
    process.receive(ipfix(template(302, ((10, 4), (82, 8)), scope=1), set_of(302, records)), A, NOW_S)
    assert process.statistics().evicted_state == 3 and len(process.points.names) == 2
    assert process.points.names.find("interface", A.exporter, 7, 5).name == "if"  # those announced last are kept


# ---- the case handed in

def test_two_source_ports() -> None:
    """Options from one port, Template and a flow from another, then a flow from the first."""
    sampled = template(OPTIONS, ((144, 4), (34, 4), (35, 1)), scope=1) + set_of(OPTIONS, struct.pack(">IIB", 1, 100, 1))
    process = CollectingProcess()
    process.receive(ipfix(sampled), A, NOW_S)
    process.receive(ipfix(template(SET, FLOW), set_of(SET, flow(1, packets=10))), B, NOW_S)
    process.receive(ipfix(set_of(SET, flow(2, packets=10)), sequence=1), A, NOW_S)
    assert packets(process) == [1_000, 1_000]
    statistics: CollectingStatistics = process.statistics()
    assert (statistics.waiting_sets, statistics.templates_of_other_port, statistics.options_of_other_port) == (0, 1, 1)
