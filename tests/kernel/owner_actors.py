"""Processes that use sockets in a known way: `python -m tests.kernel.owner_actors ACTOR [ARGUMENTS]`.

Each prints one JSON object for each socket, by the process that uses it: its own pid and name, the protocol, the
local port, the port of the peer (0: of any), and how many octets of payload in how many datagrams it sent. After that
it waits for the end of its standard input, so that what it is stays to be looked at.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import sys
import threading
import time
from pathlib import Path

PAUSE_S = 0.3
"""Between the parts of a conversation: longer than a test's tick."""


def take_name(name: str) -> None:
    """Rename this process, as prctl(PR_SET_NAME) of its first thread does."""
    Path("/proc/self/comm").write_text(name)


def say(protocol: int, port: int, peer: int = 0, payload: int = 0, datagrams: int = 0) -> None:
    line = json.dumps({"pid": os.getpid(), "name": Path("/proc/self/comm").read_text().strip(), "protocol": protocol,
                       "port": port, "peer": peer, "payload": payload, "datagrams": datagrams}) + "\n"
    os.write(1, line.encode())


def send_udp(sender: socket.socket, address: str, ports: range, size: int = 100, times: int = 5) -> None:
    """Datagrams to many peers; nobody may be there: what comes back then is ignored."""
    for _ in range(times):
        for port in ports:
            try:
                sender.sendto(bytes(size), (address, port))
            except ConnectionRefusedError:
                sender.sendto(bytes(size), (address, port))
    say(socket.IPPROTO_UDP, sender.getsockname()[1], 0, size * times * len(ports), times * len(ports))


def udp(address: str = "127.0.0.1") -> None:
    take_name("a-udp")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    send_udp(socket.socket(family, socket.SOCK_DGRAM), address, range(7001, 7004))


def udp_connected() -> None:
    take_name("a-connected")
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(receiver.getsockname())
    for _ in range(10):
        sender.send(bytes(200))
    say(socket.IPPROTO_UDP, sender.getsockname()[1], 0, 2000, 10)
    say(socket.IPPROTO_UDP, receiver.getsockname()[1])


def talk(connection: socket.socket) -> None:
    """The client's part of a conversation: data in two parts, and an answer to each."""
    for _ in range(2):
        time.sleep(PAUSE_S)
        connection.sendall(bytes(5000))
        connection.recv(1)
    say(socket.IPPROTO_TCP, connection.getsockname()[1], connection.getpeername()[1], 10_000)


def answer(connection: socket.socket) -> None:
    """The server's part."""
    left = 10_000
    while left:
        left -= len(connection.recv(min(left, 5000)))
        if left in (5000, 0):
            connection.sendall(b"x")
    say(socket.IPPROTO_TCP, connection.getsockname()[1], connection.getpeername()[1], 2)


def tcp(address: str, port: str, count: str = "1") -> None:
    """Clients, one after another."""
    take_name("a-client")
    kept = []
    for _ in range(int(count)):
        kept.append(socket.create_connection((address, int(port))))
        talk(kept[-1])
    wait()


def listener(address: str = "127.0.0.1", *, reuse: bool = False, port: int = 0) -> socket.socket:
    """A listening socket."""
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    if reuse:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((address, port))
    made.listen(64)
    return made


def clients(made: socket.socket, count: int) -> None:
    """Start a process of clients of a listening socket."""
    connecting(*made.getsockname()[:2], count)


def connecting(address: str, port: int, count: int) -> None:
    """Start a process of clients."""
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-m", __spec__.name, "tcp", address, str(port), str(count)])


def worker(name: str, made: socket.socket, count: int = 1) -> None:
    """A child that accepts connections."""
    if os.fork() == 0:
        take_name(name)
        kept = []
        for _ in range(count):
            connection, _ = made.accept()
            kept.append(connection)
            answer(connection)
        wait()
        os._exit(0)


