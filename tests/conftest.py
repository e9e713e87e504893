"""Nothing is timed or looked up in this host's databases; signals reach what tests start, however they were started."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from flowtop.process import SIGNALS

# A busy machine is no failure. Each run has other examples, so what one run saves others make up for.
settings.register_profile("flowtop", deadline=None, max_examples=60)
settings.load_profile("flowtop")

os.environ["FLOWTOP_MMDB"] = "off"


def let_through(number: signal.Signals) -> None:
    """Let children have the default action of a signal that came ignored, as under nohup and in background jobs of
    scripts: a handler is not inherited, ignoring is. The tests themselves go on ignoring it."""
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else lambda *_: None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Python's full collections look at what is now loaded for all tests, some hundred thousand objects, and are begun
    by every few screens: they need not, and can be fewer. The screen does the same for itself."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], 100)


for one in SIGNALS:
    let_through(one)
signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a mask is inherited too


@pytest.fixture
def directory_of_nobody() -> Iterator[Path]:
    """A directory in which user 65534, group 65533 may write: tmp_path is in one that only its user may enter."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, 65_534, 65_533)
        yield Path(name)
