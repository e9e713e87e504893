"""Processes of the `owners` benchmark: `python -m tests.bench._movers ROLE ADDRESS`.

A mover sends a known amount from a port of its own; each prints its pid, name, protocol and port, and lives until the
end of its standard input.
"""

from __future__ import annotations

import array
import os
import socket
import sys
import time
from pathlib import Path

OCTETS = 200_000
PORT = 4000
ROLES = {"connects": 30_001, "sends": 30_002, "execs": 30_003, "passes": 30_004}
"""A connection; datagrams to many peers; a socket that is used after an exec; one that another process was given."""


def say(kind: str, port: int, name: str) -> None:
    Path("/proc/self/comm").write_text(name)
    os.write(1, f"{os.getpid()} {name} {kind} {port}\n".encode())


def made(kind: int, port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, kind)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("", port))
    return found


def datagrams(sender: socket.socket, address: str) -> None:
    for number in range(OCTETS // 1000):
        sender.sendto(bytes(1000), (address, PORT + number % 7))
        time.sleep(0.01)


def connects(address: str, port: int) -> None:
    say("tcp", port, "a-connecter")
    sender = made(socket.SOCK_STREAM, port)
    sender.connect((address, PORT))
    for _ in range(OCTETS // 10_000):
        sender.sendall(bytes(10_000))
        time.sleep(0.1)
    wait()


def sends(address: str, port: int) -> None:
    say("udp", port, "a-sender")
    datagrams(made(socket.SOCK_DGRAM, port), address)


def execs(address: str, port: int) -> None:
    Path("/proc/self/comm").write_text("a-before")
    sender = made(socket.SOCK_DGRAM, port)
    sender.set_inheritable(True)
    os.execv(sys.executable, [sys.executable, "-m", __spec__.name, "executed", address, str(sender.fileno())])


def executed(address: str, descriptor: int) -> None:
    sender = socket.socket(fileno=descriptor)
    say("udp", sender.getsockname()[1], "an-executed")
    datagrams(sender, address)


def passes(address: str, port: int) -> None:
    Path("/proc/self/comm").write_text("a-giver")
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.fork() == 0:
        _, ancillary, _, _ = there.recvmsg(1, socket.CMSG_LEN(4))
        say("udp", port, "a-taker")
        datagrams(socket.socket(fileno=array.array("i", ancillary[0][2])[0]), address)
        wait()
        os._exit(0)
    sender = made(socket.SOCK_DGRAM, port)
    here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sender.fileno()]))])


def wait() -> None:
    while os.read(0, 1):
        pass


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    wait()
