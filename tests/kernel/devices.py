"""Kinds of network devices: how to make one of each between two namespaces, and what its own counters count otherwise.

The manual's table of devices is made from this list, and `test_devices.py` runs all of it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

_KEYS = "enc cbc(aes) 0x000102030405060708090a0b0c0d0e0f auth hmac(sha256) 0x" + "0b" * 32


@dataclass(frozen=True)
class Device:
    """A kind of device.

    Attributes:
        kind: its name in `ip link`, and what distinguishes it from others of that kind.
        make: commands of `ip` for each end. {under} is the end of a veth pair of its own, with the addresses {here} and
            {there} (or {here6}, {there6}); {dev} is the device to make, with the addresses {near} and {far} (or
            {near6}).
        observe: the device to look at.
        since: first Linux that has it, where it is younger than flowtop's oldest.
        compared: series of Linux on which the comparison has passed.
        inside: the address to send to.
        received, sent: octets that the device's counters have in addition to the frames that the hooks see, for each.
        unseen: of "rx" and "tx", what its counters count and no hook sees.
        decrypts: packets come by as ESP, and after decryption once more.
        redirect: commands of `tc` that let what {under} receives pass the device, which sends it back.
    """

    kind: str
    make: str = ""
    observe: str = "{dev}"
    since: tuple[int, int] = (5, 7)
    compared: tuple[str, ...] = ()
    inside: str = "10.99.{n}.2"
    received: int = 0
    sent: int = 0
    unseen: tuple[str, ...] = ()
    decrypts: bool = False
    redirect: str = ""

    @property
    def received_note(self) -> str:
        """For the manual: what is counted at ingress."""
        if self.decrypts:
            return "ESP packets; decrypted ones beside"
        return _octets_note(self.received)

    @property
    def sent_note(self) -> str:
        """For the manual: what is counted at egress."""
        return "ESP packets" if self.decrypts else _octets_note(self.sent)

    @property
    def type(self) -> str:
        """Of `ip link add ... type`."""
        return self.kind.split()[0]

    @property
    def ipv6(self) -> bool:
        """Whether IPv6 is needed, inside or around."""
        return "6}" in self.make

    def fill(self, text: str, number: int, end: int) -> str:
        """A text of this kind's for one end, 1 or 2, of the device of this number."""
        return text.format(
            n=number, under=f"u{number}", dev=f"d{number}",
            here=f"10.77.{number}.{end}", there=f"10.77.{number}.{3 - end}",
            here6=f"fd77:{number}::{end}", there6=f"fd77:{number}::{3 - end}", near=f"10.99.{number}.{end}",
            far=f"10.99.{number}.{3 - end}", near6=f"fd99:{number}::{end}")

    def addresses(self, number: int) -> tuple[str, str]:
        """(near, far): those of the packets that are sent."""
        far = ipaddress.ip_address(self.fill(self.inside, number, 1))
        return str(far - 1), str(far)


def _octets_note(more: int) -> str:
    """How a device's octets differ from those of the frames."""
    return "every packet" if not more else f"every packet; the device counts {abs(more)} octets a packet " + (
        "less" if more < 0 else "more")


def _ethernet(kind: str, options: str, **more: object) -> Device:
    """A device that is made on its own, with an address on it."""
    return Device(kind, f"link add {{dev}} {options}\naddr add {{near}}/24 dev {{dev}}\nlink set {{dev}} up\n",
                  **more)  # type: ignore[arg-type]


def _stacked(kind: str, options: str, **more: object) -> Device:
    """A device on {under}."""
    return _ethernet(kind, "link {under} " + options, **more)


def _master(kind: str, options: str = "", **more: object) -> Device:
    """A device that {under} becomes a port of."""
    return Device(kind, f"addr flush dev {{under}}\nlink add {{dev}} type {kind} {options}\nlink set {{under}} down\n"
                  "link set {under} master {dev}\nlink set {under} up\naddr add {near}/24 dev {dev}\n"
                  "link set {dev} up\n",
                  **more)  # type: ignore[arg-type]


_OUTER6 = "addr add {here6}/64 dev {under} nodad\n"
_POINT_TO_POINT = "addr add {near} peer {far} dev {dev}\nlink set {dev} up\n"


