"""Signals that end this process, and how a run handles them; its standard descriptors; which host it runs on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import cache

SIGNALS: tuple[int, ...] = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
    signal.SIGXCPU, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR, signal.SIGSTKFLT,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1))
"""Signals whose default action would end this process and leave the terminal as the screen has made it: all but those
that say that a process went wrong, and those that Python ignores. SIGXCPU comes with `ulimit -t`."""


def stop_on_signals(stop: Callable[[], None], hurry: Callable[[], None]) -> list[int]:
    """Make SIGNALS end the run with a last drain; a second signal skips waiting, and a second SIGQUIT everything.

    Returns:
        The signals caught so far; the list grows.
    """
    caught: list[int] = []

    def handle(number: int, _: object) -> None:
        if number == signal.SIGQUIT and number in caught:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        caught.append(number)
        if len(caught) == 1:
            stop()
        else:
            hurry()

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # Keep signals ignored by nohup or by `&` in a script.
            signal.signal(number, handle)
    return caught


@cache
def agent() -> dict[str, str]:
    """Which host the data is from, as in the Elastic Common Schema: `name`, and `address` if it has one.

    The address is the one that this host uses as the source towards other networks, when this was asked first: a
    process that gives up its rights may make no sockets later. Nothing is sent.
    """
    import socket  # later: --help needs none

    found = {"name": socket.gethostname()}
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))
                return found | {"address": probe.getsockname()[0]}
        except OSError:  # no route, or no such family
            continue
    return found
