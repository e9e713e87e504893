"""sFlow as tshark reads it: that the datagrams of the unit tests are what the format says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flowtop.capture.files.messages import Payload
from flowtop.output.dump import entries, entry_text
from flowtop.wire.sflow import decode_sflow
from tests.oracle.collectors import ENVIRONMENT, needs, write_pcap
from tests.unit.capture.collector import test_sflow_records as records
from tests.unit.capture.collector.test_sflow import COUNTERS, datagram, frame, raw_header, sample

FIELDS = ("sflow_245.agent", "sflow_245.sub_agent_id", "sflow.flow_sample.sampling_rate",
          "sflow.flow_sample.input_interface", "tcp.dstport", "ip.len")


def test_tshark_reads_the_same(tmp_path: Path) -> None:
    octets = datagram(COUNTERS, sample(raw_header(frame()), interval=400))
    write_pcap(tmp_path / "x.pcap", [octets])
    fields = [word for name in FIELDS for word in ("-e", name)]
    run = subprocess.run([needs("tshark"), "-r", tmp_path / "x.pcap", "-d", "udp.port==4739,sflow", "-T", "fields",
                          "-E", "occurrence=l", *fields], capture_output=True, text=True, env=ENVIRONMENT)
    assert run.returncode == 0, run.stderr
    found = decode_sflow(octets)
    (packet,) = found.packets
    assert run.stdout.split() == [found.agent, str(found.sub_agent), str(packet.interval), str(packet.ingress), "443",
                                  "540"]
    assert run.stdout.split()[:4] == ["192.0.2.5", "9", "400", "3"]


SAID: dict[str, tuple[tuple[bytes, ...], dict[str, str]]] = {
    "switch": ((records.switch(100, 200),), {
        "sourceVlan": "sflow_245.vlan.in", "destinationVlan": "sflow_245.vlan.out"}),
    "router": (records.EXTENDED["router"][0], {
        "nextHop": "sflow_245.nexthop", "sourceMask": "sflow_245.nexthop.src_mask",
        "destinationMask": "sflow_245.nexthop.dst_mask"}),
    "router 6": (records.EXTENDED["router 6"][0], {
        "nextHop": "sflow_245.nexthop.v6", "sourceMask": "sflow_245.nexthop.src_mask"}),
    "ipv4": ((records.DATA["tcp"][0],), {
        "sourceIPv4Address": "sflow_245.ipv4_src", "destinationIPv4Address": "sflow_245.ipv4_dst"}),
    "ipv6": ((records.DATA["tcp 6"][0],), {
        "sourceIPv6Address": "sflow_245.ipv6_src", "destinationIPv6Address": "sflow_245.ipv6_dst"}),
    "ethernet": ((records.ethernet_data(1_518, 0x0800),), {
        "length": "sflow_245.ethernet.length", "sourceMacAddress": "sflow_245.ethernet.source_mac_address",
        "destinationMacAddress": "sflow_245.ethernet.destination_mac_address"}),
    "interface": ((), {"speed": "sflow_245.ifspeed", "inOctets": "sflow_245.ifinoct"}),
}
"""Records of a sample; the field in tshark of each value that flowtop-dump shows."""


@pytest.mark.parametrize("name", SAID)
def test_records_are_shown_as_tshark_reads_them(tmp_path: Path, name: str) -> None:
    others, fields = SAID[name]
    octets = datagram(sample(*others) if others else records.counters(records.interface()))
    write_pcap(tmp_path / "x.pcap", [octets])
    run = subprocess.run([needs("tshark"), "-r", tmp_path / "x.pcap", "-d", "udp.port==4739,sflow", "-T", "fields",
                          *(word for field in fields.values() for word in ("-e", field))],
                         capture_output=True, text=True, check=True, env=ENVIRONMENT)
    (entry,) = entries([Payload(octets, "", "", True)])
    head = f"        {name.split()[0]}: "
    (shown,) = [line for line in entry_text(entry, "text").splitlines() if line.startswith(head)]
    values = dict(word.split("=", 1) for word in shown.split()[1:])
    assert [values[key] for key in fields] == run.stdout.rstrip("\n").split("\t")
