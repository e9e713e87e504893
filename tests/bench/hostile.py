"""What strangers cost: CPU time of each datagram that attacks an open port, memory of all; and captures of many parts.

Each attack runs in a process of its own, into the Collecting Process, with a drain each second of the attack's own
clock or whenever one is due. The sender's time is not counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from flowtop.capture.collector.capture import collected_batch
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from tests.bench.read import read

AIM_US, AIM_MIB = 30.0, 256
NOW_S = 1_700_000_000
_A_SECOND = 5_000
"""Datagrams in a second of the attack's clock."""
_CHUNK = 500


class Datagram(NamedTuple):
    """One datagram: its octets, and the address and port it comes from."""

    octets: bytes
    source: str = "192.0.2.66"
    port: int = 4_000
    later_s: float = 0.0
    """So much time has passed before it."""


def _ipfix(*sets: bytes, domain: int = 1, sequence: int = 0) -> bytes:
    body = b"".join(sets)
    return struct.pack(">HHIII", 10, 16 + len(body), NOW_S, sequence, domain) + body


def _set(number: int, octets: bytes) -> bytes:
    return struct.pack(">HH", number, 4 + len(octets)) + octets


def _template(number: int, *fields: tuple[int, int]) -> bytes:
    return _set(2, struct.pack(">HH", number, len(fields)) + b"".join(struct.pack(">HH", *each) for each in fields))


_FLOW = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (10, 4), (2, 8), (1, 8), (152, 8), (153, 8))


def _flow(number: int, interface: int = 3) -> bytes:
    return struct.pack(">IIHHBIQQQQ", 0x0A000001, 0x0A010000 + number % 60_000, 1000, 443, 6, interface, 2, 300,
                       NOW_S * 1000 - 10_000, NOW_S * 1000 - 1_000)


def _netflow5(engine: int, sampling: int, number: int, octets: int = 1_000) -> bytes:
    return struct.pack(">HHIIIIHH", 5, 1, 100_000, NOW_S, 0, number, engine, sampling) + struct.pack(
        ">IIIHHIIIIHHBBBBHHBBH", 0x0A000001, 0x0A010000 + number % 60_000, 0, 1, 2, 10, octets, 90_000, 99_000, 1_000,
        443, 0, 0x10, 6, 0, 0, 0, 0, 0, 0)


def _sflow(agent: int, number: int, interface: int = 3, rate: int = 1_000) -> bytes:
    header = bytes.fromhex("02000000000b02000000000a08004500005c000040004006") + bytes(2) + struct.pack(
        ">II", 0x0A000001, 0x0A010000 + number % 60_000) + struct.pack(">HHIIHHHH", 1000, 443, 0, 0, 0x5010, 0, 0, 0)
    header += bytes(-len(header) % 4)
    record = struct.pack(">II", 1, 16 + len(header)) + struct.pack(">IIII", 1, 106, 4, len(header)) + header
    sample = struct.pack(">IIIIIIII", number, interface, rate, number * rate & 0xFFFF_FFFF, 0, interface, 4, 1) + record
    return struct.pack(">IIIIIII", 5, 1, agent, 0, number, number, 1) + struct.pack(">II", 1, len(sample)) + sample


# ---- attacks

def plain(number: int) -> Iterator[Datagram]:
    """No attack, to compare: a flow in each datagram."""
    yield Datagram(_ipfix(_template(256, *_FLOW)))
    for place in range(number):
        yield Datagram(_ipfix(_set(256, _flow(place)), sequence=place))


