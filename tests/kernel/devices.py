"""Kinds of network devices: how to make one of each between two namespaces, and what its own counters count otherwise.

The manual's table of devices is made from this list, and `test_devices.py` runs all of it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

_MATRIX = "5.10", "6.1", "6.12", "7.2"
"""Of tests/vm/matrix.sh."""
_EVERYWHERE = "5.10", "6.1", "6.12", "6.18", "7.2"
_KEYS = "enc cbc(aes) 0x000102030405060708090a0b0c0d0e0f auth hmac(sha256) 0x" + "0b" * 32


@dataclass(frozen=True)
class Device:
    """A kind of device.

    Attributes:
        kind: its name in `ip link`, and what distinguishes it from others of that kind.
        make: commands of `ip` for each end; a line that begins with "tc" is for `tc`, and other words are
            steps of device_setup.STEPS. {under} is the end of a pair of its own, with the addresses {here} and
            {there} (or {here6}, {there6}) and the MAC addresses {mac} and {other_mac}; {dev} is the device to make,
            with the addresses {near} and {far} (or {near6}).
        pair: kind of the pair.
        relayed: "tun" or "tap": {dev} is such a device, and a process carries its packets to the other end.
        observe: the device to look at.
        since: first Linux that has it, where it is younger than flowtop's oldest.
        compared: series of Linux on which the comparison has passed.
        inside: the address to send to.
        received, sent: octets that the device's counters have in addition to the frames that the hooks see, for each.
        older: a Linux, and what the two were before it.
        unseen: of "rx" and "tx", what its counters count and no hook sees.
        direct: ways that its packets do not take: neither its counters nor a hook have them.
        own_packets: its counters may have a few more packets, which are its own.
        bound: only sockets that are bound to it send by it.
        answers: packets arrive at the other end.
        refused: why it cannot be observed.
        ipsec: packets leave as ESP, and come by as ESP, and after decryption once more.
        late: octets that they get after the egress hook, where esp4_offload is loaded.
        early: octets around packets that GRO decrypts, so that they come by once; 0: it does not.
        redirect: commands of `tc` that let what {under} receives pass the device, which sends it back.
        probe: commands of a shell that succeed where the kernel has the kind, if `ip link add ... type` does not tell;
            in a network namespace of their own.
    """

    kind: str
    make: str = ""
    observe: str = "{dev}"
    since: tuple[int, int] = (5, 7)
    compared: tuple[str, ...] = _MATRIX
    inside: str = "10.99.{n}.2"
    received: int = 0
    sent: int = 0
    older: tuple[tuple[int, int], int, int] = ((0, 0), 0, 0)
    unseen: tuple[str, ...] = ()
    direct: tuple[str, ...] = ()
    own_packets: bool = False
    bound: bool = False
    answers: bool = True
    refused: str = ""
    pair: str = "veth"
    relayed: str = ""
    ipsec: bool = False
    late: int = 0
    early: int = 0
    redirect: str = ""
    probe: str = ""

    def more(self, way: str, release: tuple[int, int]) -> int:
        """Octets of a packet that the device's counters have in addition: "rx" or "tx"."""
        received, sent = self.older[1:] if release < self.older[0] else (self.received, self.sent)
        return received if way == "rx" else sent

    @property
    def received_note(self) -> str:
        """For the manual: what is counted at ingress."""
        if self.ipsec and not self.early:
            return "ESP packets; decrypted ones beside"
        return self._note("rx") if self.answers else "nothing"

    @property
    def sent_note(self) -> str:
        """For the manual: what is counted at egress."""
        if self.ipsec:
            return "ESP packets" + ("; their padding and ICV follow later" if self.early else "")
        return self._note("tx")

    def _note(self, way: str) -> str:
        if self.refused:
            return "not observed"
        if way in self.direct:
            return "neither counted nor seen: its ports have them"
        if way in self.unseen:
            return "the device counts them, no hook sees them"
        now, before = self.more(way, (99, 0)), self.more(way, (0, 0))
        octets = _octets_note(now)
        if before != now:
            octets += _octets_note(before) + " before Linux {}.{}".format(*self.older[0])
        return f"every packet{octets}" + ("; the device counts its own beside" if self.own_packets else "")

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
            far=f"10.99.{number}.{3 - end}", near6=f"fd99:{number}::{end}", end=end, mac=mac(number, end),
            other_mac=mac(number, 3 - end))

    def addresses(self, number: int) -> tuple[str, str]:
        """(near, far): those of the packets that are sent."""
        far = ipaddress.ip_address(self.fill(self.inside, number, 1))
        return str(far - 1), str(far)


