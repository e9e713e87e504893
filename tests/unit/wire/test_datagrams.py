"""NetFlow 5 and 9 as their documents lay them out, and whatever else a socket may bring."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.wire.data_set import decode_data_set, join
from flowtop.wire.datagrams import decode_export
from flowtop.wire.iana import registered
from flowtop.wire.ipfix_template import IpfixDecodeError
from flowtop.wire.netflow_fixed import decode_fixed
from flowtop.wire.recognition import split_exports
from flowtop.wire.template_store import TemplateStore
from tests.unit.wire.patience import patient


def v9(*flowsets: bytes, sequence: int = 7, source_id: int = 3) -> bytes:
    """A datagram around FlowSets, by RFC 3954 section 5.1."""
    return struct.pack(">HHIIII", 9, len(flowsets), 60_000, 1_700_000_000, sequence, source_id) + b"".join(flowsets)


def flowset(number: int, *words: int, octets: bytes = b"") -> bytes:
    body = struct.pack(f">{len(words)}H", *words) + octets
    return struct.pack(">HH", number, 4 + len(body)) + body


def v5(count: int, records: bytes, sampling: int = 0) -> bytes:
    return struct.pack(">HHIIIIBBH", 5, count, 60_000, 1_700_000_000, 250_000_000, 42, 1, 2, sampling) + records


def v5_record() -> bytes:
    """Every field another number, in the order of Cisco's table."""
    addresses = (b"\x0a\0\0\1", b"\x0a\0\0\2", b"\x0a\0\0\3")
    numbers = (4, 5, 6, 7, 8, 9, 10, 11, 0, 13, 14, 15, 16, 17, 18, 19, 0)
    return struct.pack(">4s4s4sHHIIIIHHBBBBHHBBH", *addresses, *numbers)


def test_netflow_5_fields_stand_where_the_format_puts_them() -> None:
    message = decode_export(v5(1, v5_record(), sampling=0x4000 | 1000), TemplateStore(), session="s")
    row = message.data_sets[0].records[0]
    assert (message.version, message.sequence, message.domain, message.sampling_interval) == (5, 42, 0x0102, 1000)
    assert message.boot_ms == 1_700_000_000_250 - 60_000
    assert {name: row[name] for name in ("ingressInterface", "egressInterface", "packetDeltaCount", "octetDeltaCount",
                                         "flowStartSysUpTime", "flowEndSysUpTime", "sourceTransportPort",
                                         "destinationTransportPort", "tcpControlBits", "protocolIdentifier",
                                         "ipClassOfService", "bgpSourceAsNumber", "bgpDestinationAsNumber")} == {
        "ingressInterface": 4, "egressInterface": 5, "packetDeltaCount": 6, "octetDeltaCount": 7,
        "flowStartSysUpTime": 8, "flowEndSysUpTime": 9, "sourceTransportPort": 10, "destinationTransportPort": 11,
        "tcpControlBits": 13, "protocolIdentifier": 14, "ipClassOfService": 15, "bgpSourceAsNumber": 16,
        "bgpDestinationAsNumber": 17}
    assert bytes(row["sourceIPv4Address"]) == b"\x0a\0\0\1" and bytes(row["destinationIPv4Address"]) == b"\x0a\0\0\2"


@pytest.mark.parametrize(("count", "records"), [(2, 1), (0xFFFF, 30), (1, 0)])
def test_netflow_5_that_promises_more_flows_than_it_has_is_refused(count: int, records: int) -> None:
    with pytest.raises(IpfixDecodeError) as refusal:
        decode_fixed(v5(count, v5_record() * records))
    assert refusal.value.fault == "length"


def test_netflow_5_with_octets_to_spare_is_read_and_remarked() -> None:
    message = decode_fixed(v5(1, v5_record() + b"abc"))
    assert message.record_count == 1 and message.remarks == ("3 octets follow the last flow",)


def test_netflow_9_templates_options_and_data() -> None:
    store = TemplateStore()
    message = decode_export(v9(
        flowset(0, 256, 2, 8, 4, 1, 3, 257, 1, 40_001, 2),
        flowset(1, 300, 4, 8, 1, 2, 34, 4, 35, 1, 0),
        flowset(256, octets=b"\x0a\0\0\1\0\1\0" + b"\x0a\0\0\2\0\0\5" + b"\0\0"),
        flowset(300, octets=b"\0\0" + struct.pack(">IB", 512, 2)),
    ), store, session="s")
    assert (message.version, message.domain, message.sequence, message.boot_ms) == (9, 3, 7, 1_699_999_940_000)
    assert [(t.id, t.scope_count) for t in message.templates] == [(256, 0), (257, 0), (300, 1)]
    flows, options = message.data_sets
    assert [(bytes(row[0]), row[1]) for row in flows.records.tolist()] == [(b"\x0a\0\0\1", 256), (b"\x0a\0\0\2", 5)]
    assert dict(zip(options.template.names, options.records[0].tolist(), strict=True)) == {
        "exportingProcessId": 0, "samplingInterval": 512, "samplingAlgorithm": 2}
    assert message.templates[1].names == ("xlateSourceIPv4Address",), "a field type of Cisco ASA"


