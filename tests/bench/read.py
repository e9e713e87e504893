"""Packets a second out of a pcap file into the flow table, beside `softflowd -r` and `tshark -q -z conv,ip`.

The file: 1,000,000 packets of 10,000 TCP and UDP flows, 60 to 1,514 octets, over 100 s. flowtop is measured twice:
in one thread from the first octet to the last expiry (CPU time), and as the command `flowtop -b -r FILE`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from flowtop.capture.files.capture import FileCapture, FileConfig
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable

AIM = 1_500_000
_SIZES, _SHARES = (60, 66, 90, 200, 590, 1514), (0.25, 0.25, 0.15, 0.10, 0.10, 0.15)
_START_S, _LASTS_S = 1_700_000_000, 100
_HEAD = np.dtype([
    ("s", "<u4"), ("us", "<u4"), ("captured", "<u4"), ("wire", "<u4"), ("macs", "V12"), ("ethertype", ">u2"),
    ("version_ihl", "u1"), ("tos", "u1"), ("length", ">u2"), ("id", ">u2"), ("fragment", ">u2"), ("ttl", "u1"),
    ("protocol", "u1"), ("checksum", ">u2"), ("source", ">u4"), ("destination", ">u4"), ("source_port", ">u2"),
    ("destination_port", ">u2"), ("sequence", ">u4"),
    ("acknowledgement", ">u4"), ("bits", ">u2"), ("rest", "V6")])


def write_capture(path: Path, packets: int, flows: int) -> None:
    """A pcap file: the records' heads as one structured array, scattered into zeros."""
    rng = np.random.default_rng(1)
    sizes = rng.choice(_SIZES, packets, p=_SHARES)
    flow = rng.integers(0, flows, packets)
    times = np.sort(rng.integers(0, _LASTS_S * 1_000_000, packets))
    head = np.zeros(packets, _HEAD)
    head["s"], head["us"] = _START_S + times // 1_000_000, times % 1_000_000
    head["captured"] = head["wire"] = sizes
    head["macs"] = bytes.fromhex("02000000000b02000000000a")
    head["ethertype"], head["version_ihl"], head["ttl"], head["bits"] = 0x0800, 0x45, 64, 0x5010
    head["length"] = sizes - 14
    head["protocol"] = np.where(flow % 2, 6, 17)
    head["source"], head["destination"] = 0x0A000000 + flow, 0xC0A80000 + flow % 256
    head["source_port"], head["destination_port"] = 1024 + flow % 50_000, 443
    order = np.argsort(flow, kind="stable")
    head["sequence"][order] = np.cumsum((sizes - 54)[order]) - (sizes - 54)[order]  # each flow's go on without gaps
    at = np.concatenate(([0], np.cumsum(16 + sizes[:-1]))) + 24
    octets = np.zeros(24 + int((16 + sizes).sum()), np.uint8)
    octets[:24] = np.frombuffer(np.array([0xA1B2C3D4, 0x00040002, 0, 0, 262_144, 1], "<u4").tobytes(), np.uint8)
    rows = head.view(np.uint8).reshape(packets, -1)
    for start in range(0, packets, 50_000):
        part = slice(start, start + 50_000)
        octets[at[part, np.newaxis] + np.arange(_HEAD.itemsize)] = rows[part]
    octets.tofile(path)


def read(path: Path, tick_s: float | None, *, names_seen: bool = True) -> float:
    """CPU seconds from the file to a table whose flows have all ended."""
    start = time.thread_time()
    capture = FileCapture(FileConfig(str(path), tick_s, names_seen=names_seen))
    capture.open(lambda _: None)
    table = FlowTable(TableConfig())
    ended = False
    while not ended:
        batch = capture.drain()
        assert batch.source is not None
        table.accumulate(batch)
        if batch.source.closes_tick:
            table.close_tick()
        ended = batch.source.ended
    capture.close()
    table.end_all(table.now_ns)
    return time.thread_time() - start


def run(*command: str) -> float | None:
    """Wall clock of a command, the better of two; None when it is not installed."""
    if shutil.which(command[0]) is None:
        return None
    times = []
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench read", description=__doc__)
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--flows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7, help="the median counts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.pcap"
        write_capture(path, arguments.packets, arguments.flows)
        rates = {name: round(arguments.packets / statistics.median(
                     read(path, tick_s, names_seen=names) for _ in range(arguments.rounds)))
                 for name, tick_s, names in (("one_round", None, True), ("rounds_of_1_s", 1.0, True),
                                             ("without_names", None, False))}
        commands = {
            "flowtop": run(sys.executable, "-m", "flowtop", "-b", "--top", "1", "-r", str(path)),
            "softflowd": run("softflowd", "-r", str(path), "-n", "127.0.0.1:9"),
            "tshark": run("tshark", "-q", "-z", "conv,ip", "-r", str(path)),
        }
    for name, rate in rates.items():
        print(f"{name:<14} {rate:>10,} packets/s, one thread's CPU")
    for name, seconds in commands.items():
        print(f"{name:<14} {'not installed' if seconds is None else f'{seconds:>10.2f} s, whole command'}")
    print(json.dumps({"benchmark": "read", "packets": arguments.packets, "packets_per_s": rates,
                      "command_s": commands, "aim": AIM, "met": min(rates.values()) >= AIM}))
