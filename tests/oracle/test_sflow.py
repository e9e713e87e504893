"""sFlow as tshark reads it: that the datagrams of the unit tests are what the format says."""

from __future__ import annotations

import subprocess
from pathlib import Path

from flowtop.wire.sflow import decode_sflow
from tests.oracle.collectors import ENVIRONMENT, needs, write_pcap
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
