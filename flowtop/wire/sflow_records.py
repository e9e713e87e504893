"""Records inside sFlow samples by name (sflow.org/sflow_version_5.txt, sflow_tunnels, sflow_host, sflow_drops).

A record is a data format, enterprise * 4096 + format, and octets in XDR. They stay undecoded until somebody asks: for
most nobody does, and others are the same for many packets.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from flowtop.model.kinds import ICMP_VERSIONS, IpVersion, Protocol, Tunnel

Record = tuple[int, bytes]
"""Data format and octets."""

RAW_HEADER, ETHERNET_DATA, IPV4_DATA, IPV6_DATA = 1, 2, 3, 4
SWITCH, ROUTER, GATEWAY, USER, MPLS, NAT, VLAN_TUNNEL, NAT_PORTS = 1001, 1002, 1003, 1004, 1006, 1007, 1012, 1020
IPV4_TUNNEL_INGRESS, IPV6_TUNNEL_INGRESS, VNI_EGRESS, VNI_INGRESS = 1024, 1026, 1029, 1030
VLAN_IN, VLAN_OUT, TCP_INFO = 1034, 1035, 2209
INTERFACE, PORT_NAME = 1, 1005
"""Formats of counter records."""


class ShortRecordError(Exception):
    """A record ends before its last field."""


class _Xdr:
    """Reads XDR (RFC 4506). Raises ShortRecordError."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    @property
    def at_end(self) -> bool:
        """Whether all octets are read."""
        return self._at >= len(self._octets)

    def take(self, length: int) -> bytes:
        """Opaque octets; their padding is skipped."""
        end = self._at + length
        if end > len(self._octets):
            raise ShortRecordError
        octets = self._octets[self._at:end]
        self._at = end + -length % 4
        return octets

    def u4(self) -> int:
        """An unsigned integer."""
        return int.from_bytes(self.take(4), "big")

    def u8(self) -> int:
        """An unsigned hyper."""
        return int.from_bytes(self.take(8), "big")

    def real(self) -> float:
        """A float, with the digits that it has."""
        value: float = struct.unpack(">f", self.take(4))[0]
        return round(value, 6)

    def string(self) -> str:
        """A string, as UTF-8."""
        return self.take(self.u4()).decode("utf-8", "replace")

    def mac(self) -> str:
        """A MAC address."""
        return self.take(6).hex(":")

    def uuid(self) -> str:
        """16 octets."""
        return self.take(16).hex()

    def ip4(self) -> str:
        """An IPv4 address."""
        return str(ipaddress.IPv4Address(self.take(4)))

    def ip6(self) -> str:
        """An IPv6 address."""
        return str(ipaddress.IPv6Address(self.take(16)))

    def address(self) -> str | None:
        """An address of any type; None for an unknown one."""
        kind = self.u4()
        if kind not in (1, 2):
            return None
        return self.ip4() if kind == 1 else self.ip6()

    def words(self) -> list[int]:
        """An array of unsigned integers."""
        count = self.u4()
        return list(struct.unpack(f">{count}I", self.take(4 * count)))

    def path(self) -> list[list[int]]:
        """An AS path: its segments, each without its kind."""
        found = []
        for _ in range(self.u4()):  # each takes at least 8 octets, so a count that is too high ends in an error
            self.u4()
            found.append(self.words())
        return found

    def adapters(self) -> list[dict[str, Any]]:
        """Adapters of a host."""
        return [{"ifIndex": self.u4(), "macAddresses": [self.mac() for _ in range(self.u4())]}
                for _ in range(self.u4())]


class _Structure(NamedTuple):
    """A structure of the specification.

    Attributes:
        name: as shown.
        fields: key and how to read it.
        optional: number of fields at the end that older agents do not send.
    """

    name: str
    fields: tuple[tuple[str, Callable[[_Xdr], Any]], ...]
    optional: int = 0


def _structure(name: str, *parts: tuple[Callable[[_Xdr], Any], str], optional: int = 0) -> _Structure:
    """A structure; each part is a type and the keys that have it, separated by spaces."""
    return _Structure(name, tuple((key, read) for read, keys in parts for key in keys.split()), optional)


