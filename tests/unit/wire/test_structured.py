"""Structured data by RFC 6313's own layouts and examples: values, nesting, limits, and what YAF's lists give a flow."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import pytest

from flowtop.api.decoding import Decoder
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.capture.files.messages import Payload
from flowtop.output.dump import entries, entry_text
from flowtop.wire.structured import MAX_DEPTH
from tests.unit.capture.collector.exports import FLOW, NOW_S, flow, ipfix, set_of, template

VARIABLE = 65_535
LIST, SUB, MULTI = (291, VARIABLE), (292, VARIABLE), (293, VARIABLE)
UDP = Session("udp", "192.0.2.1", True)


def variable(octets: bytes) -> bytes:
    """A value of variable length (RFC 7011 section 7)."""
    return (bytes((len(octets),)) if len(octets) < 255 else b"\xff" + struct.pack(">H", len(octets))) + octets


def basic(element: int, length: int, *values: bytes, semantic: int = 3, enterprise: int = 0) -> bytes:
    """A basicList (RFC 6313 section 4.5.1)."""
    head = struct.pack(">BHH", semantic, element | (0x8000 if enterprise else 0), length)
    return head + (struct.pack(">I", enterprise) if enterprise else b"") + b"".join(
        variable(value) if length == VARIABLE else value for value in values)


def sub(template_id: int, *records: bytes, semantic: int = 3) -> bytes:
    """A subTemplateList (section 4.5.2)."""
    return struct.pack(">BH", semantic, template_id) + b"".join(records)


def multi(*blocks: tuple[int, bytes], semantic: int = 3) -> bytes:
    """A subTemplateMultiList (section 4.5.3)."""
    return bytes((semantic,)) + b"".join(
        struct.pack(">HH", template_id, 4 + len(records)) + records for template_id, records in blocks)


INNER = template(300, ((27, 16), (11, 2)))
ONE = bytes(15) + b"\1" + struct.pack(">H", 443)
TWO = bytes(15) + b"\2" + struct.pack(">H", 80)
ONE_VALUES = {"#template": 300, "destinationTransportPort": 443, "sourceIPv6Address": "::1"}
TWO_VALUES = {"#template": 300, "destinationTransportPort": 80, "sourceIPv6Address": "::2"}

LISTS: list[tuple[tuple[int, int], bytes, Any]] = [
    (LIST, basic(10, 4, b"\0\0\0\1", b"\0\0\0\4", b"\0\0\0\x08", semantic=1), {  # section 8.1's egress interfaces
        "semantic": "exactlyOneOf", "element": "ingressInterface", "values": [1, 4, 8]}),
    (LIST, basic(82, VARIABLE, b"eth0", b"", b"x" * 300, semantic=4), {
        "semantic": "ordered", "element": "interfaceName", "values": ["eth0", "", "x" * 300]}),
    (LIST, basic(8, 4, semantic=0), {"semantic": "noneOf", "element": "sourceIPv4Address", "values": []}),
    (LIST, basic(999, 2, b"ab", semantic=2, enterprise=32_473), {
        "semantic": "oneOrMoreOf", "element": "ie32473.999", "values": [b"ab"]}),
    (LIST, basic(8, 4, bytes((192, 0, 2, 1)), semantic=255), {
        "semantic": "undefined", "element": "sourceIPv4Address", "values": ["192.0.2.1"]}),
    (SUB, sub(300, ONE, TWO), {"semantic": "allOf", "records": [ONE_VALUES, TWO_VALUES]}),
    (SUB, sub(300, semantic=77), {"semantic": "undefined", "records": []}),
    (MULTI, multi((300, ONE + TWO), (300, ONE)), {
        "semantic": "allOf", "records": [ONE_VALUES, TWO_VALUES, ONE_VALUES]}),
    (MULTI, multi(), {"semantic": "allOf", "records": []}),
    (SUB, sub(301, variable(basic(4, 1, b"\6", b"\x11"))), {"semantic": "allOf", "records": [
        {"#template": 301, "basicList": {"semantic": "allOf", "element": "protocolIdentifier", "values": [6, 17]}}]}),
    (LIST, basic(292, VARIABLE, sub(300, ONE), sub(300)), {
        "semantic": "allOf", "element": "subTemplateList", "values": [
            {"semantic": "allOf", "records": [ONE_VALUES]}, {"semantic": "allOf", "records": []}]}),
    ((484, VARIABLE), basic(483, 4, b"\0\0\0\1", b"\0\0\0\2"), {  # RFC 8549: another element of that type
        "semantic": "allOf", "element": "bgpCommunity", "values": [1, 2]}),
]
BROKEN = [
    (LIST, b""), (LIST, b"\3\0\x0a\0"), (LIST, basic(10, 0)), (LIST, basic(10, 4, b"\0\0\0\1\0")),
    (LIST, basic(82, VARIABLE) + b"\5eth0"), (LIST, b"\3\x80\x0a\0\4\0\0"), (SUB, b"\3"), (SUB, sub(999, ONE)),
    (MULTI, multi((300, ONE)) + b"\1\x2c\0"), (MULTI, multi((300, ONE)) + b"\1\x2c\0\3"), (MULTI, b"\3\1\x2c\xff\xff"),
]


def message_of(field: tuple[int, int], value: bytes) -> bytes:
    """A message with that list, and a field on each side of it."""
    return ipfix(INNER, template(301, (LIST,)), template(256, ((4, 1), field, (7, 2))),
                 set_of(256, b"\x11" + variable(value) + struct.pack(">H", 53)))


@pytest.mark.parametrize(("field", "octets", "expected"), LISTS)
def test_lists_are_plain_values(field: tuple[int, int], octets: bytes, expected: Any) -> None:
    (record,) = Decoder().decode(message_of(field, octets)).records
    before, value, behind = record.values()
    assert (before, value, behind) == (17, expected, 53)


@pytest.mark.parametrize(("field", "octets", "expected"), LISTS)
def test_lists_are_shown(field: tuple[int, int], octets: bytes, expected: Any) -> None:
    (entry,) = entries([Payload(message_of(field, octets), "a", "b", True)])
    values = list(json.loads(entry_text(entry, "json"))["records"][0]["values"].values())
    assert values[0] == 17 and values[2] == 53
    assert values[1] == json.loads(json.dumps(expected, default=lambda octets: f"0x{octets.hex()}"))
    assert '"semantic":"' in entry_text(entry, "text") and not entry.damaged


@pytest.mark.parametrize(("field", "octets"), BROKEN)
def test_what_is_no_list_stays_octets_and_costs_nothing_else(field: tuple[int, int], octets: bytes) -> None:
    (record,) = Decoder().decode(message_of(field, octets)).records
    assert list(record.values()) == [17, octets, 53]


def test_lists_of_a_fixed_length_are_lists_too() -> None:
    octets = basic(4, 1, b"\6", b"\x11")
    (record,) = Decoder().decode(ipfix(template(256, ((291, len(octets)),)), set_of(256, octets))).records
    assert record["basicList"] == {"semantic": "allOf", "element": "protocolIdentifier", "values": [6, 17]}


def test_nesting_is_bounded() -> None:
    octets = basic(4, 1, b"\6")
    for _ in range(40):
        octets = basic(291, VARIABLE, octets)
    (record,) = Decoder().decode(message_of(LIST, octets)).records
    value: Any = record["basicList"]
    for _ in range(MAX_DEPTH - 1):
        (value,) = value["values"]
    assert isinstance(value["values"][0], bytes)


def test_a_sub_template_may_be_of_an_earlier_message_and_follow_its_data() -> None:
    decoder = Decoder()
    (early,) = decoder.decode(ipfix(template(256, (SUB,)), set_of(256, variable(sub(300, ONE))), INNER)).records
    (late,) = decoder.decode(ipfix(set_of(256, variable(sub(300, ONE))), sequence=1)).records
    assert early["subTemplateList"] == late["subTemplateList"] == {"semantic": "allOf", "records": [ONE_VALUES]}


CERT = 6871
TCP_FIELDS = ((184, 4), (14, 1, CERT), (15, 1, CERT))
"""As YAF's template of TCP: sequence number, flags of the first packet, flags of all others."""
BIFLOW_FIELDS = (*TCP_FIELDS, (14 | 0x4000, 1, CERT), (15 | 0x4000, 1, CERT))


