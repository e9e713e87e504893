"""Sampled flows that are passed on: nfcapd, nfacctd, tshark and ipfixDump find the counters of the network once."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flowtop.export.relays import relayed
from flowtop.export.session import TransportSession
from flowtop.export.statistics import MeteringFacts
from flowtop.wire.flow_templates import PROFILES, flow_templates
from tests.oracle import collectors
from tests.oracle.collectors import ipfix_dump, nfacctd_records, nfdump_records, tshark_records
from tests.oracle.exports_data import GROUPS, export_files
from tests.unit.capture.collector.exports import NOW_S, ipfix, set_of, template
from tests.unit.export.test_relays import BASE, SET, Run, base, chained, direct, selector

INTERVALS = (10, 100, 10, 1, 1000)
"""Of five exporters, which all call their sampler 3; 1: does not sample. Each sends one flow of 2 packets."""


def messages(directory: Path, profile: str) -> list[bytes]:
    run = Run(directory)
    for number, interval in enumerate(INTERVALS, 1):
        exporter, sampled = f"192.0.2.{number}", interval > 1
        if sampled:
            run.receive(selector((3, interval)), exporter)
        fields = (*BASE, (302, 8)) if sampled else BASE
        run.receive(ipfix(template(SET, fields), set_of(SET, base(number) + struct.pack(">Q", 3) * sampled)), exporter)
    records, lookups = run.records()
    session = TransportSession(flow_templates(PROFILES[profile]), 1)
    context = SimpleNamespace(metering=lambda: MeteringFacts(lookups), wall=lambda: NOW_S,
                              owners=lambda: None)
    announced = session.announcement(context, 1400)
    flows = session.flows(relayed(records, lookups), context, 1400)
    return [*announced, *flows.preceding, *flows.messages]


EXPECTED = [(2 * interval, 300 * interval) for interval in INTERVALS]


@pytest.mark.parametrize("profile", ["default", "strict", "nfdump"])
def test_nfdump(tmp_path: Path, profile: str) -> None:
    found, _ = nfdump_records(messages(tmp_path, profile), tmp_path)
    assert [(row["in_packets"], row["in_bytes"]) for row in sorted(found, key=lambda row: str(row["dst4_addr"]))] == \
        EXPECTED


@pytest.mark.parametrize("profile", ["default", "strict", "pmacct"])
def test_nfacctd(tmp_path: Path, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectors, "NFACCTD", f"{collectors.NFACCTD}nfacctd_renormalize: true\n")
    found, complaints = nfacctd_records(messages(tmp_path, profile), len(INTERVALS), tmp_path)
    assert [(row["packets"], row["bytes"]) for row in sorted(found, key=lambda row: str(row["ip_dst"]))] == EXPECTED
    assert not complaints


def test_tshark_and_ipfix_dump(tmp_path: Path) -> None:
    sent = messages(tmp_path, "strict")
    found, complaints = tshark_records(sent, tmp_path)
    assert not complaints
    selectors = {fields["cflow.selector_id"]: (
        fields["cflow.sampling_interval"], fields["cflow.sampling_packet_interval"],
        fields["cflow.sampling_packet_space"])
        for set_id, pairs in found if set_id == 271 for fields in [{name: int.from_bytes(octets, "big")
                                                                    for name, octets in pairs}]}
    flows = [{name: int.from_bytes(octets, "big") for name, octets in pairs}
             for _, pairs in found if "cflow.packets" in dict(pairs)]
    for flow in flows:  # either way of reading gives the interval
        selected = selectors.get(flow.get("cflow.selector_id", 0), (1, 1, 0))
        assert selected == (flow["cflow.sampling_interval"], 1, flow["cflow.sampling_interval"] - 1)
    assert sorted((flow["cflow.packets"], flow["cflow.sampling_interval"]) for flow in flows) == sorted(
        (2, interval) for interval in INTERVALS)
    dumped, errors = ipfix_dump(b"".join(sent), tmp_path)
    assert not errors
    assert sorted(dict(pairs)["samplingPacketSpace"] for set_id, pairs in dumped if set_id == 271) == ["9", "99", "999"]


@pytest.mark.parametrize("group", GROUPS)
def test_what_devices_send_is_the_same_behind_two_relays(tmp_path: Path, group: str) -> None:
    datagrams = export_files(GROUPS[group])
    received = [("192.0.2.1", datagram) for datagram in datagrams]
    expected, found = (sorted((kept(row) for row in collector.table.query().as_dicts()), key=str)
                       for collector in (direct(datagrams), chained(tmp_path, received, 2)))
    assert found == expected


def kept(row: dict[str, Any]) -> dict[str, Any]:
    """A flow without what a relay decides: its id, when it ended, and times, which follow the clock of the host."""
    return {name: value for name, value in row.items() if name not in (
        "flowId", "flowEndReason", "flowStartMilliseconds", "flowEndMilliseconds", "flowDurationMilliseconds")}
