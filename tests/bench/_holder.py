"""A process with many sockets: `python -m tests.bench._holder NUMBER SOCKETS`.

Half of them are of TCP, in pairs; ten of UDP send all the time, until standard input ends. Prints a line when all are
there."""

from __future__ import annotations

import resource
import select
import socket
import sys

FIRST_PORT, SENDERS, PAUSE_S = 10_000, 10, 0.05


def main(number: int, count: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kept = []
    for place in range(count // 2):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((f"127.1.{number}.1", FIRST_PORT + place))
        kept.append(made)
    for place in range(SENDERS):
        kept[place].connect(kept[SENDERS + place].getsockname())
    listener = socket.create_server((f"127.2.{number}.1", FIRST_PORT), backlog=128)
    for place in range(count // 4):
        client = socket.socket()
        client.bind((f"127.3.{number}.1", FIRST_PORT + place))
        client.connect(listener.getsockname())
        kept += [client, listener.accept()[0]]
    print("there", flush=True)
    while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
        for place in range(SENDERS):
            kept[place].send(b"x")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
