"""When sockets are looked for."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from flowtop.capture.ebpf import owners
from flowtop.owners.book import OwnerBook
from flowtop.owners.cgroups import CgroupPaths
from flowtop.owners.sockets import Scan


def test_a_scan_that_cannot_begin_is_begun_again_when_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "_SCAN_PAUSE_S", 0.01)
    refused = threading.Event()

    def scan() -> Scan:
        if not refused.is_set():
            refused.set()
            raise OSError(errno.EMFILE, "Too many open files")
        return Scan()

    scans = owners.SocketScans(OwnerBook(CgroupPaths(None), clock=time.monotonic), time.monotonic, scan)
    try:
        assert refused.wait(30)
        deadline = time.monotonic() + 30
        while scans.last is None and time.monotonic() < deadline:
            scans.ask()
            time.sleep(0.02)
        assert scans.last is not None
    finally:
        scans.close()


def test_a_scan_that_began_before_the_hooks_is_taken_and_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets that were made between the two would be unknown for ever, if none of their flows asked."""
    monkeypatch.setattr(owners, "_SCAN_PAUSE_S", 0.01)
    first = owners.begin_scan()
    assert first is not None
    begun: list[Scan] = []

    def scan() -> Scan:
        begun.append(Scan())
        return begun[-1]

    scans = owners.SocketScans(OwnerBook(CgroupPaths(None), clock=time.monotonic), time.monotonic, scan, first)
    try:
        deadline = time.monotonic() + 60
        while (scans.last is None or not begun) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert scans.last is not None and len(begun) == 1
    finally:
        scans.close()
        first.close()


def test_a_scan_of_lower_priority() -> None:
    """Its process says so, also when it has ended already, and it is complete."""
    expected = min(os.getpriority(os.PRIO_PROCESS, 0) + 3, 19)
    scan, deadline = Scan(nice=3), time.monotonic() + 60

    def nice() -> int:
        stat = Path(f"/proc/{scan._process.pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[16])  # proc_pid_stat(5): (19)

    while nice() != expected and time.monotonic() < deadline:
        time.sleep(0.005)
    assert nice() == expected
    assert scan.result() is not None


def test_a_scan_that_nobody_takes_leaves_nothing() -> None:
    first = owners.begin_scan()
    assert first is not None
    first.close()
    assert first.scan._process.poll() is not None
