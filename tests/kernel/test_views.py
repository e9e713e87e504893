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

from tests.kernel.netns import PATIENCE_S, Lab, Namespace, eventually, hooks
from tests.kernel.test_command import ETHERNET_HEADER, assert_nothing_attached, in_a_terminal, ping, read_until
from tests.kernel.test_exports_panel import pinging

TICK_S = 0.3
ALONE_S = 0.3
"""After Esc: what follows at once would be the rest of a key's escape sequence."""


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with Lab() as lab:
        yield lab.pair(offload=False)


def test_into_a_group_to_a_flow_and_back_over_real_traffic(pair: tuple[Namespace, Namespace]) -> None:
    near, _ = pair

    def look(_: int, terminal: int) -> None:
        for keys, shown in ((b"\x1b[B\r", "all › 10.77.0.1 ↔ 10.77.0.2"), (b"\x1b[B\r", "reverse direction"),
                            (b"\x1b", ""), (b"\x7f", "1 group"), (b"gggg\r", "PROTO")):
            os.write(terminal, keys)
            if shown:
                seen.append(read_until(terminal, shown.encode()))
            else:
                time.sleep(ALONE_S)
        os.write(terminal, b"q")

    seen: list[bytes] = []
    with pinging(near):
        status, painted = in_a_terminal(near, "-i", "veth0", "-d", str(TICK_S), "-g", "pair", "icmp", act=look)
    screen = b"".join([*seen, painted]).decode(errors="replace")
    assert status == 0 and "Traceback" not in screen, screen[-2000:]
    assert "10.77.0.1 ↔ 10.77.0.2" in screen
    assert "all › 10.77.0.1 ↔ 10.77.0.2" in screen
    assert "icmp  10.77.0." in screen and "reverse direction" in screen, "details: an echo is answered"
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


def send_both_ways(near: Namespace, far: Namespace) -> None:
    """100 octets there and 300,000 back, and 30 pings."""
    server = subprocess.Popen(far.command(sys.executable, "-c", SERVER), stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()
    near.run(sys.executable, "-c", CLIENT)
    ping(near, 30)
    server.communicate()


def by_way(rows: list[dict[str, str]]) -> dict[str, list[int]]:
    """Packets and octets of written biflows, by the way they went through the interface."""
    sums = {"rx": [0, 0], "tx": [0, 0]}
    for row in rows:
        out = row["flowDirection"] == "1"
        for names, way in ((("packetTotalCount", "octetTotalCount"), "tx" if out else "rx"),
                           (("reversePacketTotalCount", "reverseOctetTotalCount"), "rx" if out else "tx")):
            for at, name in enumerate(names):
                sums[way][at] += int(row[name] or 0)
    return sums


def test_both_ways_of_every_biflow_add_up_to_what_the_interface_counted(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, far = pair
    before: dict[str, dict[str, int]] = {}
    path, gone = tmp_path / "biflows.csv", threading.Event()

    def traffic() -> None:
        eventually(lambda: hooks(near, "veth0") == 2, "both hooks")
        before.update(near.link_statistics("veth0"))
        send_both_ways(near, far)
        gone.set()

    def look(_: int, terminal: int) -> None:
        assert gone.wait(PATIENCE_S)
        time.sleep(3 * TICK_S)  # all of it is in the list then
        for shown in (b"BYTES", b" biflows"):  # without PROCESS, flows have that column here
            os.write(terminal, b"B")
            seen.append(read_until(terminal, shown))
        os.write(terminal, b"w\x15" + os.fsencode(path) + b"\r")
        seen.append(read_until(terminal, b" written to "))
        os.write(terminal, b"q")

    seen: list[bytes] = []
    sender = threading.Thread(target=traffic)
    sender.start()
    status, painted = in_a_terminal(near, "-B", "-i", "veth0", "-d", str(TICK_S), "--owners", "off", act=look)
    sender.join()
    after = near.link_statistics("veth0")
    screen = b"".join([painted, *seen]).decode(errors="replace")
    assert status == 0 and "Traceback" not in screen, screen[-2000:]
    assert "CLIENT" in screen and " biflows" in screen
    rows = list(csv.DictReader(path.read_text().splitlines()))
    [data] = [row for row in rows if row["protocolIdentifier"] == "6"]
    assert (data["sourceIPv4Address"], data["destinationTransportPort"], data["biflowDirection"]) == (
        "10.77.0.1", "5001", "1"), "the client sent the SYN"
    assert int(data["octetTotalCount"]) < 100_000 < 300_000 < int(data["reverseOctetTotalCount"])
    for way, (packets, octets) in by_way(rows).items():
        counted = after[way]["packets"] - before[way]["packets"]
        assert packets == counted > 30
        assert octets == after[way]["bytes"] - before[way]["bytes"] - ETHERNET_HEADER * counted
    assert_nothing_attached(near)
