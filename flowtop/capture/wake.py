"""What ends a wait from another thread."""

from __future__ import annotations

import os
import weakref


class Wake:
    """An event file descriptor that is open as long as this object lives.

    So `call` needs no lock: signal handlers interrupt one another, and may come before a capture is open and after it
    has been closed.
    """

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    def fileno(self) -> int:
        """Readable from `call` to `heard`."""
        return self._descriptor

    def call(self) -> None:
        """End a wait, now or the next one. Any thread, and signal handlers."""
        try:
            os.eventfd_write(self._descriptor, 1)
        except BlockingIOError:
            return  # 2**64 - 2 calls that nobody has heard yet: one more says nothing new

    def heard(self) -> None:
        """The wait has ended."""
        os.eventfd_read(self._descriptor)
