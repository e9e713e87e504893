"""The screen on a real terminal path: keypress to painted frame, and octets written a tick.

The app runs in a child on a pseudo-terminal of 160x50, with the real pipeline and flow table behind it and a capture
that brings every flow anew each tick. The clock runs from writing a key until the octets that show its effect were
read: the cursor's new line, the new place in the list, the flow that now comes first, the count of
what a filter leaves, groups in the place of flows. With a million flows, 100,000 of them bring packets each tick. Run
it alone: other work on the machine is in the latencies (`chrt -f 40 python -m tests.bench screen` keeps it out).
"""

from __future__ import annotations

import argparse
import codecs
import errno
import fcntl
import json
import math
import os
import pty
import random
import re
import select
import statistics
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

COLUMNS, LINES = 160, 50
ABOVE = 8
"""Lines above the flows: the header with its chart, what is listed, the views, the names of columns."""
FLOW_LINES = LINES - ABOVE - 2
SIZES = (1_000, 10_000, 100_000)
MOST = 1_000_000
"""Flows of a run in which filters are typed and nothing else is timed."""
AIM_P95_MS = 50.0
"""Of each kind of key; no kind hides behind others."""
AIM_TYPING_P95_MS = {**dict.fromkeys(SIZES, 100.0), MOST: 150.0}
AIM_MOST_MS = 120.0
"""Of any single press."""
AIM_OCTETS = 5_000


GROUPS = "of [0-9,]+ groups?"
SHOWN: dict[str, tuple[bytes, str, bytes]] = {
    "details": (b"\r", "first packet", b"\x1b"),
    "copy": (b"c", "hand off this flow", b"\x1b"),
    "write": (b"w", "jsonl", b"\x1b"),
    "help": (b"?", "Ctrl-Z", b"\x1b"),
    "columns": (b"C", "narrower", b"\x1b"),
    "pause": (b" ", "PAUSED", b" "),
    "mark": (b"m", "SINCE MARK", b"M"),
    "units": (b"b", "[kMG]B/s", b"b"),
    "freeze": (b"o", "ORDER FROZEN", b"o"),
    "follow": (b"F", "FOLLOW", b"F"),
    "ended": (b"E", "ENDED HIDDEN", b"E"),
    "window": (b"t", "10 s↓", b"tt"),
    "ports": (b"p", ":https", b"p"),
    "biflows": (b"B", "of [0-9,]+ biflows", b"B"),
    "hosts": (b"2", GROUPS, b"1"),
    "services": (b"3", GROUPS, b"1"),
    "devices": (b"5", GROUPS, b"1"),
    "compare": (b"d", "AGAINST", b"d"),
    "books": (b"A", "seen", b"A"),
}
"""What other keys show: key, a pattern of what it paints, and what takes it back (not timed)."""


class Picture:
    """What a terminal shows: only changes are sent, so what a key did is in no output as a whole."""

    _TOKENS = re.compile(r"\x1b\[([0-9;?>=]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|"
                         r"\x1b[PX^_][^\x1b]*\x1b\\|(\n)|([^\x1b\n\r\x07\x08]+)|\x1b[^\[\]PX^_]|[\r\x07\x08]")

    def __init__(self) -> None:
        self._cells = [[" "] * COLUMNS for _ in range(LINES)]
        self._reverse = [False] * LINES  # of the first cell
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._left, self._x, self._y, self._style = "", 0, 0, False

    def write(self, output: bytes) -> None:
        """Do what a terminal does with cursor addressing, text, line feeds and reverse video."""
        text, end = self._left + self._decoder.decode(output), 0
        for match in self._TOKENS.finditer(text):
            if match.start() != end:
                break
            end = match.end()
            numbers, final, feed, words = match.groups()
            if words:
                row = self._cells[min(self._y, LINES - 1)]
                row[self._x:self._x + len(words)] = words
                del row[COLUMNS:]
                if not self._x:
                    self._reverse[self._y] = self._style
                self._x += len(words)
            elif feed:
                self._x, self._y = 0, min(self._y + 1, LINES - 1)
            elif final == "H":
                y, _, x = numbers.partition(";")
                self._y, self._x = int(y or 1) - 1, int(x or 1) - 1
            elif final == "m":
                self._style = "7" in numbers.split(";")
        self._left = text[end:]

    @property
    def text(self) -> str:
        """Each line after its number and a colon, or `>` if it begins in reverse video."""
        return "".join(f"\n{y}{'>' if reverse else ':'}{''.join(row)}"
                       for y, (row, reverse) in enumerate(zip(self._cells, self._reverse, strict=True), 1))


