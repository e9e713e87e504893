"""Signals that end this process, and how a run handles them."""

from __future__ import annotations

import signal
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_on_signals(stop: Callable[[], None], hurry: Callable[[], None]) -> list[int]:
    """Make SIGINT, SIGTERM and SIGHUP end the run with a last drain; a second signal skips waiting.

    Returns:
        The signals caught so far; the list grows.
    """
    caught: list[int] = []

    def handle(number: int, _: object) -> None:
        caught.append(number)
        if len(caught) == 1:
            stop()
        else:
            hurry()

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # Keep signals ignored by nohup or by `&` in a script.
            signal.signal(number, handle)
    return caught
