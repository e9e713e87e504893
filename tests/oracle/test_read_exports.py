"""`flowtop -r CAPTURE --collect` gives what other collectors make of the same datagrams, and what exporters metered."""

from __future__ import annotations

import json
import random
import socket
import struct
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flowtop.wire.recognition import split_exports
from tests.kernel import frames as f
from tests.oracle.collectors import ENVIRONMENT, PATIENCE_S, needs, nfdump_records, write_pcap
from tests.oracle.exports_data import GROUPS, export_files
from tests.oracle.test_collect_live import Key, capture_file
from tests.prepared import run_flowtop
from tests.unit.capture.files import writers as w


def flows(path: Path) -> list[dict[str, Any]]:
    """The flows of the one round."""
    done = run_flowtop("-b", "-o", "json", "-r", path, "--collect", timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    [only] = map(json.loads, done.stdout.splitlines())
    found: list[dict[str, Any]] = only["flows"]
    return found


@pytest.mark.parametrize("group", ["netflow5", "1941K9", "aci", "asr9k", "nbar"])
def test_devices_give_the_sums_of_nfdump(group: str, tmp_path: Path) -> None:
    datagrams = [part for octets in export_files(GROUPS[group]) for part in split_exports(octets)]
    write_pcap(tmp_path / "x.pcap", datagrams)
    theirs, _ = nfdump_records(datagrams, tmp_path)
    mine = flows(tmp_path / "x.pcap")
    for name, other in (("packetTotalCount", "in_packets"), ("octetTotalCount", "in_bytes")):
        assert sum(one[name] for one in mine) == sum(one[other] for one in theirs)


def exported(directory: Path, version: str) -> tuple[list[bytes], Counter[Key], Counter[Key]]:
    """Datagrams that softflowd exports of a capture, and the packets and octets of each flow in that."""
    softflowd = needs("softflowd")
    packets, octets = capture_file(directory / "in.pcap")
    datagrams: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(1)

        def receive() -> None:
            while True:
                try:
                    datagrams.append(receiver.recv(65_535))
                except TimeoutError:
                    if done.is_set():
                        return

        done = threading.Event()
        thread = threading.Thread(target=receive)
        thread.start()
        subprocess.run([softflowd, "-r", directory / "in.pcap", "-n", f"127.0.0.1:{receiver.getsockname()[1]}", "-v",
                        version, "-d", "-p", directory / "pid", "-c", "none"], check=True, capture_output=True,
                       timeout=PATIENCE_S, env=ENVIRONMENT)
        done.set()
        thread.join()
    return datagrams, packets, octets


@pytest.mark.parametrize("version", ["5", "9", "10"])
@pytest.mark.parametrize("link", ["Ethernet with VLAN, in fragments", "Linux cooked", "raw IPv6"])
def test_what_softflowd_exported_is_listed(version: str, link: str, tmp_path: Path) -> None:
    datagrams, packets, octets = exported(tmp_path, version)
    frames, rng = [], random.Random(3)
    for number, datagram in enumerate(datagrams):
        content = f.udp(40_000, 9_999, datagram)
        if link == "Linux cooked":
            frames.append(struct.pack(">HHH8sH", 0, 1, 6, bytes(8), f.IPV4) + f.ipv4(content, f.UDP))
        elif link == "raw IPv6":
            frames.append(f.ipv6(content, f.UDP))
        else:
            parts = [f.ethernet(f.IPV4, f.ipv4(content[at:at + 512], f.UDP, identification=number, offset=at,
                                               more=at + 512 < len(content)), tags=((f.VLAN, 5),))
                     for at in range(0, len(content), 512)]
            frames += rng.sample(parts, len(parts))
    path = tmp_path / "exports.pcap"
    path.write_bytes(w.pcap([(number * w.SECOND, frame) for number, frame in enumerate(frames)],
                            link_type={"Linux cooked": 113, "raw IPv6": 101}.get(link, 1)))
    mine = flows(path)
    for name, expected in (("packetTotalCount", packets), ("octetTotalCount", octets)):
        found: Counter[Key] = Counter()
        for one in mine:
            found[one["sourceIPv4Address"], one["destinationIPv4Address"], one["protocolIdentifier"],
                  one["sourceTransportPort"], one["destinationTransportPort"]] += one[name]
        assert found == expected
