"""Options that complete other records: common properties (RFC 5473), and types of enterprises' elements (RFC 5610)."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from flowtop.api.decoding import Decoder
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.capture.files.messages import Payload
from flowtop.output.dump import entries
from flowtop.wire import completion
from tests.unit.capture.collector.exports import NOW_S, ipfix, set_of, template

UDP, TCP = Session("udp", "192.0.2.1", True), Session("tcp", "192.0.2.1", False)

# RFC 5473 section 2: A and B are the properties of one or more flows, the Data Records have the specific ones.
PROPERTIES = template(257, ((137, 8), (8, 4), (7, 2)), scope=1)
SPECIFIC = template(258, ((12, 4), (137, 8), (2, 4), (1, 4)))


def properties(id_: int, address: bytes, port: int) -> bytes:
    return struct.pack(">Q4sH", id_, address, port)


def specific(id_: int, packets: int) -> bytes:
    return struct.pack(">4sQII", b"\xc0\0\2\7", id_, packets, 100 * packets)


DEFINED = set_of(257, properties(101, b"\xc0\0\2\1", 1001) + properties(102, b"\xc0\0\2\2", 1002))


def addresses(*messages: bytes, session: Session = UDP) -> tuple[list[tuple[str, int, int]], dict[str, int]]:
    """Source address, port and packets of what is collected, and the parts that were skipped."""
    process = CollectingProcess()
    for octets in messages:
        process.receive(octets, session, NOW_S)
    rows = [(".".join(map(str, bytes(row["source_address"])[:4])), int(row["source_port"]), int(row["packets"]))
            for row in process.take_rows()[0]]
    return sorted(rows, key=lambda row: row[2]), dict(process.statistics().skipped)


@pytest.mark.parametrize(("data", "expected", "unknown"), [
    (specific(101, 1), [("192.0.2.1", 1001, 1)], 0),
    (specific(101, 1) + specific(102, 2) + specific(101, 3),
     [("192.0.2.1", 1001, 1), ("192.0.2.2", 1002, 2), ("192.0.2.1", 1001, 3)], 0),
    (specific(102, 1) * 3, [("192.0.2.2", 1002, 1)] * 3, 0),
    (specific(103, 1) + specific(101, 2), [("0.0.0.0", 0, 1), ("192.0.2.1", 1001, 2)], 1),
    (specific(0, 1), [("0.0.0.0", 0, 1)], 0),
])
def test_records_have_the_properties_that_they_refer_to(data: bytes, expected: list[Any], unknown: int) -> None:
    for messages in ([ipfix(PROPERTIES, SPECIFIC, DEFINED, set_of(258, data))],
                     [ipfix(PROPERTIES, SPECIFIC), ipfix(DEFINED), ipfix(set_of(258, data), sequence=2)],
                     [ipfix(PROPERTIES, DEFINED), ipfix(set_of(258, data), sequence=2), ipfix(SPECIFIC)],
                     [ipfix(DEFINED), ipfix(PROPERTIES), ipfix(SPECIFIC, set_of(258, data))]):
        assert addresses(*messages) == (expected, {"properties": unknown} if unknown else {})


def test_the_library_and_the_dump_show_them() -> None:
    octets = ipfix(PROPERTIES, SPECIFIC, DEFINED, set_of(258, specific(102, 1) + specific(101, 2)))
    records = [record for record in Decoder().decode(octets).records if not record.options]
    assert [(record["sourceIPv4Address"], record["sourceTransportPort"], record["packetDeltaCount"],
             record["commonPropertiesId"]) for record in records] == [
        ("192.0.2.2", 1002, 1, 102), ("192.0.2.1", 1001, 2, 101)]
    (entry,) = entries([Payload(octets, "a", "b", True)])
    assert entry.message is not None and entry.message.record_count == 4
    assert "sourceIPv4Address" in entry.message.data_sets[1].template.names


def test_a_records_own_fields_go_before_properties() -> None:
    own = template(258, ((8, 4), (137, 8), (2, 4)))
    data = set_of(258, struct.pack(">4sQI", b"\x0a\0\0\1", 101, 1))
    assert addresses(ipfix(PROPERTIES, DEFINED, own, data))[0] == [("10.0.0.1", 1001, 1)]


def test_several_ids_in_a_record_give_the_properties_of_each() -> None:
    sources, ports = (template(257, ((137, 8), (8, 4)), scope=1), template(259, ((137, 4), (7, 2)), scope=1))
    both = template(258, ((137, 8), (137, 4), (2, 4)))
    octets = ipfix(sources, ports, both, set_of(257, struct.pack(">Q4s", 1, b"\xc0\0\2\1")),
                   set_of(259, struct.pack(">IH", 2, 53)), set_of(258, struct.pack(">QII", 1, 2, 9)))
    assert addresses(octets) == ([("192.0.2.1", 53, 9)], {})


def test_records_of_variable_length_and_strings_have_them_too() -> None:
    named = template(257, ((137, 2), (82, 65_535), (8, 4)), scope=1)
    data = template(258, ((137, 2), (96, 65_535), (2, 4)))
    octets = ipfix(named, data, set_of(257, struct.pack(">H", 5) + b"\4eth0" + b"\xc0\0\2\1"),
                   set_of(258, struct.pack(">H", 5) + b"\3dns" + struct.pack(">I", 3)))
    record = Decoder().decode(octets).records[1]
    assert dict(record) == {"commonPropertiesId": 5, "applicationName": "dns", "packetDeltaCount": 3,
                            "interfaceName": "eth0", "sourceIPv4Address": "192.0.2.1"}
    assert addresses(octets)[0] == [("192.0.2.1", 0, 3)]


def test_properties_belong_to_their_domain_and_session_and_are_withdrawn_with_their_template() -> None:
    known = ipfix(PROPERTIES, SPECIFIC, DEFINED)
    data = set_of(258, specific(101, 1))
    assert addresses(known, ipfix(SPECIFIC, data, domain=8))[1] == {"properties": 1}
    withdrawal = set_of(3, struct.pack(">HH", 257, 0))
    assert addresses(known, ipfix(withdrawal), ipfix(data), session=TCP)[1] == {"properties": 1}
    assert addresses(known, ipfix(data), session=TCP) == ([("192.0.2.1", 1001, 1)], {})


def test_properties_are_redefined_by_the_latest() -> None:
    again = set_of(257, properties(101, b"\xc0\0\2\x09", 9))
    assert addresses(ipfix(PROPERTIES, SPECIFIC, DEFINED), ipfix(again, set_of(258, specific(101, 1))))[0] == [
        ("192.0.2.9", 9, 1)]


def test_properties_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "MAX_PROPERTIES", 10)
    many = set_of(257, b"".join(properties(number, b"\xc0\0\2\1", number) for number in range(50)))
    found, skipped = addresses(ipfix(PROPERTIES, SPECIFIC, many), ipfix(set_of(258, specific(3, 1) + specific(40, 2))))
    assert (found, skipped) == ([("192.0.2.1", 3, 1), ("0.0.0.0", 0, 2)], {"properties": 1})


# RFC 5610 section 3: scope informationElementId and privateEnterpriseNumber; type, semantics, units, name.
TYPES = template(400, ((346, 4), (303, 2), (339, 1), (344, 1), (345, 2), (341, 65_535)), scope=2)
VENDOR = 32_473


def type_of(number: int, data_type: int, name: bytes, enterprise: int = VENDOR) -> bytes:
    return struct.pack(">IHBBH", enterprise, number, data_type, 0, 0) + bytes((len(name),)) + name


DATA = template(256, ((5, 4, VENDOR), (4, 1)))
RECORD = set_of(256, b"\xc0\0\2\1" + b"\6")


@pytest.mark.parametrize(("data_type", "value"), [
    (18, "192.0.2.1"), (3, 0xC0000201), (2, 0xC0000201), (7, 0xC0000201 - (1 << 32)), (0, b"\xc0\0\2\1"),
    (14, 0xC0000201), (13, "\\xc0\0\2\1"), (99, b"\xc0\0\2\1"),
])
def test_exporters_name_their_own_elements(data_type: int, value: object) -> None:
    described = set_of(400, type_of(5, data_type, b"vendorThing") + type_of(6, 3, b"other"))
    for messages in ([ipfix(TYPES, described, DATA, RECORD)], [ipfix(TYPES, described), ipfix(DATA), ipfix(RECORD)],
                     [ipfix(DATA), ipfix(TYPES, described), ipfix(RECORD)],
                     [ipfix(TYPES, DATA), ipfix(described), ipfix(DATA, RECORD)]):
        decoder = Decoder()
        records = [record for octets in messages for record in decoder.decode(octets).records if not record.options]
        assert [dict(record) for record in records] == [{"vendorThing": value, "protocolIdentifier": 6}]


@pytest.mark.parametrize("name", [b"octetDeltaCount", b"reverseOctetDeltaCount", b"", b"no name", b"\x1b[2J", b"a=b",
                                  b"x" * 65, b"1st", "ö".encode(), b"a\0b"])
def test_names_that_are_none_or_have_a_meaning_are_not_taken(name: bytes) -> None:
    decoder = Decoder()
    message = decoder.decode(ipfix(TYPES, set_of(400, type_of(5, 3, name)), DATA, RECORD))
    assert "ie32473.5" in message.records[-1]


@pytest.mark.parametrize(("enterprise", "number"), [(0, 1), (29_305, 1), (3054, 110)])
def test_elements_that_are_known_keep_their_meaning(enterprise: int, number: int) -> None:
    fields = ((number, 4, enterprise) if enterprise else (number, 4),)
    before = Decoder().decode(ipfix(template(256, fields), set_of(256, b"\0\0\0\1"))).records[0]
    described = set_of(400, type_of(number, 13, b"mine", enterprise))
    after = Decoder().decode(ipfix(TYPES, described, template(256, fields), set_of(256, b"\0\0\0\1"))).records[-1]
    assert dict(before) == dict(after)


def test_descriptions_belong_to_their_session_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "MAX_ELEMENTS", 3)
    decoder = Decoder()
    described = set_of(400, b"".join(type_of(number, 3, b"thing%d" % number) for number in range(1, 20)))
    decoder.decode(ipfix(TYPES, described), "a")
    assert "ie32473.5" in decoder.decode(ipfix(DATA, RECORD), "a").records[0], "the fourth is not kept"
    data = template(256, ((2, 4, VENDOR),))
    assert "thing2" in decoder.decode(ipfix(data, set_of(256, bytes(4))), "a").records[0]
    assert "ie32473.2" in decoder.decode(ipfix(data, set_of(256, bytes(4))), "b").records[0]
    decoder.end("a")
    assert "ie32473.2" in decoder.decode(ipfix(data, set_of(256, bytes(4))), "a").records[0]


def test_the_dump_names_what_was_described() -> None:
    described = set_of(400, type_of(5, 18, b"vendorThing"))
    shown = list(entries(Payload(octets, "a", "b", True) for octets in (ipfix(TYPES, described), ipfix(DATA, RECORD))))
    assert shown[1].message is not None and shown[1].message.templates[0].names == ("vendorThing", "protocolIdentifier")


def test_sessions_may_describe_one_element_differently() -> None:
    fields = template(256, ((5, 4, VENDOR), (137, 8)))
    record = set_of(256, b"\xc0\0\2\1" + struct.pack(">Q", 101))
    for name, data_type, value in ((b"one", 3, 0xC0000201), (b"two", 18, "192.0.2.1"), (b"three", 0, b"\xc0\0\2\1")):
        described = set_of(400, type_of(5, data_type, name))
        message = Decoder().decode(ipfix(TYPES, described, PROPERTIES, DEFINED, fields, record))
        assert message.records[-1][name.decode()] == value
        assert message.records[-1]["sourceTransportPort"] == 1001


def test_properties_may_change_their_types() -> None:
    decoder = Decoder()
    private = template(257, ((137, 8), (5, 4, VENDOR)), scope=1)
    decoder.decode(ipfix(TYPES, private, set_of(257, struct.pack(">QI", 1, 7))))
    decoder.decode(ipfix(set_of(400, type_of(5, 3, b"thing"))))
    decoder.decode(ipfix(set_of(257, struct.pack(">QI", 2, 8))))
    data = set_of(258, specific(1, 10) + specific(2, 20))
    records = decoder.decode(ipfix(SPECIFIC, data)).records
    assert [(record.get("ie32473.5"), record.get("thing")) for record in records] == [(b"\0\0\0\7", None), (None, 8)]


def test_hostile_descriptions_end_in_records_or_refusals() -> None:
    chance = random.Random(11)
    described = set_of(400, b"".join(type_of(number, number, b"thing%d" % number) for number in range(1, 24)))
    good = [ipfix(TYPES, described, DATA, RECORD, PROPERTIES, DEFINED, SPECIFIC, set_of(258, specific(101, 1) * 3)),
            ipfix(DEFINED, RECORD, set_of(258, specific(102, 1) + specific(9, 2))), ipfix(described),
            ipfix(template(256, tuple((number, 4, VENDOR) for number in range(1, 24))), set_of(256, bytes(range(184)))),
            ipfix(template(257, ((137, 8), (5, 4, VENDOR)), scope=1), set_of(257, bytes(24)))]
    decoder, process = Decoder(strict=False), CollectingProcess()
    for second in range(3_000):  # at once, damaged messages are more than one sender may bring about
        octets = bytearray(chance.choice(good))
        for _ in range(chance.randrange(4)):
            octets[chance.randrange(16, len(octets))] = chance.choice((0, 1, 2, 4, 13, 137, 255))
        session = chance.choice((UDP, TCP))
        assert len(decoder.decode(bytes(octets), session.key).records) <= len(octets)
        assert process.receive(bytes(octets), session, NOW_S + second)
    process.take_rows()[0]