def templates(number: int) -> Iterator[Datagram]:
    """One-field Templates, each with an id of its own, and then their expiry."""
    for place in range(number):
        yield Datagram(_ipfix(_template(256 + place % 65_000, (8, 4)), domain=place // 65_000))
    yield Datagram(_ipfix(_template(256, (8, 4)), domain=9), later_s=2_000)
    for place in range(number):
        yield Datagram(_ipfix(_set(300, b"\0" * 4), domain=9, sequence=place))


def redefinitions(number: int) -> Iterator[Datagram]:
    """One Template of 28 octets defined anew all the time, in a domain that has 2,000 others."""
    for place in range(2_000):
        yield Datagram(_ipfix(_template(1_000 + place, (8, 4))))
    for place in range(number):
        yield Datagram(_ipfix(_template(256, (8, 4) if place % 2 else (12, 4))))


def redefined_data(number: int) -> Iterator[Datagram]:
    """The same with a flow after each, in one of 256 layouts."""
    for place in range(number):
        fields = (*_FLOW, (210, 1 + place % 256))
        yield Datagram(_ipfix(_template(256, *fields), _set(256, _flow(place) + bytes(1 + place % 256))))


_SOME = ((5, 1), (52, 1), (192, 1), (56, 6), (80, 6), (61, 1), (14, 4), (58, 2))
"""TOS, TTLs, MACs, direction, egress interface, VLAN."""


def layouts(number: int) -> Iterator[Datagram]:
    """The same with fields that matter: each of 256 choices of some."""
    for place in range(number):
        some = tuple(field for bit, field in enumerate(_SOME) if place >> bit & 1)
        octets = _flow(place) + bytes(sum(length for _, length in some))
        yield Datagram(_ipfix(_template(256, *_FLOW, *some), _set(256, octets)))


def engines(number: int) -> Iterator[Datagram]:
    """NetFlow 5 with another engine and sampling in each datagram."""
    choose = random.Random(1)
    for place in range(number):
        yield Datagram(_netflow5(choose.getrandbits(16), choose.getrandbits(16), place))


def domains(number: int) -> Iterator[Datagram]:
    """A Template and a flow, each time of another Observation Domain."""
    for place in range(number):
        yield Datagram(_ipfix(_template(256, *_FLOW), _set(256, _flow(place)), domain=place))


def agents(number: int) -> Iterator[Datagram]:
    """sFlow, each time of another agent."""
    for place in range(number):
        yield Datagram(_sflow(0x0A020000 + place, place))


def ports(number: int) -> Iterator[Datagram]:
    """A Template and a flow, each time from another source port."""
    for place in range(number):
        yield Datagram(_ipfix(_template(256, *_FLOW), _set(256, _flow(place))), port=place % 65_536)


def addresses(number: int) -> Iterator[Datagram]:
    """A Template and a flow, each time from another forged address."""
    for place in range(number):
        yield Datagram(_ipfix(_template(256, *_FLOW), _set(256, _flow(place))),
                       source=f"10.{place >> 16 & 255}.{place >> 8 & 255}.{place & 255}")


def interfaces(number: int) -> Iterator[Datagram]:
    """A flow of another interface each time, and a name for it."""
    scope = struct.pack(">HHH", 257, 2, 1) + struct.pack(">HHHH", 10, 4, 82, 16)
    yield Datagram(_ipfix(_template(256, *_FLOW), _set(3, scope)))
    for place in range(number):
        name = f"if-{place}".encode().ljust(16, b"\0")
        yield Datagram(_ipfix(_set(257, struct.pack(">I", place) + name), _set(256, _flow(place, place))))


def samplers(number: int) -> Iterator[Datagram]:
    """Another sampler each time, with another interval, and a flow."""
    scope = struct.pack(">HHH", 257, 2, 1) + struct.pack(">HHHH", 302, 8, 34, 4)
    yield Datagram(_ipfix(_template(256, *_FLOW), _set(3, scope)))
    for place in range(number):
        yield Datagram(_ipfix(_set(257, struct.pack(">QI", place, 1 + place)), _set(256, _flow(place))))


def changing_sampler(number: int) -> Iterator[Datagram]:
    """One sampler whose interval changes all the time, and flows."""
    scope = struct.pack(">HHH", 257, 2, 1) + struct.pack(">HHHH", 302, 8, 34, 4)
    yield Datagram(_ipfix(_template(256, *_FLOW), _set(3, scope)))
    for place in range(number):
        yield Datagram(_ipfix(_set(257, struct.pack(">QI", 1, 1 + place)), _set(256, _flow(place))))


def held(number: int) -> Iterator[Datagram]:
    """Sets of Templates that never come."""
    for place in range(number):
        yield Datagram(_ipfix(_set(256 + place % 60_000, bytes(400)), domain=place % 7))


def many_fields(number: int) -> Iterator[Datagram]:
    """Templates of 16,000 fields of variable length, and their records."""
    data = _ipfix(_set(256, bytes(65_000)))
    announced = _ipfix(_template(256, *((1_000 + place % 7, 65_535) for place in range(16_000))))
    for _ in range(max(10, number // 5)):
        yield Datagram(announced)
        for _ in range(4):
            yield Datagram(data)


def empty_values(number: int) -> Iterator[Datagram]:
    """Records of as many empty values of variable length as an Ethernet frame has room for."""
    yield Datagram(_ipfix(_template(256, *((1_000 + place % 7, 65_535) for place in range(300)))))
    for _ in range(number):
        yield Datagram(_ipfix(_set(256, bytes(1_400))))


def sampled(number: int) -> Iterator[Datagram]:
    """Sampling of 1 in 4,294,967,295, of packets of sFlow and by a sampler of IPFIX."""
    scope = struct.pack(">HHH", 257, 2, 1) + struct.pack(">HHHH", 302, 8, 34, 4)
    yield Datagram(_ipfix(_template(256, *_FLOW), _set(3, scope), _set(257, struct.pack(">QI", 1, 0xFFFF_FFFF))))
    for place in range(number):
        if place % 2:
            yield Datagram(_sflow(0x0A020000, place, rate=0xFFFF_FFFF))
        else:
            yield Datagram(_ipfix(_set(256, _flow(place))))


ATTACKS: dict[str, tuple[Callable[[int], Iterator[Datagram]], int]] = {
    "plain": (plain, 40_000),
    "templates_2000": (templates, 2_000), "templates_16000": (templates, 16_000),
    "templates_200000": (templates, 200_000),
    "redefinitions": (redefinitions, 20_000), "redefined_data": (redefined_data, 20_000),
    "layouts": (layouts, 20_000), "engines": (engines, 40_000),
    "domains": (domains, 20_000), "agents": (agents, 40_000), "ports": (ports, 40_000),
    "addresses": (addresses, 40_000), "interfaces": (interfaces, 40_000), "samplers": (samplers, 20_000),
    "changing_sampler": (changing_sampler, 20_000), "held": (held, 40_000), "many_fields": (many_fields, 4_000),
    "empty_values": (empty_values, 2_000), "sampled": (sampled, 40_000)}


class Cost(NamedTuple):
    """CPU time a datagram, the longest time of a drain, and the memory that was added."""

    us: float
    longest_ms: float
    mib: float


def measure(name: str) -> Cost:
    """Run one attack in this process."""
    attack, number = ATTACKS[name]
    process = CollectingProcess()
    before = _resident_mib()
    spent = longest = 0.0
    count, now_s, second = 0, float(NOW_S), 0
    highest = before
    parts: list[Datagram] = []

    def take() -> None:
        nonlocal spent, longest, count, now_s, second, highest
        start = time.thread_time()
        for datagram in parts:  # sessions are made by the sockets too
            now_s += datagram.later_s + 1 / _A_SECOND
            session = Session((0, datagram.source, datagram.port), datagram.source, True)
            process.receive(datagram.octets, session, now_s)
            if process.full or now_s - NOW_S >= second + 1:
                highest = max(highest, _resident_mib())
                begin = time.thread_time()
                collected_batch(process, int(now_s * 1e9))
                longest = max(longest, time.thread_time() - begin)
                second = int(now_s - NOW_S)
        spent += time.thread_time() - start
        count += len(parts)
        parts.clear()

    for datagram in attack(number):
        parts.append(datagram)
        if len(parts) >= _CHUNK:
            take()
    take()
    start = time.thread_time()
    collected_batch(process, int(now_s * 1e9))
    spent += time.thread_time() - start
    return Cost(spent / count * 1e6, longest * 1e3, max(highest, _resident_mib()) - before)


# ---- the whole command

def obeyed(name: str) -> tuple[float, float]:
    """Seconds from SIGTERM to the end of `flowtop -b -l` under an attack, and its resident memory before, in MiB."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "flowtop", "-b", "-o", "json", "--top", "1", "-l", str(port)]
        collector = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert collector.stdout is not None
        collector.stdout.readline()  # it listens
        drain = threading.Thread(target=collector.stdout.read)
        drain.start()
        attack, number = ATTACKS[name]
        end_s = time.monotonic() + _FLOOD_S
        while time.monotonic() < end_s:
            for datagram in attack(number):
                sender.sendto(datagram.octets, ("127.0.0.1", port))
                if time.monotonic() > end_s:
                    break
        resident = int(Path(f"/proc/{collector.pid}/statm").read_text().split()[1]) * 4096 / 2**20
        flood = threading.Event()

        def go_on() -> None:
            while not flood.is_set():
                for datagram in attack(number):
                    sender.sendto(datagram.octets, ("127.0.0.1", port))
                    if flood.is_set():
                        break

        thread = threading.Thread(target=go_on)
        thread.start()
        begin_s = time.monotonic()
        collector.terminate()
        collector.wait()
        passed_s = time.monotonic() - begin_s
        flood.set()
        thread.join()
        drain.join()
        collector.stdout.close()
    return passed_s, resident


# ---- files

_FRAME = bytes.fromhex("02000000000b02000000000a08004500003c000040004006") + bytes(2) + struct.pack(
    ">II", 0x0A000001, 0x0A010002) + struct.pack(">HHIIHHHH", 1000, 443, 0, 0, 0x5010, 0, 0, 0) + bytes(6)
_START_US = NOW_S * 1_000_000
_DAY_US = 86_400_000_000


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)


_SECTION, _INTERFACE = _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)), _block(
    1, struct.pack("<HHI", 1, 0, 262_144))


def _packet(interface: int, time_us: int) -> bytes:
    return _block(6, struct.pack("<IIIII", interface, time_us >> 32, time_us & 0xFFFF_FFFF, len(_FRAME), len(_FRAME))
                  + _FRAME)


def pcap(packets: int, step_us: int = 1_000) -> bytes:
    """A plain capture of one flow."""
    times = (_START_US + number * step_us for number in range(packets))
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1) + b"".join(
        struct.pack("<IIII", time_us // 1_000_000, time_us % 1_000_000, len(_FRAME), len(_FRAME)) + _FRAME
        for time_us in times)


FILES: dict[str, Callable[[], bytes]] = {
    "sections": lambda: b"".join(_SECTION + _INTERFACE + _packet(0, _START_US + number) for number in range(20_000)),
    "interfaces_1023": lambda: b"".join(
        _SECTION + _INTERFACE * 1_023 + _packet(number % 1_023, _START_US + number) for number in range(200)),
    "packet_a_day": lambda: pcap(500, _DAY_US)}
"""Captures that cost more than their packets: sections of one packet, of 1,023 interfaces, a tick for each packet."""
AIM_RATIO = 10
AIM_END_S = 1.0
WHOLE = ("engines", "domains", "agents", "many_fields", "empty_values", "sampled")
_FLOOD_S = 4.0


def ratio(name: str) -> float:
    """CPU time to read one of FILES with ticks of 1 s, as a multiple of that of a plain capture of the same size."""
    octets = FILES[name]()
    plain = pcap(len(octets) // (16 + len(_FRAME)))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x"
        costs = []
        for content, rounds in ((octets, 1 if name == "packet_a_day" else 3), (plain, 3)):
            path.write_bytes(content)
            costs.append(statistics.median(read(path, 1.0) for _ in range(rounds)))
    return costs[0] / costs[1]


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def main() -> None:
    """Print the costs of each attack; the last line is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench hostile", description=__doc__)
    parser.add_argument("attacks", nargs="*", default=[], metavar="ATTACK", help=f"of {', '.join(ATTACKS)}; all")
    arguments = parser.parse_args()
    names = arguments.attacks or list(ATTACKS)
    costs = {}
    context = multiprocessing.get_context("forkserver")
    for name in names:
        with context.Pool(1) as pool:
            costs[name] = pool.apply(measure, (name,))
        cost = costs[name]
        print(f"{name:<18}{cost.us:>9.1f} us a datagram, drains of {cost.longest_ms:>7.1f} ms at most, "
              f"{cost.mib:>7.1f} MiB, {cost.us / next(iter(costs.values())).us:>5.1f} times the first", flush=True)
    ratios = {}
    for name in FILES if not arguments.attacks else ():
        with context.Pool(1) as pool:
            ratios[name] = pool.apply(ratio, (name,))
        print(f"{name:<18}{ratios[name]:>9.1f} times a plain capture of that size", flush=True)
    ends = {}
    for name in () if arguments.attacks else WHOLE:
        ends[name] = obeyed(name)
        print(f"{name:<18}{ends[name][0]:>9.2f} s from SIGTERM to the end of flowtop, {ends[name][1]:.0f} MiB",
              flush=True)
    met = all(cost.us <= AIM_US and cost.mib <= AIM_MIB for cost in costs.values()) and all(
        times <= AIM_RATIO for times in ratios.values()) and all(
        passed_s <= AIM_END_S and mib <= AIM_MIB for passed_s, mib in ends.values())
    print(json.dumps({"benchmark": "hostile", "aim_us": AIM_US, "aim_mib": AIM_MIB, "met": met, "files": {
        name: round(times, 1) for name, times in ratios.items()},
                      "ends": {name: [round(value, 2) for value in pair] for name, pair in ends.items()},
                      "costs": {name: {key: round(value, 1) for key, value in cost._asdict().items()}
                                for name, cost in costs.items()}}))
