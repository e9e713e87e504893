"""Notices to the service manager that started this process: it is ready, alive, about to end (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Self

_MISSED = 4
"""Rounds that may be late before the service manager takes the process for dead."""


class Notices:
    """Made before rights are given up: what is connected stays so. As a context manager it closes the connection.

    Args:
        environment: for NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; without the first, nothing is ever sent.
        round_s: time between rounds. If the service manager would not wait for some of them, it is told to.
    """

    def __init__(self, environment: Mapping[str, str], round_s: float) -> None:
        self._socket: socket.socket | None = None
        self._begun = False
        self._watched = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._wait_us = int(environment["WATCHDOG_USEC"]) if environment.get("WATCHDOG_USEC", "").isdecimal() else 0
        self._needed_us = int(round_s * _MISSED * 1_000_000)
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
            self._socket.setblocking(False)
        except OSError:  # whoever listened there is gone
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def after(self, write: Callable[[str], None]) -> Callable[[str], None]:
        """A function that writes a round, and then says that this process is alive; the first time, also ready."""
        if self._socket is None:
            return write

        def written(text: str) -> None:
            write(text)
            self._alive()

        return written

    def stopping(self) -> None:
        """Say that the last rounds, records and packets are being written."""
        self._send("STOPPING=1")

    def _alive(self) -> None:
        lines = [] if self._begun else ["READY=1"]
        if self._wait_us and self._watched:
            if not self._begun and self._wait_us < self._needed_us:
                lines.append(f"WATCHDOG_USEC={self._needed_us}")
            lines.append("WATCHDOG=1")
        self._begun = True
        if lines:
            self._send("\n".join(lines))

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with suppress(OSError):  # its queue is full: the next one will do
                self._socket.send(text.encode())
