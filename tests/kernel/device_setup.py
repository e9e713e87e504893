"""What devices need beside commands of ip(8): modes and keys by generic netlink, processes that carry packets."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from flowtop.capture.ebpf.netlink import attributes, pack_attribute
from tests.kernel.netns import Namespace

_NESTED = 0x8000
_ACK = 0x5  # NLM_F_REQUEST | NLM_F_ACK
_TUNSETIFF, _IFF = 0x400454CA, {"tun": 0x0001 | 0x1000, "tap": 0x0002 | 0x1000}  # IFF_TUN or IFF_TAP, IFF_NO_PI


def _nest(kind: int, *inner: bytes) -> bytes:
    return pack_attribute(kind | _NESTED, b"".join(inner))


class _Generic:
    """A generic netlink socket (linux/genetlink.h), in the network namespace of the creating thread."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
        self._socket.bind((0, 0))

    def __enter__(self) -> _Generic:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, family: int, command: int, body: bytes) -> bytes:
        """The attributes of the answer, if there is one. Raises OSError."""
        message = struct.pack("=BBH", command, 1, 0) + body
        self._socket.send(struct.pack("=IHHII", 16 + len(message), family, _ACK, 1, 0) + message)
        answer = b""
        while True:
            octets = self._socket.recv(1 << 16)
            while octets:
                length, kind = struct.unpack_from("=IH", octets)
                if kind == 2:  # NLMSG_ERROR, also the acknowledgement
                    (code,) = struct.unpack_from("=i", octets, 16)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return answer
                answer, octets = octets[20:length], octets[(length + 3) & ~3:]

    def family(self, name: bytes) -> int:
        """Number of a family: CTRL_CMD_GETFAMILY."""
        found = dict(attributes(self.request(16, 3, pack_attribute(2, name + b"\0")), 0))
        return int.from_bytes(found[1], "little")


def _index(name: str) -> bytes:
    return struct.pack("=I", socket.if_nametoindex(name))


def _set_team_mode(near: Namespace, device: str, mode: str) -> None:
    """As teamd does: without a mode, a team drops everything. TEAM_CMD_OPTIONS_SET of linux/if_team.h."""
    def ask() -> None:
        with _Generic() as netlink:
            option = _nest(1, pack_attribute(1, b"mode\0"), pack_attribute(3, b"\5"),  # NLA_STRING
                           pack_attribute(4, mode.encode() + b"\0"))
            with suppress(ProcessLookupError):  # it is done, and nobody listens to what is told of that
                netlink.request(netlink.family(b"team"), 1, pack_attribute(1, _index(device)) + _nest(2, option))

    near.call(ask)


_PUBLIC = {"1": bytes.fromhex("a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209"),
           "2": bytes.fromhex("ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59")}
"""X25519 public keys of the private ones that are 32 times the octet 1 and 2."""


def _set_wireguard(near: Namespace, device: str, end: str, endpoint: str) -> None:
    """Keys and the peer: WG_CMD_SET_DEVICE of linux/wireguard.h."""
    other = "2" if end == "1" else "1"
    port = 51820
    address = struct.pack("=H", socket.AF_INET) + port.to_bytes(2, "big") + socket.inet_aton(endpoint) + bytes(8)
    anywhere = _nest(0, pack_attribute(1, struct.pack("=H", socket.AF_INET)), pack_attribute(2, bytes(4)),
                     pack_attribute(3, b"\0"))
    peer = _nest(0, pack_attribute(1, _PUBLIC[other]), pack_attribute(4, address), _nest(9, anywhere))

    def ask() -> None:
        with _Generic() as netlink:
            netlink.request(netlink.family(b"wireguard"), 1, b"".join((
                pack_attribute(1, _index(device)), pack_attribute(3, bytes([int(end)]) * 32),
                pack_attribute(6, struct.pack("=H", port)), _nest(8, peer))))

    near.call(ask)


def _decrypt_early(near: Namespace, device: str) -> None:
    """Have GRO decrypt; a veth has GRO when it is asked for."""
    near.run("ethtool", "-K", device, "gro", "on", "tso", "off")  # with TSO it would go on without


STEPS: dict[str, Callable[..., None]] = {"team-mode": _set_team_mode, "wireguard": _set_wireguard,
                                         "decrypt-early": _decrypt_early}
"""Words that stand for a step of making a device, called with the namespace and the words that follow."""


class Relays:
    """Carries what leaves a tun or tap device to that of the other end, as a tunnel's process does; a context."""

    def __init__(self) -> None:
        self._ends: dict[str, list[int]] = {}
        self._stop, self._ending = os.pipe()
        self._thread = threading.Thread(target=self._run)

    def open(self, namespace: Namespace, device: str, kind: str) -> None:
        """Make a device of one end; both have the same name."""
        def make() -> int:
            descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF[kind]))
            return descriptor

        self._ends.setdefault(device, []).append(namespace.call(make))

    def start(self) -> None:
        """All are made."""
        self._thread.start()

    def _run(self) -> None:
        to = {one: other for pair in self._ends.values() for one, other in (pair, reversed(pair))}
        poll = select.poll()
        for descriptor in (self._stop, *to):
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._stop:
                    return
                with suppress(OSError):  # the other end is not up yet, or down again
                    os.write(to[descriptor], os.read(descriptor, 1 << 16))

    def __enter__(self) -> Relays:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 where: TracebackType | None) -> None:
        os.close(self._ending)
        if self._thread.is_alive():
            self._thread.join()
        for descriptor in (self._stop, *(one for pair in self._ends.values() for one in pair)):
            os.close(descriptor)
