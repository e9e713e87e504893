"""Tests stand on their own: what they start gets the signals, however the tests were started."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STARTS_A_CHILD = """
import tests.conftest
import subprocess, sys
subprocess.run(["cat", "/proc/self/status"], check=True)
"""
SIGNALS = signal.SIGINT, signal.SIGHUP, signal.SIGTERM


def ignore_and_block() -> None:
    """As under nohup, in a background job of a script; and a mask, which a shell does not set, but others do."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def test_children_of_tests_get_signals_that_came_ignored_or_blocked() -> None:
    done = subprocess.run([sys.executable, "-c", STARTS_A_CHILD], cwd=ROOT, preexec_fn=ignore_and_block,
                          capture_output=True, text=True, check=True)
    masks = {name: int(value, 16) for name, _, value in (line.partition(":") for line in done.stdout.splitlines())
             if name in ("SigIgn", "SigBlk")}
    assert len(masks) == 2
    for number in SIGNALS:
        assert not any(mask >> (number - 1) & 1 for mask in masks.values()), (number, masks)