@pytest.mark.parametrize(("field", "value", "bits", "unread"), [
    (MULTI, multi((300, struct.pack(">IBB", 7, 0x02, 0x18))), 0x1A, 0),
    (MULTI, multi((300, struct.pack(">IBB", 7, 0x02, 0x10)), (301, b"\0" * 6)), 0x12, 0),
    (SUB, sub(300, struct.pack(">IBB", 7, 0x02, 0x11)), 0x13, 0),
    (SUB, sub(300, struct.pack(">IBB", 7, 2, 16), struct.pack(">IBB", 8, 1, 1)), 0, 0),  # two: whose is it?
    (MULTI, multi(), 0, 0), (MULTI, b"", 0, 0), (SUB, b"", 0, 0), (SUB, sub(300), 0, 0), (SUB, sub(999), 0, 0),
    (MULTI, multi((999, b"abc")), 0, 1), (MULTI, b"\3\1\x2c\xff\xff", 0, 1), (MULTI, b"\3\1\x2c", 0, 1),
    (SUB, sub(999, b"abc"), 0, 1), (SUB, sub(300, b"abc"), 0, 1), (SUB, b"\3\1\x2c"[:2], 0, 0),
])
def test_fields_of_a_list_with_one_record_are_the_flows(field: tuple[int, int], value: bytes, bits: int,
                                                        unread: int) -> None:
    process = CollectingProcess()
    inner = template(300, TCP_FIELDS) + template(301, ((56, 6),))
    process.receive(ipfix(inner, template(256, (*FLOW, field)), set_of(256, flow(1) + variable(value))), UDP, NOW_S)
    (row,) = process.take_rows()[0]
    assert (row["packets"], row["octets"], row["tcp_control_bits"]) == (2, 300, bits)
    assert process.statistics().skipped == ((("list", unread),) if unread else ())
    assert process.statistics().records == 1


