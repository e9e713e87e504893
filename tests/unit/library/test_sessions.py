"""One's own Templates over a session: octets by struct, sequence numbers, resends, bounds; and what is refused."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowtop
from flowtop import ipfix, netflow

NOW_S = 1_700_000_000.0
TEMPLATE = ipfix.template(256, ["sourceIPv4Address", ("octetDeltaCount", 4), (32_473, 5, 2), "interfaceName"])


def clock() -> float:
    return NOW_S


def sets_of(message: bytes, header: int = 16) -> list[int]:
    """Set IDs, as RFC 7011 section 3.3.2 has them."""
    found, offset = [], header
    while offset < len(message):
        set_id, length = struct.unpack_from(">HH", message, offset)
        found.append(set_id)
        offset += length
    return found


def test_messages_are_those_of_rfc_7011_octet_by_octet() -> None:
    session = ipfix.ExportSession([TEMPLATE], domain=9, datagram=False, clock=clock)
    announcement, data = session.messages(TEMPLATE, [("192.0.2.1", 1_000, 7, "eth0")])
    record = struct.pack(">HH HH HH HHI HH", 256, 4, 8, 4, 1, 4, 0x8005, 2, 32_473, 82, 65_535)
    assert announcement == struct.pack(">HHIII HH", 10, 20 + len(record), int(NOW_S), 0, 9, 2, 4 + len(record)) + record
    values = bytes([192, 0, 2, 1]) + struct.pack(">IH", 1_000, 7) + b"\4eth0"
    assert data == struct.pack(">HHIII HH", 10, 36, int(NOW_S), 0, 9, 256, 20) + values + bytes(1)
    later, = session.messages(TEMPLATE, [{"sourceIPv4Address": ipaddress.ip_address("192.0.2.2"), "octetDeltaCount": 0,
                                          "ie32473.5": b"\0\1", "interfaceName": b"lo"}] * 2)
    assert struct.unpack_from(">I", later, 8) == (1,), "one Data Record before it: Templates do not count"
    assert session.sequence == 3
    assert session.statistics == ipfix.SentStatistics(3, 3, len(announcement) + len(data) + len(later), 1)


def test_an_options_template_goes_in_a_set_of_its_own() -> None:
    options = ipfix.template(400, [("ingressInterface", 4), ("interfaceName", 4)], scope=1)
    session = ipfix.ExportSession(clock=clock)
    announcement, data = session.messages(options, [(3, "eth0")])
    record = struct.pack(">HHHHHHH", 400, 2, 1, 10, 4, 82, 4)
    assert announcement[16:] == struct.pack(">HH", 3, 4 + len(record) + 2) + record + bytes(2)
    assert data[16:] == struct.pack(">HHI4s", 400, 12, 3, b"eth0")


def test_over_udp_templates_come_again_by_time_and_by_number_and_the_sequence_goes_on() -> None:
    now = [NOW_S]
    session = ipfix.ExportSession([TEMPLATE], refresh_s=60, refresh_messages=5, clock=lambda: now[0])
    record = ("192.0.2.1", 1, 2, "eth0")
    seen = [sets_of(message)[0] for at in (0, 1, 2, 3, 4, 5) for now[0] in [NOW_S + at]
            for message in session.messages(TEMPLATE, [record])]
    assert seen == [2, 256, 256, 256, 256, 2, 256, 256]
    now[0] = NOW_S + 70
    again = session.messages(TEMPLATE, [record])
    assert [sets_of(message) for message in again] == [[2], [256]]
    assert {struct.unpack_from(">I", message, 8)[0] for message in again} == {6}
    now[0] = NOW_S - 1_000
    assert len(session.messages(TEMPLATE, [record])) == 2, "a clock that was set back"
    assert [sets_of(message) for message in session.announcement()] == [[2]]


def test_templates_come_again_within_many_records_too() -> None:
    session = ipfix.ExportSession([TEMPLATE], refresh_messages=10, max_octets=200, clock=clock)
    messages = session.messages(TEMPLATE, [("192.0.2.1", number, 2, "eth0") for number in range(1_000)])
    kinds = [sets_of(message)[0] for message in messages]
    assert max(map(len, messages)) <= 200
    assert "2" * 1 + "d" * 9 in "".join("2" if kind == 2 else "d" for kind in kinds)
    assert "d" * 10 not in "".join("2" if kind == 2 else "d" for kind in kinds)
    decoder, numbers, expected = flowtop.Decoder(), [], 0
    for octets in messages:
        message = decoder.decode(octets)
        assert message.sequence == expected
        expected += len(message.records)
        numbers += [record["octetDeltaCount"] for record in message.records]
    assert numbers == list(range(1_000))
    assert expected == session.sequence == session.statistics.records


def test_over_tcp_templates_come_once_and_can_be_withdrawn_and_redefined() -> None:
    session = ipfix.ExportSession([TEMPLATE], datagram=False, refresh_messages=1, clock=clock)
    other = ipfix.template(256, ["octetDeltaCount"])
    messages = session.messages(TEMPLATE, [("192.0.2.1", 1, 2, "eth0")]) + session.messages(
        TEMPLATE, [("192.0.2.1", 1, 2, "eth0")])
    assert [sets_of(message) for message in messages] == [[2], [256], [256]]
    with pytest.raises(flowtop.EncodeError, match="has a different template 256"):
        session.messages(other, [(1,)])
    withdrawal, = session.withdraw(TEMPLATE)
    assert withdrawal[16:] == struct.pack(">HHHH", 2, 8, 256, 0)
    messages += [withdrawal, *session.messages(other, [(1,)])]
    decoder = flowtop.Decoder()
    decoded = [decoder.decode(message, datagram=False) for message in messages]
    assert [message.remarks for message in decoded] == [()] * len(decoded)
    assert dict(decoded[-1].records[0]) == {"octetDeltaCount": 1}
    assert decoded[3].withdrawn == (256,)
    with pytest.raises(flowtop.EncodeError, match="template 256 is not in this session"):
        session.withdraw(TEMPLATE)
    with pytest.raises(flowtop.EncodeError, match="over UDP"):
        ipfix.ExportSession([TEMPLATE]).withdraw(TEMPLATE)


def test_a_new_connection_begins_anew() -> None:
    session = ipfix.ExportSession([TEMPLATE], domain=3, datagram=False, clock=clock)
    session.messages(TEMPLATE, [("192.0.2.1", 1, 2, "eth0")])
    renewed = session.renewed()
    assert (renewed.sequence, renewed.domain, renewed.templates) == (0, 3, (TEMPLATE,))
    assert [sets_of(message) for message in renewed.announcement()] == [[2]]
    assert renewed.announcement() == [], "over TCP once"


@pytest.mark.parametrize(("fields", "words"), [
    (["noSuchElement"], "noSuchElement"), ([("octetDeltaCount", 0)], "not a field definition"),
    ([(1, 2)], "not a field definition"), ([(0, 40_000, 4)], "not a field definition"),
        ([(1 << 32, 1, 4)], "not a field definition"),
    ([("octetDeltaCount", 70_000)], "not a field definition"), ([], "not valid"), ([None], "not a field definition"),
    (["octetDeltaCount"] * 20_000, "20000"),
])
def test_a_template_that_cannot_be_is_refused(fields: Any, words: str) -> None:
    with pytest.raises(flowtop.EncodeError, match=words):
        ipfix.template(256, fields)


def test_a_name_that_is_nearly_one_is_answered_with_it() -> None:
    with pytest.raises(flowtop.EncodeError) as caught:
        ipfix.template(256, ["octetDeltacount"])
    assert "octetDeltaCount" in caught.value.hint


def test_template_ids_scopes_domains_and_sizes_are_checked() -> None:
    for id_ in (0, 255, 65_536, -1):
        with pytest.raises(flowtop.EncodeError, match=r"not in 256\.\.65535"):
            ipfix.template(id_, ["octetDeltaCount"])
    for scope in (-1, 2):
        with pytest.raises(flowtop.EncodeError, match="scope"):
            ipfix.template(256, ["octetDeltaCount"], scope=scope)
    with pytest.raises(flowtop.EncodeError, match="domain"):
        ipfix.ExportSession(domain=1 << 32)
    with pytest.raises(flowtop.EncodeError, match="messages of 10 octets"):
        ipfix.ExportSession(max_octets=10)
    with pytest.raises(flowtop.EncodeError, match="does not fit in a message"):
        ipfix.ExportSession([ipfix.template(256, ["octetDeltaCount"] * 200)])


@pytest.mark.parametrize(("name", "value"), [
    ("octetDeltaCount", -1), ("octetDeltaCount", 1 << 64), ("octetDeltaCount", "12"), ("octetDeltaCount", 1.5),
    ("octetDeltaCount", None), ("octetDeltaCount", [1]), ("octetDeltaCount", b"\1"),
    ("sourceIPv4Address", "2001:db8::1"), ("sourceIPv4Address", "192.0.2"), ("sourceIPv4Address", 7),
    ("sourceIPv6Address", ipaddress.ip_address("192.0.2.1")), ("sourceMacAddress", "02:00"),
    ("sourceMacAddress", "zz:00:00:00:00:00"), ("samplingProbability", "half"), ("samplingProbability", 10**400),
    ("interfaceName", 7), ("interfaceName", "\ud800"), ("interfaceName", "x" * 65_536),
    ("flowStartNanoseconds", 1 << 90), ("flowStartMicroseconds", -(1 << 62)), ("basicList", 1),
])
def test_a_value_that_does_not_fit_is_refused_and_the_session_is_as_before(name: str, value: Any) -> None:
    template = ipfix.template(256, [name])
    session = ipfix.ExportSession([template], clock=clock)
    with pytest.raises(flowtop.EncodeError) as caught:
        session.messages(template, [(value,)])
    assert name in caught.value.message
    assert (session.sequence, session.statistics) == (0, ipfix.SentStatistics())


def test_a_float_that_four_octets_cannot_hold_is_refused() -> None:
    template = ipfix.template(256, [("samplingProbability", 4)])
    with pytest.raises(flowtop.EncodeError, match="does not fit in 4 octets"):
        ipfix.ExportSession().messages(template, [(1e300,)])


def test_a_record_has_a_value_for_each_field_and_no_other() -> None:
    session = ipfix.ExportSession([TEMPLATE], clock=clock)
    for record in (("192.0.2.1", 1), {"sourceIPv4Address": "192.0.2.1"}, {"octets": 1}, ()):
        with pytest.raises(flowtop.EncodeError) as caught:
            session.messages(TEMPLATE, [record])  # type: ignore[list-item]
        assert caught.value.hint
    padded = ipfix.template(300, ["octetDeltaCount", ("paddingOctets", 3), ("paddingOctets", 2), "octetDeltaCount"])
    _, data = session.messages(padded, [{"octetDeltaCount": 1, "octetDeltaCount#2": 2}])
    assert data[20:41] == struct.pack(">Q5xQ", 1, 2)


def test_a_record_too_long_for_the_session_is_refused_before_anything_is_made() -> None:
    template = ipfix.template(256, ["interfaceName"])
    session = ipfix.ExportSession([template], clock=clock)
    with pytest.raises(flowtop.EncodeError, match="does not fit in a message of 512 octets"):
        session.messages(template, [("short",)] * 100 + [("x" * 500,)])
    assert session.messages(template, []) == []
    assert session.statistics.messages == 0


PLAIN = {
    "octetDeltaCount": st.integers(0, (1 << 64) - 1), "sourceIPv4Address": st.ip_addresses(v=4).map(str),
    "sourceIPv6Address": st.ip_addresses(v=6).map(str), "dataRecordsReliability": st.booleans(),
    "samplingProbability": st.floats(allow_nan=False), "interfaceName": st.text(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300),
    "flowStartMicroseconds": st.integers(-(10**15), 2 * 10**15),
    "flowStartNanoseconds": st.integers(-(10**18), 2 * 10**18),
    "sourceMacAddress": st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":")),
    "ie32473.9": st.binary(max_size=300), "ie32473.10": st.binary(min_size=5, max_size=5),
}
EVERYTHING = ipfix.template(300, [name for name in PLAIN if not name.startswith("ie")] + [
    (32_473, 9, 65_535), (32_473, 10, 5)])


@given(st.lists(st.fixed_dictionaries(PLAIN), max_size=4))
def test_what_is_sent_is_what_is_received(records: list[dict[str, Any]]) -> None:
    session = ipfix.ExportSession([EVERYTHING], max_octets=1_400, clock=clock)
    decoder = flowtop.Decoder()
    received = [dict(record) for message in session.messages(EVERYTHING, records)
                for record in decoder.decode(message).records]
    assert received == records


def test_netflow_9_is_that_of_rfc_3954_octet_by_octet() -> None:
    flows = netflow.template(256, ["sourceIPv4Address", ("octetDeltaCount", 4), ("flowStartSysUpTime", 4)])
    options = netflow.template(257, [("ingressInterface", 4), ("interfaceName", 6)], scope=1)
    session = netflow.ExportSession([flows, options], source_id=5, boot_s=NOW_S - 100, clock=clock)
    announcement, data = session.messages(flows, [("192.0.2.1", 9, session.uptime_ms(int(NOW_S) * 1000 - 1_000))] * 2)
    header = struct.Struct(">HHIIII")
    assert header.unpack_from(announcement) == (9, 2, 100_000, int(NOW_S), 0, 5)
    assert announcement[20:] == (
        struct.pack(">HHHHHHHHHH", 0, 20, 256, 3, 8, 4, 1, 4, 22, 4)
        + struct.pack(">HHHHHHHHH", 1, 20, 257, 4, 4, 2, 4, 82, 6) + bytes(2))
    assert header.unpack_from(data) == (9, 2, 100_000, int(NOW_S), 1, 5)
    assert data[20:] == struct.pack(">HH", 256, 28) + struct.pack(">4sII", bytes([192, 0, 2, 1]), 9, 99_000) * 2
    decoder = flowtop.Decoder()
    decoder.decode(announcement)
    more, = session.messages(options, [(3, "eth0")])
    assert dict(decoder.decode(more).records[0]) == {"ingressInterface": 3, "interfaceName": "eth0"}
    assert header.unpack_from(more)[4] == 2, "datagrams before it"


@pytest.mark.parametrize(("fields", "scope", "words"), [
    ([(32_473, 1, 4)], 0, "another enterprise"), (["interfaceName"], 0, "variable length"),
    ([("vlanId", 2), "octetDeltaCount"], 1, "no scope vlanId"),
])
def test_netflow_9_refuses_what_it_lacks(fields: Any, scope: int, words: str) -> None:
    with pytest.raises(flowtop.EncodeError, match=words):
        netflow.ExportSession([netflow.template(256, fields, scope=scope)])


def test_netflow_9_resends_templates_and_its_sequence_counts_datagrams() -> None:
    flows = netflow.template(256, ["sourceIPv4Address", ("octetDeltaCount", 4)])
    session = netflow.ExportSession([flows], max_octets=100, refresh_messages=4, clock=clock)
    messages = session.messages(flows, [("192.0.2.1", number) for number in range(100)])
    assert [struct.unpack_from(">I", message, 12)[0] for message in messages] == list(range(len(messages)))
    assert [number for number, message in enumerate(messages) if sets_of(message, 20) == [0]] == list(
        range(0, len(messages), 4))
    assert max(map(len, messages)) <= 100
    decoder = flowtop.Decoder()
    assert [record["octetDeltaCount"] for message in messages for record in decoder.decode(message).records] == list(
        range(100))
    renewed = session.renewed()
    assert (renewed.sequence, renewed.boot_s, renewed.templates) == (0, session.boot_s, (flows,))


def test_netflow_5_is_its_layout_thirty_flows_a_datagram() -> None:
    session = netflow.ExportSession5(engine_type=1, engine_id=2, sampling_interval=10, boot_s=NOW_S - 60,
                                     clock=lambda: NOW_S + 0.25)
    first, second = session.messages([{"sourceIPv4Address": "192.0.2.1", "packetDeltaCount": number,
                                       "flowEndSysUpTime": session.uptime_ms(int(NOW_S) * 1000)}
                                      for number in range(31)])
    header = struct.Struct(">HHIIIIBBH")
    assert header.unpack_from(first) == (5, 30, 60_250, int(NOW_S), 250_000_000, 0, 1, 2, 10)
    assert header.unpack_from(second) == (5, 1, 60_250, int(NOW_S), 250_000_000, 30, 1, 2, 10)
    assert second[24:] == struct.pack(">4s8xHHIIII4x12x", bytes([192, 0, 2, 1]), 0, 0, 30, 0, 0, 60_000)
    assert len(first) == 24 + 30 * 48
    assert (session.sequence, session.statistics.messages) == (31, 2)
    with pytest.raises(flowtop.EncodeError, match="no field bytes"):
        session.messages([{"bytes": 1}])
    with pytest.raises(flowtop.EncodeError, match="octetDeltaCount"):
        session.messages([{"octetDeltaCount": 1 << 32}])
    with pytest.raises(flowtop.EncodeError, match="engine_id"):
        netflow.ExportSession5(engine_id=256)
    assert session.sequence == 31