def _octets_note(more: int) -> str:
    """How a device's octets differ from those of the frames."""
    return "" if not more else f"; the device counts {abs(more)} octets a packet {'less' if more < 0 else 'more'}"


def mac(number: int, end: int) -> str:
    """MAC address of {under}."""
    return f"02:00:00:00:{number:02x}:0{end}"


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
_ANY6 = "::/0", "::/0"
_GATEWAY = _ipsec("{here}", "{there}", ("{near}", "{far}")) + (
    "addr add {near}/32 dev lo\nroute add {far}/32 dev {under} src {near}\n"
    "neigh add {there} lladdr {other_mac} dev {under}\n")
_HAS_ESP = "ip xfrm state add src 10.0.0.1 dst 10.0.0.2 proto esp spi 0x100 reqid 7 mode tunnel " + _KEYS
_ESP_TRAILER = 16 + 12
_ESP = 20 + 8 + 16 + _ESP_TRAILER
"""Around a packet whose length is a multiple of 16: IP, ESP, initialization vector; padding and trailer, ICV."""
_QUEUES = "numtxqueues 4 type"
_MQPRIO = "root mqprio num_tc 2 map 0 1 queues 2@0 2@2 hw 0"
_HAS_REDIRECTION = ("ip link add a type veth peer name b && tc qdisc add dev a clsact && "
                    "tc filter add dev a ingress matchall action mirred egress redirect dev b")
_HAS_L2TP = ("ip link set lo up && ip l2tp add tunnel tunnel_id 1 peer_tunnel_id 1 encap udp local 127.0.0.1 "
             "remote 127.0.0.1 udp_sport 1701 udp_dport 1701 && "
             "ip l2tp add session tunnel_id 1 session_id 1 peer_session_id 1")
_MACSEC_KEY = "key 01 000102030405060708090a0b0c0d0e0f"

