"""Namespaces, a sender and a terminal for the benchmarks that run the whole command."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.netns import Namespace, run

REPOSITORY = Path(__file__).resolve().parents[2]
SENDER = REPOSITORY / "tests/kernel/udp_flood.c"


@contextmanager
def sending(namespace: Namespace, *, flows: int, rate: int) -> Iterator[None]:
    """`rate` datagrams a second to `flows` ports of 198.18.0.1, an address beyond the far end that nobody has."""
    with tempfile.TemporaryDirectory() as directory:
        run("cc", "-O2", "-o", f"{directory}/udp_flood", str(SENDER))
        sender = subprocess.Popen(
            namespace.command(f"{directory}/udp_flood", "198.18.0.1", str(flows), "0", "18", str(rate)),
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            sender.communicate()


class InTerminal:
    """A command on a pseudo-terminal of its own; a thread reads what it paints.

    Attributes:
        pid: the child's.
    """

    def __init__(self, words: Sequence[str], columns: int = 120, lines: int = 40) -> None:
        self.started = time.perf_counter()
        self.pid, self._master = pty.fork()
        if not self.pid:
            os.environ["TERM"] = "xterm-256color"
            os.chdir(REPOSITORY)
            os.execvp(words[0], list(words))
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._painted = bytearray()
        self._seen: dict[bytes, float] = {}
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            select.select([self._master], [], [])
            try:
                piece = os.read(self._master, 1 << 16)
            except OSError:  # EIO: the child is gone
                return
            with self._changed:
                self._painted += piece
                self._at = time.perf_counter()
                self._changed.notify_all()

    def painted(self, marks: bytes) -> float:
        """Seconds from the start until these octets had been painted."""
        with self._changed:
            if not self._changed.wait_for(lambda: marks in self._painted, timeout=60):
                raise TimeoutError(f"never painted {marks!r}: {bytes(self._painted[-500:])!r}")
            return self._at - self.started

    def press(self, keys: bytes) -> None:
        """Write keys."""
        os.write(self._master, keys)

    def end(self, keys: bytes) -> None:
        """Write the keys that make it leave, and wait until it has."""
        self.press(keys)
        os.waitpid(self.pid, 0)
        self._reader.join()
        os.close(self._master)


def cpu_seconds(pid: int) -> float:
    """User and system time a process and its ended children have used (proc_pid_stat(5), fields 14 to 17)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def share_of_core(pid: int, seconds: float, sleep: Callable[[float], None] = time.sleep) -> float:
    """CPU a running process uses over `seconds`: 1.0 is one core."""
    before, begin = cpu_seconds(pid), time.perf_counter()
    sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.perf_counter() - begin)
