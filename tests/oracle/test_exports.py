"""NetFlow 5, NetFlow 9 and IPFIX of real devices: what tshark reads in the same octets."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.wire.data_set import DataSet
from flowtop.wire.datagrams import decode_export
from flowtop.wire.ipfix_template import VARIABLE_LENGTH, IpfixDecodeError
from flowtop.wire.recognition import split_exports
from flowtop.wire.template_store import TemplateStore
from tests.oracle.exports_data import BROKEN, GROUPS, data_directory, export_files, tshark_exports

NAMES = {
    "sourceIPv4Address": "cflow.srcaddr", "destinationIPv4Address": "cflow.dstaddr",
    "sourceTransportPort": "cflow.srcport", "destinationTransportPort": "cflow.dstport",
    "sourceIPv6Address": "cflow.srcaddrv6", "destinationIPv6Address": "cflow.dstaddrv6",
    "protocolIdentifier": "cflow.protocol", "tcpControlBits": "cflow.tcpflags", "ipClassOfService": "cflow.tos",
    "ingressInterface": "cflow.inputint", "egressInterface": "cflow.outputint", "applicationName": "cflow.appl_name",
    "octetDeltaCount": "cflow.octets", "packetDeltaCount": "cflow.packets",
    "samplingInterval": "cflow.sampling_interval",
    "flowEndReason": "cflow.flow_end_reason",
    "octetTotalCount": "cflow.permanent_octets", "packetTotalCount": "cflow.permanent_packets",
}
"""Elements, and what tshark calls them."""


def field_octets(data_set: DataSet) -> list[dict[str, bytes]]:
    """The octets of every field by their places: arithmetic over the Template's lengths."""
    rows, offset = [], 0
    for _ in range(data_set.count):
        row = {}
        for name, specifier in data_set.template.named_fields:
            length = specifier.length
            if length == VARIABLE_LENGTH:
                length, offset = data_set.octets[offset], offset + 1
                if length == 255:
                    length, offset = int.from_bytes(data_set.octets[offset:offset + 2], "big"), offset + 2
            row[name] = data_set.octets[offset:offset + length]
            offset += length
        rows.append(row)
    return rows


@pytest.mark.parametrize("group", GROUPS)
def test_records_are_those_that_tshark_reads(group: str, tmp_path: Path) -> None:
    datagrams = [part for octets in export_files(GROUPS[group]) for part in split_exports(octets)]
    store, named = TemplateStore(), 0
    for expected, datagram in zip(tshark_exports(datagrams, tmp_path), datagrams, strict=True):
        message = decode_export(datagram, store, session="s")
        assert (message.version, message.sequence) == (expected.version, expected.sequence)
        assert [(template.id, len(template.fields)) for template in message.templates] == expected.templates
        assert message.undecoded == ()
        rows = [(data_set, row) for data_set in message.data_sets for row in field_octets(data_set)]
        assert [data_set.template.id for data_set, _ in rows] == [set_id for set_id, _, _ in expected.records]
        for (data_set, row), (_, octets, fields) in zip(rows, expected.records, strict=True):
            if data_set.template.fixed_length:  # tshark's record stops short where lengths vary; its fields do not
                assert b"".join(row.values()) == octets
            for element in NAMES.keys() & row.keys():
                assert row[element] in fields[NAMES[element]], element
                named += 1
    assert named


@pytest.mark.parametrize("group", GROUPS)
def test_values_are_the_octets_of_their_fields(group: str) -> None:
    store = TemplateStore()
    for datagram in (part for octets in export_files(GROUPS[group]) for part in split_exports(octets)):
        for data_set in decode_export(datagram, store, session="s").data_sets:
            names = [name for name, _ in data_set.template.named_fields]
            for row, values in zip(field_octets(data_set), data_set.records.tolist(), strict=True):
                for name, value in zip(names, values, strict=True):
                    expected: Any = int.from_bytes(row[name], "big") if isinstance(value, int) else row[name]
                    if isinstance(value, float):  # Ixia's latitudes, IEEE 754
                        expected, = struct.unpack(">f", row[name])
                    assert value == expected or (isinstance(value, bytes) and value == row[name].rstrip(b"\0"))


@pytest.mark.parametrize("name", BROKEN)
def test_broken_ones_are_refused(name: str) -> None:
    (octets,) = export_files([name])
    with pytest.raises(IpfixDecodeError) as refusal:
        decode_export(octets, TemplateStore(), session="s")
    assert refusal.value.fault == "length"


def test_every_file_is_looked_at() -> None:
    files = {path.stem for path in (data_directory() / "netflow").glob("*.dat")}
    assert files == {name for group in GROUPS.values() for name in group} | set(BROKEN)


COUNTERS = (("cflow.octets", "cflow.packets"), ("cflow.permanent_octets", "cflow.permanent_packets"))


@pytest.mark.parametrize("group", ["barracuda", "ixia256", "ixia271", "ipfix", "netflow5", "0length", "1941K9", "aci",
                                   "asr9k", "nbar"])
def test_flows_are_those_that_tshark_reads(group: str, tmp_path: Path) -> None:
    datagrams = [part for octets in export_files(GROUPS[group]) for part in split_exports(octets)]
    process, session = CollectingProcess(), Session("s", "192.0.2.1", True)
    expected: Counter[tuple[bytes, bytes, int]] = Counter()
    for message in tshark_exports(datagrams, tmp_path):
        for _, _, fields in message.records:
            if "cflow.srcaddr" not in fields and "cflow.srcaddrv6" not in fields:
                continue
            octets, packets = next((int.from_bytes(fields[octets][0], "big"), int.from_bytes(fields[packets][0], "big"))
                                   for octets, packets in COUNTERS if octets in fields)
            if not packets and "cflow.post_packets" in fields:  # an egress record: OUT counters where those of IN are 0
                octets, packets = (int.from_bytes(fields[f"cflow.post_{unit}"][0], "big")
                                   for unit in ("octets", "packets"))
            ends = [fields.get(name, fields.get(f"{name}v6", [b""]))[0] for name in ("cflow.srcaddr", "cflow.dstaddr")]
            protocol = fields["cflow.protocol"][0][0]
            key = ends[0].ljust(16, b"\0"), ends[1].ljust(16, b"\0"), protocol
            expected[*key, "octets"] += octets  # type: ignore[index]
            expected[*key, "packets"] += packets  # type: ignore[index]
    for datagram in datagrams:
        assert process.receive(datagram, session, 1_780_000_000.0)
    found: Counter[tuple[bytes, bytes, int]] = Counter()
    for key, counters in zip(*process.drain()[:2], strict=True):
        ends = [bytes(key[name]).ljust(16, b"\0") for name in ("source_address", "destination_address")]
        for name in ("octets", "packets"):
            found[*ends, int(key["protocol"]), name] += int(counters[name])  # type: ignore[index]
    assert found == +expected and found