_U4, _U8, _TEXT, _MAC, _WORDS, _ADDRESS = _Xdr.u4, _Xdr.u8, _Xdr.string, _Xdr.mac, _Xdr.words, _Xdr.address
_ETHERNET_FIELDS = ((_U4, "length"), (_MAC, "sourceMacAddress destinationMacAddress"), (_U4, "ethernetType"))
_IPV4_FIELDS = ((_U4, "length protocolIdentifier"), (_Xdr.ip4, "sourceIPv4Address destinationIPv4Address"),
                (_U4, "sourceTransportPort destinationTransportPort tcpControlBits ipClassOfService"))
_IPV6_FIELDS = ((_U4, "length protocolIdentifier"), (_Xdr.ip6, "sourceIPv6Address destinationIPv6Address"),
                (_U4, "sourceTransportPort destinationTransportPort tcpControlBits ipClassOfService"))
_SOCKET4 = ((_U4, "protocolIdentifier"), (_Xdr.ip4, "localAddress remoteAddress"), (_U4, "localPort remotePort"))
_SOCKET6 = ((_U4, "protocolIdentifier"), (_Xdr.ip6, "localAddress remoteAddress"), (_U4, "localPort remotePort"))

FLOW_STRUCTURES: dict[int, _Structure] = {
    ETHERNET_DATA: _structure("ethernet", *_ETHERNET_FIELDS),
    IPV4_DATA: _structure("ipv4", *_IPV4_FIELDS),
    IPV6_DATA: _structure("ipv6", *_IPV6_FIELDS),
    SWITCH: _structure("switch", (_U4, "sourceVlan sourcePriority destinationVlan destinationPriority")),
    ROUTER: _structure("router", (_ADDRESS, "nextHop"), (_U4, "sourceMask destinationMask")),
    GATEWAY: _structure("gateway", (_ADDRESS, "bgpNextHop"), (_U4, "as sourceAs sourcePeerAs"),
                        (_Xdr.path, "destinationAsPath"), (_WORDS, "communities"), (_U4, "localPreference")),
    USER: _structure("user", (_U4, "sourceCharset"), (_TEXT, "sourceUser"), (_U4, "destinationCharset"),
                     (_TEXT, "destinationUser")),
    1005: _structure("url", (_U4, "direction"), (_TEXT, "url host")),
    MPLS: _structure("mpls", (_ADDRESS, "nextHop"), (_WORDS, "inLabels outLabels")),
    NAT: _structure("nat", (_ADDRESS, "sourceAddress destinationAddress")),
    1008: _structure("mplsTunnel", (_TEXT, "name"), (_U4, "id cos")),
    1009: _structure("mplsVirtualCircuit", (_TEXT, "name"), (_U4, "id cos")),
    1010: _structure("mplsFec", (_TEXT, "description"), (_U4, "mask")),
    1011: _structure("mplsLdpFec", (_U4, "prefixLength")),
    VLAN_TUNNEL: _structure("vlanTunnel", (_WORDS, "stack")),
    1014: _structure("ieee80211Received", (_TEXT, "ssid"), (_MAC, "bssid"), (_U4, "version channel"), (_U8, "speed"),
                     (_U4, "rsni rcpi duration")),
    1015: _structure("ieee80211Sent", (_TEXT, "ssid"), (_MAC, "bssid"),
                     (_U4, "version transmissions duration retransmissionDuration channel"), (_U8, "speed"),
                     (_U4, "power")),
    1019: _structure("queueLength", (_U4, "queue length")),
    NAT_PORTS: _structure("natPorts", (_U4, "sourcePort destinationPort")),
    1021: _structure("layer2TunnelEgress", *_ETHERNET_FIELDS),
    1022: _structure("layer2TunnelIngress", *_ETHERNET_FIELDS),
    1023: _structure("ipv4TunnelEgress", *_IPV4_FIELDS),
    IPV4_TUNNEL_INGRESS: _structure("ipv4TunnelIngress", *_IPV4_FIELDS),
    1025: _structure("ipv6TunnelEgress", *_IPV6_FIELDS),
    IPV6_TUNNEL_INGRESS: _structure("ipv6TunnelIngress", *_IPV6_FIELDS),
    1027: _structure("decapsulateEgress", (_U4, "innerHeaderOffset")),
    1028: _structure("decapsulateIngress", (_U4, "innerHeaderOffset")),
    VNI_EGRESS: _structure("vniEgress", (_U4, "vni")),
    VNI_INGRESS: _structure("vniIngress", (_U4, "vni")),
    VLAN_IN: _structure("vlanIn", (_WORDS, "stack")),
    VLAN_OUT: _structure("vlanOut", (_WORDS, "stack")),
    1036: _structure("egressQueue", (_U4, "queue")),
    1037: _structure("accessList", (_U4, "number"), (_TEXT, "name"), (_U4, "direction")),
    1038: _structure("function", (_TEXT, "symbol")),
    1039: _structure("transitDelay", (_U4, "nanoseconds")),
    1040: _structure("queueDepth", (_U4, "octets")),
    1041: _structure("hardwareTrap", (_TEXT, "group trap")),
    1042: _structure("linuxDropReason", (_TEXT, "reason")),
    2100: _structure("ipv4Socket", *_SOCKET4),
    2101: _structure("ipv6Socket", *_SOCKET6),
    2102: _structure("ipv4ProxySocket", *_SOCKET4),
    2103: _structure("ipv6ProxySocket", *_SOCKET6),
    TCP_INFO: _structure("tcpInfo", (_U4, (
        "direction sendMaxSegment receiveMaxSegment unacknowledged lost retransmitted pathMtu rttMicroseconds "
        "rttVarianceMicroseconds congestionWindow reordering leastRttMicroseconds"))),
}
"""Flow records but the sampled header, by data format."""