def server(address: str = "127.0.0.1") -> None:
    take_name("a-server")
    made = listener(address)
    clients(made, 1)
    answer(made.accept()[0])


def prefork() -> None:
    take_name("a-master")
    made = listener()
    worker("a-worker-1", made)
    worker("a-worker-2", made)
    clients(made, 2)


def threaded() -> None:
    take_name("a-threaded")
    made = listener()

    def serve() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("some-thread")
        connection = made.accept()[0]
        answer(connection)
        kept.append(connection)

    kept: list[socket.socket] = []
    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    clients(made, 2)
    for thread in threads:
        thread.join()
    wait()


def reuseport(port: str = "7100") -> None:
    """Two processes have a UDP socket and a listening one each on one port; datagrams and connections come from many
    peers. Each says who sent to it."""
    for name in ("a-first", "a-second"):
        if os.fork() == 0:
            take_name(name)
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            receiver.bind(("127.0.0.1", int(port)))
            made = listener(reuse=True, port=int(port))
            while 0 not in (ready := select.select([receiver, made, 0], [], [])[0]):
                if receiver in ready:
                    _, peer = receiver.recvfrom(100)
                    say(socket.IPPROTO_UDP, int(port), peer[1])
                if made in ready:
                    kept.append(made.accept()[0])
                    answer(kept[-1])
            os._exit(0)
    time.sleep(PAUSE_S)
    connecting("127.0.0.1", int(port), 4)
    take_name("a-many")
    for _ in range(20):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.sendto(bytes(10), ("127.0.0.1", int(port)))
        say(socket.IPPROTO_UDP, sender.getsockname()[1], int(port), 10, 1)
        kept.append(sender)


kept: list[socket.socket] = []


def passed() -> None:
    """A listening and a UDP socket are made here and used by the process that they are sent to."""
    take_name("a-giver")
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.fork() == 0:
        here.close()
        take_name("a-taker")
        _, ancillary, _, _ = there.recvmsg(1, socket.CMSG_LEN(8))
        descriptors = array.array("i", ancillary[0][2])
        send_udp(socket.socket(fileno=descriptors[1]), "127.0.0.1", range(7001, 7002))
        answer(socket.socket(fileno=descriptors[0]).accept()[0])
        wait()
        os._exit(0)
    made, sender = listener(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno(), sender.fileno()]))])
    clients(made, 1)


def activated(path: str) -> None:
    """A service manager listens, and executes the service, which inherits the socket."""
    take_name("a-manager")
    made = listener()
    clients(made, 1)
    if os.fork() == 0:
        made.set_inheritable(True)
        os.execv(path, [path, "-m", __spec__.name, "service", str(made.fileno())])


def service(descriptor: str) -> None:
    answer(socket.socket(fileno=int(descriptor)).accept()[0])
    wait()


def executing(path: str) -> None:
    """A socket is made before an exec and used after it."""
    take_name("a-before")
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.set_inheritable(True)
    os.execv(path, [path, "-m", __spec__.name, "executed", str(sender.fileno())])


def executed(descriptor: str) -> None:
    send_udp(socket.socket(fileno=int(descriptor)), "127.0.0.1", range(7001, 7002))


def forking() -> None:
    """A connection is made, and used by a child of the same name."""
    take_name("a-forking")
    made = listener()
    worker("a-peer", made)
    connection = socket.create_connection(made.getsockname())
    if os.fork() == 0:
        talk(connection)
        wait()
        os._exit(0)


def renamed() -> None:
    take_name("a-old-name")
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(bytes(100), ("127.0.0.1", 7001))
    time.sleep(PAUSE_S)
    take_name("a-new-name")
    send_udp(sender, "127.0.0.1", range(7001, 7002))


def wait() -> None:
    """Until standard input ends."""
    while os.read(0, 1):
        pass


def main() -> None:
    globals()[sys.argv[1].replace("-", "_")](*sys.argv[2:])
    wait()


if __name__ == "__main__":
    main()
