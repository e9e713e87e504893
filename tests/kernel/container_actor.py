"""A process of a container made by hand: it moves itself to a control group, takes a name, and talks as it is told.

Arguments: directory of the control group, name. Each line of standard input is a task; each is answered by a line:
`serve PORT` (TCP, answers 100 octets to 100), `talk HOST PORT TIMES` (the client of such a server), `send HOST PORT`
(a datagram), `receive PORT` (datagrams, without an answer), `answer PORT` (datagrams, by a child that ends after one),
`ping HOST`. Answers: the local port, or 0.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

SIZE = 100
"""Octets of a request, and of an answer."""


def exactly(connection: socket.socket) -> bool:
    """Read SIZE octets; False: the connection has ended."""
    left = SIZE
    while left:
        octets = connection.recv(left)
        if not octets:
            return False
        left -= len(octets)
    return True


def serve(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        with connection:
            while exactly(connection):
                connection.sendall(bytes(SIZE))


def receive(receiver: socket.socket) -> None:
    while receiver.recv(SIZE) is not None:
        pass


def talk(host: str, port: str, times: str) -> int:
    with socket.create_connection((host, int(port))) as connection:
        for _ in range(int(times)):
            connection.sendall(bytes(SIZE))
            exactly(connection)
        return int(connection.getsockname()[1])


def main() -> None:
    """See above."""
    group, name = sys.argv[1:]
    (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    Path("/proc/self/comm").write_text(name)
    kept = []
    print(os.getpid(), flush=True)
    for line in sys.stdin:
        task, *words = line.split()
        port = 0
        if task == "serve":
            server = socket.create_server(("0.0.0.0", int(words[0])))
            threading.Thread(target=serve, args=(server,), daemon=True).start()
        elif task == "talk":
            port = talk(*words)
        elif task == "hold":
            kept.append(socket.create_connection((words[0], int(words[1]))))
            port = kept[-1].getsockname()[1]
        elif task == "use":
            kept[-1].sendall(bytes(SIZE))
            exactly(kept[-1])
        elif task == "send":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(bytes(SIZE), (words[0], int(words[1])))
                port = sender.getsockname()[1]
        elif task == "receive":
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            receiver.bind(("0.0.0.0", int(words[0])))
            threading.Thread(target=receive, args=(receiver,), daemon=True).start()
        elif task == "ping":
            subprocess.run(["ping", "-c", "1", words[0]], stdout=subprocess.DEVNULL, check=True)
        print(port, flush=True)


if __name__ == "__main__":
    main()