class Terminal:
    """The master side of a pseudo-terminal with the app on the other."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._picture = Picture()

    def press(self, key: bytes) -> None:
        """Write a key."""
        os.write(self._master, key)

    def read(self, timeout_s: float) -> bytes:
        """What the app wrote; empty when it wrote nothing in time or has ended."""
        ready, _, _ = select.select([self._master], [], [], timeout_s)
        try:
            output = os.read(self._master, 1 << 20) if ready else b""
        except OSError as error:
            if error.errno != errno.EIO:  # Linux's way to say that the other side is closed
                raise
            return b""
        self._picture.write(output)
        return output

    def wait_for(self, pattern: bytes, timeout_s: float = 60.0) -> float:
        """Seconds until something is written after which the screen matches a pattern; see Picture.text."""
        begin, sought = time.perf_counter(), pattern.decode()
        while True:
            left = begin + timeout_s - time.perf_counter()
            if left <= 0:
                raise TimeoutError(f"the screen did not show {sought!r}: {self._picture.text}")
            if self.read(left) and re.search(sought, self._picture.text):
                return time.perf_counter() - begin

    def drain(self, quiet_s: float) -> bytes:
        """Everything written until nothing comes for `quiet_s`."""
        output = b""
        while piece := self.read(quiet_s):
            output += piece
        return output


@contextmanager
def screen(flows: int) -> Iterator[Terminal]:
    """The app in a child, showing its flows."""
    pid, master = pty.fork()
    if not pid:
        os.environ["TERM"] = "xterm-256color"
        os.environ.pop("NO_COLOR", None)
        os.execv(sys.executable, [sys.executable, "-m", "tests.bench.screen", "--app", str(flows)])
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    terminal = Terminal(master)
    try:
        terminal.wait_for(rf"of {flows:,}".encode())
        terminal.drain(0.2)
        yield terminal
        terminal.press(b"q")
        terminal.drain(5.0)
    finally:
        os.close(master)
        _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"the screen ended with status {os.waitstatus_to_exitcode(status)}")


def latencies(terminal: Terminal, flows: int, presses: int, dice: random.Random) -> dict[str, list[float]]:
    """Milliseconds by kind of key: one that scrolls, that turns the order round, that moves the cursor."""
    found: dict[str, list[float]] = {"page": [], "sort": []}
    for _ in range(presses // 2):
        found["page"].append(timed(terminal, b"\x1b[6~", f"{FLOW_LINES}–{2 * FLOW_LINES - 1} of", dice))
        found["page"].append(timed(terminal, b"\x1b[5~", f"1–{FLOW_LINES} of", dice))
        found["sort"].append(timed(terminal, b"r", first_line(flows - 1), dice))
        found["sort"].append(timed(terminal, b"r", first_line(0), dice))
    below = [rf"\n{ABOVE + 1 + line}>" for line in range(min(presses, FLOW_LINES))]
    return found | {"cursor": [timed(terminal, b"j", pattern, dice) for pattern in below]}


def first_line(number: int) -> str:
    """What the first line of flows begins with when it shows this one of the made-up flows."""
    address = rf"10\.20\.{number >> 8 & 0xFF}\.{number & 0xFF}:{1024 + number % 60_000} "
    return rf"\n{ABOVE + 1}[:>][^\n]*{address}"


def timed(terminal: Terminal, key: bytes, pattern: str, dice: random.Random) -> float:
    """Milliseconds from a key, pressed at some moment of the tick, to its effect."""
    deadline = time.perf_counter() + dice.uniform(0.03, 0.2)
    while (left := deadline - time.perf_counter()) > 0:
        terminal.read(left)
    terminal.press(key)
    return terminal.wait_for(pattern.encode()) * 1000


def typing(terminal: Terminal, flows: int, presses: int, dice: random.Random) -> list[float]:
    """Milliseconds from a character of a filter to the list and the count of what it leaves."""
    counts = {prefix: sum((number & 0xFFFF) >> (32 - prefix) == 0 for number in range(flows)) for prefix in (23, 24)}
    terminal.press(b"/")
    terminal.wait_for(rb"/ ")
    terminal.press(b"src net 10.20.0.0/2")
    terminal.wait_for(rb"bits set past")  # the parser has come
    found: list[float] = []
    for number in range(presses):
        prefix = 23 + number % 2
        found.append(timed(terminal, str(prefix % 10).encode(), f"{counts[prefix]:,} of {flows:,} flows", dice))
        terminal.press(b"\x7f")  # 10.20.0.0/2 means nothing: the filter stays
    terminal.press(b"\x1b")
    terminal.wait_for(f"–{FLOW_LINES} of {flows:,}".encode())
    return found


def grouping(terminal: Terminal, flows: int, presses: int, dice: random.Random) -> list[float]:
    """Milliseconds from a key to groups of all flows by source, to their order turned round, and to flows again."""
    found: list[float] = []
    for _ in range(presses // 4):
        terminal.press(b"g")
        terminal.wait_for(b"group flows by")
        terminal.press(b"gg")
        terminal.drain(0.3)  # source is marked
        found.append(timed(terminal, b"\r", GROUPS, dice))
        found += [timed(terminal, b"r", arrow, dice) for arrow in ("RATE↑", "RATE↓")]
        found.append(timed(terminal, b"\x7f", f"–{FLOW_LINES} of {flows:,}", dice))
    return found


def showing(terminal: Terminal, presses: int, dice: random.Random,
            only: set[str] | None = None) -> dict[str, list[float]]:
    """Milliseconds by kind of key: the rest of what keys can show of a flow or the list; a step into the past."""
    terminal.press(b"j")
    terminal.drain(0.3)
    found: dict[str, list[float]] = {}
    for kind, (key, pattern, undo) in SHOWN.items():
        if only is not None and kind not in only:
            continue
        for _ in range(max(1, presses // 2)):
            found.setdefault(kind, []).append(timed(terminal, key, pattern, dice))
            terminal.drain(0.1)
            for octet in undo:
                terminal.press(bytes([octet]))
                terminal.drain(0.3)  # an escape with a key right behind it is another key
    terminal.press(b"j")
    terminal.drain(0.3)
    for _ in range(max(1, presses // 2) if only is None or "past" in only else 0):
        found.setdefault("past", []).append(timed(terminal, b"[", "−0:0", dice))
        terminal.drain(0.1)
        terminal.press(b" ")
        terminal.drain(0.3)
    return found


def octets_a_tick(terminal: Terminal, ticks: int) -> list[int]:
    """Octets written in each of some ticks in which nobody presses a key."""
    terminal.drain(0.3)
    found: list[int] = []
    while len(found) < ticks:
        first = terminal.read(5.0)
        found.append(len(first) + len(terminal.drain(0.3)))
    return found


def show(flows: int) -> None:
    """The child: the app over the real pipeline."""
    from flowtop.tui.app import FlowtopApp

    def open_source() -> object:
        from flowtop.cli.sources import SCREEN_PAST_S
        from flowtop.metering.flows import TableConfig
        from flowtop.pipeline.drive import PipelineConfig
        from flowtop.pipeline.pipeline import Pipeline
        from tests.bench._synthetic import SyntheticCapture

        table = TableConfig(max_flows=2 * MOST, idle_timeout_s=3600.0)
        return Pipeline(PipelineConfig(delay_s=1.0, first_delay_s=0.2, table=table, past_s=SCREEN_PAST_S),
                        SyntheticCapture(flows, active=SIZES[-1]))

    app = FlowtopApp(open_source)  # type: ignore[arg-type]
    app.run()
    sys.exit(app.return_code or (app.error is not None))


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not pass."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def told(flows: int, by_kind: dict[str, list[float]]) -> dict[str, float]:
    """Print each kind's milliseconds; gives its percentiles."""
    result: dict[str, float] = {}
    for kind, values in by_kind.items():
        p50, p95 = percentile(values, 0.5), percentile(values, 0.95)
        result |= {f"{kind}_p50_ms": round(p50, 1), f"{kind}_p95_ms": round(p95, 1),
                   f"{kind}_most_ms": round(max(values), 1)}
        print(f"{flows:>8,} {kind:<8}{p50:>8.1f}{p95:>8.1f}{max(values):>8.1f}")
    return result


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench screen", description=__doc__)
    parser.add_argument("--presses", type=int, default=40, help="key presses of each kind at each size")
    parser.add_argument("--ticks", type=int, default=8, help="ticks whose octets are counted")
    parser.add_argument("--flows", type=int, action="append", help="sizes of the table, instead of all")
    parser.add_argument("--kinds", help="with commas: of the keys that show something, only these, at these sizes")
    parser.add_argument("--app", type=int, metavar="FLOWS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.app:
        show(arguments.app)
    results: dict[str, dict[str, float]] = {}
    print(f"{'flows':>8} {'key':<8}{'p50 ms':>8}{'p95 ms':>8}{'max ms':>8}")
    written: list[int] = []
    only = None if arguments.kinds is None else set(arguments.kinds.split(","))
    if only is not None:
        for flows in arguments.flows or SIZES[-1:]:
            with screen(flows) as terminal:
                told(flows, showing(terminal, arguments.presses, random.Random(1), only))
        return
    for flows in arguments.flows or (*SIZES, MOST):
        dice = random.Random(1)
        with screen(flows) as terminal:
            if not written:
                written = octets_a_tick(terminal, arguments.ticks)
            typed = typing(terminal, flows, arguments.presses, dice)
            by_kind = latencies(terminal, flows, arguments.presses, dice) if flows < MOST else {}
            if by_kind:
                terminal.press(b"\x1b")  # no cursor: the list is viewed from its top
                terminal.drain(0.3)  # an escape with a key right behind it is another key
                by_kind["group"] = grouping(terminal, flows, arguments.presses, dice)
            if flows == SIZES[-1]:
                by_kind |= showing(terminal, arguments.presses, dice)
        by_kind["typing"] = typed
        results[str(flows)] = told(flows, by_kind)
    octets = statistics.median(written)
    print(f"octets a tick at {COLUMNS}x{LINES}, {SIZES[0]:,} flows, only rates and counts change: {written}")
    worst, slowest = max((value, f"{name.removesuffix('_p95_ms')} at {flows}") for flows, result in results.items()
                         for name, value in result.items() if name.endswith("_p95_ms") and "typing" not in name)
    typing_met = all(results[str(flows)]["typing_p95_ms"] <= aim for flows, aim in AIM_TYPING_P95_MS.items()
                     if str(flows) in results)
    most = max(value for result in results.values() for name, value in result.items()
               if name.endswith("_most_ms") and "typing" not in name)
    print(json.dumps({
        "benchmark": "screen", "latency": results, "octets_a_tick": octets, "aim_p95_ms": AIM_P95_MS,
        "most_ms": most, "aim_most_ms": AIM_MOST_MS, "worst_p95_ms": worst, "slowest": slowest,
        "aim_octets": AIM_OCTETS, "aim_typing_p95_ms": AIM_TYPING_P95_MS,
        "met": worst <= AIM_P95_MS and most <= AIM_MOST_MS and octets <= AIM_OCTETS and typing_met,
    }))


if __name__ == "__main__":
    main()
