"""Frames of every link type, and every variant of pcap, hold for flowtop the packets that they hold for tshark."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from tests.kernel import frames as f
from tests.oracle.collectors import ENVIRONMENT, needs
from tests.unit.capture.files import links
from tests.unit.capture.files import writers as w
from tests.unit.capture.files.reading import read
from tests.unit.capture.files.test_link_types import AGGREGATES, frames

FIELDS = ("ip.src", "ip.dst", "ip.len", "ipv6.src", "ipv6.dst", "ipv6.plen", "udp.srcport", "udp.dstport",
          "tcp.srcport", "tcp.dstport")
T = 1_700_000_000 * w.SECOND


def tshark_table(path: Path) -> dict[tuple[object, ...], tuple[int, int]]:
    """(packets, octets) of each conversation that tshark finds."""
    run = subprocess.run([needs("tshark"), "-n", "-r", path, "-T", "fields", "-E", "separator=;", "-E", "occurrence=f",
                          *(word for name in FIELDS for word in ("-e", name))],
                         capture_output=True, check=True, env=ENVIRONMENT, text=True)
    table: defaultdict[tuple[object, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for line in run.stdout.splitlines():
        source4, destination4, octets4, source6, destination6, octets6, *ports = line.split(";")
        if not source4 and not source6:
            continue
        octets = int(octets4) if source4 else 40 + int(octets6)
        udp = bool(ports[0])
        key = (source4 or source6, destination4 or destination6, f.UDP if udp else f.TCP,
               *map(int, ports[:2] if udp else ports[2:]))
        table[key] = table[key][0] + 1, table[key][1] + octets
    return dict(table)


@pytest.mark.parametrize("case", [case for case in links.CASES if case.tshark], ids=lambda case: case.name)
def test_a_link_type_is_read_as_tshark_reads_it(tmp_path: Path, case: links.Case) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(w.pcap([(T, frame) for frame in (*frames(case), *(frame for frame, _ in case.other))],
                            link_type=case.link_type))
    expected = tshark_table(path)
    assert len(expected) == 2, "tshark finds both packets"
    assert dict(read(path).flows) == expected


@pytest.mark.parametrize("name", [name for name in AGGREGATES if "cut" not in name])
def test_packets_of_an_aggregate_are_those_of_tshark(tmp_path: Path, name: str) -> None:
    link_type, frame, _, _ = AGGREGATES[name]
    path = tmp_path / "x.pcap"
    path.write_bytes(w.pcap([(T, frame)], link_type=link_type))
    run = subprocess.run([needs("tshark"), "-n", "-r", path, "-T", "fields", "-E", "occurrence=a", "-e", "ip.len", "-e",
                          "ipv6.plen"], capture_output=True, check=True, env=ENVIRONMENT, text=True)
    four, six = run.stdout.rstrip("\n").split("\t")
    lengths = [int(octets) for octets in four.split(",") if octets]
    lengths += [40 + int(octets) for octets in six.split(",") if octets]
    assert sorted(octets for _, octets in read(path).flows.values()) == sorted(lengths)


@pytest.mark.parametrize("form", ["pcap", "nsecpcap", "modpcap", "rh6_1pcap", "suse6_3pcap", "nokiapcap", "pcapng"])
@pytest.mark.parametrize("count", [1, 2, 700])
def test_variants_of_pcap_that_editcap_writes(tmp_path: Path, form: str, count: int) -> None:
    plain, path = tmp_path / "x.pcap", tmp_path / f"x.{form}"
    plain.write_bytes(w.pcap([
        (T + number * 1_000_000, f.ethernet(f.IPV4, f.ipv4(f.udp(53, 1_000 + number % 7, bytes(number % 90)), f.UDP)))
        for number in range(count)]))
    subprocess.run([needs("editcap"), "-F", form, plain, path], check=True, capture_output=True)
    expected = tshark_table(plain)
    assert tshark_table(path) == expected
    found = read(path)
    assert (dict(found.flows), found.fault) == (expected, "")
    assert sorted(facts["first_ns"] for facts in found.facts.values())[:7] == [
        T + number * 1_000_000 for number in range(min(count, 7))]
