"""Network interfaces of the thread's network namespace: list, selection, change notifications and counters."""

from __future__ import annotations

import fnmatch
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flowtop.capture.ebpf.netlink import LINK_GROUPS, DumpInterruptedError, EventSocket, RouteSocket, attributes
from flowtop.errors import EXIT_NO_INPUT, FlowtopError
from flowtop.model.kinds import Direction, Layer
from flowtop.text.suggestions import nearest

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_DELQDISC, _RTM_DELTFILTER = 37, 45
_RTM_GETSTATS = 94
_RTM_GETQDISC = 38
_TCA_STATS2, _TCA_STATS_QUEUE = 7, 3
_ROOT = 0xFFFF_FFFF
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_STATS64, _IFLA_EXT_MASK = 3, 18, 23, 29
_IFLA_INFO_KIND = 1
_RTEXT_FILTER_SKIP_STATS = 1 << 3
_IFLA_STATS_LINK_64 = 1
_IFF_UP = 1
_IFINFOMSG = struct.Struct("=BxHiII")
_IF_STATS_MSG = struct.Struct("=BxxxII")
_COUNTERS = struct.Struct("=4Q")  # the head of struct rtnl_link_stats64
_FAULTS = _COUNTERS.size  # behind it: errors and drops
_TCMSG = struct.Struct("=B3xi3I")
_QUEUE = struct.Struct("=3I")  # the head of struct gnet_stats_queue: packets, octets, drops

Counters = tuple[int, int, int, int]
"""Counters of an interface since it exists: (received packets, sent packets, received octets, sent octets)."""


_LAYER_OF_ARPHRD = {
    1: Layer.ETHERNET,
    772: Layer.ETHERNET,  # loopback
    512: Layer.IP,        # PPP
    519: Layer.IP,        # RAWIP: mobile modems
    768: Layer.IP,        # TUNNEL: IP in IP
    769: Layer.IP,        # TUNNEL6
    776: Layer.IP,        # SIT
    778: Layer.IP,        # IPGRE
    823: Layer.IP,        # IP6GRE
    65534: Layer.IP,      # NONE: tun, WireGuard
}


_NOT_IP = {32: "InfiniBand", 280: "CAN", 801: "802.11 frames", 802: "802.11 frames", 803: "802.11 frames",
           804: "IEEE 802.15.4", 805: "IEEE 802.15.4", 824: "netlink messages", 826: "vsock messages"}
"""What some devices without IP carry, by ARPHRD_*."""
_NEVER_SEEN = {"vrf": frozenset({Direction.INGRESS}), "ifb": frozenset({Direction.INGRESS})}
"""By kind of device, directions that its counters count and no hook sees: packets of another interface, which has seen
them. A VRF takes those of its ports after their ingress, an IFB those that tc redirects."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface.

    Attributes:
        index: ifindex.
        name: current name.
        link_type: ARPHRD_* (uapi/linux/if_arp.h).
        up: IFF_UP is set.
        kind: of a virtual device, as in `ip link add ... type KIND`; else empty.
    """

    index: int
    name: str
    link_type: int
    up: bool
    kind: str = ""

    @property
    def never_seen(self) -> frozenset[Direction]:
        """Directions in which the device counts packets that pass no hook of its."""
        return _NEVER_SEEN.get(self.kind, frozenset())

    @property
    def refusal(self) -> str:
        """Why it cannot be observed, if `layer` is None."""
        carries = _NOT_IP.get(self.link_type)
        return f"link type {self.link_type} is not supported" + (f": it carries {carries}" if carries else "")

    @property
    def layer(self) -> Layer | None:
        """Type of the frames' outermost header; None for devices that flowtop cannot observe."""
        return _LAYER_OF_ARPHRD.get(self.link_type)


def is_glob(pattern: str) -> bool:
    """Whether an interface pattern may match more than one name."""
    return any(character in pattern for character in "*?[")


@dataclass(frozen=True)
class Selection:
    """Interfaces to observe: names and globs as in `-i`; if empty, every interface that is up."""

    patterns: tuple[str, ...] = ()

    def selects(self, interface: Interface) -> bool:
        """Whether to observe this interface. One selected by name or glob need not be up."""
        if not self.patterns:
            return interface.up
        return any(fnmatch.fnmatchcase(interface.name, pattern) if is_glob(pattern) else interface.name == pattern
                   for pattern in self.patterns)

    def require(self, existing: Iterable[Interface]) -> None:
        """Check that names exist. A glob may match nothing yet.

        Raises:
            FlowtopError: an interface named without wildcards does not exist.
        """
        names = sorted(interface.name for interface in existing)
        for pattern in self.patterns:
            if is_glob(pattern) or pattern in names:
                continue
            near = nearest(pattern, names)
            meant = f"did you mean {near[0]}? " if near else ""
            shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise FlowtopError(
                f"no such interface: {pattern}",
                hint=f"{meant}available: {shown}; a glob such as '{pattern}*' waits for its interface",
                exit_code=EXIT_NO_INPUT)


