"""A capture in a process of its own, for tests that kill it: `python -m tests.kernel.capture_process INTERFACE...`.

Prints "ready" when attached, drains every 0.1 s until its standard input ends, then closes and prints one JSON object.
"""

from __future__ import annotations

import json
import select
import sys

from flowtop.capture.ebpf.capture import EbpfCapture, EbpfConfig
from tests.kernel.netns import Books


def main() -> None:
    capture = EbpfCapture(EbpfConfig(tuple(sys.argv[1:])))
    capture.open(lambda said: print(said, file=sys.stderr))
    print("ready", flush=True)
    books = Books()
    while not select.select([sys.stdin], [], [], 0)[0]:
        capture.wait(0.1)
        books.add(capture.drain())
    books.add(capture.close())
    print(json.dumps({
        "imbalances": books.imbalances, "method": capture.attach_method,
        "points": {f"{name} {int(direction)}": {"flows": point.flow_packets, "frames": point["frames"]}
                   for (name, direction), point in books.points.items()}}))


if __name__ == "__main__":
    main()
