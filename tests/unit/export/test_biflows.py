"""Exports of biflows (RFC 5103): pairs become one Data Record, nothing is lost or doubled, the initiator is the source.

Expected pairs and sums are those of the records that the test makes; tests/oracle has tshark's reading.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.errors import FlowtopError
from flowtop.export import pairing
from flowtop.export.backlog import Backlog, QueueBounds
from flowtop.export.exporter import Exporter
from flowtop.export.pairing import Hold
from flowtop.export.session import TransportSession
from flowtop.export.statistics import Counters, MeteringFacts
from flowtop.export.url import parse_export_url
from flowtop.model.kinds import Kind, Tunnel
from flowtop.model.record import FLOW_RECORD_DTYPE, FlowRecords
from flowtop.wire.biflows import OFFSET, biflow_templates, pairs, pairs_first
from flowtop.wire.flow_templates import PROFILES, flow_templates
from flowtop.wire.ipfix_decoder import decode_message
from flowtop.wire.template_store import TemplateStore
from tests.unit.export.flows import RecordingTransport, until

CONTEXT: Any = SimpleNamespace(wall=lambda: 1_700_000_000.0, metering=MeteringFacts,
                               owners=lambda: None)
T = 1_700_000_000_000


def record(number: int, *, back: bool = False, start: int = 0, syn: int = 0, packets: int = 1, octets: int = 100,
           **fields: Any) -> FlowRecords:
    """One direction of conversation `number`: from its client, or back."""
    found = np.zeros(1, FLOW_RECORD_DTYPE)
    ends = [(bytes([10, 0, 0, 1]), 40_000 + number % 20_000), (bytes([10, 0, number // 20_000, 2]), 443)]
    for end, (address, port) in zip(("source", "destination"), ends[::-1] if back else ends, strict=True):
        found[f"{end}_address"] = address.ljust(16, b"\0")
        found[f"{end}_port"] = port
    values = {"flow_id": 2 * number + back, "ip_version": 4, "protocol": 6, "ifindex": 3, "direction": int(back),
              "packet_delta": packets, "octet_delta": octets, "start_ms": T + start, "end_ms": T + start + 500,
              "syn_ms": T + syn if syn else 0, "end_reason": 1, "tcp_control_bits": 0x12 if back else 0x1B,
              "tos": 8 * back}
    for name, value in (values | fields).items():
        found[name] = value
    return found


def both(number: int, **fields: Any) -> list[FlowRecords]:
    """Both directions; the answer is 5 ms later, of 3 packets and 900 octets."""
    return [record(number, **fields), record(number, back=True, start=5, packets=3, octets=900, **fields)]


def encoded(records: FlowRecords, profile: str = "default", octets: int = 65_535) -> tuple[list[bytes], Any]:
    session = TransportSession(flow_templates(PROFILES[profile]), 1, biflow=True)
    flows = session.flows(records, CONTEXT, octets)
    return [*session.announcement(CONTEXT), *session.new_tunnels(records, CONTEXT), *flows.messages], flows


def decoded(messages: list[bytes]) -> list[tuple[int, dict[str, Any]]]:
    """Data Records of flows as (Template id, values)."""
    store = TemplateStore()
    found = []
    for octets in messages:
        for data_set in decode_message(octets, store, session="s", datagram=False).data_sets:
            if not data_set.template.scope_count:
                names = [name for name, _ in data_set.template.named_fields]
                found += [(data_set.template.id, dict(zip(names, row, strict=True)))
                          for row in data_set.records.tolist()]
    return found


def test_both_directions_are_one_record_from_the_initiator() -> None:
    messages, flows = encoded(np.concatenate(both(0)[::-1]))
    [(id_, values)] = decoded(messages)
    assert id_ == 256 + OFFSET and flows.record_counts == [2]
    assert {name: values[name] for name in (
        "sourceTransportPort", "destinationTransportPort", "packetDeltaCount", "octetDeltaCount", "tcpControlBits",
        "reversePacketDeltaCount", "reverseOctetDeltaCount", "reverseTcpControlBits", "reverseIpClassOfService",
        "flowDirection", "reverseFlowDirection", "flowStartMilliseconds", "reverseFlowStartMilliseconds",
        "biflowDirection", "flowId", "reverseFlowEndReason")} == {
        "sourceTransportPort": 40_000, "destinationTransportPort": 443, "packetDeltaCount": 1, "octetDeltaCount": 100,
        "tcpControlBits": 0x1B, "reversePacketDeltaCount": 3, "reverseOctetDeltaCount": 900,
        "reverseTcpControlBits": 0x12, "reverseIpClassOfService": 8, "flowDirection": 0, "reverseFlowDirection": 1,
        "flowStartMilliseconds": T, "reverseFlowStartMilliseconds": T + 5, "biflowDirection": 1, "flowId": 0,
        "reverseFlowEndReason": 1}


@pytest.mark.parametrize(("there", "back", "initiator", "direction"), [
    ({"start": 0}, {"start": 9}, 0, 1), ({"start": 9}, {"start": 0}, 1, 1),
    ({"start": 9, "syn": 9}, {"start": 0, "syn": 10}, 0, 1), ({"start": 0, "syn": 10}, {"start": 5, "syn": 9}, 1, 1),
    ({"start": 4}, {"start": 4}, 0, 0), ({"start": 4, "protocol": 17}, {"start": 5, "protocol": 17}, 0, 1)])
def test_the_source_is_who_was_first(there: dict[str, int], back: dict[str, int], initiator: int,
                                     direction: int) -> None:
    records = np.concatenate((record(0, **there), record(0, back=True, **back)))
    [(_, values)] = decoded(encoded(records)[0])
    assert (values["flowId"], values["biflowDirection"]) == (initiator, direction)


@pytest.mark.parametrize("change", [
    {"ifindex": 9}, {"vlan_id": 7}, {"protocol": 17}, {"customer_vlan_id": 5}, {"tunnel": Tunnel.GRE, "tunnel_id": 4},
    {"source_port": 444}])
def test_records_of_other_conversations_are_no_pair(change: dict[str, int]) -> None:
    records = np.concatenate((record(0), record(0, back=True, **change)))
    assert len(pairs(records)) == 0 and len(decoded(encoded(records)[0])) == 2


@pytest.mark.parametrize("kind", [
    {"protocol": 1, "destination_port": 3 << 8}, {"protocol": 58, "ip_version": 6, "destination_port": 135 << 8},
    {"protocol": 1, "destination_port": 8 << 8}, {"protocol": 1, "destination_port": 0},
    {"kind": Kind.FRAGMENT}, {"kind": Kind.AGGREGATE}])
def test_other_icmp_fragments_and_aggregates_stay_apart(kind: dict[str, int]) -> None:
    records = np.concatenate(both(0, **kind))
    assert sorted(id_ < 256 + OFFSET for id_, _ in decoded(encoded(records)[0])) == [True, True]


def ping(request: int, answer: int, *, to_lower: bool = False, version: int = 4, answer_start: int = 5,
         **fields: int) -> list[FlowRecords]:
    """Requests of a type, and their answers with 3 packets."""
    icmp = {"protocol": {4: 1, 6: 58}[version], "ip_version": version, "source_port": 0, **fields}
    return [record(0, back=to_lower, destination_port=request << 8, flow_id=1, **icmp),
            record(0, back=not to_lower, destination_port=answer << 8, start=answer_start, packets=3, flow_id=2,
                   **icmp)]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("to_lower", [False, True])
@pytest.mark.parametrize("answer_start", [5, 0, -5])
@pytest.mark.parametrize(("version", "request_type", "answer_type"), [
    (4, 8, 0), (4, 13, 14), (4, 17, 18), (6, 128, 129)])
def test_icmp_requests_and_answers_are_one_record(version: int, request_type: int, answer_type: int,
                                                  answer_start: int, to_lower: bool, turned: bool) -> None:
    records = ping(request_type, answer_type, version=version, to_lower=to_lower, answer_start=answer_start)
    [(_, values)] = decoded(encoded(np.concatenate(records[::-1] if turned else records))[0])
    assert values["flowId"] == 1 and values["biflowDirection"] == 1
    assert (values["packetDeltaCount"], values["reversePacketDeltaCount"]) == (1, 3)
    assert (values[f"icmpTypeCodeIPv{version}"], values[f"reverseIcmpTypeCodeIPv{version}"]) == (
        request_type << 8, answer_type << 8)
    assert values[f"sourceIPv{version}Address"][:4] == bytes([10, 0, 0, 2 if to_lower else 1])


def test_two_hosts_that_ping_each_other_are_two_biflows() -> None:
    records = np.concatenate((*ping(8, 0), *ping(8, 0, to_lower=True), *ping(8, 0, direction=0, ifindex=9)))
    found = [(values["sourceIPv4Address"][3], values["ingressInterface"] or values["egressInterface"],
              values["icmpTypeCodeIPv4"], values["reverseIcmpTypeCodeIPv4"])
             for _, values in decoded(encoded(records)[0])]
    assert sorted(found) == [(1, 3, 2048, 0), (1, 9, 2048, 0), (2, 3, 2048, 0)]


def test_a_host_that_pings_itself_is_no_pair() -> None:
    same = {"destination_address": b"\x0a\0\0\1".ljust(16, b"\0"), "source_address": b"\x0a\0\0\1".ljust(16, b"\0")}
    assert len(pairs(np.concatenate(ping(8, 0, **same)))) == 0  # type: ignore[arg-type]


def test_a_conversation_with_itself_is_no_pair() -> None:
    same = {"destination_address": b"\x0a\0\0\1".ljust(16, b"\0"), "destination_port": 40_000}
    assert len(pairs(np.concatenate((record(0, **same), record(0, **same, direction=1))))) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.integers(0, 3), st.sampled_from([4, 6]),
                          st.sampled_from([0, 0, 0, 9]), st.sampled_from([None, None, True, False])), max_size=60),
       st.sampled_from([600, 1400, 65_535]),
       st.sampled_from(sorted(PROFILES)))
def test_nothing_is_lost_or_doubled(given: list[tuple[int, bool, int, int, int, bool | None]], octets: int,
                                    profile: str) -> None:
    """Sums by conversation, and what flowtop's own collector makes of the messages."""
    def icmp(version: int, request: bool | None, number: int, back: bool) -> dict[str, Any]:
        types = {4: (0, 8), 6: (129, 128)}[version]
        return {} if request is None else {
            "source_port": 0, "destination_port": types[request] << 8, "protocol": {4: 1, 6: 58}[version],
            f"{'source' if back else 'destination'}_address": bytes([10, 9, number, 2]).ljust(16, b"\0")}

    records = np.concatenate([np.zeros(0, FLOW_RECORD_DTYPE), *(
        record(number, back=back, start=start, packets=1 + at, octets=1000 + at, ip_version=version,
               tunnel=Tunnel.VXLAN if vni else 0, tunnel_id=vni, **icmp(version, request, number, back))
        for at, (number, back, start, version, vni, request) in enumerate(given))])
    if not len(records):
        return
    messages, flows = encoded(records, profile, octets)
    assert sum(flows.record_counts) == len(records) and sorted(flows.records.tolist()) == sorted(records.tolist())
    found: Counter[int] = Counter()
    for _, values in decoded(messages):
        for prefix, counter in (("", "octetDeltaCount"), ("reverse", "OctetDeltaCount")):
            if prefix + counter in values:
                found[values["flowId"] // 2] += values[prefix + counter]
    expected: Counter[int] = Counter()
    for one in records:
        expected[int(one["flow_id"]) // 2] += int(one["octet_delta"])
    assert found == expected
    process = CollectingProcess(correct_clocks=False)
    for message in messages:
        assert process.receive(message, Session("s", "192.0.2.1", False), 0.0)
    rows = process.take_rows()[0]
    key = ("source_address", "destination_address", "source_port", "destination_port", "ip_version", "tunnel",
           "tunnel_id", "direction")
    assert sorted((*(row[name].tolist() for name in key), int(row["packets"]), int(row["octets"])) for row in rows) == (
        sorted((*(row[name].tolist() for name in key), int(row["packet_delta"]), int(row["octet_delta"]))
               for row in records))
    assert process.statistics().lost_records == 0 and process.statistics().unusable_records == 0


@pytest.mark.parametrize("sent", [0, 1, 2])
def test_messages_that_are_not_sent_give_their_records_back(sent: int) -> None:
    records = np.concatenate([one for number in range(20) for one in both(number)] + [record(99)])
    session = TransportSession(flow_templates(PROFILES["default"]), 1, biflow=True)
    flows = session.flows(records, CONTEXT, 600)
    assert len(flows.messages) > 3 and sum(flows.record_counts) == 41 and sum(flows.data_counts) == 21
    rest = session.not_sent(flows, sent, CONTEXT)
    again = session.flows(rest, CONTEXT, 600)
    sequences = [int.from_bytes(message[8:12], "big") for message in again.messages]
    assert sequences[0] == sum(flows.data_counts[:sent])
    ids = [one["flow_id"] for one in (*flows.records[:sum(flows.record_counts[:sent])], *again.records)]
    assert sorted(ids) == sorted(records["flow_id"].tolist())


@pytest.mark.parametrize("cut", [2, 4, 512])
def test_an_even_part_splits_no_pair(cut: int) -> None:
    records = np.concatenate([record(number) for number in range(300, 307)] + [
        one for number in range(300) for one in both(number)])
    rng = np.random.default_rng(1)
    arranged = pairs_first(records[rng.permutation(len(records))])
    assert sum(len(pairs(arranged[at:at + cut])) for at in range(0, len(arranged), cut)) == 300


def test_a_queue_splits_no_pair() -> None:
    backlog = Backlog(Counters(), None, QueueBounds(), lambda: 0.0, lambda: 0.0)
    for _ in range(4):
        backlog.put(pairs_first(np.concatenate([record(20_000)] + [one for n in range(2_500) for one in both(n)])))
    found = 0
    while (records := backlog.next()) is not None:
        found += len(pairs(records))
        backlog.sent()
    assert found == 4 * 2_500


# ---- the hold

def test_a_direction_waits_for_the_other_and_both_come_together() -> None:
    hold = Hold(15)
    there, back = both(1)
    assert len(hold.put(there, 0.0)) == 0 and len(hold) == 1
    assert len(hold.put(record(2), 5.0)) == 0 and len(hold) == 2
    assert hold.put(back, 14.0)["flow_id"].tolist() == [2, 3] and len(hold) == 1
    assert hold.release(19.9).tolist() == [] and hold.release(20.0)["flow_id"].tolist() == [4] and len(hold) == 0


def test_what_has_no_other_direction_does_not_wait() -> None:
    hold = Hold()
    assert len(hold.put(np.concatenate((record(1, protocol=1), record(2, kind=Kind.AGGREGATE))), 0.0)) == 2


def test_at_the_end_nothing_waits() -> None:
    hold = Hold()
    hold.put(record(1), 0.0)
    assert len(hold.end()) == 1 and len(hold.put(record(2), 1.0)) == 1 and len(hold) == 0


def test_the_hold_is_limited_and_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "MAX_HELD", 10)
    hold = Hold()
    assert hold.put(np.concatenate([record(number) for number in range(25)]), 0.0)["flow_id"].tolist() == [
        2 * number for number in range(15)] and len(hold) == 10


def test_an_exporter_counts_what_waits_as_queued_and_sends_it_at_the_end() -> None:
    now, transport = 0.0, RecordingTransport()
    exporter = Exporter("x", transport, hold=Hold(15), monotonic=lambda: now)  # type: ignore[arg-type]
    exporter.start()
    exporter.consume(np.concatenate([record(1), *both(2), record(3)]))
    until(lambda: transport.received == [4, 5], lambda: transport.received)
    assert exporter.statistics().queued_records == 2
    exporter.update(MeteringFacts())
    assert transport.received == [4, 5]
    exporter.consume(record(3, back=True))
    until(lambda: transport.received == [4, 5, 6, 7], lambda: transport.received)
    found = exporter.stop(5)
    assert transport.received == [4, 5, 6, 7, 2] and (found.sent_records, found.queued_records) == (5, 0)


def test_a_record_that_has_waited_is_sent_without_others() -> None:
    now, transport = [0.0], RecordingTransport()
    exporter = Exporter("x", transport, hold=Hold(15), monotonic=lambda: now[0])  # type: ignore[arg-type]
    exporter.consume(record(1))
    now[0] = 16.0
    exporter.update(MeteringFacts())
    exporter.start()
    until(lambda: transport.received == [2], lambda: transport.received)
    exporter.stop(5)


@pytest.mark.parametrize(("url", "expected"), [
    ("ipfix://h?biflow=on", True), ("ipfix+tcp://h?biflow=off", False), ("ipfix+tls://h?biflow=on", True),
    ("file:x?biflow=on", True), ("file:x", False)])
def test_the_option_of_urls(url: str, expected: bool) -> None:
    assert parse_export_url(url).biflow is expected


@pytest.mark.parametrize("url", ["file:x?biflow=yes", "jsonl:x?biflow=on", "csv:x?biflow=on"])
def test_where_the_option_is_not_valid(url: str) -> None:
    with pytest.raises(FlowtopError):
        parse_export_url(url)


def test_ids_of_templates_are_apart() -> None:
    for profile in PROFILES.values():
        templates = flow_templates(profile)
        ids = [*templates.flows, *templates.tunnelled, *templates.options, *templates.tunnel_options,
               *biflow_templates(templates), *biflow_templates(templates, tunnelled=True)]
        assert len(ids) == len(set(ids))
