"""A collector that reads and counts and does nothing else: python -m tests.bench._sink {tcp,udp}

It listens on 127.0.0.1, prints the port, reads until its standard input ends, and prints how many octets (tcp) or
IPFIX Messages and octets (udp) it has read.
"""

from __future__ import annotations

import select
import socket
import sys

_BUFFER_OCTETS = 1 << 20
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h: Python's socket module lacks it.


def _count(readable: socket.socket, closing: int) -> tuple[int, int]:
    """Reads and octets until standard input or the connection ends, and nothing is left to read."""
    buffer = bytearray(_BUFFER_OCTETS)
    reads = octets = 0
    while True:
        ready, _, _ = select.select([readable, closing], [], [])
        if readable in ready:
            got = readable.recv_into(buffer)
            if not got:
                return reads, octets
            reads, octets = reads + 1, octets + got
        elif closing in ready:
            return reads, octets


def main(kind: str) -> None:
    if kind == "tcp":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            print(listener.getsockname()[1], flush=True)
            connection, _ = listener.accept()
    else:
        connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        connection.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 * _BUFFER_OCTETS)
        connection.bind(("127.0.0.1", 0))
        print(connection.getsockname()[1], flush=True)
    with connection:
        print(*_count(connection, sys.stdin.fileno()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
