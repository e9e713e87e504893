"""A Collecting Process in a process of its own, so that it can be killed: writes what arrives, a file a connection.

python export_collector.py DIRECTORY HOST PORT [CERTIFICATE KEY [CLIENT_CA]]

It listens on an IPv4 or IPv6 address, prints the port, and appends each connection's octets to DIRECTORY/NUMBER.ipfix,
unbuffered: what it has read is in the file, also when it is killed.
"""

from __future__ import annotations

import itertools
import socket
import ssl
import sys
import threading
from pathlib import Path


def serve(connection: socket.socket, path: Path) -> None:
    with connection, path.open("wb", buffering=0) as out:
        try:
            while octets := connection.recv(65_536):
                out.write(octets)
        except OSError as error:
            print("ended:", error, flush=True)


def main(directory: Path, host: str, port: int, certificates: list[str]) -> None:
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    context = None
    if certificates:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates[0], certificates[1])
        if len(certificates) > 2:
            context.load_verify_locations(certificates[2])
            context.verify_mode = ssl.CERT_REQUIRED
    print(listener.getsockname()[1], flush=True)
    taken = len(list(directory.iterdir()))
    for number in itertools.count(taken):
        connection, _ = listener.accept()
        try:
            served = context.wrap_socket(connection, server_side=True) if context else connection
        except OSError as error:
            print("refused:", error, flush=True)
            connection.close()
            continue
        threading.Thread(target=serve, args=(served, directory / f"{number:04d}.ipfix"), daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
