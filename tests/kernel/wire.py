"""A veth pair in a network namespace of its own, with the programs attached: for what a test run cannot carry.

The namespace has no name and no process; it lives in the descriptors held here and vanishes with them.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flowtop.capture.ebpf import bpf
from flowtop.model.kinds import Direction
from tests.kernel.observer import Books, Observer

NEAR, FAR = "flowwire0", "flowwire1"
_CLONE_NEWNET = 0x40000000
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_ETH_P_ALL = 3
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


class Wire:
    """Frames sent here pass the egress program of one interface and the ingress program of its peer."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._descriptors: list[int] = []
        self.ifindex = {Direction.EGRESS: 0, Direction.INGRESS: 0}

    def __enter__(self) -> Wire:
        try:
            with ThreadPoolExecutor(1) as thread:  # namespaces belong to threads: this one's ends with it
                thread.submit(self._build).result()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def send(self, *frames: bytes, linear: int = 0) -> None:
        """Send each frame; `linear`: how many octets of it shall lie in the skb's linear part (of large frames)."""
        for frame in frames:
            self._socket.send(struct.pack("=BBHHHH", 0, 0, linear or len(frame), 0, 0, 0) + frame)

    def take(self, direction: Direction, frames: int) -> Books:
        """The books of one end once `frames` frames have passed it; the other end's flows are thrown away."""
        deadline = time.monotonic() + 60
        while (self._observer.totals(direction, ifindex=self.ifindex[direction])["frames"] < frames
               and time.monotonic() < deadline):
            time.sleep(0.01)
        books = self._observer.take(direction, ifindex=self.ifindex[direction])
        return Books([flow for flow in books.flows if flow.direction == direction], books.aggregates, books.totals,
                     books.inserted, [parent for parent in books.parents if parent.direction == direction])

    def _build(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), "unshare")
        for family in ("all", "default"):  # nothing but the test's own frames
            setting = Path(f"/proc/sys/net/ipv6/conf/{family}/disable_ipv6")
            if setting.exists():
                setting.write_text("1")
        ip = ["ip", "link"]
        subprocess.run([*ip, "add", NEAR, "mtu", "65535", "type", "veth", "peer", "name", FAR, "mtu", "65535"],
                       check=True)
        for name in (NEAR, FAR):
            subprocess.run([*ip, "set", name, "up"], check=True)
        # Until the kernel's link watch has run, perhaps a second later on a busy machine, a sent frame passes the
        # egress program and then falls to the no-op queue.
        while subprocess.run([*ip, "show", "up"], check=True, capture_output=True).stdout.count(b"state UP") < 2:
            time.sleep(0.005)
        ends = {Direction.EGRESS: (NEAR, bpf.ATTACH_TCX_EGRESS), Direction.INGRESS: (FAR, bpf.ATTACH_TCX_INGRESS)}
        for direction, (name, attach_type) in ends.items():
            self.ifindex[direction] = socket.if_nametoindex(name)
            self._observer.own_slot(self.ifindex[direction])
            program = self._observer.program.programs[f"flow_{direction.name.lower()}"]
            self._descriptors.append(bpf.link_create_tcx(program, self.ifindex[direction], attach_type))
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self._socket.bind((NEAR, _ETH_P_ALL))

    def _close(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()
        while self._descriptors:
            os.close(self._descriptors.pop())


class Tunnel:
    """A tun device in a network namespace of its own, the ingress program attached: packets without link header."""

    NAME = "flowtun0"

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._descriptors: list[int] = []

    def __enter__(self) -> Tunnel:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(self._build).result()
        return self

    def __exit__(self, *_: object) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())

    def bring(self, packet: bytes) -> None:
        """A packet arrives."""
        os.write(self._device, packet)

    def take(self, frames: int) -> Books:
        """The books once so many have passed."""
        deadline = time.monotonic() + 60
        while (self._observer.totals(Direction.INGRESS, ifindex=self._ifindex)["frames"] < frames
               and time.monotonic() < deadline):
            time.sleep(0.01)
        return self._observer.take(Direction.INGRESS, ifindex=self._ifindex)

    def _build(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), "unshare")
        self._device = os.open("/dev/net/tun", os.O_RDWR)
        self._descriptors.append(self._device)
        fcntl.ioctl(self._device, _TUNSETIFF, struct.pack("16sH22x", self.NAME.encode(), _IFF_TUN | _IFF_NO_PI))
        subprocess.run(["ip", "link", "set", self.NAME, "up"], check=True)
        self._ifindex = socket.if_nametoindex(self.NAME)
        self._observer.layer3 = True
        self._observer.own_slot(self._ifindex)
        program = self._observer.program.programs["flow_ingress"]
        self._descriptors.append(bpf.link_create_tcx(program, self._ifindex, bpf.ATTACH_TCX_INGRESS))
