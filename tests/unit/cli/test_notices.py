"""What a service manager hears: the words of sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowtop.cli.notices import Notices


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """As a service manager listens; it never waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def heard(manager: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(manager.recv(4096).decode())
        except BlockingIOError:
            return found


def rounds(number: int, address: object, round_s: float = 1.0, **environment: str) -> list[str]:
    """Write so many rounds, and stop; returns what was written."""
    written: list[str] = []
    with Notices({"NOTIFY_SOCKET": str(address), **environment}, round_s) as notices:
        write = notices.after(written.append)
        for at in range(number):
            write(f"round {at}")
        notices.stopping()
    return written


def test_the_first_round_says_ready_and_each_one_alive(manager: socket.socket) -> None:
    written = rounds(2, manager.getsockname(), WATCHDOG_USEC="60000000", WATCHDOG_PID=str(os.getpid()))
    assert written == ["round 0", "round 1"]
    assert heard(manager) == ["READY=1\nWATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]


def test_it_is_not_ready_before_there_is_a_round(manager: socket.socket) -> None:
    rounds(0, manager.getsockname(), WATCHDOG_USEC="60000000")
    assert heard(manager) == ["STOPPING=1"]


def test_rounds_that_come_seldom_are_waited_for(manager: socket.socket) -> None:
    rounds(2, manager.getsockname(), 30.0, WATCHDOG_USEC="60000000")
    assert heard(manager) == ["READY=1\nWATCHDOG_USEC=120000000\nWATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}])
def test_without_a_watchdog_or_with_one_of_another_process_it_says_ready(manager: socket.socket,
                                                                         watchdog: dict[str, str]) -> None:
    rounds(3, manager.getsockname(), **watchdog)
    assert heard(manager) == ["READY=1", "STOPPING=1"]


def test_an_abstract_socket_is_one_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0flowtop-test-{os.getpid()}")
        listening.setblocking(False)
        rounds(1, f"@flowtop-test-{os.getpid()}")
        assert heard(listening) == ["READY=1", "STOPPING=1"]


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "vsock:2:1234"])
def test_nobody_who_listens_changes_nothing(address: str) -> None:
    assert rounds(2, address, WATCHDOG_USEC="60000000") == ["round 0", "round 1"]


def test_a_manager_that_does_not_read_never_holds_up_a_round(manager: socket.socket) -> None:
    assert len(rounds(5000, manager.getsockname(), WATCHDOG_USEC="60000000")) == 5000, "more than its queue takes"
