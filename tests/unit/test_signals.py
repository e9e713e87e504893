"""Signals that would end a run are handled, all of them."""

from __future__ import annotations

import signal
import subprocess
from functools import partial

from flowtop.process import SIGNALS

FAULTS = {signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS}
"""A process sends them to itself when it went wrong."""
IGNORED = {signal.SIGPIPE, signal.SIGXFSZ}
"""By Python: writing fails instead."""


STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


def ends_a_process(number: int) -> bool:
    """Asked of the kernel."""
    done = subprocess.run(["sh", "-c", f"ulimit -c 0; kill -{number} $$"], check=False, preexec_fn=partial(
        signal.signal, number, signal.SIG_DFL) if number != signal.SIGKILL else None)
    return done.returncode == -number


def test_every_signal_that_ends_a_process_but_those_of_a_fault_ends_a_run_in_order() -> None:
    ending = {int(number) for number in signal.valid_signals() - STOPPING if ends_a_process(number)}
    assert set(map(int, SIGNALS)) == ending - FAULTS - IGNORED - {signal.SIGKILL}
