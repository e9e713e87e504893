"""IP behind labels, PPPoE, backbone tags and stacks of VLAN tags: the frames of the unit tests are what tshark says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.oracle.collectors import ENVIRONMENT, needs
from tests.unit.capture.files import writers as w
from tests.unit.capture.files.test_headers import CASES, NOT_IP, T

WIRES = {30: "pwethnocw", 31: "pwethcw", 32: "pwethnocw", 33: "pwethcw", 34: "pwethcw", 50: "pwethcw"}
"""What the pseudowires behind these labels carry. tshark only guesses it from makers of MAC addresses."""
OPTIONS = tuple(word for label, kind in WIRES.items() for word in ("-d", f"mpls.label=={label},{kind}"))
UNREAD = {"tags of other makers"}
"""An EtherType that tcpdump knows, and tshark does not."""


def fields(path: Path, *names: str) -> list[list[str]]:
    """The last occurrence of each field, by packet."""
    run = subprocess.run([needs("tshark"), "-r", path, *OPTIONS, "-T", "fields", "-E", "occurrence=l", *(
        word for name in names for word in ("-e", name))], capture_output=True, text=True, env=ENVIRONMENT)
    assert run.returncode == 0, run.stderr
    return [line.split("\t") for line in run.stdout.splitlines()]


@pytest.mark.parametrize("name", sorted(CASES.keys() - UNREAD))
def test_tshark_finds_the_same_packet(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    path = tmp_path / "x.pcap"
    path.write_bytes(w.pcap([(T, case.frame)]))
    [[source4, source6, tcp, udp, length, payload]] = fields(
        path, "ip.src", "ipv6.src", "tcp.dstport", "udp.dstport", "ip.len", "ipv6.plen")
    assert (source4 or source6, tcp or udp) == (case.flow[0], str(case.flow[4]))
    assert (int(length) if length else 40 + int(payload)) == case.octets


def test_tshark_finds_the_same_labels_and_sessions(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    named = {name: case for name, case in CASES.items() if case.tunnel and name not in UNREAD}
    path.write_bytes(w.pcap([(T, case.frame) for case in named.values()]))
    found = fields(path, "mpls.label", "pppoe.session_id")
    for (name, case), (label, session) in zip(named.items(), found, strict=True):
        number = int(label) if case.tunnel.label == "mpls" else int(session, 16)
        assert number == case.tunnel_id, name


def test_tshark_finds_no_ip_in_the_others(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    legal = [frame for name, (frame, _) in NOT_IP.items()
             if name not in ("labels without a bottom", "too many tags", "another version of PPPoE", "session's end")]
    path.write_bytes(w.pcap([(T, frame) for frame in legal]))
    assert fields(path, "ip.src", "ipv6.src") == [["", ""]] * len(legal)
