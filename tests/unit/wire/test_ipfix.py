"""Messages as RFC 7011 has them: its Appendix A byte for byte, sizes, sequence numbers, padding, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.wire.ipfix import (
    RecordSet,
    encode_columns,
    encode_messages,
    encode_record,
    encode_records,
    template_sets,
    withdrawal_sets,
)
from flowtop.wire.ipfix_decoder import decode_message
from flowtop.wire.ipfix_template import VARIABLE_LENGTH, FieldSpecifier, IpfixEncodeError, Template, field
from flowtop.wire.template_store import TemplateStore
from tests.unit.wire.patience import patient

LINE_CARD, NEXT_HOP = FieldSpecifier(141, 4), FieldSpecifier(15, 4)
ENTERPRISE = 0xDEADBEEF

# RFC 7011, appendix A, typed from its figures. "Enterprise number" is left open there: DEADBEEF here.
A_2_1 = bytes.fromhex("0002 001c 0100 0005 0008 0004 000c 0004 000f 0004 0002 0004 0001 0004")
A_2_2 = bytes.fromhex("0002 0020 0101 0005 0008 0004 000c 0004 800f 0004 deadbeef 0002 0004 0001 0004")
A_3 = bytes.fromhex("0100 0040"
                    "c000020c c00002fe c0000201 00001391 00518c81"
                    "c000021b c0000217 c0000202 000002ec 0005ef46"
                    "c0000238 c0000241 c0000203 00000005 00001986")
A_4_1 = bytes.fromhex("0003 0018 0102 0003 0001 008d 0004 0029 0002 002a 0002 0000")
A_4_2 = bytes.fromhex("0003 001c 0103 0003 0001 008d 0004 0029 0002 802a 0004 deadbeef 0000")
A_4_3 = bytes.fromhex("0003 001c 0104 0003 0001 807b 0004 deadbeef 0029 0002 002a 0002 0000")
A_4_4 = bytes.fromhex("0104 0014 00000001 0159 27d9 00000002 02b2 4fb2")
A_5_1 = bytes.fromhex("05") + b"flows"
A_5_2 = bytes.fromhex("ff 03e8") + bytes(1000)

FLOWS = Template(256, (field("sourceIPv4Address"), field("destinationIPv4Address"), NEXT_HOP,
                       field("packetDeltaCount", 4), field("octetDeltaCount", 4)))
FLOWS_ENTERPRISE = Template(257, (*FLOWS.fields[:2], FieldSpecifier(15, 4, ENTERPRISE), *FLOWS.fields[3:]))
EXPORTED = (field("exportedMessageTotalCount", 2), field("exportedFlowRecordTotalCount", 2))
CARDS = Template(258, (LINE_CARD, *EXPORTED), 1)
CARDS_ENTERPRISE = Template(259, (LINE_CARD, EXPORTED[0], FieldSpecifier(42, 4, ENTERPRISE)), 1)
SCOPED = Template(260, (FieldSpecifier(123, 4, ENTERPRISE), *EXPORTED), 1)


def sets_of(sets: list[RecordSet]) -> bytes:
    """The Sets alone."""
    encoded = encode_messages(sets, domain=0, sequence=0, export_time_s=0)
    assert len(encoded.messages) == 1
    return encoded.messages[0][16:]


def ip(*numbers: str) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    return np.array([bytes(map(int, number.split("."))) for number in numbers], "V4")


def appendix_a_flows() -> RecordSet:
    """The three Flow Records of appendix A.3."""
    return encode_columns(FLOWS, {
        "sourceIPv4Address": ip("192.0.2.12", "192.0.2.27", "192.0.2.56"),
        "destinationIPv4Address": ip("192.0.2.254", "192.0.2.23", "192.0.2.65"),
        "ipNextHopIPv4Address": ip("192.0.2.1", "192.0.2.2", "192.0.2.3"),
        "packetDeltaCount": np.array([5009, 748, 5], np.uint64),
        "octetDeltaCount": np.array([5344385, 388934, 6534], np.uint64),
    })


def appendix_a_options() -> RecordSet:
    """The two Data Records of appendix A.4.4."""
    return encode_records(SCOPED, [(b"\0\0\0\1", 345, 10201), (b"\0\0\0\2", 690, 20402)])


@pytest.mark.parametrize(("template", "octets"), [
    (FLOWS, A_2_1), (FLOWS_ENTERPRISE, A_2_2), (CARDS, A_4_1), (CARDS_ENTERPRISE, A_4_2), (SCOPED, A_4_3)])
def test_template_sets_are_those_of_appendix_a(template: Template, octets: bytes) -> None:
    assert sets_of(template_sets([template])) == octets


def test_data_sets_are_those_of_appendix_a() -> None:
    assert sets_of([appendix_a_flows()]) == A_3
    assert sets_of([appendix_a_options()]) == A_4_4


def test_a_message_is_that_of_appendix_a_1() -> None:
    # Length 152: a Template Set (28), three Flow Records (64), an Options Template Set (24), two Data Records.
    lines = encode_records(CARDS, [(bytes((0, 0, 0, n)), 345 * n, 10201 * n) for n in (1, 2)])
    encoded = encode_messages([*template_sets([FLOWS]), appendix_a_flows(), *template_sets([CARDS]), lines],
                              domain=0x01020304, sequence=0xFFFF_FFFE, export_time_s=0x5F000000)
    header = bytes.fromhex("000a 0098 5f000000 fffffffe 01020304")
    data = bytes.fromhex("0102 0014 00000001 0159 27d9 00000002 02b2 4fb2")
    assert encoded.messages == [header + A_2_1 + A_3 + A_4_1 + data]
    assert encoded.record_counts == [5]
    assert encoded.next_sequence == 3, "0xfffffffe + 5 modulo 2**32"


@pytest.mark.parametrize("encoded", [A_5_1, A_5_2])
def test_variable_lengths_are_those_of_appendix_a_5(encoded: bytes) -> None:
    value = b"flows" if encoded is A_5_1 else bytes(1000)
    template = Template(256, (FieldSpecifier(999, VARIABLE_LENGTH),))
    assert encode_record(template, (value,)) == encoded


@pytest.mark.parametrize(("length", "prefix"), [(0, "00"), (254, "fe"), (255, "ff00ff"), (65_000, "fffde8")])
def test_the_short_length_is_used_below_255(length: int, prefix: str) -> None:
    template = Template(256, (field("interfaceName"),))
    assert encode_record(template, ("x" * length,)) == bytes.fromhex(prefix) + b"x" * length


def test_withdrawals_name_the_set_their_templates_came_in() -> None:
    assert sets_of(withdrawal_sets([FLOWS, CARDS, FLOWS_ENTERPRISE])) == bytes.fromhex(
        "0002 000c 0100 0000 0101 0000 0003 0008 0102 0000")


@patient
@given(records=st.integers(0, 400), size=st.integers(1, 60), max_octets=st.integers(90, 700),
       sequence=st.integers(0, 2**32 - 1), before=st.integers(0, 30))
def test_records_fill_messages_in_order_and_none_is_too_long(
    records: int, size: int, max_octets: int, sequence: int, before: int,
) -> None:
    template, other = Template(300, (FieldSpecifier(999, size),)), Template(301, (FieldSpecifier(998, 7),))
    octets = np.random.default_rng(records).bytes(records * size)
    column = np.frombuffer(octets, f"V{size}")
    encoded = encode_messages(
        [*template_sets([template, other]), RecordSet(301, [bytes([n]) * 7 for n in range(before)]),
         encode_columns(template, {"ie999": column})],
        domain=7, sequence=sequence, export_time_s=9, max_octets=max_octets)
    store, got, expected = TemplateStore(), {300: b"", 301: b""}, sequence
    for message, count in zip(encoded.messages, encoded.record_counts, strict=True):
        assert len(message) <= max_octets
        decoded = decode_message(message, store, session=0, datagram=True)
        assert decoded.sequence == expected and decoded.domain == 7 and not decoded.undecoded
        assert sum(len(part.records) for part in decoded.data_sets) == count
        expected = (expected + count) % 2**32
        for part in decoded.data_sets:
            got[part.template.id] += part.records.tobytes()
    assert encoded.next_sequence == expected == (sequence + records + before) % 2**32
    assert got == {300: octets, 301: b"".join(bytes([n]) * 7 for n in range(before))}
    # Full but for the last: no more messages than the records need when a Set loses at most 3 octets to padding.
    per_message = (max_octets // 4 * 4 - 20) // size
    assert len(encoded.messages) <= records // per_message + before // ((max_octets // 4 * 4 - 20) // 7) + 3


@patient
@given(size=st.integers(1, 9), count=st.integers(1, 9))
def test_padding_is_zeros_shorter_than_a_record_up_to_four_octets(size: int, count: int) -> None:
    template = Template(300, (FieldSpecifier(999, size),))
    message = encode_messages([encode_columns(template, {"ie999": np.full(count, b"\xff" * size, f"V{size}")})],
                              domain=0, sequence=0, export_time_s=0).messages[0]
    tail = message[20 + size * count:]
    assert tail == bytes(len(tail)) and len(tail) < min(size, 4)
    assert len(message) % 4 == 0 or size <= -(20 + size * count) % 4


def test_a_record_longer_than_any_message_is_refused() -> None:
    with pytest.raises(IpfixEncodeError, match="20 octets does not fit in a message of 36"):
        encode_messages([appendix_a_flows()], domain=0, sequence=0, export_time_s=0, max_octets=39)
    with pytest.raises(IpfixEncodeError, match="does not fit"):
        encode_messages([RecordSet(300, [bytes(65_512), bytes(65_513)])], domain=0, sequence=0, export_time_s=0)


@pytest.mark.parametrize(("length", "fits", "not_"), [(1, 255, 256), (3, 2**24 - 1, 2**24), (4, 2**32 - 1, 2**32)])
def test_reduced_size_holds_what_fits_and_refuses_what_does_not(length: int, fits: int, not_: int) -> None:
    template = Template(300, (field("octetDeltaCount", length),))

    def encode(value: int) -> bytes:
        return sets_of([encode_columns(template, {"octetDeltaCount": np.array([1, value], np.uint64)})])

    assert encode(fits)[4:4 + 2 * length] == (1).to_bytes(length, "big") + fits.to_bytes(length, "big")
    assert encode_record(template, (fits,)) == fits.to_bytes(length, "big")
    with pytest.raises(IpfixEncodeError, match="octetDeltaCount"):
        encode(not_)
    with pytest.raises(IpfixEncodeError, match="octetDeltaCount"):
        encode_record(template, (not_,))


def test_what_is_no_value_of_its_field_is_refused() -> None:
    flows = Template(300, (field("sourceIPv4Address"), field("octetDeltaCount")))
    for values in ((b"12345", 1), (1, 1), (b"1234", -1), (b"1234",), (b"1234", b"1")):
        with pytest.raises(IpfixEncodeError):
            encode_record(flows, values)
    with pytest.raises(IpfixEncodeError, match="sourceIPv4Address is 4 octets"):
        encode_columns(flows, {"sourceIPv4Address": np.zeros(1, "V5"), "octetDeltaCount": np.zeros(1, np.uint64)})
    with pytest.raises(IpfixEncodeError, match="octetDeltaCount"):
        encode_columns(flows, {"sourceIPv4Address": np.zeros(1, "V4"), "octetDeltaCount": np.array([-1])})
    with pytest.raises(IpfixEncodeError, match="variable length"):
        encode_columns(Template(300, (field("interfaceName"),)), {"interfaceName": np.zeros(1, "S4")})
    with pytest.raises(IpfixEncodeError, match="interfaceName is 4 octets long, not 5"):
        encode_record(Template(300, (field("interfaceName", 4),)), ("wlan0",))


@pytest.mark.parametrize("template", [
    Template(255, (NEXT_HOP,)), Template(65_536, (NEXT_HOP,)), Template(300, ()), Template(300, (NEXT_HOP,), 2)])
def test_a_template_that_rfc_7011_forbids_is_refused(template: Template) -> None:
    with pytest.raises(IpfixEncodeError, match="not valid"):
        template.octets()