def _ipsec(near: str, far: str, inside: tuple[str, str], mark: str = "") -> str:
    """States and policies of ESP in tunnel mode between near and far."""
    return "".join((
        f"xfrm state add src {near} dst {far} proto esp spi 0x10{{n}} reqid 7 mode tunnel {mark} {_KEYS}\n",
        f"xfrm state add src {far} dst {near} proto esp spi 0x10{{n}} reqid 7 mode tunnel {mark} {_KEYS}\n",
        f"xfrm policy add src {inside[0]} dst {inside[1]} dir out {mark} "
        f"tmpl src {near} dst {far} proto esp reqid 7 mode tunnel\n",
        f"xfrm policy add src {inside[1]} dst {inside[0]} dir in {mark} "
        f"tmpl src {far} dst {near} proto esp reqid 7 mode tunnel\n"))


_ANY = "0.0.0.0/0", "0.0.0.0/0"
_TCX = ("6.18",)

DEVICES = (
    Device("veth", observe="{under}", inside="10.77.{n}.2", compared=_TCX),
    _master("bridge", received=-14, compared=_TCX),
    _stacked("vlan", "type vlan id 5"),
    _stacked("vlan 802.1ad", "type vlan protocol 802.1ad id 6"),
    _stacked("macvlan", "type macvlan mode bridge", compared=_TCX),
    _stacked("macvtap", "type macvtap mode bridge", compared=_TCX),
    _stacked("ipvlan", "type ipvlan mode l2"),
    _master("bond", "mode active-backup"),
    _master("team"),
    _ethernet("vxlan", "type vxlan id 7 local {here} remote {there} dev {under} dstport 4789", received=-14, sent=-14,
              compared=_TCX),
    _ethernet("geneve", "type geneve id 7 remote {there}"),
    _ethernet("gretap", "type gretap local {here} remote {there}"),
    _ethernet("erspan", "type erspan local {here} remote {there} seq key 7 erspan_ver 1 erspan 3"),
    Device("gre", "link add {dev} type gre local {here} remote {there}\n" + _POINT_TO_POINT),
    Device("gre multipoint", "link add {dev} type gre local {here} key 9\naddr add {near}/24 dev {dev}\n"
           "link set {dev} up\nneigh add {far} lladdr {there} dev {dev}\n"),
    Device("ipip", "link add {dev} type ipip local {here} remote {there}\n" + _POINT_TO_POINT),
    Device("sit", "link add {dev} type sit local {here} remote {there}\naddr add {near6}/64 dev {dev} nodad\n"
           "link set {dev} up\n", inside="fd99:{n}::2"),
    Device("ip6gre", _OUTER6 + "link add {dev} type ip6gre local {here6} remote {there6}\n" + _POINT_TO_POINT),
    Device("ip6gretap", _OUTER6 + "link add {dev} type ip6gretap local {here6} remote {there6}\n"
           "addr add {near}/24 dev {dev}\nlink set {dev} up\n"),
    Device("ip6tnl", _OUTER6 + "link add {dev} type ip6tnl mode any local {here6} remote {there6}\n" + _POINT_TO_POINT),
    Device("vti", _ipsec("{here}", "{there}", _ANY, "mark 5")
           + "link add {dev} type vti local {here} remote {there} key 5\n" + _POINT_TO_POINT),
    Device("vti6", _OUTER6 + _ipsec("{here6}", "{there6}", _ANY, "mark 6")
           + "link add {dev} type vti6 local {here6} remote {there6} key 6\n" + _POINT_TO_POINT),
    Device("xfrm", "link add {dev} type xfrm dev {under} if_id 9\n" + _ipsec("{here}", "{there}", _ANY, "if_id 9")
           + _POINT_TO_POINT),
    _stacked("macsec", "type macsec encrypt off"),
    Device("vrf", "link add {dev} type vrf table 10\nlink set {dev} up\nlink set {under} master {dev}\n",
           inside="10.77.{n}.2", unseen=("rx",)),
    Device("veth with IPsec", _ipsec("{here}", "{there}", ("{near}", "{far}")) + "addr add {near}/32 dev lo\n"
           "route add {far}/32 dev {under} src {near}\n", observe="{under}", decrypts=True),
    Device("ifb", "link add {dev} type ifb\nlink set {dev} up\n", inside="10.77.{n}.2", unseen=("rx",),
           redirect="qdisc add dev {under} ingress\nfilter add dev {under} ingress protocol all pref 9 matchall "
           "action mirred egress redirect dev {dev}\n"),
)
