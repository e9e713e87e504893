"""Changes inputs at random and gives them to a target; keeps those with a new outcome, and what ends badly.

The target runs in a child process: an end by a signal, an input that takes too long, memory without bounds and an
exception that is not the target's own are findings. The last input is in memory that both share, so none is lost.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import resource
import signal
import struct
import time
import traceback
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LONGEST_S = 5.0
"""Of a processor, for one input."""
STANDING_S = 60.0
"""By the clock, for one input: one that waits for what never comes. A machine that does other work is no such thing."""
MOST_MIB = 256
"""Beyond what the target has when it starts."""
MOST_OCTETS = 1 << 20
_POOL = 3000
_SHORT = 400
"""Octets of an input that is worth keeping."""
_LENGTH = struct.Struct("=Q")
_INTERESTING = (b"\0", b"\1", b"\x7f", b"\x80", b"\xff", b"\0\0", b"\0\1", b"\0\4", b"\xff\xfe", b"\xff\xff",
                b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\0", b"\0\0\0\0\0\0\0\0", b"\xff" * 8)


@dataclass(frozen=True, slots=True)
class Target:
    """What is tried.

    Attributes:
        run: takes an input; what it gives tells outcomes apart. An exception is a finding.
        seeds: inputs to begin with.
        text: inputs are mostly text.
    """

    run: Callable[[bytes], Hashable]
    seeds: Sequence[bytes]
    text: bool = False


@dataclass(slots=True)
class Report:
    """What came of it.

    Attributes:
        inputs, outcomes: how many were tried, and how many kinds of outcomes there were.
        grown_mib: memory that the process took beyond its start.
        findings: by where they were found: what, and the file with the input.
    """

    inputs: int = 0
    outcomes: int = 0
    grown_mib: float = 0.0
    findings: dict[str, str] = field(default_factory=dict)


class TooLongError(BaseException):
    """The input took longer than LONGEST_S or STANDING_S; no `except Exception` stops it."""


def changed(rng: random.Random, octets: bytes, other: bytes, words: Sequence[bytes]) -> bytes:
    """The octets with some changes: bits, numbers, parts cut out, doubled, moved, or from another input.

    Args:
        words: parts that are put in more often.
    """
    found = bytearray(octets[:MOST_OCTETS])
    for _ in range(1 << rng.randrange(5)):
        at = rng.randrange(len(found) + 1)
        way = rng.randrange(8)
        if way == 0 and found:
            found[at % len(found)] ^= 1 << rng.randrange(8)
        elif way == 1:
            put = rng.choice(words)
            found[at:at + len(put)] = put
        elif way == 2:
            found[at:at] = rng.choice(words)
        elif way == 3:
            del found[at:at + rng.randrange(1, 40)]
        elif way == 4:
            found[at:at] = found[at:at + rng.randrange(1, 200)] * rng.choice((1, 1, 1, 2, 16))
        elif way == 5 and len(found) >= 2:
            size = rng.choice((1, 2, 4))
            value = int.from_bytes(found[at:at + size], "big") + rng.choice((-4, -1, 1, 2, 4, 8, 255))
            found[at:at + size] = (value % (1 << 8 * size)).to_bytes(size, "big")
        elif way == 6 and other:
            begin = rng.randrange(len(other))
            found[at:at + rng.randrange(64)] = other[begin:begin + rng.randrange(1, 256)]
        elif way == 7 and not rng.randrange(4):
            del found[at:]
    return bytes(found[:MOST_OCTETS])


def fuzz(target: Target, *, seconds: float, seed: int, kept: Path, grow: Path | None = None) -> Report:
    """Try for so long.

    Args:
        seed: of the random changes.
        kept: directory for inputs that are findings; made when there is one.
        grow: directory for short inputs with an outcome that no seed has; None: they are not kept.
    """
    report, until = Report(), time.monotonic() + seconds
    with mmap.mmap(-1, _LENGTH.size + MOST_OCTETS) as last:
        while time.monotonic() < until:
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(read)
                _try(target, until, seed, last, write, grow)
            os.close(write)
            with os.fdopen(read) as said:
                lines = said.read().splitlines()
            _, status = os.waitpid(child, 0)
            seed += 1
            _note(report, lines, status, last, kept)
    return report


def _note(report: Report, lines: Sequence[str], status: int, last: mmap.mmap, kept: Path) -> None:
    finding = ""
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "figures":
            inputs, outcomes, grown = rest.split()
            report.inputs += int(inputs)
            report.outcomes = max(report.outcomes, int(outcomes))
            report.grown_mib = max(report.grown_mib, float(grown))
        else:
            finding = rest
    if os.WIFSIGNALED(status):
        finding = f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    elif status and not finding:
        finding = f"ended with status {os.waitstatus_to_exitcode(status)}"
    if finding and finding not in report.findings:
        report.findings[finding] = str(_keep(last[_LENGTH.size:_LENGTH.size + _LENGTH.unpack_from(last)[0]], kept))


def _keep(octets: bytes, place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    path = place / hashlib.sha256(octets).hexdigest()[:16]
    path.write_bytes(octets)
    return path


def _too_long(*_: object) -> None:
    raise TooLongError


def _limit(busy_s: float, standing_s: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, busy_s)
    signal.setitimer(signal.ITIMER_REAL, standing_s)


def _try(target: Target, until: float, seed: int, last: mmap.mmap, said: int, grow: Path | None) -> None:
    """The child: until the time is over, or something is found."""
    status, rng = 1, random.Random(seed)
    signal.signal(signal.SIGPROF, _too_long)
    signal.signal(signal.SIGALRM, _too_long)
    begun, inputs = _resident_mib(), 0
    outcomes: set[int] = set()  # their hashes: the things themselves would be most of the memory that is watched
    pool = list(target.seeds)
    words = (*_INTERESTING, *{word for one in target.seeds for word in one.split()}) if target.text else _INTERESTING
    finding = ""
    try:
        while time.monotonic() < until and not finding:
            octets = pool[inputs] if inputs < len(target.seeds) else changed(
                rng, rng.choice(pool), rng.choice(pool), words)
            last[:_LENGTH.size + len(octets)] = _LENGTH.pack(len(octets)) + octets
            inputs += 1
            _limit(LONGEST_S, STANDING_S)
            try:
                outcome = hash(target.run(octets))
            except TooLongError as error:
                finding = f"takes too long: {_where(error)}"
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is a finding
                finding = f"{type(error).__name__}: {_where(error)}"
            finally:
                _limit(0, 0)
            if not finding and outcome not in outcomes:
                outcomes.add(outcome)
                if grow is not None and inputs > len(target.seeds) and len(octets) <= _SHORT:
                    _keep(octets, grow)
                if len(pool) < _POOL:
                    pool.append(octets)
                else:
                    pool[rng.randrange(len(target.seeds), _POOL)] = octets
            if _peak_mib() - begun > MOST_MIB:
                finding = f"more than {MOST_MIB} MiB"
        status = 0
    finally:
        lines = f"figures {inputs} {len(outcomes)} {max(0.0, _peak_mib() - begun):.0f}\n"
        os.write(said, (lines + (f"finding {finding}\n" if finding else "")).encode())
        os._exit(status)


def _where(error: BaseException) -> str:
    """The place of flowtop's own that raised it, and what it says, in one line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name != _too_long.__name__]
    own = [frame for frame in frames if "flowtop/" in frame.filename and "-packages" not in frame.filename] or frames
    text = " ".join(str(error).split())[:100]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno} {text}"


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE / (1 << 20)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
