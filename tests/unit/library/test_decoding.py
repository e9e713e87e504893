"""Messages made by struct, as plain values; whatever is no message raises DecodeError and nothing else."""

from __future__ import annotations

import math
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flowtop
from flowtop import ipfix, netflow, sflow
from tests.unit.capture.collector.exports import FLOW, NOW_S, flow, set_of, template
from tests.unit.capture.collector.exports import ipfix as message_of
from tests.unit.library.test_collecting import NETFLOW5

NTP_1970 = 2_208_988_800
VALUES: tuple[tuple[tuple[int, ...], bytes, str, object], ...] = (
    ((8, 4), bytes([192, 0, 2, 1]), "sourceIPv4Address", "192.0.2.1"),
    ((27, 16), bytes.fromhex("20010db8") + bytes(11) + b"\1", "sourceIPv6Address", "2001:db8::1"),
    ((56, 6), bytes.fromhex("02005e005301"), "sourceMacAddress", "02:00:5e:00:53:01"),
    ((1, 8), struct.pack(">Q", 1 << 63), "octetDeltaCount", 1 << 63),
    ((1, 3), b"\1\0\2", "octetDeltaCount", 65_538),
    ((276, 1), b"\1", "dataRecordsReliability", True),
    ((276, 1), b"\2", "dataRecordsReliability", False),
    ((276, 1), b"\7", "dataRecordsReliability", 7),
    ((311, 8), struct.pack(">d", 0.1), "samplingProbability", 0.1),
    ((311, 4), struct.pack(">f", 0.25), "samplingProbability", 0.25),
    ((82, 8), b"eth0\0\0\0\0", "interfaceName", "eth0"),
    ((82, 65_535), b"\4eth1", "interfaceName", "eth1"),
    ((82, 65_535), b"\xff\0\3\xc3\xbc\xff", "interfaceName", "\u00fc\\xff"),
    ((150, 4), struct.pack(">I", 1_700_000_000), "flowStartSeconds", 1_700_000_000),
    ((152, 8), struct.pack(">Q", 1_700_000_000_123), "flowStartMilliseconds", 1_700_000_000_123),
    ((154, 8), struct.pack(">II", NTP_1970 + 10, 1 << 31), "flowStartMicroseconds", 10_500_000),
    ((156, 8), struct.pack(">II", NTP_1970 + 10, 1 << 30), "flowStartNanoseconds", 10_250_000_000),
    ((1, 8, 29_305), struct.pack(">Q", 9), "reverseOctetDeltaCount", 9),
    ((1, 4, 32_473), b"\0\1\2\3", "ie32473.1", b"\0\1\2\3"),
    ((999, 2), b"\1\2", "ie999", b"\1\2"),
    ((291, 65_535), b"\3\xff\0\1", "basicList", b"\xff\0\1"),
)


@pytest.mark.parametrize(("specifier", "octets", "name", "value"), VALUES, ids=[f"{v[2]}={v[3]!r}" for v in VALUES])
def test_a_value_is_plain(specifier: tuple[int, ...], octets: bytes, name: str, value: object) -> None:
    message = ipfix.decode(message_of(template(256, [specifier]), set_of(256, octets)))  # type: ignore[list-item]
    record, = message.records
    assert dict(record) == {name: value}
    assert type(record[name]) is type(value)
    assert (record.options, record.template.id) == (False, 256)


def test_a_message_says_what_its_header_says() -> None:
    octets = message_of(template(256, FLOW), template(300, ((10, 4), (82, 4)), scope=1), set_of(256, flow(1)),
                        set_of(300, struct.pack(">I4s", 3, b"eth0")), set_of(999, b"ab"), sequence=5)
    message = ipfix.decode(octets)
    assert (message.version, message.export_time_s, message.sequence, message.domain) == (10, int(NOW_S), 5, 7)
    assert [one.id for one in message.templates] == [256, 300]
    data, options = message.records
    assert data["destinationIPv4Address"] == "10.1.0.1"
    assert list(data)[:2] == ["sourceIPv4Address", "destinationIPv4Address"]
    assert (options.options, dict(options)) == (True, {"ingressInterface": 3, "interfaceName": "eth0"})
    assert [(one.set_id, one.octets) for one in message.undecoded] == [(999, b"ab")]
    assert (message.boot_ms, message.sampling_interval, message.withdrawn) == (None, 0, ())


def test_netflow_5_has_the_names_of_ipfix() -> None:
    message = netflow.decode(NETFLOW5)
    record, = message.records
    assert (message.version, message.sequence, message.boot_ms) == (5, 10, int(NOW_S) * 1000 - 60_000)
    assert (record["sourceIPv4Address"], record["packetDeltaCount"], record["flowStartSysUpTime"]) == (
        "10.0.0.1", 7, 50_000)


