"""Enumerations and constants that the whole program shares: protocols, TCP control bits, directions, tunnels, entries.

Without numpy, so that the command line and the first frame of the screen may import it. In numpy code wrap a member in
the dtype of the column, `np.uint16(TcpBits.SYN)`: an enum member by itself makes int64 of the whole expression.
"""

from __future__ import annotations

import enum

IGNORED_KINDS = ("arp", "llc", "other", "malformed")
"""Names of enum flow_ignored, in order."""


class IpVersion(enum.IntEnum):
    """ipVersion (IE 60)."""

    V4 = 4
    V6 = 6


class Protocol(enum.IntEnum):
    """protocolIdentifier (IE 4): IP protocols and IPv6 extension headers, as IANA numbers them."""

    HOPOPT = 0
    ICMP = 1
    IGMP = 2
    IPIP = 4
    TCP = 6
    EGP = 8
    IGP = 9
    UDP = 17
    RDP = 27
    DCCP = 33
    IPV6 = 41
    IPV6_ROUTE = 43
    IPV6_FRAGMENT = 44
    RSVP = 46
    GRE = 47
    ESP = 50
    AH = 51
    ICMPV6 = 58
    IPV6_NO_NEXT = 59
    IPV6_OPTIONS = 60
    EIGRP = 88
    OSPF = 89
    NOS_IPIP = 94
    ETHERIP = 97
    PIM = 103
    IPCOMP = 108
    VRRP = 112
    L2TP = 115
    ISIS = 124
    SCTP = 132
    FC = 133
    MOBILITY = 135
    UDPLITE = 136
    MPLS = 137
    HIP = 139
    SHIM6 = 140
    ETHERNET = 143


LARGEST_PROTOCOL = 255
ANY_PROTOCOL = LARGEST_PROTOCOL
"""Protocol of an aggregate that holds packets of any protocol: there was no room for one a protocol (bpf/flow.h)."""

PORT_PROTOCOLS = frozenset({Protocol.TCP, Protocol.UDP, Protocol.DCCP, Protocol.SCTP, Protocol.UDPLITE})
"""Protocols whose Flow Key has ports."""

ICMP_VERSIONS: dict[int, IpVersion] = {Protocol.ICMP: IpVersion.V4, Protocol.ICMPV6: IpVersion.V6}
"""Protocols whose Flow Key has type * 256 + code as its destination port, and the IP version that each belongs to."""

ICMP_ECHO: dict[int, tuple[int, int]] = {Protocol.ICMP: (8, 0), Protocol.ICMPV6: (128, 129)}
"""Types of ICMP messages: echo request and its reply, which have an identifier and a sequence number."""

ICMP_ANSWERS: dict[int, dict[int, int]] = {Protocol.ICMP: {8: 0, 13: 14, 17: 18}, Protocol.ICMPV6: {128: 129}}
"""By IP protocol: type of a request, and type of its answer (RFC 792, RFC 950, RFC 4443)."""


class TcpBits(enum.IntFlag):
    """tcpControlBits (IE 6; RFC 9293 section 3.1, RFC 9768 for AE)."""

    FIN = 0x001
    SYN = 0x002
    RST = 0x004
    PSH = 0x008
    ACK = 0x010
    URG = 0x020
    ECE = 0x040
    CWR = 0x080
    AE = 0x100


TCP_NAMED_BITS = ~TcpBits(0)
"""Every bit that has a name."""
TCP_CONTROL_BITS = 0xFFF
"""The 12 bits of IE 6, reserved ones included."""
TCP_CLOSING_BITS = TcpBits.FIN | TcpBits.RST
"""Any of them ends a connection."""
TCP_OPENING_BIT = 12
"""In tcp_bit_seen and tcp_bits_hint: number of the bit that means SYN without ACK in one packet."""


class Direction(enum.IntEnum):
    """flowDirection (IE 61), as the Observation Point sees it."""

    INGRESS = 0
    EGRESS = 1


UNKNOWN_DIRECTION = 2
"""In place of a Direction: the exporter does not report one. No Observation Point of this host has it."""


class Kind(enum.IntEnum):
    """What an entry of the flow table is (enum flow_kind)."""

    FLOW = 0
    AGGREGATE = 1
    FRAGMENT = 2
    PARENT = 3


HAVE_PORTS = (Kind.FLOW, Kind.PARENT)
"""Kinds whose ports are known, where the protocol has ports."""


