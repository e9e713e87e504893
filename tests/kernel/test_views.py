"""Groups, biflows and a flow's details in a real terminal, over real traffic."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.netns import Lab, Namespace, eventually, hooks
from tests.kernel.test_command import ETHERNET_HEADER, assert_nothing_attached, in_a_terminal, ping
from tests.kernel.test_exports_panel import pinging, user

LOOKING_S = 2.0
"""Somebody looks at what a key did before pressing the next: several ticks of 0.3 s."""


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with Lab() as lab:
        yield lab.pair(offload=False)


def test_into_a_group_to_a_flow_and_back_over_real_traffic(pair: tuple[Namespace, Namespace]) -> None:
    near, _ = pair

    def look(terminal: int) -> None:
        for keys in (b"\x1b[B\r", b"\x1b[B\r", b"\x1b", b"\x7f", b"ggg\r", b"q"):
            os.write(terminal, keys)
            time.sleep(LOOKING_S)

    with pinging(near):
        status, painted = in_a_terminal(near, "-i", "veth0", "-d", "0.3", "-g", "pair", "icmp", act=user(look))
    screen = painted.decode(errors="replace")
    assert status == 0 and "Traceback" not in screen, screen[-2000:]
    assert "10.77.0.1 ↔ 10.77.0.2" in screen
    assert "all › 10.77.0.1 ↔ 10.77.0.2" in screen
    assert "icmp  10.77.0." in screen and "the way back" in screen, "details: an echo is answered"
    assert_nothing_attached(near)


SERVER = """import socket
server = socket.create_server(("10.77.0.2", 5001))
print(flush=True)
one, _ = server.accept()
one.recv(100)
one.sendall(bytes(300_000))
one.close()"""
CLIENT = """import socket
with socket.create_connection(("10.77.0.2", 5001)) as one:
    one.sendall(bytes(100))
    while one.recv(65536):
        pass"""


def test_both_ways_of_every_biflow_add_up_to_what_the_interface_counted(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, far = pair
    before: dict[str, dict[str, int]] = {}
    path, gone = tmp_path / "biflows.csv", threading.Event()

    def traffic() -> None:
        eventually(lambda: hooks(near, "veth0") == 2, "both hooks")
        before.update(near.link_statistics("veth0"))
        server = subprocess.Popen(far.command(sys.executable, "-c", SERVER), stdout=subprocess.PIPE)
        assert server.stdout is not None
        server.stdout.readline()
        near.run(sys.executable, "-c", CLIENT)
        ping(near, 30)
        server.communicate()
        gone.set()

    def look(terminal: int) -> None:
        gone.wait(LOOKING_S * 10)
        time.sleep(LOOKING_S)
        for keys in (b"B", b"B", b"w", b"\x15", os.fsencode(path), b"\r", b"q"):
            os.write(terminal, keys)
            time.sleep(LOOKING_S / 2)

    sender = threading.Thread(target=traffic)
    sender.start()
    status, painted = in_a_terminal(near, "-B", "-i", "veth0", "-d", "0.3", act=user(look))
    sender.join()
    after = near.link_statistics("veth0")
    screen = painted.decode(errors="replace")
    assert status == 0 and "Traceback" not in screen, screen[-2000:]
    assert "RATE→" in screen and " biflows" in screen
    rows = list(csv.DictReader(path.read_text().splitlines()))
    [data] = [row for row in rows if row["protocolIdentifier"] == "6"]
    assert (data["sourceIPv4Address"], data["destinationTransportPort"], data["biflowDirection"]) == (
        "10.77.0.1", "5001", "1"), "the client sent the SYN"
    assert int(data["octetTotalCount"]) < 100_000 < 300_000 < int(data["reverseOctetTotalCount"])
    sums = {"rx": [0, 0], "tx": [0, 0]}
    for row in rows:
        out = row["flowDirection"] == "1"
        for names, way in ((("packetTotalCount", "octetTotalCount"), "tx" if out else "rx"),
                           (("reversePacketTotalCount", "reverseOctetTotalCount"), "rx" if out else "tx")):
            for at, name in enumerate(names):
                sums[way][at] += int(row[name] or 0)
    for way, (packets, octets) in sums.items():
        counted = after[way]["packets"] - before[way]["packets"]
        assert packets == counted > 30
        assert octets == after[way]["bytes"] - before[way]["bytes"] - ETHERNET_HEADER * counted
    assert_nothing_attached(near)
