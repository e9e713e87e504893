"""Owners of flows: of short-lived and of odd processes, how many flows and which share of octets have the right one,
beside rustnet, nethogs and bandwhich (those that are installed; the others are named); and start and ticks with many
sockets. The cost of a new flow is in `kernel`.

Each program in turn watches the same load: N processes that live 50 ms and send one datagram, N that make one
connection, and the movers of _movers.py. A flow counts as right if the program says the pid of its process, or, if it
says no pids, the name. The share of octets weighs each flow with its true octets, the same for all programs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import _movers
from tests.bench._traffic import REPOSITORY, cpu_seconds
from tests.kernel.netns import Lab, Namespace, compile_c

AIM_START_S = 2.0
FLOWTOP = (sys.executable, "-m", "flowtop")
ADDRESS = "10.77.0.2"
SETTLE_S = 4.0
Flow = tuple[str, int]
"""Protocol and local port."""


@dataclass(frozen=True)
class Truth:
    """Who sent from where: (pid, name)."""

    brief: dict[Flow, tuple[int, str]]
    movers: dict[Flow, tuple[int, str]]


@dataclass
class Report:
    """What a program says: pid and name ("", 0: it does not say) by flow, pids with traffic, octets by flow and pid, if
    it has records of parts of a flow, and what it lacks."""

    flows: dict[Flow, tuple[int, str]] = field(default_factory=dict)
    pids: set[int] = field(default_factory=set)
    octets: dict[Flow, Counter[int]] = field(default_factory=dict)
    lacks: str = ""

    def right(self, flow: Flow, owner: tuple[int, str]) -> bool:
        pid, name = self.flows.get(flow, (0, ""))
        return owner[0] in self.pids or pid == owner[0] or (not pid and bool(name) and name == owner[1])


def inside(namespace: Namespace, *words: str) -> list[str]:
    """A command in a network namespace with the mounts of here, unlike `ip netns exec`: cgroups are among them."""
    return ["nsenter", f"--net=/run/netns/{namespace.name}", *words]


# ---- the load


def load(near: Namespace, short_lived: Path, count: int) -> Truth:
    """Run it; returns when all of it has ended but the movers, whose input is open until then."""
    brief: dict[Flow, tuple[int, str]] = {}
    movers: dict[Flow, tuple[int, str]] = {}
    with ExitStack() as stack:
        children = [stack.enter_context(subprocess.Popen(
            inside(near, sys.executable, "-m", "tests.bench._movers", role, ADDRESS, str(port)), cwd=REPOSITORY,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)) for role, port in _movers.ROLES.items()]
        for child in children:
            assert child.stdout
            pid, name, kind, port = child.stdout.readline().split()
            movers[kind, int(port)] = int(pid), name
        for kind in ("udp", "tcp"):
            said = subprocess.run(inside(near, str(short_lived), str(count), kind, ADDRESS, str(_movers.PORT)),
                                  capture_output=True, text=True, check=True).stdout
            for line in said.splitlines():
                pid, name, port = line.split()
                brief[kind, int(port)] = int(pid), name
        time.sleep(SETTLE_S)
        for child in children:
            assert child.stdin
            child.stdin.close()
            child.stdin = None
    return Truth(brief, movers)


# ---- the programs


@contextmanager
def flowtop(near: Namespace, directory: Path) -> Iterator[Callable[[], Report]]:
    path, report = directory / "flows.jsonl", Report()
    child = subprocess.Popen(inside(near, *FLOWTOP, "-b", "-i", "veth0", "-o", "json", "-e", f"jsonl:{path}"),
                             stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=REPOSITORY)
    assert child.stdout
    child.stdout.readline()
    drain = threading.Thread(target=child.stdout.read)
    drain.start()
    try:
        yield lambda: report
    finally:
        child.terminate()
        child.wait()
        drain.join()
    for line in path.read_text().splitlines():
        flow = json.loads(line)
        sent, kind = flow.get("flowDirection") == 1, {6: "tcp", 17: "udp"}.get(flow["protocolIdentifier"], "")
        place = kind, flow.get("sourceTransportPort" if sent else "destinationTransportPort", 0)
        pid = flow.get("processId", 0)
        if sent and (pid or place not in report.flows):  # what comes after the end of a process has none
            report.flows[place] = pid, flow.get("processName", "")
        report.octets.setdefault(place, Counter())[pid] += flow["octetDeltaCount"]
        WEIGHTS[place] += flow["octetDeltaCount"]


WEIGHTS: Counter[Flow] = Counter()
"""True octets of each flow, both ways, as flowtop's books, which are equal to the interface's counters, have them."""


@contextmanager
def rustnet(near: Namespace, directory: Path) -> Iterator[Callable[[], Report]]:
    """As root, as it finds no processes of others without, where it falls back to /proc."""
    path, report = directory / "rustnet.jsonl", Report()
    with _writing(path, inside(near, "rustnet", "-i", "veth0", "--headless", "--output", "jsonl", "-r", "500",
                               "--no-sandbox", "--no-uid-drop", "--no-resolve-dns")):
        yield lambda: report
    for line in path.read_text().splitlines():
        snapshot = json.loads(line)
        report.lacks = snapshot["runtime"]["process_detection"].get("degradation_reason") or ""
        for flow in snapshot["connections"]:
            if flow["process"]:
                place = flow["protocol"].lower(), flow["local"]["port"]
                report.flows[place] = flow["process"]["pid"], flow["process"]["name"]


@contextmanager
def _writing(path: Path, words: Sequence[str]) -> Iterator[None]:
    """A program that writes to this file, until the end of the block."""
    with path.open("w") as out:
        child = subprocess.Popen(words, stdout=out, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(2)
        try:
            yield
        finally:
            child.terminate()
            child.wait()


@contextmanager
def nethogs(near: Namespace, directory: Path) -> Iterator[Callable[[], Report]]:
    path, report = directory / "nethogs.txt", Report()
    with _writing(path, inside(near, "stdbuf", "-oL", "nethogs", "-t", "-C", "-d", "1", "-v", "2", "veth0")):
        yield lambda: report
    for line in path.read_text(errors="replace").splitlines():
        found = re.match(r".*/(\d+)/\d+\t([\d.]+)\t([\d.]+)$", line)
        if found and float(found[2]) + float(found[3]) > 0:
            report.pids.add(int(found[1]))
    report.pids.discard(0)


@contextmanager
def bandwhich(near: Namespace, directory: Path) -> Iterator[Callable[[], Report]]:
    path, report = directory / "bandwhich.txt", Report()
    with _writing(path, inside(near, "bandwhich", "--raw", "-n", "-i", "veth0")):
        yield lambda: report
    for line in path.read_text(errors="replace").splitlines():
        found = re.match(r'connection: <\d+> <[^>]*>:(\d+) => \S+ \((\w+)\).*process: "(.*)"', line)
        if found and not found[3].startswith("<UNKNOWN"):
            report.flows[found[2], int(found[1])] = 0, found[3]


PROGRAMS = {"flowtop": flowtop, "rustnet": rustnet, "nethogs": nethogs, "bandwhich": bandwhich}


def shares(name: str, count: int) -> dict[str, float | str]:
    """Of a program: right flows of short-lived processes, the share of octets with the right owner, and what it lacks.

    In namespaces of its own: ports that were used are in TIME_WAIT for a minute.
    """
    with tempfile.TemporaryDirectory() as text, Lab() as lab, ExitStack() as stack:
        (near, far), directory = lab.pair(), Path(text)
        short_lived = compile_c(REPOSITORY / "tests/kernel/short_lived.c", directory / "short_lived")
        listener = stack.enter_context(far.call(lambda: socket.create_server((ADDRESS, _movers.PORT), backlog=4096)))
        sinks = [stack.enter_context(far.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
                 for _ in range(7)]
        for number, sink in enumerate(sinks):
            sink.bind((ADDRESS, _movers.PORT + number))
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        with PROGRAMS[name](near, directory) as report:
            truth = load(near, short_lived, count)
        found = report()
    every = {**truth.brief, **truth.movers}
    right = {flow for flow, owner in every.items() if found.right(flow, owner)}
    total = sum(WEIGHTS[flow] for flow in every)
    mine = sum(found.octets[flow][every[flow][0]] if found.octets else WEIGHTS[flow] for flow in right)
    return {
        **{f"brief_{kind}": sum(flow[0] == kind and flow in truth.brief for flow in right) for kind in ("udp", "tcp")},
        "movers": sum(flow in truth.movers for flow in right),
        "octets": round(mine / max(total, 1), 4), "lacks": found.lacks}


def _accept(listener: socket.socket) -> None:
    """Read and forget what connections bring."""
    def swallow(connection: socket.socket) -> None:
        with connection:
            while connection.recv(1 << 16):
                pass

    while True:
        try:
            connection = listener.accept()[0]
        except OSError:
            return
        threading.Thread(target=swallow, args=(connection,), daemon=True).start()


# ---- many sockets


@contextmanager
def held(stage: Namespace, count: int, per_process: int = 10_000) -> Iterator[list[int]]:
    """Processes with so many sockets; their pids."""
    with ExitStack() as stack:
        children = [stack.enter_context(subprocess.Popen(
            inside(stage, sys.executable, "-m", "tests.bench._holder", str(number), str(min(per_process, count))),
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for number in range(max(1, count // per_process))]
        for child in children:
            assert child.stdout and child.stdout.readline() == "there\n"
        try:
            yield [child.pid for child in children]
        finally:
            for child in children:
                assert child.stdin
                child.stdin.close()
                child.stdin = None


def start(stage: Namespace, pids: list[int], *, owners: bool, seconds: int = 10) -> dict[str, float]:
    """Seconds until the first round, and until all flows that are older than flowtop have their process; the CPU time
    that this took, which the rest of the machine changes least; then the longest time between two rounds, and the CPU
    of a second."""
    words = inside(stage, *FLOWTOP, "-b", "-i", "lo", "-o", "json", "--top", "1000", "-d", "500ms",
                   "--owners", "on" if owners else "off")
    began = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=REPOSITORY) as child:
        assert child.stdout
        found = {"first_round_s": 0.0, "named_s": 0.0}
        while not found["named_s"]:
            flows = [flow for flow in json.loads(child.stdout.readline())["flows"]
                     if flow["protocolIdentifier"] == 17 and flow["flowDirection"] == 1]
            now = time.perf_counter() - began
            found["first_round_s"] = found["first_round_s"] or now
            named = {flow.get("processId") for flow in flows}
            if now > 60 or not owners or (flows and named == set(pids)):
                found["named_s"], found["start_cpu_s"] = now, cpu_seconds(child.pid)
        gaps, before, cpu = [], time.perf_counter(), cpu_seconds(child.pid)
        until = before + seconds
        while (now := time.perf_counter()) < until:
            child.stdout.readline()
            gaps.append(time.perf_counter() - before)
            before = time.perf_counter()
        found["longest_round_s"] = max(gaps[1:])
        found["cpu_share"] = (cpu_seconds(child.pid) - cpu) / seconds
        child.terminate()
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench owners", description=__doc__)
    parser.add_argument("--brief", type=int, default=1_000, help="short-lived processes of each kind")
    parser.add_argument("--sockets", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3, help="starts of each kind; the median counts")
    parser.add_argument("--only", choices=("shares", "start"))
    arguments = parser.parse_args()
    missing = [name for name in PROGRAMS if name != "flowtop" and shutil.which(name) is None]
    results: dict[str, object] = {"benchmark": "owners", "missing": missing}
    if arguments.only != "start":
        found = {name: shares(name, arguments.brief) for name in PROGRAMS if name not in missing}
        print(f"right owners of {arguments.brief:,} flows each, {os.cpu_count()} CPUs")
        for name, values in found.items():
            print(f"{name:<10} UDP {values['brief_udp']:>5.0f}   TCP {values['brief_tcp']:>5.0f}   movers "
                  f"{values['movers']:.0f} of {len(_movers.ROLES)}   octets {values['octets']:.1%}   {values['lacks']}")
        for name in missing:
            print(f"{name:<10} not installed")
        results["shares"] = found
    if arguments.only != "shares":
        starts: dict[str, dict[str, float]] = {}
        for kind, count, owners in (("few sockets", 100, True), ("many, owners off", arguments.sockets, False),
                                    ("many", arguments.sockets, True)):
            with Lab() as lab:
                stage = lab.namespace()
                with held(stage, count) as pids:
                    rounds = [start(stage, pids, owners=owners) for _ in range(arguments.rounds)]
            starts[kind] = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
            print(f"{kind:<18} first round {starts[kind]['first_round_s']:.2f} s   all named "
                  f"{starts[kind]['named_s']:.2f} s, CPU {starts[kind]['start_cpu_s']:.2f} s   then longest round "
                  f"{starts[kind]['longest_round_s']:.2f} s, CPU {starts[kind]['cpu_share']:.1%}")
        results |= {"starts": starts, "aim_start_s": AIM_START_S, "met": starts["many"]["named_s"] <= AIM_START_S}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
