"""TCP measurements in IPFIX: the next collector has the values of the first; records without any are as they were."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowtop import Collector
from flowtop.capture.collector.capture import collected_batch
from flowtop.export.session import TransportSession
from flowtop.export.spool import Spool
from flowtop.metering.flows import report
from flowtop.model.kinds import EndReason, Kind, Protocol, Tunnel
from flowtop.model.record import FlowRecords
from flowtop.wire.flow_templates import PROFILES, flow_templates
from tests.unit.capture.collector.exports import NOW_S, ipfix, set_of, template
from tests.unit.capture.collector.test_sflow import datagram, frame, raw_header, sample
from tests.unit.capture.collector.test_tcp_metrics import (
    IXIA,
    NTOP,
    OUT_OF_ORDER,
    RETRANSMITTED,
    RTT,
    SENT,
    WINDOW,
    measured,
    tcp_info,
)
from tests.unit.export.flows import flows as own_flows
from tests.unit.export.test_biflows import CONTEXT, both
from tests.unit.export.test_relays import BASE, SET, Run, base, direct, next_collector

NAMES = {"rtt_us": RTT, "retransmitted_delta": RETRANSMITTED, "out_of_order_delta": OUT_OF_ORDER}
KINDS = [{}, {"rtt_us": 104_321}, {"retransmitted_delta": 7}, {"out_of_order_delta": 4_000_000_000},
         {"rtt_us": 1, "retransmitted_delta": 2}, {"rtt_us": 3, "out_of_order_delta": 4},
         {"retransmitted_delta": 5, "out_of_order_delta": 6},
         {"rtt_us": 0xFFFF_FFFF, "retransmitted_delta": 8, "out_of_order_delta": 9}]


def own(*kinds: dict[str, int]) -> FlowRecords:
    records = own_flows(len(kinds))
    records["source_port"] = np.arange(len(kinds)) + 1
    for place, values in enumerate(kinds):
        for name, value in values.items():
            records[name][place] = value
    return records


def sent(records: FlowRecords, profile: str = "default", *, biflow: bool = False, octets: int = 1400) -> list[bytes]:
    session = TransportSession(flow_templates(PROFILES[profile]), 1, biflow=biflow)
    found = [*session.announcement(CONTEXT, octets)]
    flows = session.flows(records, CONTEXT, octets)
    found += [*flows.preceding, *flows.messages, *session.announcement(CONTEXT, octets)]
    assert max(map(len, found)) <= octets
    return found


def by_port(collector: Collector) -> dict[int, dict[str, Any]]:
    assert not collector.statistics.refused_messages and not collector.statistics.skipped
    return {row["sourceTransportPort"]: row for row in collector.table.query().as_dicts()}


@pytest.mark.parametrize("octets", [512, 1400])
@pytest.mark.parametrize("profile", ["default", "strict", "nfdump", "pmacct"])
def test_own_flows_come_back_with_their_measurements(profile: str, octets: int) -> None:
    rows = by_port(direct(sent(own(*KINDS), profile, octets=octets)))
    for port, values in enumerate(KINDS, 1):
        assert measured(rows[port]) == {NAMES[name]: value for name, value in values.items()}
        assert (rows[port]["packetTotalCount"], rows[port]["octetTotalCount"]) == (port, 100 * port)


def test_fragments_tunnels_and_icmp_keep_their_kind() -> None:
    """Own Templates are known by id and elements: with measurements they are read as the same ones without."""
    records = own(*[{"rtt_us": 6, "retransmitted_delta": 7}] * 4)
    records["kind"][1], records["tunnel"][2], records["tunnel_id"][2] = int(Kind.FRAGMENT), int(Tunnel.VXLAN), 77
    records["protocol"][0], records["destination_port"][0] = int(Protocol.ICMP), 0x0800
    records["source_port"][:2] = 0
    without = records.copy()
    without["rtt_us"] = without["retransmitted_delta"] = 0
    expected, found = (sorted(direct(sent(each)).table.query().as_dicts(), key=lambda row: int(row["packetTotalCount"]))
                       for each in (without, records))
    assert [measured(row) for row in found] == [{}, {}, *[{RTT: 6, RETRANSMITTED: 7}] * 2], "of flows"
    assert "icmpRoundTripMicroseconds" not in found[0], "an echo is no connection"
    assert [{name: row[name] for name in row if name not in (RTT, RETRANSMITTED)} for row in found] == expected
    assert found[2]["tunnelId"] == 77


def test_records_without_measurements_are_not_changed_by_others() -> None:
    """Not an octet: the same Set as without them, and no Template but the seven of flowtop."""
    def sets(messages: list[bytes]) -> dict[int, list[bytes]]:
        found: dict[int, list[bytes]] = {}
        for message in messages:
            at = 16
            while at < len(message):
                number, length = struct.unpack_from(">HH", message, at)
                found.setdefault(number, []).append(message[at + 4:at + length])
                at += length
        return found

    plain = sets(sent(own({}, {})))
    assert max(plain) < 1_024
    mixed = sets(sent(own({}, {}, {"rtt_us": 9})))
    assert {number: mixed[number] for number in plain if 256 <= number < 263} == {
        number: octets for number, octets in plain.items() if 256 <= number < 263}
    [measured_id] = [number for number in mixed if number >= 2_048]
    [extra] = mixed[measured_id]
    [ordinary] = plain[256]
    assert len(extra.rstrip(b"\0")) <= len(ordinary) // 2 + 36 and extra.endswith(struct.pack(">I", 9))


def test_collectors_that_refuse_unknown_elements_get_none() -> None:
    rows = by_port(direct(sent(own(*KINDS), "go-ipfix")))
    assert [measured(row) for row in rows.values()] == [{}] * len(KINDS)


def test_biflows_have_the_counts_of_both_directions() -> None:
    [there, back], plain = both(1), both(2)
    there["rtt_us"], there["retransmitted_delta"], back["retransmitted_delta"] = 25_300, 3, 4
    back["out_of_order_delta"] = 5
    rows = direct(sent(np.concatenate([there, back, *plain]), biflow=True)).table.query().as_dicts()
    found = {(row["sourceTransportPort"], row["destinationTransportPort"]): measured(row) for row in rows}
    assert found == {(40_001, 443): {RTT: 25_300, RETRANSMITTED: 3}, (40_002, 443): {}, (443, 40_002): {},
                     (443, 40_001): {RTT: 25_300, RETRANSMITTED: 4, OUT_OF_ORDER: 5}}


def test_the_spool_keeps_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", domain=1, wall=lambda: NOW_S)
    records = own(*KINDS)
    assert not len(spool.store(records)[0])
    found = spool.oldest()
    for name in NAMES:
        assert dict(zip(found["flow_id"].tolist(), found[name].tolist(), strict=True)) == dict(
            zip(records["flow_id"].tolist(), records[name].tolist(), strict=True))
    assert sorted(found["kind"].tolist()) == [0] * len(KINDS)


# ---- relays


def relayed_rows(run: Run, path: Path) -> list[dict[str, Any]]:
    run.export("file:{}/flows.ipfix")
    return next_collector(path / "flows.ipfix").table.query().as_dicts()


def test_measurements_of_an_sflow_agent_through_a_relay(tmp_path: Path) -> None:
    """But the congestion window, which no element is known for."""
    octets = datagram(sample(tcp_info(SENT), raw_header(frame())))
    run = Run(tmp_path)
    run.receive(octets)
    [row] = relayed_rows(run, tmp_path)
    assert measured(row) == {RTT: 25_300, RETRANSMITTED: 3}
    [first] = direct([octets]).table.query().as_dicts()
    assert measured(first) == {**measured(row), WINDOW: 10}
    assert row["exporterIPv4Address"] == first["exporterIPv4Address"]


def test_measurements_of_ipfix_through_a_relay(tmp_path: Path) -> None:
    """Each of three flows has its own; the counts of two records of a flow are added up once."""
    run = Run(tmp_path)
    for number, fields, values in ((1, ((123, 4, NTOP), (124, 4, NTOP), (109, 4, NTOP)), (7, 8, 9)),
                                   (2, ((283, 4, IXIA),), (4_321,)), (3, ((111, 4, NTOP), (16, 4)), (6, 64_500)),
                                   (3, ((111, 4, NTOP), (16, 4)), (5, 64_500)), (4, (), ())):
        record = base(number) + struct.pack(f">{len(values)}I", *values)
        run.receive(ipfix(template(SET, (*BASE, *fields)), set_of(SET, record)))
    rows = sorted(relayed_rows(run, tmp_path), key=lambda row: str(row["destinationIPv4Address"]))
    assert [measured(row) for row in rows] == [
        {RTT: 2 * (7 + 8) * 1_000, RETRANSMITTED: 9}, {RTT: 4_321}, {OUT_OF_ORDER: 6 + 5}, {}]
    assert [row.get("bgpSourceAsNumber") for row in rows] == [None, None, 64_500, None]


def test_a_record_has_what_came_since_the_one_before(tmp_path: Path) -> None:
    """Sums of records are the flow's total, as those of its packets are."""
    run, fields = Run(tmp_path), (*BASE, (109, 4, NTOP), (111, 4, NTOP))
    deltas = []
    for at_s, counts in enumerate(((3, 1), (0, 0), (4, 2))):
        run.receive(ipfix(template(SET, fields), set_of(SET, base(1) + struct.pack(">II", *counts))))
        batch = collected_batch(run.process, round(NOW_S * 1e9) + at_s)
        run.table.accumulate(batch)
        records = run.table.end_all(round(NOW_S * 1e9) + at_s) if at_s == 2 else _reported(run)
        deltas.append((records["retransmitted_delta"].sum(), records["out_of_order_delta"].sum()))
    assert deltas == [(3, 1), (0, 0), (4, 2)]


def _reported(run: Run) -> FlowRecords:
    """A record of each flow, as at the active timeout."""
    store = run.table._flows.store
    return report(store, np.flatnonzero(store.live), EndReason.ACTIVE_TIMEOUT, round(NOW_S * 1e9), 0)
