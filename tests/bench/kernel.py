"""Cost of one packet in the kernel programs: BPF_PROG_TEST_RUN, a hot flow, beside an empty program; and the cost of
owners: the same programs with them, also for packets that need a new entry (in a full map, so that each one does); and
that of names seen, also for packets that are looked at (TCP on port 53, which tells no name after the first packets)
and handed to the program which copies them (DNS).

Rounds of all programs are interleaved, so that a slow moment of the machine does not fall on one of them alone.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import struct
from pathlib import Path

import numpy as np

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.compiler import COARSE_CLOCK_KERNEL, FlowProgram, compile_program, kernel_release
from flowtop.model.kinds import Direction
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, FLOW_TOTALS_DTYPE
from tests.kernel import frames
from tests.kernel.progrun import test_run

FRAMES = {
    "IPv4/TCP": frames.ethernet(frames.IPV4, frames.ipv4(frames.tcp(443, 51514, frames.ACK, bytes(1400)), frames.TCP)),
    "IPv6/UDP": frames.ethernet(frames.IPV6, frames.ipv6(frames.udp(5004, 40112, bytes(100)), frames.UDP)),
}
AIM_NS = 60
OWNERS, NAMES = "owners", "names"
LOOPBACK_IFINDEX = 1


def own_totals_slots(totals_fd: int) -> None:
    """Do what attaching does: write the interface's index into its totals, which test runs see as loopback's."""
    value = np.zeros(bpf_possible_cpus(), FLOW_TOTALS_DTYPE)
    value["ifindex"] = LOOPBACK_IFINDEX
    for direction in Direction:
        bpf.map_update(totals_fd, struct.pack("=I", LOOPBACK_IFINDEX * 2 + direction), value.tobytes())


def bpf_possible_cpus() -> int:
    """CPUs a per-CPU map has a value for."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace(",", "-").split("-")[-1]
    return int(last) + 1


