"""Signals that end this process, and how a run handles them; its standard descriptors; which host it runs on."""

from __future__ import annotations

import os
import signal
import socket
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


def occupy_standard_descriptors() -> None:
    """Open /dev/null in place of descriptors 0, 1 and 2 that the parent process has closed.

    Otherwise the next file or socket gets such a number, and a child process, or a library that writes messages to
    descriptor 2, takes it for its input or output. `sys.stdout` and the others remain None.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def agent() -> dict[str, str]:
    """Which host the data is from, as in the Elastic Common Schema: `name`, and `address` if it has one.

    The address is the one that this host uses as the source towards other networks. Nothing is sent.
    """
    found = {"name": socket.gethostname()}
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))
                return found | {"address": probe.getsockname()[0]}
        except OSError:  # no route, or no such family
            continue
    return found
