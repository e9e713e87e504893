"""The exports panel in a real terminal, over real traffic: what it began to record, others read."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.kernel.netns import PATIENCE_S, Lab, Namespace, eventually, hooks
from tests.kernel.test_command import assert_nothing_attached, in_a_terminal
from tests.oracle.collectors import ipfix_dump

DATAGRAMS, PAYLOAD = 20, 100
ALONE_S = 0.4
"""After Escape: then it is not the beginning of another key."""


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with Lab() as lab:
        yield lab.pair(offload=False)


@contextmanager
def pinging(namespace: Namespace) -> Iterator[None]:
    pinger = subprocess.Popen(namespace.command("ping", "-q", "-i", "0.05", "10.77.0.2"), stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        pinger.kill()
        pinger.wait()


def user(does: Callable[[int], None]) -> Callable[[int, int], None]:
    """Somebody at the terminal, who takes time while it goes on being painted."""
    def play(terminal: int) -> None:
        try:
            does(terminal)
        except (AssertionError, OSError) as error:  # The test fails by what it sees; no test after it does.
            print("the user:", error)
        finally:
            os.close(terminal)

    def act(_: int, terminal: int) -> None:
        threading.Thread(target=play, args=(os.dup(terminal),), daemon=True).start()  # in_a_terminal closes its own
    return act


def send_datagrams() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(DATAGRAMS):
            sender.sendto(bytes(PAYLOAD), ("198.18.7.7", 5353))


def test_e_and_enter_record_what_follows_and_the_file_grows(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    sizes: list[int] = []

    def recorded() -> int:
        return sum(path.stat().st_size for path in tmp_path.glob("flowtop-*.ipfix"))

    def record(terminal: int) -> None:
        os.write(terminal, b"e\r")
        eventually(lambda: recorded() > 0, "a recording")
        near.call(send_datagrams)
        for _ in range(2):  # the pings' flow goes on, and is reported each second
            sizes.append(recorded())
            eventually(lambda: recorded() > sizes[-1], "a file that grows")
        os.write(terminal, b"eq")

    with pinging(near):
        status, painted = in_a_terminal(near, "-i", "veth0", "-d", "0.3", "--active-timeout", "1", act=user(record),
                                        directory=tmp_path)
    assert (status, len(sizes)) == (0, 2), painted[-2000:]
    path, = tmp_path.glob("flowtop-*.ipfix")
    assert path.name.encode() in painted
    after = painted.rpartition(b"\x1b[?1049l")[2]
    assert f"export file:{path.name}: ".encode() in after
    records, complaints = ipfix_dump(path.read_bytes(), tmp_path)
    datagrams = [fields for fields in (dict(fields) for _, fields in records)
                 if fields.get("destinationIPv4Address") == "198.18.7.7"]
    assert "sequence" not in complaints.lower()
    assert sum(int(fields["packetDeltaCount"]) for fields in datagrams) == DATAGRAMS
    assert sum(int(fields["octetDeltaCount"]) for fields in datagrams) == DATAGRAMS * (20 + 8 + PAYLOAD)
    assert_nothing_attached(near)


def test_a_second_q_does_not_wait_for_a_collector_that_never_answers(
        pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    near, _ = pair
    near.run("ip", "link", "set", "lo", "up")
    with near.call(lambda: socket.create_server(("127.0.0.1", 0), backlog=1)) as listener, pinging(near):
        port = listener.getsockname()[1]
        gone = threading.Event()

        def leave(terminal: int) -> None:
            os.write(terminal, f"eipfix+tls://127.0.0.1:{port}\r".encode())
            eventually(lambda: any(tmp_path.glob("state/spool-*")), "an export")
            deadline = time.monotonic() + PATIENCE_S
            while hooks(near, "veth0"):  # until the panel has heard of it too, what is typed goes into its line
                assert time.monotonic() < deadline, "a last drain"
                for key in (b"\x1b", b"q"):
                    os.write(terminal, key)
                    gone.wait(ALONE_S)
            while not gone.wait(0.3):  # a press that comes before the flush has begun means nothing
                with suppress(OSError):
                    os.write(terminal, b"q")

        status, painted = in_a_terminal(near, "-i", "veth0", "-d", "0.3", "--export-timeout", "3600",
                                        "--state-directory", str(tmp_path / "state"), act=user(leave))
        gone.set()
    assert status == 0, painted[-2000:]
    assert b"spooled for the next run" in painted.rpartition(b"\x1b[?1049l")[2]
    assert b"Traceback" not in painted
