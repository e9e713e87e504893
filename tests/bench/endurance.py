"""What a long life brings, each beside a flood: many flows, churn of interfaces, SIGSTOP, steps of the clock, SIGKILL,
collectors that misbehave.

Each part runs the whole command in network namespaces of its own. Its last round must balance, lose nothing, and equal
the interface's counters. `--clock` sets the machine's clock: for a machine of its own only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench._faulty_collectors import FAULTS, FaultyCollector, compare
from tests.bench._traffic import sending
from tests.kernel.netns import Lab, Namespace, hooks
from tests.kernel.test_command import Command

CHURNED = 1_800
STOPPED_S = 5
HOUR_S = 3_600


@dataclass
class Life:
    """A run of the command on a pair of namespaces."""

    near: Namespace
    far: Namespace
    command: Command

    def rounds(self, more: int) -> None:
        """Wait for so many rounds more."""
        self.command.await_rounds(len(self.command.rounds()) + more)

    def memory(self) -> int:
        """Resident octets of all its processes."""
        listed = subprocess.run(["ps", "-o", "rss=", "--pid", str(self.command.process.pid), "--ppid",
                                 str(self.command.process.pid)], capture_output=True, text=True, check=True).stdout
        return 1024 * sum(map(int, listed.split()))

    def processor_s(self) -> float:
        """Seconds of processor time it has used."""
        fields = Path(f"/proc/{self.command.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def living(interfaces: str, figures: dict[str, Any], *, flows: int, rate: int, last: bool = True,
           exports: Callable[[Namespace], list[str]] = lambda _: []) -> Iterator[Life]:
    """Run the command beside a flood; its last figures go to `figures`. `exports`: options, given the namespace."""
    with Lab() as lab, tempfile.TemporaryDirectory() as directory, ExitStack() as ending:
        near, far = lab.pair()
        command = Command(near, Path(directory), "-b", "-o", "json", "-g", "protocol", *interfaces.split(),
                          "--state-directory", f"{directory}/state", *exports(near))
        ending.callback(command.process.kill)  # if it did not end before
        command.await_rounds()
        with sending(near, flows=flows, rate=rate):
            life = Life(near, far, command)
            yield life
        if not last:
            return
        life.rounds(2)
        command.process.send_signal(signal.SIGTERM)
        command.process.wait(300)
        totals = command.rounds()[-1]["totals"]
        figures |= {name: totals[name] for name in (
            "observedPackets", "lostPackets", "interfacePackets", "unseenPackets", "excessIngressPackets",
            "excessEgressPackets", "aggregatedPackets")}
        unbalanced = [one["round"] for one in command.rounds() if any(
            one["totals"][f"observed{unit}"] != sum(one["totals"][f"{part}{unit}"] for part in (
                "accounted", "ignored", "filtered", "lost")) for unit in ("Packets", "Octets"))]
        figures |= {"rounds": len(command.rounds()), "unbalancedRounds": len(unbalanced),
                    "hooksLeft": hooks(near, "veth0"), "said": command.errors()}


def flood(seconds: float) -> dict[str, Any]:
    """As fast as the machine sends, to 1,000 flows."""
    figures: dict[str, Any] = {}
    with living("-i veth0", figures, flows=1_000, rate=0):
        time.sleep(seconds)
    return figures


def many_flows(seconds: float) -> dict[str, Any]:
    """50,000 flows at 100,000 packets a second."""
    figures: dict[str, Any] = {}
    with living("-i veth0", figures, flows=50_000, rate=100_000):
        time.sleep(seconds)
    return figures


def stopped(seconds: float) -> dict[str, Any]:
    """SIGSTOP for a while."""
    figures: dict[str, Any] = {}
    with living("-i veth0", figures, flows=1_000, rate=100_000) as life:
        time.sleep(seconds / 2)
        life.command.process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_S)
        life.command.process.send_signal(signal.SIGCONT)
        time.sleep(seconds / 2)
    return figures


def killed(seconds: float) -> dict[str, Any]:
    """SIGKILL: what it leaves attached, and the next run beside what is left."""
    figures: dict[str, Any] = {}
    with living("-i veth0", figures, flows=1_000, rate=100_000, last=False) as life:
        time.sleep(seconds)
        life.command.process.kill()
        life.command.process.wait()
        deadline = time.monotonic() + 10
        while hooks(life.near, "veth0") and time.monotonic() < deadline:
            time.sleep(0.05)
        figures["hooksLeft"] = hooks(life.near, "veth0")
    return figures


def churn(_: float) -> dict[str, Any]:
    """CHURNED interfaces come and go, 100 pairs at a time."""
    figures: dict[str, Any] = {}
    with living("", figures, flows=1_000, rate=20_000) as life:
        descriptors = len(list(Path(f"/proc/{life.command.process.pid}/fd").iterdir()))
        started = time.monotonic()
        for start in range(0, CHURNED // 2, 100):
            numbers = range(start, min(start + 100, CHURNED // 2))
            for text in ("".join(f"link add c{number} type veth peer name p{number}\nlink set c{number} up\n"
                                 f"link set p{number} up\n" for number in numbers),
                         "".join(f"link del c{number}\n" for number in numbers)):
                subprocess.run(["ip", "-n", life.near.name, "-batch", "-"], input=text, text=True, check=True)
                time.sleep(0.5)
        figures["churnSeconds"] = round(time.monotonic() - started, 1)
        life.rounds(3)
        figures["descriptorsMore"] = len(list(Path(f"/proc/{life.command.process.pid}/fd").iterdir())) - descriptors
    return figures


def clock(seconds: float) -> dict[str, Any]:
    """The clock is set an hour ahead, and two back."""
    figures: dict[str, Any] = {}
    with living("-i veth0", figures, flows=1_000, rate=1_000) as life:
        for step_s in (HOUR_S, -2 * HOUR_S, HOUR_S):
            time.clock_settime(time.CLOCK_REALTIME, time.time() + step_s)
            time.sleep(seconds)
            life.rounds(2)
    return figures


def soak(seconds: float) -> dict[str, Any]:
    """10,000 flows at 50,000 packets a second. Memory: early, in the middle and at the end; it is level from the second
    minute on."""
    figures: dict[str, Any] = {}
    with living("-i veth0", figures, flows=10_000, rate=50_000) as life:
        time.sleep(min(30, seconds / 3))
        early, used_s, began = life.memory(), life.processor_s(), time.monotonic()
        rest_s = seconds - min(30, seconds / 3)
        time.sleep(rest_s / 2)
        middle = life.memory()
        time.sleep(rest_s / 2)
        figures["memoryMiB"] = [octets >> 20 for octets in (early, middle, life.memory())]
        figures["processors"] = round((life.processor_s() - used_s) / (time.monotonic() - began), 3)
    return figures


def faults(seconds: float) -> dict[str, Any]:
    """Collectors that misbehave for a while, and what never arrived at each though it was exported."""
    figures: dict[str, Any] = {}
    collectors: dict[str, FaultyCollector] = {}
    with tempfile.TemporaryDirectory() as directory:
        recorded = Path(directory) / "all.jsonl"

        def exports(near: Namespace) -> list[str]:
            collectors.update((fault, FaultyCollector(near, fault)) for fault in FAULTS)
            return ["--active-timeout", "1s", "--export-timeout", "200s", "-e", f"jsonl:{recorded}", *(
                word for collector in collectors.values() for word in ("-e", collector.url))]

        with living("-i veth0", figures, flows=1_000, rate=20_000, exports=exports) as life:
            time.sleep(seconds)
            life.rounds(2)
            for collector in collectors.values():
                collector.heal()
        figures["faults"] = compare(collectors, recorded)
    return figures


PARTS: dict[str, Callable[[float], dict[str, Any]]] = {
    "flood": flood, "flows": many_flows, "stop": stopped, "kill": killed, "churn": churn, "faults": faults,
    "soak": soak}


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "clock", []], help="default: all but clock")
    parser.add_argument("--seconds", type=float, default=10, help="of each part but soak")
    parser.add_argument("--soak-seconds", type=float, default=300)
    parser.add_argument("--clock", action="store_true", help="also set this machine's clock, and back")
    options = parser.parse_args()
    parts = {**PARTS, **({"clock": clock} if options.clock else {})}
    results = {}
    for name in options.parts or parts:
        results[name] = parts[name](options.soak_seconds if name == "soak" else options.seconds)
        print(name, results[name], file=sys.stderr)
    print(json.dumps({"benchmark": "endurance", **results}))