def _c_string(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode("utf-8", "replace")


class Links:
    """Queries interfaces from the kernel; takes a few milliseconds for 400 interfaces.

    Args:
        route: socket in the network namespace to query.
    """

    def __init__(self, route: RouteSocket) -> None:
        self._route = route
        self.faults: dict[int, Counters] = {}
        """(errors in, errors out, dropped in, dropped out) by ifindex, as of the last `counters`."""

    def list(self) -> list[Interface]:
        """All interfaces, in order of ifindex.

        Raises:
            DumpInterruptedError: interfaces change too fast; the list could be incomplete.
        """
        body = _IFINFOMSG.pack(0, 0, 0, 0, 0) + struct.pack("=HHI", 8, _IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
        interfaces = []
        for reply in self._route.dump(_RTM_GETLINK, body):
            _, link_type, index, flags, _ = _IFINFOMSG.unpack_from(reply)
            found = dict(attributes(reply, _IFINFOMSG.size))
            if _IFLA_IFNAME in found:
                about = dict(attributes(found.get(_IFLA_LINKINFO, b""), 0))
                interfaces.append(Interface(index, _c_string(found[_IFLA_IFNAME]), link_type, bool(flags & _IFF_UP),
                                            _c_string(about.get(_IFLA_INFO_KIND, b""))))
        return sorted(interfaces, key=lambda interface: interface.index)

    def counters(self) -> dict[int, Counters]:
        """Counters of every interface by ifindex, as in /proc/net/dev; those of `faults` are read with them.

        If interfaces change too fast, some may be missing until the next call.
        """
        try:
            replies = self._route.dump(_RTM_GETSTATS, _IF_STATS_MSG.pack(0, 0, 1 << (_IFLA_STATS_LINK_64 - 1)))
        except DumpInterruptedError as interrupted:
            replies = interrupted.bodies
        self.faults = {ifindex: numbers for reply in replies for ifindex, numbers in _stats(reply, _FAULTS)}
        return dict(pair for reply in replies for pair in _stats(reply))

    def queues(self) -> dict[int, tuple[int, int]]:
        """(packets dropped, packets waiting) of every interface's root queueing discipline, as in `tc -s qdisc`, by
        ifindex. Without one that queues there is no entry. An interface with changes meanwhile may be missing."""
        try:
            replies = self._route.dump(_RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0))
        except DumpInterruptedError as interrupted:
            replies = interrupted.bodies
        found = {}
        for reply in replies:
            _, ifindex, _, parent, _ = _TCMSG.unpack_from(reply)
            statistics = dict(attributes(reply, _TCMSG.size)).get(_TCA_STATS2, b"") if parent == _ROOT else b""
            queue = dict(attributes(statistics, 0)).get(_TCA_STATS_QUEUE, b"")
            if len(queue) >= _QUEUE.size:
                waiting, _, drops = _QUEUE.unpack_from(queue)
                found[ifindex] = drops, waiting
        return found

    def counters_of(self, ifindex: int) -> Counters | None:
        """Counters of one interface; None if it is gone."""
        try:
            answer = self._route.request(
                _RTM_GETSTATS, 0, _IF_STATS_MSG.pack(0, ifindex, 1 << (_IFLA_STATS_LINK_64 - 1)))
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise
        return dict(_stats(answer[1])).get(ifindex) if answer is not None else None


_GONE = (19, 6)  # ENODEV, ENXIO


def _stats(reply: bytes, offset: int = 0) -> Sequence[tuple[int, Counters]]:
    """Four counters of each interface, from that octet of struct rtnl_link_stats64."""
    _, ifindex, _ = _IF_STATS_MSG.unpack_from(reply)
    return [(ifindex, _COUNTERS.unpack_from(value, offset))
            for kind, value in attributes(reply, _IF_STATS_MSG.size)
            if kind == _IFLA_STATS_LINK_64 and len(value) >= offset + _COUNTERS.size]


@dataclass(frozen=True, slots=True)
class LinkChanges:
    """Changes since the last read.

    Attributes:
        any: something changed: list the interfaces again.
        suspect: ifindexes whose attachment may be gone although the interface is listed (deleted and created again with
            the same index, or its qdisc was removed).
        all_suspect: notifications were dropped, so any attachment may be gone.
        final: last counters of deleted interfaces.
    """

    any: bool = False
    suspect: frozenset[int] = frozenset()
    all_suspect: bool = False
    final: Mapping[int, Counters] = field(default_factory=dict)

    def then(self, later: LinkChanges) -> LinkChanges:
        """Combine these changes with `later` ones."""
        return LinkChanges(self.any or later.any, self.suspect | later.suspect,
                           self.all_suspect or later.all_suspect, {**self.final, **later.final})


class LinkEvents:
    """Notifications of changed interfaces and tc hooks.

    Args:
        events: of LINK_GROUPS, with room for many; None: they are opened.
    """

    def __init__(self, events: EventSocket | None = None) -> None:
        self._events = events or EventSocket(LINK_GROUPS)

    def fileno(self) -> int:
        """For poll(2)."""
        return self._events.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._events.close()

    def read(self) -> LinkChanges:
        """Changes since the last call; does not block."""
        messages, dropped = self._events.read()
        suspect: set[int] = set()
        final: dict[int, Counters] = {}
        changed = dropped
        for kind, body in messages:
            # ifinfomsg and tcmsg both begin with the family and have the ifindex at byte 4.
            family, _, ifindex, _, _ = _IFINFOMSG.unpack_from(body)
            if kind in (_RTM_DELQDISC, _RTM_DELTFILTER):
                suspect.add(ifindex)
            elif kind == _RTM_DELLINK and family == 0:  # AF_BRIDGE: removed from a bridge, not deleted
                suspect.add(ifindex)
                final.update((ifindex, _COUNTERS.unpack_from(value)) for attribute, value
                             in attributes(body, _IFINFOMSG.size) if attribute == _IFLA_STATS64)
            elif kind != _RTM_NEWLINK:
                continue
            changed = True
        return LinkChanges(changed, frozenset(suspect), dropped, final)