_TRAFFIC = "{0}UnicastPackets {0}MulticastPackets {0}BroadcastPackets {0}Discards {0}Errors"
COUNTER_STRUCTURES: dict[int, _Structure] = {
    INTERFACE: _structure(
        "interface", (_U4, "ifIndex ifType"), (_U8, "speed"), (_U4, "direction status"), (_U8, "inOctets"),
        (_U4, f"{_TRAFFIC.format('in')} inUnknownProtocols"), (_U8, "outOctets"),
        (_U4, f"{_TRAFFIC.format('out')} promiscuous")),
    2: _structure("ethernet", (_U4, (
        "alignmentErrors fcsErrors singleCollisions multipleCollisions sqeTestErrors deferredTransmissions "
        "lateCollisions excessiveCollisions internalTransmitErrors carrierSenseErrors tooLongFrames "
        "internalReceiveErrors symbolErrors"))),
    5: _structure("vlan", (_U4, "vlanId"), (_U8, "octets"),
                  (_U4, "unicastPackets multicastPackets broadcastPackets discards")),
    7: _structure("lag", (_MAC, "actorSystemId partnerSystemId"), (_U4, (
        "aggregateId state lacpdusReceived markerPdusReceived markerResponsePdusReceived unknownReceived "
        "illegalReceived lacpdusSent markerPdusSent markerResponsePdusSent"))),
    1001: _structure("processor", (_U4, "cpu5s cpu1m cpu5m"), (_U8, "totalMemory freeMemory")),
    1004: _structure("openFlowPort", (_U8, "datapathId"), (_U4, "port")),
    PORT_NAME: _structure("portName", (_TEXT, "name")),
    2000: _structure("host", (_TEXT, "hostname"), (_Xdr.uuid, "uuid"), (_U4, "machineType osName"),
                     (_TEXT, "osRelease")),
    2001: _structure("hostAdapters", (_Xdr.adapters, "adapters")),
    2002: _structure("hostParent", (_U4, "containerType containerIndex")),
    2003: _structure("hostCpu", (_Xdr.real, "load1m load5m load15m"), (_U4, (
        "processesRunning processes cpus speedMhz uptime userMs niceMs systemMs idleMs waitMs interruptMs "
        "softInterruptMs interrupts contextSwitches stealMs guestMs guestNiceMs")), optional=3),
    2004: _structure("hostMemory", (_U8, "total free shared buffers cached swapTotal swapFree"),
                     (_U4, "pagesIn pagesOut swapsIn swapsOut")),
    2005: _structure("hostDisk", (_U8, "total free"), (_U4, "mostUsedPercentHundredths reads"), (_U8, "octetsRead"),
                     (_U4, "readMs writes"), (_U8, "octetsWritten"), (_U4, "writeMs")),
    2006: _structure("hostNetwork", (_U8, "inOctets"), (_U4, "inPackets inErrors inDiscards"), (_U8, "outOctets"),
                     (_U4, "outPackets outErrors outDiscards")),
    2007: _structure("ipGroup", (_U4, (
        "forwarding defaultTtl inReceives inHeaderErrors inAddressErrors forwarded inUnknownProtocols inDiscards "
        "inDelivers outRequests outDiscards outNoRoutes reassemblyTimeout reassemblyRequired reassembled "
        "reassemblyFailures fragmented fragmentationFailures fragmentsCreated"))),
    2009: _structure("tcpGroup", (_U4, (
        "rtoAlgorithm rtoMin rtoMax maxConnections activeOpens passiveOpens attemptFails establishedResets "
        "established inSegments outSegments retransmitted inErrors outResets inChecksumErrors")), optional=1),
    2010: _structure("udpGroup", (_U4, (
        "inDatagrams noPorts inErrors outDatagrams receiveBufferErrors sendBufferErrors "
        "inChecksumErrors")), optional=1),
}
"""Counter records by data format."""


