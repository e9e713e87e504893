"""Flow Records through flowtop's own Templates and back: every column, every kind, every profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.model.elements import ELEMENTS
from flowtop.model.kinds import Kind
from flowtop.model.record import FLOW_RECORD_DTYPE, FlowRecords
from flowtop.wire import flow_templates as ft
from flowtop.wire.ipfix import encode_messages
from flowtop.wire.ipfix_decoder import Message, decode_message
from flowtop.wire.template_store import TemplateStore
from tests.unit.wire.patience import patient

DOMAIN = 9


@st.composite
def flow_records(draw: st.DrawFn) -> FlowRecords:
    """Any column may hold anything, but for what the metering process never makes: ports where there are none."""
    records = np.zeros(draw(st.integers(0, 60)), FLOW_RECORD_DTYPE)
    octets = draw(st.integers(0, 2**32))
    noise = np.random.default_rng(octets).bytes(records.nbytes)
    records[:] = np.frombuffer(noise, FLOW_RECORD_DTYPE)
    records["ip_version"] = draw(st.sampled_from(([4], [6], [4, 6])))[0] if len(records) < 2 else np.resize(
        draw(st.sampled_from(([4], [6], [4, 6], [6, 4, 4]))), len(records))
    records["kind"] = np.resize(draw(st.lists(st.sampled_from((0, 0, 0, 1, 2)), min_size=1, max_size=9)), len(records))
    records["protocol"] = np.resize(draw(st.lists(st.sampled_from((1, 6, 17, 58, 132)), min_size=1)), len(records))
    records["direction"] %= 2
    records["source_port"][np.isin(records["protocol"], (1, 58))] = 0
    tunnels = draw(st.lists(st.sampled_from(TUNNELS_SEEN), min_size=1, max_size=5)) if draw(st.booleans()) else [(0, 0)]
    for name, values in zip(("tunnel", "tunnel_id"), zip(*tunnels, strict=True), strict=True):
        records[name] = np.where(records["kind"] == 1, 0, np.resize(values, len(records)))
    return records


TUNNELS_SEEN = ((0, 0), (1, 0), (2, 0), (2, 1), (2, 2**32 - 1), (3, 1023), (4, 0), (4, 2**24 - 1), (5, 7), (6, 16))
"""record.Tunnel and id: IP-in-IP, GRE without and with a key, ERSPAN, VXLAN, Geneve, MPLS."""


def announced(templates: ft.FlowTemplates) -> list[ft.RecordSet]:
    """Every Template of Flow Records."""
    return [*ft.announcement(templates), *ft.announcement(templates, tunnelled=True)]


def expected(record: np.void, profile: ft.Profile) -> dict[str, Any]:
    """What a collector must see of a Flow Record, said once more."""
    version, icmp = int(record["ip_version"]), record["protocol"] in (1, 58)
    ifindex, out = int(record["ifindex"]), record["direction"] == 1
    seen = {
        "flowId": record["flow_id"], "flowStartMilliseconds": record["start_ms"],
        "flowEndMilliseconds": record["end_ms"], "octetDeltaCount": record["octet_delta"],
        "packetDeltaCount": record["packet_delta"], "ingressInterface": 0 if out else ifindex,
        "egressInterface": ifindex if out else 0, "protocolIdentifier": record["protocol"], "ipVersion": version,
        "flowDirection": record["direction"], "flowEndReason": record["end_reason"],
    }
    if record["kind"] == 1:
        return seen
    octets = 4 if version == 4 else 16
    bits = int(record["tcp_control_bits"])
    seen |= {
        f"sourceIPv{version}Address": record["source_address"].tobytes()[:octets],
        f"destinationIPv{version}Address": record["destination_address"].tobytes()[:octets],
        "sourceMacAddress": record["source_mac"].tobytes(),
        "destinationMacAddress": record["destination_mac"].tobytes(), "ipClassOfService": record["tos"],
        "vlanId": record["vlan_id"], "dot1qCustomerVlanId": record["customer_vlan_id"],
        "tcpControlBits": bits if profile.name in ("strict", "nfdump", "go-ipfix") else bits % 256,
    }
    if profile.name in ("default", "pmacct"):
        seen["postVlanId"] = record["vlan_id"]
    if record["kind"] == 0:
        seen |= {"sourceTransportPort": record["source_port"],
                 "destinationTransportPort": 0 if icmp else record["destination_port"]}
    if record["kind"] == 0 and icmp:
        seen[f"icmpTypeCodeIPv{version}"] = record["destination_port"]
    tunnel, id_ = int(record["tunnel"]), int(record["tunnel_id"])
    if tunnel:
        seen["observationPointId"] = tunnel * 2**32 + id_
    if tunnel == 4:
        seen["layer2SegmentId"] = 0x01 * 2**56 + id_
    if tunnel == 2 and id_:
        seen["greKey"] = id_
    return seen


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, bytes) else int(value) for name, value in values.items()}


def decoded(messages: list[bytes], store: TemplateStore) -> list[Message]:
    return [decode_message(octets, store, session=0, datagram=True) for octets in messages]


@pytest.mark.parametrize("name", ft.PROFILES)
@patient
@given(records=flow_records(), max_octets=st.integers(400, 3_000), sequence=st.integers(0, 2**32 - 1))
def test_flow_records_come_back_as_they_went(
    name: str, records: FlowRecords, max_octets: int, sequence: int,
) -> None:
    profile, store = ft.PROFILES[name], TemplateStore()
    templates = ft.flow_templates(profile)
    head = encode_messages(announced(templates), domain=DOMAIN, sequence=sequence, export_time_s=1)
    assert head.record_counts == [0] and head.next_sequence == sequence
    decoded(head.messages, store)
    sets, order = ft.flow_sets(records, templates)
    assert sorted(order.tolist()) == list(range(len(records)))
    encoded = encode_messages(sets, domain=DOMAIN, sequence=sequence, export_time_s=2, max_octets=max_octets)
    assert encoded.next_sequence == (sequence + len(records)) % 2**32
    got = []
    for message in decoded(encoded.messages, store):
        assert not message.undecoded and not message.remarks
        for part in message.data_sets:
            assert part.records.dtype.names is not None
            got += [plain(dict(zip(part.records.dtype.names, row, strict=True))) for row in part.records.tolist()]
    assert got == [plain(expected(records[i], profile)) for i in order]


@pytest.mark.parametrize("name", ft.PROFILES)
def test_options_say_what_they_were_given(name: str) -> None:
    profile, store = ft.PROFILES[name], TemplateStore()
    templates = ft.flow_templates(profile)
    domain = profile.options_domain(DOMAIN)
    assert domain == (0 if name in ("default", "nfdump") else DOMAIN)
    encoded = encode_messages([
        *ft.options_announcement(templates),
        ft.metering_statistics(templates, domain=DOMAIN, messages=1, flow_records=2, octets=2**63),
        ft.metering_reliability(templates, domain=DOMAIN, ignored_packets=4, ignored_octets=5, first_ms=6, last_ms=7),
        ft.exporting_reliability(templates, exporting_process_id=8, not_sent_flows=9, not_sent_packets=10,
                                 not_sent_octets=11, first_ms=12, last_ms=13),
        ft.interface_table(templates, {3: "wg0", 2: "veth-ü"}),
        *ft.options_announcement(templates, tunnelled=True),
        ft.tunnel_table(templates, {4 * 2**32 + 100, 1 * 2**32, 2 * 2**32, 2 * 2**32 + 7, 6 * 2**32 + 16}),
    ], domain=domain, sequence=0, export_time_s=0, max_octets=512)
    parts = [part for message in decoded(encoded.messages, store) for part in message.data_sets]
    rows = {tuple(part.records.dtype.names or ()): part.records.tolist() for part in parts}
    time = "observationTimeMilliseconds"
    assert rows == {
        ("observationDomainId", "exportedMessageTotalCount", "exportedFlowRecordTotalCount",
         "exportedOctetTotalCount"): [(DOMAIN, 1, 2, 2**63)],
        ("observationDomainId", "ignoredPacketTotalCount", "ignoredOctetTotalCount", time, f"{time}#2"):
            [(DOMAIN, 4, 5, 6, 7)],
        ("exportingProcessId", "notSentFlowTotalCount", "notSentPacketTotalCount", "notSentOctetTotalCount", time,
         f"{time}#2"): [(8, 9, 10, 11, 12, 13)],
        ("ingressInterface", "interfaceName"): [(2, "veth-ü".encode()), (3, b"wg0")],
        ("observationPointId", "interfaceDescription"): [
            (1 * 2**32, b"ip"), (2 * 2**32, b"gre"), (2 * 2**32 + 7, b"gre 7"), (4 * 2**32 + 100, b"vxlan 100"),
            (6 * 2**32 + 16, b"mpls 16")],
    }
    assert all(part.template.scope_count == 1 for part in parts)


KEYS = {"sourceTransportPort", "destinationTransportPort", "vlanId", "dot1qCustomerVlanId", "ingressInterface",
        "egressInterface", "protocolIdentifier", "ipVersion", "flowDirection", "observationPointId", "layer2SegmentId",
        "greKey"}


@pytest.mark.parametrize("tunnelled", [False, True])
@pytest.mark.parametrize("name", ft.PROFILES)
def test_flow_keys_are_the_fields_a_flow_key_has(name: str, tunnelled: bool) -> None:
    profile = ft.PROFILES[name]
    templates = ft.flow_templates(profile)
    encoded = encode_messages([*ft.options_announcement(templates),
                               ft.flow_keys(templates, domain=DOMAIN, tunnelled=tunnelled)],
                              domain=0, sequence=0, export_time_s=0)
    (part,) = (part for message in decoded(encoded.messages, TemplateStore()) for part in message.data_sets)
    told_of = templates.tunnelled if tunnelled else templates.flows
    assert sorted(part.records["templateId"].tolist()) == sorted(told_of)
    for row in part.records:
        fields = told_of[int(row["templateId"])].names
        keys = {field for i, field in enumerate(fields) if int(row["flowKeyIndicator"]) >> i & 1}
        addresses = {field for field in fields if field.endswith("Address") and "IPv" in field}
        assert keys == (KEYS & set(fields)) | addresses | {field for field in fields if field.startswith("icmp")}
        assert int(row["flowKeyIndicator"]) >> len(fields) == 0
    assert ("observationDomainId" in (part.records.dtype.names or ())) == profile.options_apart


@pytest.mark.parametrize("name", ft.PROFILES)
def test_all_announcements_fit_into_the_smallest_datagrams(name: str) -> None:
    """RFC 7011 section 10.3.3: 512 octets when the path MTU is unknown, IP and UDP header included."""
    templates = ft.flow_templates(ft.PROFILES[name])
    for sets in (ft.announcement(templates), ft.options_announcement(templates),
                 ft.announcement(templates, tunnelled=True), ft.options_announcement(templates, tunnelled=True)):
        encoded = encode_messages(sets, domain=1, sequence=0, export_time_s=0, max_octets=512 - 48)
        assert encoded.messages and max(map(len, encoded.messages)) <= 512 - 48


def test_ids_and_elements_are_each_used_once() -> None:
    for profile in ft.PROFILES.values():
        templates = ft.flow_templates(profile)
        flows = [*templates.flows.values(), *templates.tunnelled.values()]
        every = [*flows, *templates.options.values(), *templates.tunnel_options.values()]
        assert len({template.id for template in every}) == len(every) == 12 + 3 * 6 + 1
        assert all(template.scope_count == 0 for template in flows)
        assert {name.split("#")[0] for template in every for name in template.names} <= set(ELEMENTS)


def test_reduced_tcp_control_bits_keep_the_low_octet() -> None:
    records = np.zeros(1, FLOW_RECORD_DTYPE)
    records["ip_version"], records["protocol"], records["tcp_control_bits"] = 4, 6, 0xFC2
    for name, bits in (("strict", 0xFC2), ("default", 0xC2)):
        templates, store = ft.flow_templates(ft.PROFILES[name]), TemplateStore()
        sets, _ = ft.flow_sets(records, templates)
        encoded = encode_messages([*ft.announcement(templates), *sets], domain=1, sequence=0, export_time_s=0)
        (message,) = decoded(encoded.messages, store)
        assert message.data_sets[0].records["tcpControlBits"].tolist() == [bits]


def test_flows_of_mac_addresses_are_not_exported_as_ipv4() -> None:
    records = np.zeros(2, FLOW_RECORD_DTYPE)
    records["kind"], records["octet_delta"] = Kind.FLOW, 100
    records["ip_version"] = 4, 0
    records["source_address"] = np.void(b"\x02\0\0\0\0\1".ljust(16, b"\0"))
    sets, order = ft.flow_sets(records, ft.flow_templates(ft.PROFILES["default"]))
    assert [record_set.set_id for record_set in sets] == [ft.IPV4, ft.AGGREGATE] and order.tolist() == [0, 1]
