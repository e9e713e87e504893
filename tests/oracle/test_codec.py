"""What flowtop says in IPFIX, read by tshark, ipfixDump, nfdump and nfacctd; what devices say, read as tshark does."""

from __future__ import annotations

import ipaddress
import random
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowtop.model.record import FLOW_RECORD_DTYPE, FlowRecords
from flowtop.wire import flow_templates as ft
from flowtop.wire.data_set import DataSet
from flowtop.wire.ipfix import encode_messages
from flowtop.wire.ipfix_decoder import decode_message, split_messages
from flowtop.wire.template_store import TemplateStore
from tests.oracle.collectors import ipfix_dump, nfacctd_records, nfdump_records, tshark_file, tshark_records

DOMAIN = 3
EXPORT_TIME_S = 1_700_000_100
DEVICES = Path(__file__).parents[3] / "shared" / "data" / "netflow"
FULL_BITS = ("strict", "nfdump", "go-ipfix")
"""Profiles that tell all TCP control bits."""

TUNNELS = {1: "ip", 2: "gre", 3: "erspan", 4: "vxlan", 5: "geneve", 6: "mpls"}
CARRIED = ((1, 0), (2, 0), (2, 1), (2, 2**32 - 1), (3, 1023), (4, 1), (4, 2**24 - 1), (5, 1), (6, 1))
"""record.Tunnel and id: some tell flows of the same addresses and ports apart by nothing else."""

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}

Flow = dict[str, Any]