def test_records_of_sflow_samples_have_names() -> None:
    router = 1002, struct.pack(">I4sII", 1, bytes([192, 0, 2, 1]), 24, 16)
    assert sflow.values(router) == ("router", {"nextHop": "192.0.2.1", "sourceMask": 24, "destinationMask": 16})
    assert sflow.values((4413 << 12 | 7, b"1234")) == ("format 4413.7", {"octets": 4})
    assert sflow.counter_values((1005, struct.pack(">I4s", 4, b"eth0"))) == ("portName", {"name": "eth0"})
    said = sflow.extended((router,))
    assert (said.next_hop, said.source_mask, said.source_as) == (bytes([192, 0, 2, 1]), 24, None)
    with pytest.raises(flowtop.DecodeError):
        sflow.values((1002, b"1234"))


def test_sflow_is_decoded_and_refused() -> None:
    datagram = sflow.decode(struct.pack(">II4sIIII", 5, 1, bytes([192, 0, 2, 77]), 3, 9, 5_000, 0))
    assert (datagram.agent, datagram.sub_agent, datagram.sequence, datagram.uptime_ms, datagram.packets) == (
        "192.0.2.77", 3, 9, 5_000, ())
    with pytest.raises(flowtop.DecodeError):
        sflow.decode(b"\0\0\0\5")


def test_a_decoder_remembers_templates_by_session() -> None:
    decoder = flowtop.Decoder()
    data = message_of(set_of(256, flow(1)), sequence=0)
    assert decoder.decode(data, "a").records == ()
    decoder.decode(message_of(template(256, FLOW)), "a")
    assert len(decoder.decode(data, "a").records) == 1
    assert decoder.decode(data, "b").records == ()
    assert decoder.decode(NETFLOW5, "b").version == 5
    decoder.end("a")
    assert decoder.decode(data, "a").records == ()
    figures = decoder.statistics
    assert (figures.messages, figures.records, figures.undecoded_sets, figures.refused) == (6, 2, 3, {})


def test_what_is_no_message_is_refused_by_kind_and_place_and_counted() -> None:
    decoder = flowtop.Decoder()
    for octets, fault, offset in ((b"", "length", 0), (b"\0\3" + bytes(20), "version", 0),
                                  (message_of()[:-1], "length", 0), (message_of(b"\1\0\0\3"), "set", 16)):
        with pytest.raises(flowtop.DecodeError) as caught:
            decoder.decode(octets)
        assert (caught.value.fault, caught.value.offset) == (fault, offset)
        assert isinstance(caught.value, flowtop.FlowtopError)
    assert decoder.statistics.refused == {"length": 2, "version": 1, "set": 1}
    with pytest.raises(flowtop.DecodeError, match="IPFIX"):
        netflow.decode(message_of())
    with pytest.raises(flowtop.DecodeError, match="version 5"):
        ipfix.decode(NETFLOW5)


def test_sessions_and_templates_are_bounded_and_the_silent_are_forgotten_first() -> None:
    decoder = flowtop.Decoder()
    data = message_of(set_of(256, flow(1)))
    for number in range(1_030):
        decoder.decode(message_of(template(256, FLOW)), number)
        decoder.decode(data, 0)
    assert decoder.statistics.forgotten_sessions == 6
    assert len(decoder.decode(data, 0).records) == 1, "it was never silent"
    assert decoder.decode(data, 1).records == ()
    greedy = flowtop.Decoder()
    large = message_of(template(256, [(1, 8)] * 15_000))
    for number in range(40):
        greedy.decode(large, number)
    assert greedy.statistics.forgotten_sessions == 40 - 262_144 // 15_000


@given(st.binary(max_size=120))
def test_octets_of_any_kind_decode_or_are_refused(octets: bytes) -> None:
    for decode in (ipfix.decode, netflow.decode, sflow.decode, flowtop.Decoder().decode):
        try:
            decode(octets)
        except flowtop.DecodeError as refusal:
            assert refusal.message


def test_damaged_messages_decode_or_are_refused() -> None:
    rng = random.Random(3)
    seed = message_of(template(256, [specifier for specifier, *_ in VALUES]),  # type: ignore[misc]
                      set_of(256, b"".join(octets for _, octets, *_ in VALUES)))
    assert len(ipfix.decode(seed).records) == 1
    decoder = flowtop.Decoder()
    for _ in range(3_000):
        octets = bytearray(seed)
        for _ in range(rng.randrange(1, 4)):
            octets[rng.randrange(len(octets))] = rng.randrange(256)
        try:
            for record in decoder.decode(bytes(octets)).records:
                assert all(isinstance(value, int | float | str | bytes) for value in record.values())
        except flowtop.DecodeError:
            continue
    figures = decoder.statistics
    assert figures.messages + sum(figures.refused.values()) == 3_000


def test_a_message_of_64_kib_is_a_matter_of_a_moment() -> None:
    octets = message_of(template(256, [(4, 1)]), set_of(256, bytes(65_400)))
    assert len(ipfix.decode(octets).records) == 65_400
    empty = message_of(template(256, [(1, 8)] * 2_000), *[set_of(256, b"")] * 10_000)
    assert ipfix.decode(empty).records == ()


def test_infinities_are_floats() -> None:
    record, = ipfix.decode(message_of(template(256, [(311, 4)]), set_of(256, struct.pack(">f", math.inf)))).records
    assert record["samplingProbability"] == math.inf
