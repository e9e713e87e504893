"""What the kernel sends for nobody says so: answers, tunnels, an NFS mount. WireGuard and NFS on kernels that have
them, as Debian's in tests/vm."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from flowtop.model.kinds import Direction, Protocol
from tests.kernel.device_setup import STEPS
from tests.kernel.netns import Lab, Namespace, eventually, process
from tests.kernel.test_owners import AS_LISTS_ARE_MADE_S, OwningCapture, Seen, recorder

CLOSED_PORT, NFS, WIREGUARD, VXLAN = 7999, 2049, 51820, 4789


def _has(script: str) -> bool:
    return os.geteuid() == 0 and subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True,
                                                check=False).returncode == 0


HERE = ["answers", *(["vxlan"] if _has("ip link add tunnel0 type vxlan id 5 dstport 4789") else []),
        *(["wireguard"] if _has("ip link add tunnel0 type wireguard") else []),
        *(["nfs", "older nfs"] if _has("modprobe -q nfsv4; grep -qw nfs4 /proc/filesystems") else [])]


@pytest.mark.devices
@pytest.mark.timeout(2 * AS_LISTS_ARE_MADE_S)
@pytest.mark.parametrize("kind", HERE)
def test_what_the_kernel_sends_itself_says_so(lab: Lab, kind: str) -> None:
    if kind == "answers":
        _answers(lab)
    elif kind.endswith("nfs"):
        _nfs(lab, older=kind.startswith("older"))
    else:
        _tunnel(lab, kind)


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


def _tunnel(lab: Lab, kind: str) -> None:
    """Packets in the tunnel are of the process that talks, those that carry them the kernel's, both ways."""
    near, far = lab.pair()
    for number, namespace in enumerate((near, far), 1):
        if kind == "wireguard":
            namespace.ip("link add tunnel0 type wireguard")
            STEPS["wireguard"](namespace, "tunnel0", str(number), f"10.77.0.{3 - number}")
        else:
            namespace.ip(f"link add tunnel0 type vxlan id 5 local 10.77.0.{number} remote 10.77.0.{3 - number} "
                         f"srcport {VXLAN} {VXLAN + 1} dstport {VXLAN}")
        namespace.ip(f"addr add 10.99.0.{number}/24 dev tunnel0")
        namespace.ip("link set tunnel0 up")
    with far.call(lambda: socket.create_server(("10.99.0.2", 7000))) as server:
        threading.Thread(target=_echo, args=(server, lambda octets: octets), daemon=True).start()

        def act() -> None:
            with near.call(lambda: socket.create_connection(("10.99.0.2", 7000))) as connection:
                connection.sendall(b"x")
                assert connection.recv(1) == b"x"

        def as_expected(flows: list[Seen]) -> bool:
            outer = [flow for flow in flows if flow.protocol == Protocol.UDP
                     and flow.destination_port in (WIREGUARD, VXLAN)]
            return {(flow.direction, flow.process) for flow in outer} == {(way, "kernel") for way in Direction}

        flows = _named(near, ("veth0", "tunnel0"), act, as_expected)
    inner = [flow for flow in flows if flow.protocol == Protocol.TCP]
    assert {flow.direction for flow in inner} == set(Direction)
    assert {flow.pid for flow in inner} == {os.getpid()}


MOUNT = """
import ctypes
options = b"vers=4.0,proto=tcp,timeo=100,retrans=20,addr=10.77.0.2,clientaddr=10.77.0.1"
ctypes.CDLL(None).mount(b"10.77.0.2:/", b"/mnt", b"nfs4", 0, options)
"""
"""Waits for a server that says nothing more, and asks it again every ten seconds."""


def _null_reply(octets: bytes) -> bytes:
    """To a call of ONC RPC (RFC 5531) on TCP: procedure 0 is done; no answer to others."""
    if len(octets) < 28:
        return b""
    xid, _, _, _, _, procedure = struct.unpack_from(">6I", octets, 4)
    return b"" if procedure else struct.pack(">I6I", 1 << 31 | 24, xid, 1, 0, 0, 0, 0)


def _nfs(lab: Lab, *, older: bool) -> None:
    """The process that mounts waits; the kernel's threads talk to the server. The mount is made while flowtop runs, or
    is older: then there is only that no process has the socket."""
    near, far = lab.pair()
    with far.call(lambda: socket.create_server(("10.77.0.2", NFS))) as server, ExitStack() as opened:
        served = threading.Event()

        def reply(octets: bytes) -> bytes:
            served.set()
            return _null_reply(octets)

        threading.Thread(target=_echo, args=(server, reply), daemon=True).start()

        def mount() -> None:
            opened.enter_context(process("nsenter", f"--net=/run/netns/{near.name}", "unshare", "-m", sys.executable,
                                         "-c", MOUNT))
            assert served.wait(AS_LISTS_ARE_MADE_S)

        def act() -> None:
            if not served.is_set():
                mount()

        def as_expected(flows: list[Seen]) -> bool:
            mine = [flow for flow in flows if NFS in (flow.source_port, flow.destination_port)]
            return {(flow.direction, flow.process) for flow in mine} == {(way, "kernel") for way in Direction}

        if older:
            mount()
        _named(near, ("veth0",), act, as_expected)


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
