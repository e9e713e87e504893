"""Cost of one packet in the kernel programs: BPF_PROG_TEST_RUN, a hot flow, beside an empty program.

Rounds of all programs are interleaved, so that a slow moment of the machine does not fall on one of them alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
from pathlib import Path

import numpy as np

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.compiler import COARSE_CLOCK_KERNEL, compile_program, kernel_release
from flowtop.model.kinds import Direction
from flowtop.model.record import FLOW_TOTALS_DTYPE
from tests.kernel import frames
from tests.kernel.progrun import test_run

FRAMES = {
    "IPv4/TCP": frames.ethernet(frames.IPV4, frames.ipv4(frames.tcp(443, 51514, frames.ACK, bytes(1400)), frames.TCP)),
    "IPv6/UDP": frames.ethernet(frames.IPV6, frames.ipv6(frames.udp(53, 40112, bytes(100)), frames.UDP)),
}
AIM_NS = 60
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench kernel", description=__doc__)
    parser.add_argument("--repeat", type=int, default=1_000_000, help="runs of a program in one measurement")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each; the median counts")
    arguments = parser.parse_args()
    flow_program = compile_program(map_entries=65536, coarse_clock=kernel_release() >= COARSE_CLOCK_KERNEL)
    own_totals_slots(flow_program.maps["totals"])
    empty = bpf.load_pass_program()
    subjects = {"empty": (empty, FRAMES["IPv4/TCP"])}
    for direction in ("ingress", "egress"):
        for name, frame in FRAMES.items():
            subjects[f"{direction} {name}"] = (flow_program.programs[f"flow_{direction}"], frame)
    samples: dict[str, list[int]] = {name: [] for name in subjects}
    for _ in range(arguments.rounds):
        for name, (program, frame) in subjects.items():
            samples[name].append(test_run(program, frame, repeat=arguments.repeat).ns)
    os.close(empty)
    flow_program.close()
    medians = {name: statistics.median(values) for name, values in samples.items()}
    print(f"{'program':<18}{'ns':>6}{'above empty':>13}   spread")
    for name, median in medians.items():
        spread = f"{min(samples[name])}..{max(samples[name])}"
        print(f"{name:<18}{median:>6.0f}{median - medians['empty']:>13.0f}   {spread}")
    above = {name: median - medians["empty"] for name, median in medians.items() if name != "empty"}
    print(json.dumps({"benchmark": "kernel", "empty_ns": medians["empty"], "above_empty_ns": above, "aim_ns": AIM_NS,
                      "met": max(above.values()) <= AIM_NS, "repeat": arguments.repeat, "rounds": arguments.rounds}))


if __name__ == "__main__":
    main()
