"""Address translation (NAT) of this host's connections, from the kernel's connection tracking.

ctnetlink (uapi/linux/netfilter/nfnetlink_conntrack.h): one dump, then the kernel's notifications of new and ended
connections. The kernel drops those without translation before flowtop sees them.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from flowtop.capture.ebpf.netlink import (
    EventSocket,
    NetlinkSocket,
    attributes,
    pack_attribute,
)
from flowtop.model.kinds import IpVersion, Protocol
from flowtop.model.translations import Flow, Translation, TranslationTexts

MOST_TRANSLATIONS = 32_768
_KEPT_S = 60.0
"""What is known of a connection stays for this time after its end: its flows are still listed."""
_DUMP_ATTEMPTS = 3
_AGAIN_S = 5.0
"""Minimum pause between two dumps."""
_EVENT_OCTETS = 8 << 20
"""Room for notifications, about 8,000 of them."""

_NETFILTER = 12
"""NETLINK_NETFILTER"""
_NEW, _GET, _DELETE = 0x100, 0x101, 0x102
"""NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_*."""
_GROUPS = 1 << 0 | 1 << 2
"""NFNLGRP_CONNTRACK_NEW and _DESTROY."""
_GENERAL = struct.Struct("=BBH")
"""struct nfgenmsg."""
_TUPLE_ORIGINAL, _TUPLE_REPLY, _STATUS = 1, 2, 3
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_V4_SOURCE, _V4_DESTINATION, _V6_SOURCE, _V6_DESTINATION = 1, 2, 3, 4
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_ICMP_TYPE, _ICMP_CODE, _ICMPV6_TYPE, _ICMPV6_CODE = 5, 6, 8, 9
_SOURCE_NAT, _DESTINATION_NAT = 1 << 4, 1 << 5
_NAT = _SOURCE_NAT | _DESTINATION_NAT

_INSTRUCTION = struct.Struct("=HBBI")
_FIND_ATTRIBUTE = 0xFFFF_F000 + 12
"""SKF_AD_OFF + SKF_AD_NLATTR."""
NAT_ONLY = b"".join(_INSTRUCTION.pack(*one) for one in (
    (0x00, 0, 0, 16 + _GENERAL.size),  # A = offset of the first attribute
    (0x01, 0, 0, _STATUS),             # X = type that is looked for
    (0x20, 0, 0, _FIND_ATTRIBUTE),     # A = its offset, or 0
    (0x15, 3, 0, 0),                   # none: drop
    (0x07, 0, 0, 0),                   # X = A
    (0x40, 0, 0, 4),                   # A = its value
    (0x45, 1, 0, _NAT),                # translated: keep
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFF_FFFF)))
"""Classic BPF (uapi/linux/filter.h): of notifications, those of connections with translation."""

TRACKING = Path("/proc/sys/net/netfilter/nf_conntrack_count")
"""Number of connections that are tracked in the network namespace of who reads it."""


def tracked_connections(path: Path = TRACKING) -> int:
    """How many connections this thread's network namespace tracks; 0: it has no connection tracking."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _tuple(value: bytes) -> Flow | None:
    parts = dict(attributes(value, 0))
    addresses = dict(attributes(parts.get(_TUPLE_IP, b""), 0))
    protocol = dict(attributes(parts.get(_TUPLE_PROTOCOL, b""), 0))
    version = IpVersion.V4 if _V4_SOURCE in addresses else IpVersion.V6
    source, destination = (_V4_SOURCE, _V4_DESTINATION) if version == IpVersion.V4 else (_V6_SOURCE, _V6_DESTINATION)
    number = protocol.get(_NUMBER, b"")
    if len(number) != 1 or source not in addresses or destination not in addresses:
        return None
    if number[0] in (Protocol.ICMP, Protocol.ICMPV6):
        kind, code = (_ICMP_TYPE, _ICMP_CODE) if number[0] == Protocol.ICMP else (_ICMPV6_TYPE, _ICMPV6_CODE)
        ports = 0, int.from_bytes(protocol.get(kind, b"")[:1] + protocol.get(code, b"")[:1], "big")
    else:
        ports = (int.from_bytes(protocol.get(_SOURCE_PORT, b"")[:2], "big"),
                 int.from_bytes(protocol.get(_DESTINATION_PORT, b"")[:2], "big"))
    return Flow(addresses[source].ljust(16, b"\0")[:16], addresses[destination].ljust(16, b"\0")[:16], *ports,
                number[0], int(version)).plain()


def translation_of(body: bytes) -> Translation | None:
    """What a message says of a connection; None: no address of it is translated, or it is cut."""
    found = dict(attributes(body, _GENERAL.size))
    status = int.from_bytes(found.get(_STATUS, b"")[:4], "big")
    original, reply = (_tuple(found.get(which, b"")) for which in (_TUPLE_ORIGINAL, _TUPLE_REPLY))
    if not status & _NAT or original is None or reply is None:
        return None
    return Translation.of(original, reply.turned())