Structures = dict[int, _Structure]
"""Structures by data format."""

DISCARD_REASONS = {
    0: "net unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
    4: "fragmentation needed", 5: "source route failed", 6: "destination network unknown",
    7: "destination host unknown", 8: "source host isolated", 9: "destination network prohibited",
    10: "destination host prohibited", 11: "destination network unreachable for TOS",
    12: "destination host unreachable for TOS", 13: "communication prohibited", 14: "host precedence violation",
    15: "precedence cutoff in effect", 256: "unknown", 257: "TTL exceeded", 258: "ACL", 259: "no buffer space",
    260: "RED", 261: "traffic shaping", 262: "packet too big", 263: "source MAC is multicast",
    264: "VLAN tag mismatch", 265: "ingress VLAN filter", 266: "ingress spanning tree filter",
    267: "port list is empty", 268: "port loopback filter", 269: "blackhole route", 270: "non IP",
    271: "unicast destination IP over multicast destination MAC", 272: "destination IP is loopback address",
    273: "source IP is multicast", 274: "source IP is loopback address", 275: "IP header corrupted",
    276: "IPv4 source address is limited broadcast", 277: "IPv6 multicast destination with reserved scope",
    278: "IPv6 multicast destination with interface-local scope", 279: "unresolved neighbour",
    280: "multicast reverse path forwarding", 281: "non routable packet", 282: "decapsulation error",
    283: "overlay source MAC is multicast", 284: "unknown L2", 285: "unknown L3", 286: "unknown tunnel",
    287: "unknown buffer", 288: "unknown VNI",
}
"""Why packets are not forwarded, by number (sflow.org/sflow_drops.txt)."""


def record_values(structures: Structures, record: Record) -> tuple[str, dict[str, Any]]:
    """Name and values of a record; one of an unknown format has its number as its name, and its length.

    Raises ShortRecordError.
    """
    structure = structures.get(record[0])
    if structure is None:
        enterprise, format_ = divmod(record[0], 4096)
        return f"format {f'{enterprise}.' if enterprise else ''}{format_}", {"octets": len(record[1])}
    reader = _Xdr(record[1])
    values: dict[str, Any] = {}
    required = len(structure.fields) - structure.optional
    for number, (key, read) in enumerate(structure.fields):
        if number >= required and reader.at_end:
            break
        values[key] = read(reader)
    return structure.name, values


# ---- a packet in place of the sampled header

_IPV4_HEADER, _IPV6_HEADER = struct.Struct(">BBHHHBBH4s4s"), struct.Struct(">IHBB16s16s")
_TCP_HEADER = struct.Struct(">HHIIBBHHH")