def made_flows(count: int = 150) -> list[Flow]:
    """Flows as plain values, each with its own counters; `kind` as in record.Kind, `icmp` None or type * 256 + code."""
    rng = random.Random(7011)
    flows = []
    for number in range(count):
        version = rng.choice((4, 6))
        kind = (0, 0, 0, 0, 0, 0, 0, 0, 1, 2)[number % 10]
        protocol = rng.choice((6, 17, 132, 1 if version == 4 else 58)) if kind == 0 else rng.choice((6, 17))
        ports = kind == 0 and protocol not in (1, 58)
        start_ms = 1_700_000_000_000 + rng.randrange(60_000)
        network = 0xC0000200 if version == 4 else 0x20010DB8 << 96
        flows.append({
            "id": 10_000 + number, "version": version, "kind": kind, "protocol": protocol,
            "source": network + rng.randrange(1, 255), "destination": network + rng.randrange(1, 255),
            "source_port": rng.randrange(1, 2**16) if ports else 0,
            "destination_port": rng.randrange(1, 2**16) if ports else 0,
            "icmp": rng.choice((8 * 256, 3 * 256 + 4, 128 * 256, 1)) if kind == 0 and not ports else None,
            "direction": rng.randrange(2), "ifindex": rng.choice((2, 3, 70_000)), "vlan": rng.choice((0, 7, 4094)),
            "customer_vlan": rng.choice((0, 9)), "tos": rng.randrange(256), "reason": rng.randrange(1, 6),
            "bits": rng.randrange(0x1000) if protocol == 6 and kind == 0 else 0,
            "source_mac": rng.randrange(2**48), "destination_mac": rng.randrange(2**48),
            "packets": 1 + number, "octets": 2**33 * number + 1_000 + number,
            "start_ms": start_ms, "end_ms": start_ms + rng.randrange(30_000),
            "tunnel": (0, 0) if kind == 1 or number % 3 else CARRIED[number // 3 % len(CARRIED)],
        })
    return flows


def of_flows(set_id: int) -> bool:
    """Whether a Set holds Flow Records, outside tunnels or in them; the rest are Options."""
    return set_id <= ft.AGGREGATE or set_id >= 272


def records_of(flows: list[Flow]) -> FlowRecords:
    """The flows as the metering process reports them."""
    records = np.zeros(len(flows), FLOW_RECORD_DTYPE)
    for record, flow in zip(records, flows, strict=True):
        octets = 4 if flow["version"] == 4 else 16
        record["source_address"] = flow["source"].to_bytes(octets, "big").ljust(16, b"\0")
        record["destination_address"] = flow["destination"].to_bytes(octets, "big").ljust(16, b"\0")
        record["source_mac"] = flow["source_mac"].to_bytes(6, "big")
        record["destination_mac"] = flow["destination_mac"].to_bytes(6, "big")
        record["destination_port"] = flow["destination_port"] if flow["icmp"] is None else flow["icmp"]
        for name, key in (("flow_id", "id"), ("source_port", "source_port"), ("protocol", "protocol"),
                          ("ip_version", "version"), ("kind", "kind"), ("direction", "direction"), ("vlan_id", "vlan"),
                          ("customer_vlan_id", "customer_vlan"), ("ifindex", "ifindex"), ("tcp_control_bits", "bits"),
                          ("tos", "tos"), ("end_reason", "reason"), ("packet_delta", "packets"),
                          ("octet_delta", "octets"), ("start_ms", "start_ms"), ("end_ms", "end_ms")):
            record[name] = flow[key]
        record["tunnel"], record["tunnel_id"] = flow["tunnel"]
    return records


def exported(flows: list[Flow], name: str, max_octets: int = 1_200) -> list[bytes]:
    """Messages of a whole session: templates, options, a third of the flows; and all that again."""
    profile = ft.PROFILES[name]
    templates = ft.flow_templates(profile)
    options_domain = profile.options_domain(DOMAIN)
    sequences = {DOMAIN: 0, options_domain: 0}
    messages: list[bytes] = []

    def send(sets: list[ft.RecordSet], domain: int, seconds: int) -> None:
        encoded = encode_messages(sets, domain=domain, sequence=sequences[domain],
                                  export_time_s=EXPORT_TIME_S + seconds, max_octets=max_octets)
        sequences[domain] = encoded.next_sequence
        messages.extend(encoded.messages)

    records = records_of(flows)
    for third in range(3):
        send(ft.announcement(templates), DOMAIN, third)
        send(ft.options_announcement(templates), options_domain, third)
        send(ft.announcement(templates, tunnelled=True), DOMAIN, third)
        send(ft.options_announcement(templates, tunnelled=True), options_domain, third)
        send([
            ft.interface_table(templates, {2: "eth0", 3: "wg0", 70_000: "veth-long-name0"}),
            ft.tunnel_table(templates, [tunnel << 32 | id_ for tunnel, id_ in CARRIED]),
            ft.flow_keys(templates, domain=DOMAIN),
            ft.flow_keys(templates, domain=DOMAIN, tunnelled=True),
            ft.metering_statistics(templates, domain=DOMAIN, messages=11, flow_records=12, octets=13),
            ft.metering_reliability(templates, domain=DOMAIN, ignored_packets=14, ignored_octets=15,
                                    first_ms=1_700_000_000_016, last_ms=1_700_000_000_017),
            ft.exporting_reliability(templates, exporting_process_id=1, not_sent_flows=18, not_sent_packets=19,
                                     not_sent_octets=20, first_ms=1_700_000_000_021, last_ms=1_700_000_000_022),
        ], options_domain, third)
        send(ft.flow_sets(records[third::3], templates)[0], DOMAIN, third)
    assert max(map(len, messages)) <= max_octets
    return messages


def seen_by_tshark(flow: Flow, name: str) -> dict[str, int]:
    """A Data Record as numbers under tshark's names."""
    six = "v6" if flow["version"] == 6 else ""
    out = flow["direction"] == 1
    seen = {"flow_id": flow["id"], "abstimestart": flow["start_ms"], "abstimeend": flow["end_ms"],
            "octets": flow["octets"], "packets": flow["packets"], "inputint": 0 if out else flow["ifindex"],
            "outputint": flow["ifindex"] if out else 0, "protocol": flow["protocol"], "ip_version": flow["version"],
            "direction": flow["direction"], "flow_end_reason": flow["reason"]}
    if flow["kind"] != 1:
        bits = flow["bits"] if name in FULL_BITS else flow["bits"] & 0xFF
        seen |= {f"srcaddr{six}": flow["source"], f"dstaddr{six}": flow["destination"], "srcmac": flow["source_mac"],
                 "dstmac": flow["destination_mac"], "vlanid": flow["vlan"],
                 "dot1q_customer_vlan_id": flow["customer_vlan"], "tos": flow["tos"],
                 "tcpflags": bits}
        if name in ("default", "pmacct"):
            seen["post_vlanid"] = flow["vlan"]
    if flow["kind"] == 0:
        seen |= {"srcport": flow["source_port"], "dstport": flow["destination_port"]}
    if flow["icmp"] is not None and flow["version"] == 4:
        seen["icmp_type_code_ipv4"] = flow["icmp"]
    elif flow["icmp"] is not None:
        seen |= {"icmp_ipv6_type": flow["icmp"] // 256, "icmp_ipv6_code": flow["icmp"] % 256}
    tunnel, id_ = flow["tunnel"]
    if tunnel:
        seen["observation_point_id"] = tunnel * 2**32 + id_
    if tunnel == 4:  # 0x01: VXLAN
        seen["layer2_segment_id"] = 0x01 * 2**56 + id_
    if tunnel == 2 and id_:
        seen["gre_key"] = id_
    return {f"cflow.{key}": value for key, value in seen.items()}


@pytest.mark.parametrize("name", ft.PROFILES)
@pytest.mark.parametrize("max_octets", [464, 65_000])
def test_tshark_reads_every_field(name: str, max_octets: int, tmp_path: Path) -> None:
    flows = made_flows()
    messages = exported(flows, name, max_octets)
    records, complaints = tshark_records(messages, tmp_path)
    # Newer versions call two octets of TCP control bits tcpflags16.
    got = [{key.removesuffix("16"): int.from_bytes(octets, "big") for key, octets in fields}
           for set_id, fields in records if of_flows(set_id)]
    assert sorted(got, key=lambda seen: seen["cflow.flow_id"]) == [seen_by_tshark(flow, name) for flow in flows]
    assert complaints == []
    path = tmp_path / "messages.ipfix"
    path.write_bytes(b"".join(messages))
    assert tshark_file(path) == (records, []), "an RFC 5655 file of the same messages"
    names = {int.from_bytes(index, "big"): name for set_id, fields in records if set_id == ft.INTERFACES
             for (_, index), (_, name) in [fields]}
    assert names == {2: b"eth0", 3: b"wg0", 70_000: b"veth-long-name0"}
    described = {int.from_bytes(point, "big"): words.decode() for set_id, fields in records if set_id == ft.TUNNELS
                 for (_, point), (_, words) in [fields]}
    assert described == {tunnel * 2**32 + id_: TUNNELS[tunnel] if tunnel < 3 and not id_ else f"{TUNNELS[tunnel]} {id_}"
                         for tunnel, id_ in CARRIED}


def seen_by_ipfix_dump(flow: Flow, name: str) -> dict[str, str]:
    """A Data Record as ipfixDump prints it."""
    numbers = {key.removeprefix("cflow."): value for key, value in seen_by_tshark(flow, name).items()}
    version = flow["version"]
    words = {
        "flow_id": "flowId", "octets": "octetDeltaCount", "packets": "packetDeltaCount", "inputint": "ingressInterface",
        "outputint": "egressInterface", "protocol": "protocolIdentifier", "ip_version": "ipVersion",
        "direction": "flowDirection", "flow_end_reason": "flowEndReason", "srcport": "sourceTransportPort",
        "dstport": "destinationTransportPort",
        "vlanid": "vlanId", "post_vlanid": "postVlanId", "dot1q_customer_vlan_id": "dot1qCustomerVlanId",
        "tos": "ipClassOfService", "tcpflags": "tcpControlBits", "observation_point_id": "observationPointId",
        "layer2_segment_id": "layer2SegmentId", "gre_key": "greKey",
    }
    seen = {words[key]: str(value) for key, value in numbers.items() if key in words}
    if flow["icmp"] is not None:
        seen[f"icmpTypeCodeIPv{version}"] = str(flow["icmp"])
    seen |= {f"flow{edge}Milliseconds": moment(flow[f"{edge.lower()}_ms"], " ") for edge in ("Start", "End")}
    if flow["kind"] != 1:
        seen |= {f"{end}IPv{version}Address": str(address(flow, end)) for end in ("source", "destination")}
        seen |= {f"{end}MacAddress": mac(flow[f"{end}_mac"]) for end in ("source", "destination")}
    return seen


def address(flow: Flow, end: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return (ipaddress.IPv4Address if flow["version"] == 4 else ipaddress.IPv6Address)(flow[end])


def moment(ms: int, separator: str) -> str:
    """UTC with milliseconds."""
    return datetime.fromtimestamp(ms / 1000, UTC).replace(tzinfo=None).isoformat(separator, "milliseconds")


def mac(number: int) -> str:
    return number.to_bytes(6, "big").hex(":")


@pytest.mark.parametrize("name", ft.PROFILES)
def test_ipfix_dump_reads_a_file_of_it(name: str, tmp_path: Path) -> None:
    flows = made_flows()
    records, complaints = ipfix_dump(b"".join(exported(flows, name)), tmp_path)
    got = [{key: str(ipaddress.IPv6Address(value)) if "IPv6Address" in key else value for key, value in values}
           for template, values in records if of_flows(template)]
    assert sorted(got, key=lambda seen: int(seen["flowId"])) == [seen_by_ipfix_dump(flow, name) for flow in flows]
    assert complaints == ""
    options = {template: values for template, values in records if not of_flows(template)}
    assert options[ft.METERING_STATISTICS] == [
        ("observationDomainId", str(DOMAIN)), ("exportedMessageTotalCount", "11"),
        ("exportedFlowRecordTotalCount", "12"), ("exportedOctetTotalCount", "13")]
    assert options[ft.METERING_RELIABILITY][1:] == [
        ("ignoredPacketTotalCount", "14"), ("ignoredOctetTotalCount", "15"),
        ("observationTimeMilliseconds", moment(1_700_000_000_016, " ")),
        ("observationTimeMilliseconds", moment(1_700_000_000_017, " "))]
    assert options[ft.EXPORTING_RELIABILITY] == [
        ("exportingProcessId", "1"), ("notSentFlowTotalCount", "18"), ("notSentPacketTotalCount", "19"),
        ("notSentOctetTotalCount", "20"), ("observationTimeMilliseconds", moment(1_700_000_000_021, " ")),
        ("observationTimeMilliseconds", moment(1_700_000_000_022, " "))]


def test_ipfix_dump_and_tshark_would_notice_a_sequence_fault(tmp_path: Path) -> None:
    messages = exported(made_flows(), "default")
    messages[-1] = messages[-1][:8] + (1_000_000).to_bytes(4, "big") + messages[-1][12:]  # the sequence number
    assert "sequence" in ipfix_dump(b"".join(messages), tmp_path)[1].lower()
    assert tshark_records(messages, tmp_path)[1]


def nfdump_flags(bits: int) -> str:
    """TCP control bits as nfdump writes them."""
    return "".join(letter if bits >> bit & 1 else "." for bit, letter in zip(range(7, -1, -1), "CEUAPRSF", strict=True))


def seen_by_nfdump(flow: Flow) -> dict[str, Any]:
    """A record as nfdump prints it."""
    out = flow["direction"] == 1
    seen = {"first": moment(flow["start_ms"], "T"), "last": moment(flow["end_ms"], "T"), "in_packets": flow["packets"],
            "in_bytes": flow["octets"], "proto": flow["protocol"], "input_snmp": 0 if out else flow["ifindex"],
            "output_snmp": flow["ifindex"] if out else 0, "direction": flow["direction"]}
    if flow["kind"] != 1:
        six = flow["version"]
        seen |= {f"src{six}_addr": str(address(flow, "source")),
                 f"dst{six}_addr": str(address(flow, "destination")), "src_tos": flow["tos"],
                 "src_vlan": flow["vlan"], "in_src_mac": mac(flow["source_mac"]),
                 "in_dst_mac": mac(flow["destination_mac"])}
    if flow["kind"] == 0 and flow["icmp"] is not None:
        seen |= {"icmp_type": flow["icmp"] // 256, "icmp_code": flow["icmp"] % 256}
    elif flow["kind"] == 0:
        seen |= {"src_port": flow["source_port"], "dst_port": flow["destination_port"],
                 "tcp_flags": nfdump_flags(flow["bits"])}
    return seen


@pytest.mark.parametrize("name", ["default", "nfdump"])
def test_nfdump_reads_every_flow_and_sees_no_gap(name: str, tmp_path: Path) -> None:
    flows = made_flows()
    records, sequence_errors = nfdump_records(exported(flows, name), tmp_path)
    expected = [seen_by_nfdump(flow) for flow in flows]
    records.sort(key=lambda record: record["in_packets"])
    assert [{key: record.get(key) for key in seen} for record, seen in zip(records, expected, strict=True)] == expected
    assert sequence_errors == 0


def seen_by_nfacctd(flow: Flow) -> dict[str, Any]:
    """A record as nfacctd prints it."""
    out = flow["direction"] == 1
    seen = {"iface_in": 0 if out else flow["ifindex"], "iface_out": flow["ifindex"] if out else 0,
            "packets": flow["packets"], "bytes": flow["octets"], "ip_proto": PROTOCOLS[flow["protocol"]],
            "timestamp_start": f"{flow['start_ms'] / 1000:.3f}000", "timestamp_end": f"{flow['end_ms'] / 1000:.3f}000"}
    if flow["kind"] != 1:
        seen |= {"ip_src": str(address(flow, "source")), "tos": flow["tos"], "vlan": flow["vlan"],
                 "ip_dst": str(address(flow, "destination")), "port_src": flow["source_port"],
                 "port_dst": flow["destination_port"], "tcp_flags": str(flow["bits"] & 0xFF),
                 "mac_src": mac(flow["source_mac"]), "mac_dst": mac(flow["destination_mac"])}
    tunnel, id_ = flow["tunnel"]
    return seen | {"tunnel": str(tunnel * 2**32 + id_)}


@pytest.mark.parametrize("name", ["default", "pmacct"])
def test_nfacctd_reads_every_flow(name: str, tmp_path: Path) -> None:
    flows = made_flows()
    records, complaints = nfacctd_records(exported(flows, name), len(flows), tmp_path)
    expected = [seen_by_nfacctd(flow) for flow in flows]
    records.sort(key=lambda record: record["packets"])
    assert [{key: record.get(key) for key in seen} for record, seen in zip(records, expected, strict=True)] == expected
    assert complaints == []


def octets_of(part: DataSet) -> list[list[bytes]]:
    """The fields of each record as on the wire again, those without any octets left out."""
    rows = []
    for row in part.records.tolist():
        fields = [value.ljust(specifier.length if specifier.format[0] == "S" else 0, b"\0")
                  if isinstance(value, bytes) else struct.pack({4: ">f", 8: ">d"}[specifier.length], value)
                  if isinstance(value, float) else int(value).to_bytes(specifier.length, "big")
                  for value, (_, specifier) in zip(row, part.template.named_fields, strict=True)]
        rows.append([octets for octets in fields if octets])
    return rows


@pytest.mark.parametrize("device", ["ipfix", "ipfix_test_barracuda", "ipfix_test_ixia", "ipfix_test_yaf"])
def test_devices_datagrams_decode_as_tshark_reads_them(device: str, tmp_path: Path) -> None:
    names = sorted(DEVICES.glob("ipfix.dat" if device == "ipfix" else f"{device}_*.dat"),
                   key=lambda path: ("_data" in path.name, path.name))
    if not names:
        pytest.skip(f"no datagrams of devices: {DEVICES} (shared/data) is not there")
    messages: list[bytes] = []
    for path in names:
        whole, rest = split_messages(path.read_bytes())
        assert rest == b""
        messages += whole
    store, ours = TemplateStore(), []
    for octets in messages:
        message = decode_message(octets, store, session=device, datagram=True)
        assert message.undecoded == ()
        ours += [(part.template.id, row) for part in message.data_sets for row in octets_of(part)]
    records, _ = tshark_records(messages, tmp_path)
    assert ours == [(set_id, [octets for _, octets in fields]) for set_id, fields in records]
    assert ours
