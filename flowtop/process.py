"""What ends this process: signals, and how a run answers them."""

from __future__ import annotations

import signal
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stop_on_signals(stop: Callable[[], None], hurry: Callable[[], None]) -> list[int]:
    """Let SIGINT, SIGTERM and SIGHUP (the SSH line is gone) end the run with a last drain; a second one hurries it.

    Returns:
        The signals caught so far; it grows.
    """
    caught: list[int] = []

    def handle(number: int, _: object) -> None:
        caught.append(number)
        if len(caught) == 1:
            stop()
        else:
            hurry()

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and `&` in a script, mean it
            signal.signal(number, handle)
    return caught