def described_packet(record: Record) -> tuple[bytes, int]:
    """IP and transport headers with the values of an IPv4 or IPv6 data record, and the packet's octets.

    What these records do not say (TTL, sequence numbers) is 0. Raises ShortRecordError.
    """
    _, values = record_values(FLOW_STRUCTURES, record)
    version = IpVersion.V4 if record[0] == IPV4_DATA else IpVersion.V6
    protocol, octets, tos = values["protocolIdentifier"] & 0xFF, values["length"], values["ipClassOfService"] & 0xFF
    source, destination = values["sourceTransportPort"], values["destinationTransportPort"]
    if protocol in ICMP_VERSIONS:  # type and code, as two numbers or as one, in the place of ports
        both = destination if not source and destination > 0xFF else (source & 0xFF) << 8 | destination & 0xFF
        transport = struct.pack(">HHI", both & 0xFFFF, 0, 0)
    else:
        transport = _TCP_HEADER.pack(source & 0xFFFF, destination & 0xFFFF, 0, 0, 0x50, values["tcpControlBits"] & 0xFF,
                                     0, 0, 0)
        if protocol != Protocol.TCP:
            transport = transport[:8]
    ends = [ipaddress.ip_address(values[f"{end}IPv{version}Address"]).packed for end in ("source", "destination")]
    if version == IpVersion.V4:
        head = _IPV4_HEADER.pack(0x45, tos, max(min(octets, 0xFFFF), 20), 0, 0, 0, protocol, 0, *ends)
    else:
        head = _IPV6_HEADER.pack(6 << 28 | tos << 20, max(min(octets - 40, 0xFFFF), 0), protocol, 0, *ends)
    return head + transport, octets


def ethernet_header(record: Record) -> tuple[bytes, int]:
    """An Ethernet header with the values of an Ethernet data record, and the frame's octets with its check sequence.

    Raises ShortRecordError.
    """
    _, values = record_values(FLOW_STRUCTURES, record)
    macs = [bytes.fromhex(values[f"{end}MacAddress"].replace(":", "")) for end in ("destination", "source")]
    return b"".join(macs) + struct.pack(">H", values["ethernetType"] & 0xFFFF), values["length"]


# ---- what the agent says of a packet

class Extended(NamedTuple):
    """What an agent reports of a sampled packet beside its header; None for what it does not.

    Attributes:
        vlans_in, vlans_out: VLAN IDs, outermost first, of the interface that the packet came in or left by.
        stripped_vlans: VLAN IDs that the agent removed before it took the header, outermost first.
        next_hop, bgp_next_hop, post_nat_source, post_nat_destination: addresses, 4 or 16 octets.
        source_mask, destination_mask: prefix lengths.
        source_as, destination_as: the last one of the path is the destination's.
        mpls_top_label: label stack entry that the packet came in with, or leaves with: label, 3 bits and the bottom's.
        post_nat_source_port, post_nat_destination_port: translated ports.
        source_user, destination_user: names.
        tunnel: what the packet came in, a value of Tunnel.
        tunnel_id: its VNI.
        rtt_us, congestion_window, retransmitted: of the agent's socket, as in model.reported.MEASURED_DTYPE.
    """

    vlans_in: tuple[int, ...] = ()
    vlans_out: tuple[int, ...] = ()
    stripped_vlans: tuple[int, ...] = ()
    next_hop: bytes | None = None
    bgp_next_hop: bytes | None = None
    source_mask: int | None = None
    destination_mask: int | None = None
    source_as: int | None = None
    destination_as: int | None = None
    mpls_top_label: int | None = None
    post_nat_source: bytes | None = None
    post_nat_destination: bytes | None = None
    post_nat_source_port: int | None = None
    post_nat_destination_port: int | None = None
    source_user: str | None = None
    destination_user: str | None = None
    tunnel: int = Tunnel.NONE
    tunnel_id: int = 0
    rtt_us: int | None = None
    congestion_window: int | None = None
    retransmitted: int | None = None


NOTHING_EXTENDED = Extended()
_LARGEST_VLAN = 4094
_VLAN_ID = 0x0FFF
_UDP_TUNNELS = {4789: Tunnel.VXLAN, 8472: Tunnel.VXLAN, 6081: Tunnel.GENEVE}
_LARGEST_VNI = 0xFF_FFFF


def extended(records: tuple[Record, ...]) -> Extended:
    """What these records of a sample say of its packet. Records that are too short say nothing."""
    found: dict[str, Any] = {}
    for record in records:
        reading = _READINGS.get(record[0])
        if reading is not None:
            try:
                reading(record_values(FLOW_STRUCTURES, record)[1], found)
            except ShortRecordError:
                continue
    return Extended(**found) if found else NOTHING_EXTENDED


