"""What a Collecting Process must make of messages: RFC 7011's own, any Template's, refreshed, withdrawn, and broken."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.model.elements import ELEMENTS, ELEMENTS_BY_NUMBER, Element
from flowtop.wire.data_set import UndecodedSet, decode_data_set
from flowtop.wire.ipfix import encode_messages, encode_record, encode_records, template_sets
from flowtop.wire.ipfix_decoder import Message, decode_message, split_messages
from flowtop.wire.ipfix_template import VARIABLE_LENGTH, FieldSpecifier, IpfixDecodeError, Template, field
from flowtop.wire.template_store import TemplateStore
from tests.unit.wire.patience import patient
from tests.unit.wire.test_ipfix import (
    A_2_1,
    A_2_2,
    A_3,
    A_4_1,
    A_4_2,
    A_4_3,
    A_4_4,
    CARDS,
    CARDS_ENTERPRISE,
    FLOWS,
    FLOWS_ENTERPRISE,
    SCOPED,
)

BITS = {"unsigned8": 8, "unsigned16": 16, "unsigned32": 32, "unsigned64": 64, "signed16": 16, "signed64": 64}
OCTETS = {"ipv4Address": 4, "ipv6Address": 16, "macAddress": 6}


def message_of(*sets: bytes, sequence: int = 0, domain: int = 0) -> bytes:
    """A message around Sets, by RFC 7011 section 3.1."""
    body = b"".join(sets)
    return struct.pack(">HHIII", 10, 16 + len(body), 1_700_000_000, sequence, domain) + body


def set_of(set_id: int, octets: bytes) -> bytes:
    return struct.pack(">HH", set_id, 4 + len(octets)) + octets


def decode(octets: bytes, store: TemplateStore | None = None, datagram: bool = True, session: object = "s") -> Message:
    return decode_message(octets, store or TemplateStore(), session=session, datagram=datagram)


def test_the_message_of_appendix_a_decodes_to_its_tables() -> None:
    message = decode(message_of(A_2_1, A_3, A_4_3, A_4_4, sequence=41, domain=3))
    assert (message.export_time_s, message.sequence, message.domain) == (1_700_000_000, 41, 3)
    assert message.templates == (FLOWS, SCOPED) and message.remarks == () and message.undecoded == ()
    flows, options = message.data_sets
    assert flows.template == FLOWS and flows.template.scope_count == 0
    assert [(*map(list, (source, destination, hop)), packets, octets)
            for source, destination, hop, packets, octets in flows.records.tolist()] == [
        ([192, 0, 2, 12], [192, 0, 2, 254], [192, 0, 2, 1], 5009, 5344385),
        ([192, 0, 2, 27], [192, 0, 2, 23], [192, 0, 2, 2], 748, 388934),
        ([192, 0, 2, 56], [192, 0, 2, 65], [192, 0, 2, 3], 5, 6534)]
    assert options.template.scope_count == 1
    assert options.records.tolist() == [(b"\0\0\0\1", 345, 10201), (b"\0\0\0\2", 690, 20402)]
    assert options.records.dtype.names == ("ie3735928559.123", "exportedMessageTotalCount",
                                           "exportedFlowRecordTotalCount")


@pytest.mark.parametrize(("octets", "template"), [
    (A_2_1, FLOWS), (A_2_2, FLOWS_ENTERPRISE), (A_4_1, CARDS), (A_4_2, CARDS_ENTERPRISE), (A_4_3, SCOPED)])
def test_templates_of_appendix_a_decode(octets: bytes, template: Template) -> None:
    assert decode(message_of(octets)).templates == (template,)


@st.composite
def fields(draw: st.DrawFn) -> tuple[FieldSpecifier, st.SearchStrategy[Any]]:
    """A field as RFC 7011 section 6 allows it, and its values."""
    kind = draw(st.sampled_from(("registered", "unknown", "enterprise")))
    if kind != "registered":
        number, enterprise = draw(st.integers(20_000, 20_003)), draw(st.integers(1, 3)) if kind == "enterprise" else 0
        length = draw(st.sampled_from((0, 1, 3, 8, VARIABLE_LENGTH)))
        exact = dict(max_size=600) if length == VARIABLE_LENGTH else dict(min_size=length, max_size=length)
        return FieldSpecifier(number, length, enterprise), st.binary(**exact)
    element = draw(st.sampled_from([element for element in ELEMENTS.values() if element.type in BITS | OCTETS]))
    if element.type in OCTETS:
        octets = OCTETS[element.type]
        return field(element.name), st.binary(min_size=octets, max_size=octets)
    length = draw(st.integers(1, BITS[element.type] // 8))
    return field(element.name, length), st.integers(0, 256**length - 1)


@st.composite
def templates_with_records(draw: st.DrawFn) -> tuple[Template, list[tuple[Any, ...]]]:
    some = st.lists(fields(), min_size=1, max_size=8)
    chosen = draw(some.filter(lambda pairs: any(specifier.length for specifier, _ in pairs)))
    template = Template(draw(st.integers(256, 65_535)), tuple(specifier for specifier, _ in chosen),
                        draw(st.integers(0, len(chosen))))
    return template, draw(st.lists(st.tuples(*(values for _, values in chosen)), max_size=12))


@patient
@given(templates_with_records(), st.integers(5_000, 65_535))
def test_whatever_is_encoded_decodes_to_the_same(
    case: tuple[Template, list[tuple[Any, ...]]], max_octets: int,
) -> None:
    template, records = case
    encoded = encode_messages(
        [*template_sets([template]), encode_records(template, records)],
        domain=1, sequence=0, export_time_s=0, max_octets=max_octets)
    store, got = TemplateStore(), []
    for octets in encoded.messages:
        message = decode(octets, store)
        assert not message.undecoded and all(part.template == template for part in message.data_sets)
        got += [row for part in message.data_sets for row in part.records.tolist()]
    present = [i for i, specifier in enumerate(template.fields) if specifier.length]
    assert got == [tuple(record[i] for i in present) for record in records]


@patient
@given(st.lists(st.integers(-2**63, 2**63 - 1), min_size=1, max_size=20), st.integers(1, 8))
def test_signed_integers_keep_their_sign_in_any_size(values: list[int], length: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ELEMENTS_BY_NUMBER, (0, 434), Element("mibObjectValueInteger", 434, "signed64"))
        template = Template(300, (FieldSpecifier(434, length),))
        values = [value >> 8 * (8 - length) for value in values]
        octets = b"".join(value.to_bytes(length, "big", signed=True) for value in values)
        assert [encode_record(template, (value,)) for value in values] == [
            octets[i:i + length] for i in range(0, len(octets), length)]
        assert decode_data_set(template, octets).records["mibObjectValueInteger"].tolist() == values


def test_floats_are_ieee_754_and_may_be_halved() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ELEMENTS_BY_NUMBER, (0, 311), Element("samplingProbability", 311, "float64"))
        for length, octets in ((8, "3fb999999999999a"), (4, "3dcccccd")):
            template = Template(300, (FieldSpecifier(311, length),))
            assert encode_record(template, (0.1,)) == bytes.fromhex(octets)
            value = decode_data_set(template, bytes.fromhex(octets)).records["samplingProbability"]
            assert value.dtype == np.float64 and abs(value[0] - 0.1) < 1e-8


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("length", "octets"), [(4, "7fa00001"), (4, "ffbfffff"), (8, "7ff4000000000001")])
def test_a_signalling_nan_is_a_value_like_any_other(length: int, octets: str) -> None:
    """IEEE 754: all bits of the exponent set, the highest one of the significand not."""
    template = Template(300, (FieldSpecifier(311, length), FieldSpecifier(1, 4)))
    record = decode_data_set(template, bytes.fromhex(octets) + b"\0\0\0\7").records[0]
    assert np.isnan(record["samplingProbability"]) and record["octetDeltaCount"] == 7


def test_a_length_its_type_does_not_have_gives_the_octets() -> None:
    template = Template(300, (FieldSpecifier(8, 5), FieldSpecifier(152, 4), FieldSpecifier(4, 2)))
    assert decode_data_set(template, bytes(range(11))).records.tolist() == [
        (bytes(range(5)), bytes(range(5, 9)), bytes(range(9, 11)))]


def test_a_string_of_fixed_length_loses_its_fill() -> None:
    template = Template(300, (field("interfaceName", 16),))
    record = encode_record(template, ("wg0",))
    assert record == b"wg0" + bytes(13)
    assert decode_data_set(template, record).records["interfaceName"].tolist() == [b"wg0"]


def test_an_element_may_come_several_times() -> None:
    template = Template(300, (field("observationTimeMilliseconds"),) * 3)
    assert decode_data_set(template, struct.pack(">QQQ", 7, 8, 9)).records.dtype.names == (
        "observationTimeMilliseconds", "observationTimeMilliseconds#2", "observationTimeMilliseconds#3")


def test_the_long_form_of_a_short_length_decodes() -> None:
    template = Template(300, (FieldSpecifier(999, VARIABLE_LENGTH), field("protocolIdentifier")))
    octets = b"\xff\0\2ab\6" + b"\0\7"
    assert decode_data_set(template, octets).records.tolist() == [(b"ab", 6), (b"", 7)]


def test_what_is_shorter_than_a_record_is_padding_whatever_it_holds() -> None:
    message = decode(message_of(A_2_1, set_of(256, A_3[4:] + b"\xee" * 19)))
    assert len(message.data_sets[0].records) == 3
    zeros = message_of(set_of(2, A_2_1[4:] + bytes(7)), set_of(3, A_4_1[4:-2] + bytes(7)))
    assert decode(zeros).templates == (FLOWS, CARDS)


def test_data_before_its_template_are_kept_for_it() -> None:
    store = TemplateStore()
    early = decode(message_of(A_3), store)
    assert early.data_sets == () and early.undecoded == (UndecodedSet(256, A_3[4:]),)
    decode(message_of(A_2_1), store)
    template = store.get("s", 0, 256)
    assert template is not None
    assert len(decode_data_set(template, early.undecoded[0].octets).records) == 3


def test_templates_belong_to_a_session_and_a_domain() -> None:
    store = TemplateStore()
    decode(message_of(A_2_1, domain=1), store, session="a")
    assert len(decode(message_of(A_3, domain=1), store, session="a").data_sets) == 1
    assert decode(message_of(A_3, domain=2), store, session="a").undecoded
    assert decode(message_of(A_3, domain=1), store, session="b").undecoded
    store.forget("a")
    assert decode(message_of(A_3, domain=1), store, session="a").undecoded


def test_a_redefinition_replaces_and_is_remarked_on_unless_it_is_over_udp() -> None:
    for datagram in (True, False):
        store = TemplateStore()
        decode(message_of(A_2_1), store, datagram)
        assert decode(message_of(A_2_1), store, datagram).remarks == (), "a refresh is no redefinition"
        options = set_of(3, b"\1\0" + A_4_1[6:])
        message = decode(message_of(options), store, datagram)
        assert len(message.remarks) == (0 if datagram else 1)
        assert store.get("s", 0, 256) == Template(256, CARDS.fields, 1)
        assert store.domain("s", 0).data == {}


@pytest.mark.parametrize(("withdrawal", "gone"), [
    (set_of(2, bytes.fromhex("0100 0000")), {256}),
    (set_of(2, bytes.fromhex("0100 0000 0101 0000 0000")), {256, 257}),
    (set_of(2, bytes.fromhex("0002 0000")), {256, 257}),
    (set_of(3, bytes.fromhex("0003 0000")), {258}),
    (set_of(3, bytes.fromhex("0102 0000")), {258}),
])
def test_withdrawn_templates_are_gone_but_not_over_udp(withdrawal: bytes, gone: set[int]) -> None:
    for datagram in (True, False):
        store = TemplateStore()
        decode(message_of(A_2_1, A_2_2, A_4_1), store, datagram)
        message = decode(message_of(withdrawal), store, datagram)
        left = {id_ for id_ in range(250, 270) if store.get("s", 0, id_)}
        assert left == ({256, 257, 258} if datagram else {256, 257, 258} - gone)
        assert set(message.withdrawn) == (set() if datagram else gone)
        assert bool(message.remarks) == datagram


def test_templates_and_withdrawals_take_effect_in_the_order_they_come() -> None:
    withdrawal = set_of(2, bytes.fromhex("0100 0000"))
    message = decode(message_of(A_2_1, A_3, withdrawal, A_3), datagram=False)
    assert len(message.data_sets) == 1 and len(message.undecoded) == 1


@pytest.mark.parametrize("withdrawal", [set_of(2, bytes.fromhex("0109 0000")), set_of(3, bytes.fromhex("0100 0000"))])
def test_withdrawing_what_is_not_there_is_remarked_on(withdrawal: bytes) -> None:
    store = TemplateStore()
    decode(message_of(A_2_1), store)
    message = decode(message_of(withdrawal), store, datagram=False)
    assert len(message.remarks) == 1 and store.get("s", 0, 256) == FLOWS


def test_reserved_sets_are_passed_over_and_remarked_on() -> None:
    message = decode(message_of(set_of(0, b"xx"), set_of(255, b""), A_2_1))
    assert len(message.remarks) == 2 and message.templates == (FLOWS,)


BROKEN: Sequence[tuple[str, bytes, int]] = [
    ("too few for a message", b"", 0),
    ("too few for a message", message_of()[:15], 0),
    ("version 9", b"\0\x09" + message_of()[2:], 0),
    ("message length 17", message_of() + b"x", 2),
    ("message length 79", message_of(A_3)[:-1], 2),
    ("set header is cut off", message_of(A_2_1, b"\1\0\0"), 44),
    ("has length 3", message_of(A_2_1, b"\1\0\0\3"), 44),
    ("has length 5, but 4 octets are left", message_of(A_2_1, b"\1\0\0\5"), 44),
    ("template record is cut off", message_of(set_of(2, A_2_1[4:-1])), 40),
    ("template record is cut off", message_of(set_of(2, bytes.fromhex("0100 ffff"))), 24),
    ("template record is cut off", message_of(set_of(2, bytes.fromhex("0100 0001 800f 0004 dead"))), 28),
    ("template record is cut off", message_of(set_of(3, bytes.fromhex("0102 0001 00"))), 24),
    ("0 of 3 fields of template 258 are scope", message_of(set_of(3, A_4_1[4:8] + b"\0\0" + A_4_1[10:])), 20),
    ("4 of 3 fields of template 258 are scope", message_of(set_of(3, A_4_1[4:8] + b"\0\4" + A_4_1[10:])), 20),
    ("template id 255 is reserved", message_of(set_of(2, b"\0\xff" + A_2_1[6:])), 20),
    ("template id 3 is reserved", message_of(set_of(2, bytes.fromhex("0003 0000"))), 20),
    ("records of template 256 would be empty",
     message_of(set_of(2, bytes.fromhex("0100 0002 0052 0000 0001 0000"))), 20),
    ("exceeds its set", message_of(set_of(2, bytes.fromhex("0100 0001 0052 ffff")), set_of(256, b"\5four")), 32),
    ("exceeds its set", message_of(set_of(2, bytes.fromhex("0100 0001 0052 ffff")), set_of(256, b"\xff\0")), 32),
    ("protocolIdentifier of 1 octets is cut off",
     message_of(set_of(2, bytes.fromhex("0100 0002 0052 ffff 0004 0001")), set_of(256, b"\3abc")), 40),
]


@pytest.mark.parametrize(("reason", "octets", "offset"), BROKEN)
def test_a_malformed_message_is_refused_and_changes_nothing(reason: str, octets: bytes, offset: int) -> None:
    store = TemplateStore()
    decode(message_of(A_2_2), store)
    with pytest.raises(IpfixDecodeError, match=reason) as caught:
        decode(octets, store, datagram=False)
    assert caught.value.offset == offset
    assert reason in caught.value.reason
    assert [id_ for id_ in range(256, 300) if store.get("s", 0, id_)] == [257]


def test_a_session_holds_so_many_fields_and_no_more() -> None:
    store = TemplateStore(max_fields=12)
    decode(message_of(A_2_1, domain=1), store)
    decode(message_of(A_2_1, domain=2), store)
    decode(message_of(A_2_1, domain=2), store)
    with pytest.raises(IpfixDecodeError, match="more than 12 fields"):
        decode(message_of(A_4_1, domain=2), store)
    decode(message_of(A_4_1, domain=2), store, session="other")
    decode(message_of(set_of(2, bytes.fromhex("0002 0000")), domain=2), store, datagram=False)
    decode(message_of(A_4_1, domain=2), store)


def test_a_stream_is_split_where_messages_end() -> None:
    messages = [message_of(A_2_1), message_of(A_3), message_of()]
    stream = b"".join(messages)
    for cut in range(len(stream) + 1):
        whole, rest = split_messages(stream[:cut])
        assert b"".join(whole) + rest == stream[:cut] and len(rest) < max(map(len, messages))
        assert whole == messages[:len(whole)]
    for broken in (b"\0\x09\0\x20", b"\0\x0a\0\x0f"):
        with pytest.raises(IpfixDecodeError) as caught:
            split_messages(messages[0] + broken)
        assert caught.value.offset == len(messages[0])


@patient
@given(st.binary(max_size=2_000), st.booleans())
def test_random_octets_end_in_a_result_or_a_clear_error(octets: bytes, with_header: bool) -> None:
    try:
        decode(message_of(octets) if with_header else octets, datagram=False)
    except IpfixDecodeError as error:
        assert error.reason and 0 <= error.offset <= 16 + len(octets)


GOOD = message_of(A_2_1, A_2_2, A_3, A_4_1, A_4_3, A_4_4,
                  set_of(2, bytes.fromhex("0110 0003 0052 ffff 0001 0003 9001 ffff 00000001")),
                  set_of(272, b"\4eth0\0\0\1\3abc\3wg0\0\0\2\xff\0\2xy"))


@settings(patient, max_examples=150)
@given(st.lists(st.tuples(st.integers(4, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6),
       st.integers(0, len(GOOD)), st.booleans())
def test_mutated_messages_end_in_a_result_or_a_clear_error(
    mutations: list[tuple[int, int]], cut: int, cut_it: bool,
) -> None:
    octets = bytearray(GOOD)
    for position, value in mutations:
        octets[position] = value
    if cut_it:
        octets = octets[:cut]
        octets[2:4] = struct.pack(">H", cut)[:max(0, min(2, cut - 2))]
    try:
        message = decode(bytes(octets), datagram=False)
    except IpfixDecodeError as error:
        assert error.reason and 0 <= error.offset <= len(GOOD)
    else:
        assert sum(part.records.nbytes for part in message.data_sets) <= 8 * len(octets)


def test_the_worst_templates_decode_in_bounded_memory() -> None:
    """A template as long as a message, and messages with as many Sets as they can hold."""
    store = TemplateStore()
    count = 16_000
    wide = struct.pack(">HH", 300, count) + struct.pack(">HH", 1, 1) + struct.pack(">HH", 82, 0) * (count - 1)
    decode(message_of(set_of(2, wide)), store)
    message = decode(message_of(set_of(300, b"\7") * 13_000), store)
    assert len(message.data_sets) == 13_000
    assert sum(part.records.nbytes for part in message.data_sets) == 13_000 * 8
    empty = decode(message_of(set_of(300, b"") * 16_000), store)
    assert sum(len(part.records) for part in empty.data_sets) == 0
    assert decode(message_of(set_of(300, b"\7" * 65_000)), store).data_sets[0].records.nbytes == 65_000 * 8
    withdrawals = set_of(2, bytes.fromhex("0002 0000") * 16_000)
    assert decode(message_of(withdrawals), store, datagram=False).withdrawn == (300,)
    assert len(decode(message_of(withdrawals), store).remarks) <= 20