@pytest.mark.parametrize(("flowsets", "fault"), [
    ([flowset(0, 256, 1, 8, 0)], "template"),
    ([flowset(0, 256, 0)], "template"),
    ([flowset(0, 255, 1, 8, 4)], "template"),
    ([flowset(0, 256, 9, 8, 4)], "template"),
    ([flowset(1, 256, 2, 4, 1, 4, 34, 4)], "template"),
    ([flowset(1, 256, 0, 4, 34, 4)], "template"),
    ([struct.pack(">HH", 256, 3)], "set"),
    ([struct.pack(">HH", 256, 0), b"x"], "set"),
    ([struct.pack(">HH", 0, 60_000)], "set"),
    ([b"\1"], "set"),
])
def test_netflow_9_that_is_broken_is_refused_and_changes_nothing(flowsets: list[bytes], fault: str) -> None:
    store = TemplateStore()
    with pytest.raises(IpfixDecodeError) as refusal:
        decode_export(v9(flowset(0, 400, 1, 8, 4), *flowsets), store, session="s")
    assert refusal.value.fault == fault
    assert store.get("s", 3, 400) is None


def test_zeros_may_fill_a_netflow_9_datagram_up() -> None:
    message = decode_export(v9(flowset(0, 256, 1, 8, 4)) + bytes(64), TemplateStore(), session="s")
    assert [template.id for template in message.templates] == [256] and len(message.remarks) == 1


def test_templates_are_apart_by_session_and_source_id_and_expire() -> None:
    store = TemplateStore()
    for session, source_id, length in (("a", 1, 4), ("a", 2, 2), ("b", 1, 1)):
        decode_export(v9(flowset(0, 256, 1, 1, length), source_id=source_id), store, session=session)
    assert [t.min_octets for t in (store.get("a", 1, 256), store.get("a", 2, 256), store.get("b", 1, 256)) if t] == [
        4, 2, 1]
    assert store.fields == 3
    store.expire("a", 1, 256)
    assert store.get("a", 1, 256) is None and store.get("a", 2, 256) and store.fields == 2


@pytest.mark.parametrize("octets", [b"", b"\0", b"\0\x0a", b"\0\x09", b"\0\5", b"\0\3" + bytes(50),
                                    b"\0\x08" + bytes(50)])
def test_what_is_no_export_is_refused(octets: bytes) -> None:
    with pytest.raises(IpfixDecodeError):
        decode_export(octets, TemplateStore(), session="s")


def test_a_file_of_datagrams_splits_where_each_says_it_ends() -> None:
    five, ten = v5(2, v5_record() * 2), struct.pack(">HHIII", 10, 20, 0, 0, 0) + flowset(2)
    nine = v9(flowset(0, 256, 1, 8, 4))
    assert split_exports(five + ten + five + nine) == [five, ten, five, nine]
    assert split_exports(five + five[:30]) == [five, five[:30]]
    assert split_exports(b"\xff" * 9) == [b"\xff" * 9]
    assert b"".join(split_exports(ten[:2] + b"\0\1" + ten[4:])) == ten[:2] + b"\0\1" + ten[4:]


def test_sets_of_one_template_join_to_one_array() -> None:
    (template,) = decode_export(v9(flowset(0, 256, 2, 8, 4, 1, 3)), TemplateStore(), session="s").templates
    parts = [decode_data_set(template, bytes(range(7 * n + n % 3))) for n in range(1, 5)]
    assert np.array_equal(join(parts), np.concatenate([part.records for part in parts]))
    assert len(join(parts)) == 1 + 2 + 3 + 4


def test_reverse_elements_are_named_after_what_they_reverse() -> None:
    assert registered(15) and registered(85, 29305).name == "reverseOctetTotalCount"  # type: ignore[union-attr]
    assert registered(85, 9) is None and registered(31_000) is None


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A good datagram with some octets changed, cut or repeated; or no datagram at all."""
    good = draw(st.sampled_from([
        v5(2, v5_record() * 2),
        v9(flowset(0, 256, 2, 8, 4, 1, 3, 257, 1, 8, 65_535), flowset(1, 300, 4, 4, 1, 2, 34, 4),
           flowset(256, octets=bytes(range(21))), flowset(257, octets=b"\3abc\0\xff\0\2zz"), flowset(300, 1, 2, 3)),
        struct.pack(">HHIII", 10, 66, 0, 0, 0) + flowset(2, 256, 2, 8, 4, 1 | 0x8000, 65_535, 0, 9)
        + flowset(3, 258, 2, 1, 149, 4, 34, 4) + flowset(256, octets=b"\x0a\0\0\1\4xyz."),
    ]))
    octets = bytearray(draw(st.one_of(st.just(good), st.binary(max_size=200).map(lambda tail: good[:2] + tail))))
    for _ in range(draw(st.integers(0, 6))):
        octets[draw(st.integers(0, len(octets) - 1))] = draw(st.sampled_from([0, 1, 2, 4, 127, 255]))
    return bytes(octets[:draw(st.integers(0, len(octets)))]) + draw(st.binary(max_size=20))


@patient
@given(st.lists(broken(), max_size=8))
def test_a_hostile_session_ends_in_records_or_refusals(datagrams: list[bytes]) -> None:
    store = TemplateStore()
    for octets in datagrams:
        try:
            message = decode_export(octets, store, session="s")
        except IpfixDecodeError as refusal:
            assert refusal.fault in ("version", "length", "set", "template", "value", "bound")
            continue
        for data_set in message.data_sets:
            assert len(data_set.records) == data_set.count <= len(octets)


def test_memory_is_bounded_by_what_a_store_may_hold() -> None:
    store = TemplateStore(max_fields=1_000)
    tracemalloc.start()
    try:
        refused = 0
        for number in range(3_000):
            octets = v9(flowset(0, 256 + number % 60_000, 10, *([8, 4] * 10)), source_id=number % 7)
            try:
                decode_export(octets, store, session="s")
            except IpfixDecodeError as refusal:
                assert refusal.fault == "bound"
                refused += 1
        assert refused == 3_000 - 100 and store.fields == 1_000
        assert tracemalloc.get_traced_memory()[0] < 2_000_000
    finally:
        tracemalloc.stop()