def _vlans(numbers: Sequence[int]) -> tuple[int, ...]:
    """Valid VLAN IDs; agents have 0, 4095 or more for an unknown one."""
    return tuple(number for number in numbers if 0 < number <= _LARGEST_VLAN)


def _packed(text: str | None) -> bytes | None:
    return None if text is None else ipaddress.ip_address(text).packed


def _switch(values: dict[str, Any], found: dict[str, Any]) -> None:
    found.setdefault("vlans_in", _vlans([values["sourceVlan"]]))
    found.setdefault("vlans_out", _vlans([values["destinationVlan"]]))


def _stack(name: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def read(values: dict[str, Any], found: dict[str, Any]) -> None:
        vlans = _vlans([layer & _VLAN_ID for layer in values["stack"]])
        if vlans:
            found[name] = vlans
    return read


def _router(values: dict[str, Any], found: dict[str, Any]) -> None:
    found["next_hop"] = _packed(values["nextHop"])
    found["source_mask"], found["destination_mask"] = values["sourceMask"], values["destinationMask"]


def _gateway(values: dict[str, Any], found: dict[str, Any]) -> None:
    found["bgp_next_hop"], found["source_as"] = _packed(values["bgpNextHop"]), values["sourceAs"]
    path = [number for segment in values["destinationAsPath"] for number in segment]
    if path:
        found["destination_as"] = path[-1]


def _user(values: dict[str, Any], found: dict[str, Any]) -> None:
    found["source_user"], found["destination_user"] = values["sourceUser"] or None, values["destinationUser"] or None


def _mpls(values: dict[str, Any], found: dict[str, Any]) -> None:
    labels = values["inLabels"] or values["outLabels"]
    if labels:
        found["mpls_top_label"] = labels[0] >> 8
    found.setdefault("next_hop", _packed(values["nextHop"]))


def _nat(values: dict[str, Any], found: dict[str, Any]) -> None:
    found["post_nat_source"] = _packed(values["sourceAddress"])
    found["post_nat_destination"] = _packed(values["destinationAddress"])


def _nat_ports(values: dict[str, Any], found: dict[str, Any]) -> None:
    found["post_nat_source_port"], found["post_nat_destination_port"] = values["sourcePort"], values["destinationPort"]


def _tunnel(values: dict[str, Any], found: dict[str, Any]) -> None:
    """The outer header of the tunnel that the packet came in; its VNI is in a record of its own."""
    protocol, port = values["protocolIdentifier"], values["destinationTransportPort"]
    if protocol == Protocol.UDP and port in _UDP_TUNNELS:
        found["tunnel"] = _UDP_TUNNELS[port]
    elif protocol == Protocol.GRE:
        found["tunnel"] = Tunnel.GRE
    elif protocol in (Protocol.IPIP, Protocol.IPV6):
        found["tunnel"] = Tunnel.IP


def _vni(values: dict[str, Any], found: dict[str, Any]) -> None:
    if values["vni"] <= _LARGEST_VNI:
        found.setdefault("tunnel", Tunnel.VXLAN)
        found["tunnel_id"] = values["vni"]


_SENT = 2
"""packet_direction: the agent's host sent the packet."""


def _tcp_info(values: dict[str, Any], found: dict[str, Any]) -> None:
    """The agent's socket. What it has sent again, and its window, are not about packets that it has received."""
    found["rtt_us"] = values["rttMicroseconds"]
    if values["direction"] == _SENT:
        found["congestion_window"], found["retransmitted"] = values["congestionWindow"], values["retransmitted"]


_READINGS: dict[int, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    SWITCH: _switch, ROUTER: _router, GATEWAY: _gateway, USER: _user, MPLS: _mpls, NAT: _nat, NAT_PORTS: _nat_ports,
    VLAN_TUNNEL: _stack("stripped_vlans"), VLAN_IN: _stack("vlans_in"), VLAN_OUT: _stack("vlans_out"),
    IPV4_TUNNEL_INGRESS: _tunnel, IPV6_TUNNEL_INGRESS: _tunnel, VNI_INGRESS: _vni,
    TCP_INFO: _tcp_info,
}
"""How each format says something of the packet."""