def begin_dump(status: int) -> NetlinkSocket:
    """Ask for the connections of this thread's network namespace that have this bit in their status. The kernel selects
    by it since Linux 5.15; before, it lists all. Raises OSError."""
    netlink = NetlinkSocket(_NETFILTER)
    request = _GENERAL.pack(socket.AF_UNSPEC, 0, 0) + pack_attribute(_STATUS, struct.pack(">I", status))
    try:
        netlink.begin_dump(_GET, request)
    except OSError:
        netlink.close()
        raise
    return netlink


def open_events() -> EventSocket:
    """Notifications of translated connections of this thread's network namespace. Raises OSError."""
    return EventSocket(_GROUPS, _NETFILTER, octets=_EVENT_OCTETS, select=NAT_ONLY)


def adopted_dump(descriptor: int) -> NetlinkSocket:
    """What `begin_dump` gave another process."""
    return NetlinkSocket(_NETFILTER, descriptor)


def adopted_events(descriptor: int) -> EventSocket:
    """What `open_events` gave another process."""
    return EventSocket(_GROUPS, _NETFILTER, bound=descriptor)


STATUSES = (_SOURCE_NAT, _DESTINATION_NAT)
"""For `begin_dump`."""


def dump_translations(begin: Callable[[int], NetlinkSocket] = begin_dump) -> Iterator[Translation]:
    """Those of this thread's network namespace now. Raises OSError.

    Args:
        begin: `begin_dump`, or a helper's.
    """
    for status in STATUSES:
        for _ in range(_DUMP_ATTEMPTS):
            with closing(begin(status)) as netlink:
                bodies, interrupted = netlink.end_dump()
            if not interrupted:
                break
        yield from filter(None, map(translation_of, bodies))


class Translations:
    """Translated connections of one network namespace, by conversation. For any thread, once open.

    Args:
        clock: seconds, monotonic.
        most: connections to keep.
        events: opens the kernel's notifications.
        begin: begins a dump: see `dump_translations`.

    Attributes:
        texts: the other side of flows, for details; always of now.
        refused: why they are not known; "": they are, or nothing is translated.
        missed: how often notifications were lost, and how many connections were too many.
    """

    def __init__(self, clock: Callable[[], float], most: int = MOST_TRANSLATIONS, *,
                 events: Callable[[], EventSocket] = open_events,
                 begin: Callable[[int], NetlinkSocket] = begin_dump) -> None:
        self._open_events = events
        self._begin = begin
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._known: dict[bytes, Translation] = {}
        self._new: list[Translation] = []
        self._ended: deque[tuple[float, Translation]] = deque()
        self._events: EventSocket | None = None
        self._dumped_s = 0.0
        self._incomplete = False
        self.texts = TranslationTexts(self._known)
        self.refused = ""
        self.missed = 0

    def open(self) -> None:
        """Begin to follow those of this thread's network namespace, if it is not followed yet. Costs a dump."""
        if self._events is not None or self.refused or not tracked_connections():
            return
        try:
            self._events = self._open_events()
            self._dump()
        except OSError as error:
            self.refused = error.strerror or str(error)

    def _dump(self) -> None:
        found = list(dump_translations(self._begin))
        with self._lock:
            self._dumped_s, self._incomplete = self._clock(), False
            for one in found:
                self._store(one)

    def renew(self) -> None:
        """Read the notifications that have arrived, and dump again if some were lost."""
        self.take()
        if self._incomplete and self._clock() - self._dumped_s >= _AGAIN_S:
            try:
                self._dump()
            except OSError:  # the next call tries again
                self._dumped_s = self._clock()

    def take_new(self) -> list[Translation]:
        """Connections that were found since the last call, up to now."""
        self.take()
        with self._lock:
            new, self._new = self._new, []
            return new

    def take(self) -> None:
        """Read the notifications that have arrived."""
        with self._lock:
            if self._events is None:
                return
            messages, dropped = self._events.read()
            if dropped:
                self._incomplete = True
                self.missed += 1
            for kind, body in messages:
                one = translation_of(body)
                if one is not None and kind == _NEW:
                    self._store(one)
                elif one is not None and kind == _DELETE:
                    self._ended.append((self._clock() + _KEPT_S, self._known.get(one.one, one)))
            while self._ended and self._ended[0][0] <= self._clock():
                self._forget(self._ended.popleft()[1])

    def _store(self, one: Translation) -> None:
        while len(self._known) >= 2 * self._most and self._ended:
            self._forget(self._ended.popleft()[1])
        if len(self._known) >= 2 * self._most and one.one not in self._known:
            self.missed += 1
            return
        self._known[one.one] = self._known[one.other] = one
        self._new.append(one)

    def _forget(self, one: Translation) -> None:
        for key in (one.one, one.other):
            if self._known.get(key) is one:
                del self._known[key]

    def close(self) -> None:
        """Close the socket."""
        with self._lock:
            if self._events is not None:
                self._events.close()
                self._events = None