def new_flow_costs(without: FlowProgram, owning: FlowProgram, repeat: int,
                   rounds: int) -> dict[str, tuple[float, float]]:
    """Cost of a packet that has no entry, by kind: without owners, and what owners add; of the fastest rounds, in ns.

    The map is full, so each packet is looked up, tried to insert and counted in an aggregate. Receivers are a UDP
    socket of this process, found by its port, and a connected TCP socket, whose round-trip time is read too.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, socket.create_server(("127.0.0.1", 0)) as made, \
            socket.create_connection(made.getsockname()) as client, made.accept()[0] as accepted:
        receiver.bind(("127.0.0.1", 0))
        port = receiver.getsockname()[1]
        segment = frames.tcp(client.getsockname()[1], accepted.getsockname()[1], frames.ACK)
        connected = frames.ethernet(frames.IPV4, frames.ipv4(segment, frames.TCP, source="127.0.0.1",
                                                             destination="127.0.0.1"))
        there = frames.ethernet(frames.IPV4, frames.ipv4(frames.udp(9, port), frames.UDP, source="127.0.0.1",
                                                         destination="127.0.0.1"))
        nobody = frames.ethernet(frames.IPV4, frames.ipv4(frames.udp(9, 10), frames.UDP, source="127.0.0.1",
                                                          destination="127.0.0.1"))
        kinds = {"to a socket": (Direction.INGRESS, there), "to TCP": (Direction.INGRESS, connected),
                 "to nobody": (Direction.INGRESS, nobody), "from here": (Direction.EGRESS, nobody)}
        fastest: dict[tuple[str, bool], float] = {}
        for program in (without, owning):
            fill(program.maps["flows_a"], program.map_entries)
        for _ in range(rounds):
            for name, (direction, frame) in kinds.items():
                for program in (without, owning):
                    taken = test_run(program.programs[f"flow_{direction.name.lower()}"], frame, repeat=repeat).ns
                    which = name, program is owning
                    fastest[which] = min(fastest.get(which, taken), taken)
    return {name: (fastest[name, False], fastest[name, True] - fastest[name, False]) for name in kinds}


def handed_costs(without: FlowProgram, naming: FlowProgram, repeat: int,
                 rounds: int) -> dict[str, tuple[float, float]]:
    """As `new_flow_costs`, of packets that are looked at for names; the ring buffer is full of the DNS ones."""
    tcp = frames.ethernet(frames.IPV4, frames.ipv4(frames.tcp(53, 51515, frames.ACK, bytes(1400)), frames.TCP))
    dns = frames.ethernet(frames.IPV4, frames.ipv4(frames.udp(53, 40_112, bytes(100)), frames.UDP))
    fastest: dict[tuple[str, bool], float] = {}
    kinds = {"TCP port 53": tcp, "DNS, full": dns}
    fill(naming.maps["flows_a"], naming.map_entries)
    for _ in range(rounds):
        for name, frame in kinds.items():
            for program in (without, naming):
                taken = test_run(program.programs["flow_ingress"], frame, repeat=repeat).ns
                which = name, program is naming
                fastest[which] = min(fastest.get(which, taken), taken)
    return {name: (fastest[name, False], fastest[name, True] - fastest[name, False]) for name in kinds}


def fill(map_fd: int, entries: int) -> None:
    """Fill a flow map with keys that no packet has."""
    key = np.zeros(1, FLOW_KEY_DTYPE)
    value = bytes(FLOW_COUNTERS_DTYPE.itemsize)
    for number in range(entries):
        key["tunnel_id"], key["tunnel"] = number, 1
        try:
            bpf.map_update(map_fd, key.tobytes(), value)
        except OSError:  # full
            return


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench kernel", description=__doc__)
    parser.add_argument("--repeat", type=int, default=1_000_000, help="runs of a program in one measurement")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each; the median counts")
    arguments = parser.parse_args()
    flow_program = compile_program(map_entries=65536, coarse_clock=kernel_release() >= COARSE_CLOCK_KERNEL)
    own_totals_slots(flow_program.maps["totals"])
    empty = bpf.load_pass_program()
    owning = compile_program(map_entries=65536, coarse_clock=kernel_release() >= COARSE_CLOCK_KERNEL, owners=True)
    own_totals_slots(owning.maps["totals"])
    naming = compile_program(map_entries=65536, coarse_clock=kernel_release() >= COARSE_CLOCK_KERNEL, names=True)
    own_totals_slots(naming.maps["totals"])
    bpf.map_update(naming.maps["names_programs"], bytes(4), struct.pack("=I", naming.programs["names_seen"]))
    subjects = {"empty": (empty, FRAMES["IPv4/TCP"])}
    for direction in ("ingress", "egress"):
        for name, frame in FRAMES.items():
            subjects[f"{direction} {name}"] = (flow_program.programs[f"flow_{direction}"], frame)
            subjects[f"{direction} {name} {OWNERS}"] = (owning.programs[f"flow_{direction}"], frame)
            subjects[f"{direction} {name} {NAMES}"] = (naming.programs[f"flow_{direction}"], frame)
    samples: dict[str, list[int]] = {name: [] for name in subjects}
    for _ in range(arguments.rounds):
        for name, (program, frame) in subjects.items():
            samples[name].append(test_run(program, frame, repeat=arguments.repeat).ns)
    new_flow = new_flow_costs(flow_program, owning, arguments.repeat // 5, arguments.rounds)
    handed = handed_costs(flow_program, naming, arguments.repeat // 5, arguments.rounds)
    os.close(empty)
    flow_program.close()
    owning.close()
    naming.close()
    medians = {name: statistics.median(values) for name, values in samples.items()}
    print(f"{'program':<25}{'ns':>6}{'above empty':>13}   spread")
    for name, median in medians.items():
        spread = f"{min(samples[name])}..{max(samples[name])}"
        print(f"{name:<25}{median:>6.0f}{median - medians['empty']:>13.0f}   {spread}")
    for name, (without, added) in new_flow.items():
        print(f"new flow {name:<16}{without:>6.0f}   owners add {added:.0f}")
    for name, (without, added) in handed.items():
        print(f"looked at {name:<15}{without:>6.0f}   names add {added:.0f}")
    above = {name: median - medians["empty"] for name, median in medians.items() if name != "empty"}
    owners, names = ({name: min(samples[f"{name} {kind}"]) - min(samples[name]) for name in samples
                      if f"{name} {kind}" in samples} for kind in (OWNERS, NAMES))
    print(f"owners add to a hot flow, by the fastest rounds: {owners}")
    print(f"names add to a hot flow, by the fastest rounds: {names}")
    print(json.dumps({"benchmark": "kernel", "empty_ns": medians["empty"], "above_empty_ns": above, "aim_ns": AIM_NS,
                      "owners_hot_ns": owners, "names_hot_ns": names,
                      "names_handed_ns": {name: added for name, (_, added) in handed.items()},
                      "owners_new_ns": {name: added for name, (_, added) in new_flow.items()},
                      "met": max(above.values()) <= AIM_NS, "repeat": arguments.repeat, "rounds": arguments.rounds}))


if __name__ == "__main__":
    main()