class Tunnel(enum.IntEnum):
    """What carried a packet, the innermost tunnel if there are several (enum flow_tunnel).

    To add a kind, add a member: list, filter language, JSON, details and IPFIX take names and traits from here. The
    numbers are in exports (wire/tunnels.py) and must not change.

    Attributes:
        label: name on the screen, in filters, JSON and exports; "" for NONE.
        id_label: what the id of such a tunnel is called; "" when it has none.
        always_has_id: an id of 0 is an id. Of the other kinds, 0 means that there is none.
        ports: UDP destination ports by which it is recognized; 8472 is Linux's default for VXLAN.
    """

    label: str
    id_label: str
    always_has_id: bool
    ports: tuple[int, ...]

    def __new__(cls, number: int, label: str = "", id_label: str = "", always_has_id: bool = False,
                ports: tuple[int, ...] = ()) -> Tunnel:
        """See enum.Enum."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.label, member.id_label, member.always_has_id, member.ports = label, id_label, always_has_id, ports
        return member

    NONE = 0
    IP = 1, "ip"
    GRE = 2, "gre", "key"
    ERSPAN = 3, "erspan", "session"
    VXLAN = 4, "vxlan", "vni", True, (4789, 8472)
    GENEVE = 5, "geneve", "vni", True, (6081,)
    MPLS = 6, "mpls", "label", True, (6635,)
    PPPOE = 7, "pppoe", "session"
    IPSEC = 8, "ipsec", "spi", True


TUNNELS_BY_LABEL: dict[str, Tunnel] = {tunnel.label: tunnel for tunnel in Tunnel if tunnel}
"""Every kind of tunnel by its name."""


class Layer(enum.IntEnum):
    """What a device's frames begin with (enum flow_layer)."""

    ETHERNET = 0
    IP = 1


class EndReason(enum.IntEnum):
    """flowEndReason (IE 136); NONE while the flow is alive."""

    NONE = 0
    IDLE_TIMEOUT = 1
    ACTIVE_TIMEOUT = 2
    END_OF_FLOW = 3
    FORCED_END = 4
    LACK_OF_RESOURCES = 5


class FirewallEvent(enum.IntEnum):
    """firewallEvent (IE 233); NONE: the record is no event."""

    NONE = 0
    CREATED = 1
    DELETED = 2
    DENIED = 3
    ALERT = 4
    UPDATE = 5


class NatEvent(enum.IntEnum):
    """natEvent (IE 230; RFC 8158 section 5.1); NONE: the record is no event."""

    NONE = 0
    TRANSLATION_CREATE = 1
    TRANSLATION_DELETE = 2
    ADDRESSES_EXHAUSTED = 3
    NAT44_SESSION_CREATE = 4
    NAT44_SESSION_DELETE = 5
    NAT64_SESSION_CREATE = 6
    NAT64_SESSION_DELETE = 7
    NAT44_BIB_CREATE = 8
    NAT44_BIB_DELETE = 9
    NAT64_BIB_CREATE = 10
    NAT64_BIB_DELETE = 11
    PORTS_EXHAUSTED = 12
    QUOTA_EXCEEDED = 13
    BINDING_CREATE = 14
    BINDING_DELETE = 15
    PORT_BLOCK_ALLOCATION = 16
    PORT_BLOCK_DEALLOCATION = 17
    THRESHOLD_REACHED = 18


class RecordBits(enum.IntFlag):
    """What an exporter's records say and do not say of a flow; 0 for flows of packets, of which all is known.

    NO_*: the Template has no such element, so that a 0 of the flow is not a value.
    """

    NO_SOURCE_PORT = 1 << 0
    NO_DESTINATION_PORT = 1 << 1
    NO_PROTOCOL = 1 << 2
    NO_TCP_CONTROL_BITS = 1 << 3
    NO_TOS = 1 << 4
    NO_TTL = 1 << 5
    NO_VLAN_ID = 1 << 6
    NO_CUSTOMER_VLAN_ID = 1 << 7
    NO_SOURCE_MAC = 1 << 8
    NO_DESTINATION_MAC = 1 << 9
    NO_ICMP_TYPE = 1 << 10
    SOURCE_PREFIX = 1 << 11
    """The source address is that of a network; its length + 1 is in 8 bits from SOURCE_LENGTH_SHIFT, 0: unknown."""
    DESTINATION_PREFIX = 1 << 12
    INITIATOR = 1 << 13
    """The source began the conversation (biflowDirection, or a bidirectional record)."""
    RESPONDER = 1 << 14
    """The destination did."""


SOURCE_LENGTH_SHIFT, DESTINATION_LENGTH_SHIFT = 16, 24
"""Places of the lengths of prefixes among RecordBits."""


class BiflowDirection(enum.IntEnum):
    """biflowDirection (IE 239; RFC 5103 section 6.3)."""

    ARBITRARY = 0
    INITIATOR = 1
    REVERSE_INITIATOR = 2
    PERIMETER = 3

CLIENT_PORTS = 32_768
"""Where the ports of clients begin: on Linux; at IANA they do at 49152."""
