"""CPU under load: 60,000 packets/s over 10,000 flows through a veth pair; flowtop -b and its screen beside iftop.

Each program in turn watches the same stream, alone, for the same time. CPU is what the kernel charged to the process.
The eBPF programs run in the sender and in the receiving softirq, and so does libpcap's filter for iftop: those shares
are in none of the figures (`kernel` measures ours).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench._traffic import InTerminal, sending, share_of_core
from tests.kernel.netns import Lab, Namespace

AIM_RATIO = 0.25
FLOWTOP = (sys.executable, "-m", "flowtop")


def descendant(pid: int, name: str) -> int:
    """The process that a wrapper (`ip netns exec`) became or started; `name` is in its command line."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for candidate in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
            if name in Path(f"/proc/{candidate}/cmdline").read_text().replace("\0", " "):
                return candidate
        time.sleep(0.05)
    raise TimeoutError(f"{name} did not start")


@contextmanager
def batch(namespace: Namespace) -> Iterator[int]:
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(namespace.command(*FLOWTOP, "-b", "--top", "50", "-i", "veth0"), stdout=out,
                                   stdin=subprocess.DEVNULL)
        yield descendant(process.pid, "flowtop")
        process.terminate()
        process.wait()


@contextmanager
def screen(namespace: Namespace) -> Iterator[int]:
    terminal = InTerminal(namespace.command(*FLOWTOP, "-i", "veth0"))
    yield descendant(terminal.pid, "flowtop")
    terminal.end(b"q")


@contextmanager
def iftop(namespace: Namespace) -> Iterator[int]:
    terminal = InTerminal(namespace.command("iftop", "-n", "-N", "-P", "-i", "veth0"))
    yield descendant(terminal.pid, "iftop")
    terminal.end(b"q")


SUBJECTS = {"flowtop -b": batch, "flowtop screen": screen, "iftop": iftop}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench load", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rate", type=int, default=60_000)
    parser.add_argument("--flows", type=int, default=10_000)
    arguments = parser.parse_args()
    if shutil.which("iftop") is None:
        sys.exit("iftop is not installed: apt-get install iftop")
    samples: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    with Lab() as lab:
        near, _ = lab.pair()
        with sending(near, flows=arguments.flows, rate=arguments.rate):
            before, begin = near.link_statistics("veth0")["tx"]["packets"], time.perf_counter()
            for _ in range(arguments.rounds):
                for name, subject in SUBJECTS.items():
                    with subject(near) as pid:
                        time.sleep(4)  # started, and every flow known
                        samples[name].append(share_of_core(pid, arguments.seconds))
            sent = (near.link_statistics("veth0")["tx"]["packets"] - before) / (time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    print(f"{sent:,.0f} packets/s over {arguments.flows:,} flows, {os.cpu_count()} CPUs")
    for name, values in samples.items():
        print(f"{name:<15}{medians[name]:>7.1%} of a core   {min(values):.1%}..{max(values):.1%}"
              f"   {medians[name] / medians['iftop']:.2f} of iftop")
    ratios = {name: round(medians[name] / medians["iftop"], 3) for name in SUBJECTS if name != "iftop"}
    print(json.dumps({"benchmark": "load", "packets_per_s": round(sent), "core_share": {
        name: round(value, 4) for name, value in medians.items()}, "ratio_to_iftop": ratios, "aim_ratio": AIM_RATIO,
        "met": all(ratio <= AIM_RATIO for ratio in ratios.values())}))


if __name__ == "__main__":
    main()