def test_records_with_different_lists_are_all_collected() -> None:
    process = CollectingProcess()
    inner = template(300, TCP_FIELDS) + template(301, ((56, 6),))
    values = [multi((300, struct.pack(">IBB", 7, 2, 16 + number % 8))) if number % 3 else multi((301, bytes(6)))
              for number in range(30)]
    records = b"".join(flow(number, packets=number + 1) + variable(value) for number, value in enumerate(values))
    process.receive(ipfix(inner, template(256, (*FLOW, MULTI)), set_of(256, records)), UDP, NOW_S)
    found = {int(row["packets"]): int(row["tcp_control_bits"]) for row in process.take_rows()[0]}
    assert found == {number + 1: (2 | 16 + number % 8 if number % 3 else 0) for number in range(30)}


def test_flags_of_both_directions_come_from_certs_elements() -> None:
    process = CollectingProcess()
    fields = (*FLOW, (2, 8, 29305), (1, 8, 29305), *BIFLOW_FIELDS[1:])
    record = flow(1) + struct.pack(">QQBBBB", 5, 600, 2, 16, 18, 25)
    process.receive(ipfix(template(256, fields), set_of(256, record)), UDP, NOW_S)
    found = {int(row["packets"]): int(row["tcp_control_bits"]) for row in process.take_rows()[0]}
    assert found == {2: 2 | 16, 5: 18 | 25}


def test_hostile_lists_end_in_values() -> None:
    chance = random.Random(5)
    good = [message_of(field, octets) for field, octets, _ in LISTS]
    decoder, process = Decoder(strict=False), CollectingProcess()
    for _ in range(600):
        octets = bytearray(chance.choice(good))
        for _ in range(chance.randrange(1, 6)):
            octets[chance.randrange(16, len(octets))] = chance.choice((0, 1, 3, 36, 44, 127, 255))
        assert len(decoder.decode(bytes(octets)).records) <= len(octets)
        process.receive(bytes(octets), UDP, NOW_S)
    process.take_rows()[0]
    many = ipfix(template(300, ((4, 1),)), template(256, (MULTI,)),
                 set_of(256, variable(multi(*[(300, b"\6")] * 12_000)) ))
    (record,) = decoder.decode(many).records
    assert len(record["subTemplateMultiList"]["records"]) == 12_000  # type: ignore[call-overload,index]
    process.receive(many, UDP, NOW_S)
