"""Kinds of network devices, how to make one of each between two namespaces, and what its own counters leave out.

The manual's table of devices is made from this list, and `test_devices.py` runs all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NEAR, FAR = "10.99.0.1", "10.99.0.2"
"""Addresses of the two ends of a device, where a kind needs no others."""
_KEYS = "enc cbc(aes) 0x000102030405060708090a0b0c0d0e0f auth hmac(sha256) 0x" + "0b" * 32


@dataclass(frozen=True)
class Device:
    """A kind of device.

    Attributes:
        kind: its name in `ip link`, or what distinguishes it from others of that kind.
        name: of the interface that is observed.
        make: commands of ip for each end. {here} and {there} are the ends' addresses on veth0, {near} and {far} those on
            the device, {mac} the other end's.
        since: first Linux that has it.
        far: the address to send to.
        received, sent: octets that the device's counters have in addition to the frames the hooks see, for each packet;
            None: its counters are of something else.
        unseen: why no hook sees what its counter counts as received.
        note: for the manual.
    """

    kind: str
    name: str
    make: str = ""
    since: tuple[int, int] = (5, 7)
    far: str = FAR
    received: int | None = 0
    sent: int | None = 0
    unseen: str = ""
    note: str = ""
    modules: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """Of `ip link add ... type`."""
        return self.kind.split()[0]


def _ethernet(kind: str, options: str = "", **more: object) -> Device:
    """A device that is made on its own, with an address on it."""
    return Device(kind, "dev0", f"link add dev0 {options}\naddr add {{near}}/24 dev dev0\nlink set dev0 up\n",
                  **more)  # type: ignore[arg-type]


_POINT_TO_POINT = "addr add {near} peer {far} dev dev0\nlink set dev0 up\n"
_OUTER6 = "-6 addr add fd77::{number}/64 dev veth0 nodad\n"
_STATES = "".join(
    f"xfrm state add src {source} dst {target} proto esp spi {spi} reqid {{reqid}} mode tunnel {{mark}} {_KEYS}\n"
    for source, target, spi in (("10.77.0.1", "10.77.0.2", "0x101"), ("10.77.0.2", "10.77.0.1", "0x102")))
_POLICIES = ("xfrm policy add src {inside} dst {outside} dir out {mark} tmpl src {here} dst {there} proto esp reqid {reqid} "
             "mode tunnel\n"
             "xfrm policy add src {outside} dst {inside} dir in {mark} tmpl src {there} dst {here} proto esp reqid {reqid} "
             "mode tunnel\n")


def _ipsec(mark: str = "", inside: str = "{near}", outside: str = "{far}") -> str:
    return (_STATES + _POLICIES).replace("{reqid}", "7").replace("{mark}", mark).replace(
        "{inside}", inside).replace("{outside}", outside)


DEVICES = (
    Device("veth", "veth0", far="10.77.0.2"),
    Device("bridge", "dev0", "link add dev0 type bridge\nlink set veth0 master dev0\naddr flush dev veth0\n"
           "addr add {near}/24 dev dev0\nlink set dev0 up\n"),
    _ethernet("vlan", "link veth0 type vlan id 5"),
    _ethernet("vlan 802.1ad", "link veth0 type vlan protocol 802.1ad id 6"),
    _ethernet("macvlan", "link veth0 type macvlan mode bridge"),
    _ethernet("macvtap", "link veth0 type macvtap mode bridge", note="as macvlan"),
    _ethernet("ipvlan", "link veth0 type ipvlan mode l2"),
    _ethernet("ipvlan l3", "link veth0 type ipvlan mode l3"),
    Device("bond", "dev0", "link add dev0 type bond mode active-backup\nlink set veth0 down\nlink set veth0 master dev0\n"
           "addr add {near}/24 dev dev0\nlink set dev0 up\n"),
    Device("team", "dev0", "link add dev0 type team\nlink set veth0 down\nlink set veth0 master dev0\nlink set veth0 up\n"
           "addr add {near}/24 dev dev0\nlink set dev0 up\n", note="without a mode it passes nothing"),
    _ethernet("vxlan", "type vxlan id 7 local {here} remote {there} dev veth0 dstport 4789"),
    _ethernet("geneve", "type geneve id 7 remote {there}"),
    _ethernet("gretap", "type gretap local {here} remote {there}"),
    _ethernet("erspan", "type erspan local {here} remote {there} seq key 7 erspan_ver 1 erspan 3"),
    Device("gre", "dev0", "link add dev0 type gre local {here} remote {there}\n" + _POINT_TO_POINT),
    Device("gre multipoint", "dev0", "link add dev0 type gre local {here} key 9\naddr add {near}/24 dev dev0\n"
           "link set dev0 up\nneigh add {far} lladdr {there} dev dev0\n"),
    Device("ipip", "dev0", "link add dev0 type ipip local {here} remote {there}\n" + _POINT_TO_POINT),
    Device("sit", "dev0", "link add dev0 type sit local {here} remote {there}\n-6 addr add fd99::{number}/64 dev dev0 nodad\n"
           "link set dev0 up\n", far="fd99::2"),
    Device("ip6gre", "dev0", _OUTER6 + "link add dev0 type ip6gre local fd77::{number} remote fd77::{other}\n"
           + _POINT_TO_POINT),
    _ethernet("ip6gretap", "type ip6gretap local fd77::{number} remote fd77::{other}"),
    Device("ip6tnl", "dev0", _OUTER6 + "link add dev0 type ip6tnl mode any local fd77::{number} remote fd77::{other}\n"
           + _POINT_TO_POINT),
    Device("vti", "dev0", _ipsec("mark 5") + "link add dev0 type vti local {here} remote {there} key 5\n" + _POINT_TO_POINT,
           note="IPsec"),
    Device("vti6", "dev0", _OUTER6 + (_ipsec("mark 6").replace("10.77.0.1", "fd77::1").replace("10.77.0.2", "fd77::2")
           .replace("{here}", "fd77::{number}").replace("{there}", "fd77::{other}"))
           + "link add dev0 type vti6 local fd77::{number} remote fd77::{other} key 6\n" + _POINT_TO_POINT, note="IPsec"),
    Device("xfrm", "dev0", "link add dev0 type xfrm dev veth0 if_id 9\n" + _ipsec("if_id 9") + _POINT_TO_POINT,
           note="IPsec"),
    Device("wireguard", "dev0", _POINT_TO_POINT, note="IPsec"),
    _ethernet("macsec", "link veth0 type macsec encrypt on"),
    Device("bareudp", "dev0", _POINT_TO_POINT),
    Device("vrf", "dev0", "link add dev0 type vrf table 10\nlink set dev0 up\nlink set veth0 master dev0\n"
           "link set veth0 up\n", far="10.77.0.2"),
)
