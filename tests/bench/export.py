"""Flow Records to collectors: encoded, to a file, over loopback UDP and TCP; what 10,000 a second cost; softflowd.

Records are handed over as the metering thread does, 10,000 at a time. Rates: records over the time from the first
hand-over until all are written (file) or with the collector's kernel (UDP, TCP). The collector is another process
that reads and drops. CPU is that of the whole exporting process, of which the exporter's thread is most.

softflowd is given the same flows as a capture file, a packet each, and exports them as IPFIX to the same sink; its
figure includes reading that file. It is beside `flowtop -b -r` with an export to the same place, start included.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from flowtop.export.exporter import Exporter
from flowtop.export.opening import open_exporter
from flowtop.model.record import FlowRecords
from tests.bench._ipfix_encode import AIM_RECORDS_PER_S, encode_rates, records_of

BATCH = 10_000
AIM_TCP_RECORDS_PER_S = 500_000
AIM_STEADY_CORE_SHARE = 0.03
STEADY_RECORDS_PER_S = 10_000
TRANSPORTS = ("file", "udp", "tcp")


@contextmanager
def sink(kind: str) -> Iterator[int]:
    """A running `_sink`; gives its port."""
    process = subprocess.Popen([sys.executable, "-m", "tests.bench._sink", kind], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    try:
        yield port
    finally:
        process.communicate()


@contextmanager
def exporter_to(kind: str, directory: Path) -> Iterator[Exporter]:
    """A started Exporter to a new file or a new sink."""
    if kind == "file":
        exporter = open_exporter(f"file:{directory / 'flows.ipfix'}", directory)
        exporter.start()
        yield exporter
        exporter.stop()
        (directory / "flows.ipfix").unlink()
        return
    with sink(kind) as port:
        exporter = open_exporter(f"ipfix+{kind}://127.0.0.1:{port}", directory)
        exporter.start()
        yield exporter
        exporter.stop()


def rate(kind: str, records: FlowRecords, directory: Path) -> dict[str, float]:
    """Records/s of wall time and of CPU time, all of them at once."""
    with exporter_to(kind, directory) as exporter:
        wall, cpu = time.perf_counter(), time.process_time()
        for start in range(0, len(records), BATCH):
            exporter.consume(records[start:start + BATCH])
        while exporter.statistics().sent_records < len(records):
            time.sleep(0.002)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"records_per_s": len(records) / wall, "records_per_cpu_s": len(records) / cpu}


def steady(kind: str, records: FlowRecords, seconds: int, directory: Path) -> float:
    """Share of a core that STEADY_RECORDS_PER_S cost, one batch a second; a process that only sleeps costs nothing."""
    with exporter_to(kind, directory) as exporter:
        time.sleep(1)
        cpu, begin = time.process_time(), time.perf_counter()
        for second in range(seconds):
            start = second * STEADY_RECORDS_PER_S % len(records)
            exporter.consume(records[start:start + STEADY_RECORDS_PER_S])
            time.sleep(max(0.0, begin + second + 1 - time.perf_counter()))
        return (time.process_time() - cpu) / (time.perf_counter() - begin)


def capture_file(path: Path, flows: int) -> None:
    """A pcap file (microseconds, Ethernet) of so many UDP flows, one 60-octet frame each, a microsecond apart."""
    frames = np.zeros(flows, np.dtype([("seconds", "<u4"), ("micros", "<u4"), ("kept", "<u4"), ("length", "<u4"),
                                       ("ether", "S14"), ("ip", "S12"), ("source", ">u4"), ("destination", ">u4"),
                                       ("sport", ">u2"), ("dport", ">u2"), ("udp", ">u2"), ("rest", "S20")]))
    number = np.arange(flows)
    frames["seconds"], frames["micros"] = 1_700_000_000 + number // 1_000_000, number % 1_000_000
    frames["kept"] = frames["length"] = frames.dtype.itemsize - 16
    frames["ether"] = bytes.fromhex("020000000001020000000002 0800")
    frames["ip"] = bytes.fromhex("4500002e 00004000 4011ffff")  # the checksum is wrong; neither program looks
    frames["source"] = 0x0A000000 + number // 50_000
    frames["destination"] = 0xC6120001
    frames["sport"], frames["dport"], frames["udp"] = 1_024 + number % 50_000, 9, 26
    header = np.array([(0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)], np.dtype("<u4,<u2,<u2,<u4,<u4,<u4,<u4"))
    path.write_bytes(header.tobytes() + frames.tobytes())


def command_rate(words: list[str], flows: int) -> float:
    """Flows per CPU second of a command that ends by itself; {port} is the sink's."""
    with sink("udp") as port:
        filled = [word.format(port=port) for word in words]
        before = _children_cpu_s()
        subprocess.run(filled, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return flows / (_children_cpu_s() - before)


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def beside_softflowd(flows: int, rounds: int, directory: Path) -> dict[str, float]:
    """Flows per CPU second from a capture file to IPFIX over loopback UDP: flowtop and softflowd, start included."""
    if shutil.which("softflowd") is None:
        print("softflowd is not installed: apt-get install softflowd")
        return {}
    capture = directory / "flows.pcap"
    capture_file(capture, flows)
    commands = {
        "flowtop": [sys.executable, "-m", "flowtop", "-b", "-c", "1", "--top", "1", "-r", str(capture),
                    "-e", "ipfix+udp://127.0.0.1:{port}"],
        # -m: its table holds 8,192 flows by default, and would export the rest as they come.
        "softflowd": ["softflowd", "-d", "-r", str(capture), "-v", "10", "-n", "127.0.0.1:{port}",
                      "-m", str(flows + 1)],
    }
    return {name: statistics.median(command_rate(words, flows) for _ in range(rounds))
            for name, words in commands.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench export", description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10, help="of the steady load, for each transport")
    arguments = parser.parse_args()
    encoded = min(rate["records_per_s"] for rate in encode_rates().values())
    print(f"{'encoded, the slowest case':<28}{encoded:>12,.0f} records/s of CPU time")
    records = records_of(arguments.records, 0.3, np.random.default_rng(2))
    rates: dict[str, dict[str, float]] = {}
    costs: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for kind in TRANSPORTS:
            samples = [rate(kind, records, directory) for _ in range(arguments.rounds)]
            rates[kind] = {unit: round(statistics.median(sample[unit] for sample in samples)) for unit in samples[0]}
            costs[kind] = round(steady(kind, records, arguments.seconds, directory), 4)
            print(f"{kind:<28}{rates[kind]['records_per_s']:>12,} records/s"
                  f"{rates[kind]['records_per_cpu_s']:>12,} a CPU second"
                  f"{costs[kind]:>8.2%} of a core at {STEADY_RECORDS_PER_S:,}/s")
        peers = beside_softflowd(500_000, arguments.rounds, directory)
    for peer, flows_per_s in peers.items():
        print(f"{peer + ', file to UDP':<28}{flows_per_s:>12,.0f} flows a CPU second")
    print(json.dumps({
        "benchmark": "export", "encoded_per_cpu_s": encoded, "rates": rates, "core_share": costs, "peers": peers,
        "aims": {"encoded": AIM_RECORDS_PER_S, "tcp": AIM_TCP_RECORDS_PER_S, "core_share": AIM_STEADY_CORE_SHARE},
        "met": encoded >= AIM_RECORDS_PER_S and rates["tcp"]["records_per_s"] >= AIM_TCP_RECORDS_PER_S
        and max(costs.values()) < AIM_STEADY_CORE_SHARE}))


if __name__ == "__main__":
    main()
