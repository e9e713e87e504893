"""Time to the first use: `--help`, the first painted frame, the first flows; beside an empty Python in the same run.

The clock runs from starting the process. The first frame is painted when its key line is on the terminal, the first
flows when an address of the traffic is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from tests.bench._traffic import REPOSITORY, InTerminal, sending
from tests.kernel.netns import Lab

AIM_MS = {"help": 100, "first_frame": 500, "first_flows": 1300}
FLOWTOP = (sys.executable, "-m", "flowtop")


def whole(*words: str) -> float:
    """Seconds a command takes from start to end."""
    begin = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd=REPOSITORY)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    samples: dict[str, list[float]] = {"python": [], "help": [], "first_frame": [], "first_flows": []}
    whole(*FLOWTOP, "--help")  # once for the caches of files and byte code
    with Lab() as lab:
        near, _ = lab.pair()
        with sending(near, flows=50, rate=1000):
            for _ in range(arguments.rounds):
                samples["python"].append(whole(sys.executable, "-c", ""))
                samples["help"].append(whole(*FLOWTOP, "--help"))
                screen = InTerminal(near.command(*FLOWTOP, "-i", "veth0"))
                samples["first_frame"].append(screen.painted(b"quit"))
                samples["first_flows"].append(screen.painted(b"198.18.0.1"))
                screen.end(b"q")
    medians = {name: statistics.median(values) * 1000 for name, values in samples.items()}
    for name, values in samples.items():
        aim = f"   aim {AIM_MS[name]} ms" if name in AIM_MS else ""
        spread = f"{min(values) * 1000:.0f}..{max(values) * 1000:.0f}"
        print(f"{name:<12}{medians[name]:>7.0f} ms   {spread}{aim}")
    print(json.dumps({"benchmark": "start", "median_ms": {name: round(ms, 1) for name, ms in medians.items()},
                      "aim_ms": AIM_MS, "met": all(medians[name] <= aim for name, aim in AIM_MS.items()),
                      "rounds": arguments.rounds}))


if __name__ == "__main__":
    main()
