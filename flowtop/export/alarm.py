"""Waiting that other threads can end, for an exporter's thread."""

from __future__ import annotations

import math
import select
import socket
import threading

from flowtop.export.context import Waitable


class Alarm:
    """One thread waits, any thread rings."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)

    def ring(self) -> None:
        """End the wait there is, or the next."""
        with self._lock:
            if self._in.fileno() < 0:
                return
            try:
                self._in.send(b"\0")
            except BlockingIOError:
                return  # The thread has not yet looked at the many calls before this one.

    def wait(self, timeout_s: float, connection: Waitable | None = None, *, write: bool = False) -> bool:
        """Wait until it rings or a descriptor is ready, which is what this gives; or for so long.

        By poll, not select, which knows the first 1,024 descriptors only: hooks take two an interface.
        """
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        if connection is not None:
            poll.register(connection.fileno(), select.POLLOUT if write else select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(math.ceil(max(0.0, timeout_s) * 1000))}
        if self._out.fileno() in ready:
            self._out.recv(4096)
        return connection is not None and connection.fileno() in ready

    def close(self) -> None:
        """Ringing does nothing from now on."""
        with self._lock:
            self._in.close()
            self._out.close()