DEVICES = (
    Device("veth", observe="{under}", inside="10.77.{n}.2", compared=_EVERYWHERE),
    _master("bridge", received=-14, compared=_EVERYWHERE),
    _stacked("vlan", "type vlan id 5", received=-14),
    _stacked("vlan 802.1ad", "type vlan protocol 802.1ad id 6", received=-14),
    _stacked("macvlan", "type macvlan mode bridge", compared=_EVERYWHERE),
    _stacked("macvlan with mqprio", f"{_QUEUES} macvlan mode bridge\ntc qdisc replace dev {{dev}} {_MQPRIO}",
             probe=f"ip link add a {_QUEUES} dummy && tc qdisc add dev a {_MQPRIO}"),
    _stacked("macvtap", "type macvtap mode bridge", compared=_EVERYWHERE),
    _stacked("ipvlan", "type ipvlan mode l2"),
    _stacked("ipvlan l3", "type ipvlan mode l3\nneigh add {far} lladdr {other_mac} dev {under}"),
    _stacked("ipvtap", "type ipvtap mode l2"),
    _master("bond", "mode active-backup"),
    Device("team", "addr flush dev {under}\nlink add {dev} type team\nteam-mode {dev} roundrobin\n"
           "link set {under} down\nlink set {under} master {dev}\nlink set {under} up\naddr add {near}/24 dev {dev}\n"
           "link set {dev} up\n", received=-14),
    _ethernet("vxlan", "type vxlan id 7 local {here} remote {there} dev {under} dstport 4789", received=-14, sent=-14,
              compared=_EVERYWHERE),
    Device("vxlan gpe", "link add {dev} type vxlan dstport 4790 gpe external\naddr add {near}/32 dev {dev}\n"
           "link set {dev} up\nroute add {far}/32 encap ip id 8 dst {there} dev {dev} src {near}\n",
           compared=_EVERYWHERE),
    _ethernet("geneve", "type geneve id 7 remote {there}", received=-14, sent=-14),
    _ethernet("gretap", "type gretap local {here} remote {there}", sent=-14),
    _ethernet("erspan", "type erspan local {here} remote {there} seq key 7 erspan_ver 1 erspan 3",
              sent=-14),
    Device("gre", "link add {dev} type gre local {here} remote {there}\n" + _POINT_TO_POINT),
    Device("gre multipoint", "link add {dev} type gre local {here} key 9\naddr add {near}/24 dev {dev}\n"
           "link set {dev} up\nneigh add {far} lladdr {there} dev {dev}\n"),
    Device("ipip", "link add {dev} type ipip local {here} remote {there}\n" + _POINT_TO_POINT),
    Device("sit", "link add {dev} type sit local {here} remote {there}\naddr add {near6}/64 dev {dev} nodad\n"
           "link set {dev} up\n", inside="fd99:{n}::2"),
    Device("ip6gre", _OUTER6 + "link add {dev} type ip6gre local {here6} remote {there6}\n" + _POINT_TO_POINT),
    Device("ip6gretap", _OUTER6 + "link add {dev} type ip6gretap local {here6} remote {there6}\n"
           "addr add {near}/24 dev {dev}\nlink set {dev} up\n", received=-14, sent=-14),
    Device("ip6tnl", _OUTER6 + "link add {dev} type ip6tnl mode any local {here6} remote {there6}\n" + _POINT_TO_POINT),
    Device("vti", _ipsec("{here}", "{there}", _ANY, "mark 5")
           + "link add {dev} type vti local {here} remote {there} key 5\n" + _POINT_TO_POINT),
    Device("vti6", _OUTER6 + _ipsec("{here6}", "{there6}", _ANY6, "mark 6")
           + "link add {dev} type vti6 local {here6} remote {there6} key 6\naddr add {near6}/64 dev {dev} nodad\n"
           "link set {dev} up\n", inside="fd99:{n}::2"),
    Device("xfrm", "link add {dev} type xfrm dev {under} if_id 9\n" + _ipsec("{here}", "{there}", _ANY, "if_id 9")
           + _POINT_TO_POINT),
    Device("macsec", "link add link {under} {dev} type macsec encrypt on\n"
           f"macsec add {{dev}} tx sa 0 pn 1 on {_MACSEC_KEY}\n"
           "macsec add {dev} rx port 1 address {other_mac}\n"
           f"macsec add {{dev}} rx port 1 address {{other_mac}} sa 0 pn 1 on {_MACSEC_KEY}\n"
           "addr add {near}/24 dev {dev}\nlink set {dev} up\n", older=((6, 1), -14, 32)),
    Device("l2tp", "l2tp add tunnel tunnel_id 3{n} peer_tunnel_id 3{n} encap udp local {here} remote {there} "
           "udp_sport 1701 udp_dport 1701\nl2tp add session name {dev} tunnel_id 3{n} session_id 7 peer_session_id 7\n"
           "addr add {near}/24 dev {dev}\nlink set {dev} up\n", received=12,
           probe=_HAS_L2TP),
    _ethernet("wireguard", "type wireguard\nwireguard {dev} {end} {there}", own_packets=True,
              received=32, sent=32),
    Device("netkit", observe="{under}", inside="10.77.{n}.2", pair="netkit", since=(6, 7),
           compared=_MATRIX[2:]),
    Device("tun", relayed="tun", make="addr add {near}/24 dev {dev}\nlink set {dev} up\n", compared=_EVERYWHERE),
    Device("tap", relayed="tap", make="addr add {near}/24 dev {dev}\nlink set {dev} up\n", compared=_EVERYWHERE),
    _ethernet("dummy", "type dummy", answers=False),
    Device("nlmon", "link add {dev} type nlmon\nlink set {dev} up\n",
           refused="link type 824 is not supported: it carries netlink messages"),
    Device("vcan", "link add {dev} type vcan\nlink set {dev} up\n",
           refused="link type 280 is not supported: it carries CAN"),
    Device("vrf", "link add {dev} type vrf table 10\nlink set {dev} up\nlink set {under} master {dev}\n",
           inside="10.77.{n}.2", unseen=("rx",), direct=("tx",), bound=True),
    Device("veth with IPsec", _GATEWAY, observe="{under}", ipsec=True, late=_ESP_TRAILER,
           probe=_HAS_ESP),
    Device("veth with IPsec and esp4_offload", _GATEWAY + "decrypt-early {under}\n", observe="{under}", ipsec=True,
           early=_ESP, late=_ESP_TRAILER, received=-14, sent=-14, since=(5, 13),
           compared=_MATRIX[1:], probe=_HAS_ESP),
    Device("ifb", "link add {dev} type ifb\nlink set {dev} up\n", inside="10.77.{n}.2", unseen=("rx",),
           redirect="qdisc add dev {under} clsact\nfilter add dev {under} ingress protocol all pref 9 matchall "
           "action mirred egress redirect dev {dev}\n", probe=_HAS_REDIRECTION),
)
