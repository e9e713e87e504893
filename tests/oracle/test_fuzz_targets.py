"""`python -m tests.fuzz` finds what is wrong; and a few random inputs at each boundary, in every run others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Hashable
from pathlib import Path

import pytest

from tests.fuzz import engine
from tests.fuzz.engine import Target, fuzz
from tests.fuzz.targets import TARGETS, available


def broken(octets: bytes) -> Hashable:
    if octets[:1] == b"\xff":
        raise ValueError("it begins with 255")
    return len(octets)


def killed(octets: bytes) -> Hashable:
    if octets[:1] == b"\xff":
        os.kill(os.getpid(), signal.SIGKILL)
    return len(octets)


def waiting(octets: bytes) -> Hashable:
    while octets[:1] == b"\xff":
        time.sleep(0.01)
    return len(octets)


def busy(octets: bytes) -> Hashable:
    while octets[:1] == b"\xff":
        pass
    return len(octets)


def greedy(octets: bytes) -> Hashable:
    return len(bytearray(octets[:1] == b"\xff" and (engine.MOST_MIB + 50) << 20) or b"")


@pytest.mark.parametrize(("run", "what"), [
    (broken, "ValueError: test_fuzz_targets.py"), (killed, "ended by SIGKILL"),
    (waiting, "takes too long: test_fuzz_targets.py"), (busy, "takes too long: test_fuzz_targets.py"),
    (greedy, "more than 256 MiB")])
def test_it_finds_what_goes_wrong_and_keeps_the_input(
        run: Callable[[bytes], Hashable], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STANDING_S" if run is waiting else "LONGEST_S", 0.2)
    seconds = 0.1
    while not (found := fuzz(Target(run, [b"\x01abc"]), seconds=seconds, seed=1, kept=tmp_path).findings):
        seconds *= 2
        assert seconds < 60
    [(finding, path)] = found.items()
    assert finding.startswith(what)
    assert Path(path).read_bytes()[:1] == b"\xff"


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_inputs_end_well(name: str, tmp_path: Path) -> None:
    if reason := available(name):
        pytest.skip(reason)
    report = fuzz(TARGETS[name](), seconds=1.0, seed=time.time_ns() % 1_000_000, kept=tmp_path)
    assert report.inputs > 1
    assert report.findings == {}, [Path(path).read_bytes() for path in report.findings.values()]
