"""What kinds of things there are: of entries, tunnels, directions, layers, ends; numbers of protocols and TCP bits.

Imports no numpy: the command line and the first frame of the screen need these names.
"""

from __future__ import annotations

import enum

TCP_OPENING_BIT = 12
"""Of tcp_bit_seen and tcp_bits_hint: SYN without ACK."""


IGNORED_KINDS = ("arp", "llc", "other", "malformed")
"""Names of enum flow_ignored, in order."""


class Direction(enum.IntEnum):
    """flowDirection (IE 61)."""

    INGRESS = 0
    EGRESS = 1


UNKNOWN_DIRECTION = 2
"""In the place of a Direction: an exporter has not said which. No Observation Point of this host has it."""


class Kind(enum.IntEnum):
    """What an entry stands for (enum flow_kind)."""

    FLOW = 0
    AGGREGATE = 1
    FRAGMENT = 2
    PARENT = 3


HAVE_PORTS = (Kind.FLOW, Kind.PARENT)
"""Kinds of which the ports are known, where the protocol has any."""


class Tunnel(enum.IntEnum):
    """What carried a packet, the innermost if there are several (enum flow_tunnel).

    The numbers are in exports too (wire/tunnels.py): they stay what they are.
    """

    NONE = 0
    IP = 1
    GRE = 2
    ERSPAN = 3
    VXLAN = 4
    GENEVE = 5
    MPLS = 6


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

ICMP_ANSWERS: dict[int, dict[int, int]] = {1: {8: 0, 13: 14, 17: 18}, 58: {128: 129}}
"""By IP protocol: type of a request, and type of its answer (RFC 792, RFC 950, RFC 4443)."""
