"""What the kernel sends for nobody says so: answers, WireGuard's tunnel, an NFS mount. The last two on kernels that
have them, as Debian's in tests/vm."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from flowtop.model.kinds import Direction, Protocol
from tests.kernel.device_setup import STEPS
from tests.kernel.netns import Lab, Namespace, eventually
from tests.kernel.test_owners import AS_LISTS_ARE_MADE_S, OwningCapture, Seen, recorder

CLOSED_PORT, NFS, WIREGUARD = 7999, 2049, 51820


def _has(script: str) -> bool:
    return os.geteuid() == 0 and subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True,
                                                check=False).returncode == 0


HERE = ["answers", *(["wireguard"] if _has("ip link add wg0 type wireguard") else []),
        *(["nfs"] if _has("modprobe -q nfsv4; grep -qw nfs4 /proc/filesystems") else [])]


@pytest.mark.parametrize("kind", HERE)
def test_what_the_kernel_sends_itself_says_so(lab: Lab, kind: str) -> None:
    {"answers": _answers, "wireguard": _wireguard, "nfs": _nfs}[kind](lab)


def _named(stage: Namespace, interfaces: tuple[str, ...], act: Callable[[], None],
           as_expected: Callable[[list[Seen]], bool]) -> list[Seen]:
    """Act again and again, until all flows are as expected; these."""
    flows: list[Seen] = []
    with recorder(stage, *interfaces) as recording:
        assert isinstance(recording.capture, OwningCapture)
        capture = recording.capture

        def named() -> bool:
            act()
            flows[:] = capture.seen() if recording.books.batch is not None else []
            return as_expected(flows)

        eventually(named, "all is the kernel's", AS_LISTS_ARE_MADE_S)
    return flows


def _answers(lab: Lab) -> None:
    """It resets connections to ports that nobody has, and answers echo requests, which are of `ping`."""
    stage = lab.namespace()

    def act() -> None:
        stage.run("sh", "-c", "ping -c 1 127.0.0.1; exit 0")
        stage.call(_refused)

    def of_kernel(flows: list[Seen]) -> bool:
        sent = [flow for flow in flows if flow.direction == Direction.EGRESS]
        replies = [flow for flow in sent if flow.protocol == Protocol.ICMP and not flow.destination_port >> 8]
        resets = [flow for flow in sent if flow.protocol == Protocol.TCP and flow.source_port == CLOSED_PORT]
        return bool(replies and resets) and {flow.process for flow in (*replies, *resets)} == {"kernel"}

    requests = [flow.process for flow in _named(stage, ("lo",), act, of_kernel) if flow.protocol == Protocol.ICMP
                and flow.direction == Direction.EGRESS and flow.destination_port >> 8 == 8]
    assert requests and set(requests) == {"ping"}


def _refused() -> None:
    with socket.socket() as connection:
        connection.bind(("127.0.0.1", 30_000))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(ConnectionRefusedError):
            connection.connect(("127.0.0.1", CLOSED_PORT))


def _wireguard(lab: Lab) -> None:
    """Packets in the tunnel are of the process that talks, those that carry them the kernel's, both ways."""
    near, far = lab.pair()
    for number, namespace in enumerate((near, far), 1):
        namespace.ip("link add wg0 type wireguard")
        STEPS["wireguard"](namespace, "wg0", str(number), f"10.77.0.{3 - number}")
        namespace.ip(f"addr add 10.99.0.{number}/24 dev wg0")
        namespace.ip("link set wg0 up")
    with far.call(lambda: socket.create_server(("10.99.0.2", 7000))) as server:
        threading.Thread(target=_echo, args=(server, lambda octets: octets), daemon=True).start()

        def act() -> None:
            with near.call(lambda: socket.create_connection(("10.99.0.2", 7000))) as connection:
                connection.sendall(b"x")
                assert connection.recv(1) == b"x"

        def as_expected(flows: list[Seen]) -> bool:
            outer = [flow for flow in flows if flow.protocol == Protocol.UDP and flow.destination_port == WIREGUARD]
            return {(flow.direction, flow.process) for flow in outer} == {(way, "kernel") for way in Direction}

        inner = [flow for flow in _named(near, ("veth0", "wg0"), act, as_expected) if flow.protocol == Protocol.TCP]
    assert {flow.direction for flow in inner} == set(Direction)
    assert {flow.pid for flow in inner} == {os.getpid()}


MOUNT = """
import ctypes
ctypes.CDLL(None).mount(b"10.77.0.2:/", b"/mnt", b"nfs4", 0, b"vers=4.0,proto=tcp,addr=10.77.0.2,clientaddr=10.77.0.1")
"""
"""Waits for a server that says nothing."""


def _null_reply(octets: bytes) -> bytes:
    """To a call of ONC RPC (RFC 5531) on TCP: procedure 0 is done; no answer to others."""
    if len(octets) < 28:
        return b""
    xid, _, _, _, _, procedure = struct.unpack_from(">6I", octets, 4)
    return b"" if procedure else struct.pack(">I6I", 1 << 31 | 24, xid, 1, 0, 0, 0, 0)


def _nfs(lab: Lab) -> None:
    """The process that mounts waits; the kernel's threads talk to the server."""
    near, far = lab.pair()
    with far.call(lambda: socket.create_server(("10.77.0.2", NFS))) as server:
        threading.Thread(target=_echo, args=(server, _null_reply), daemon=True).start()
        children = []

        def act() -> None:
            if not children:
                children.append(subprocess.Popen(["nsenter", f"--net=/run/netns/{near.name}", "unshare", "-m",
                                                  sys.executable, "-c", MOUNT]))

        def as_expected(flows: list[Seen]) -> bool:
            mine = [flow for flow in flows if NFS in (flow.source_port, flow.destination_port)]
            return {(flow.direction, flow.process) for flow in mine} == {(way, "kernel") for way in Direction}

        try:
            flows = _named(near, ("veth0",), act, as_expected)
        finally:
            for child in children:
                child.kill()
                child.wait()
    assert sum(flow.packets for flow in flows if flow.protocol == Protocol.TCP) > 6


def _echo(server: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    """Answer what comes on each connection."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(connection, answer), daemon=True).start()


def _serve(connection: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    with connection:
        while octets := connection.recv(1 << 16):
            connection.sendall(answer(octets))
