"""One row of a Page: a flow, a group of flows or a biflow, in plain Python values."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

NO_MORE: Mapping[str, Any] = MappingProxyType({})
"""Of rows without further values."""


class State(Enum):
    """State of a flow, as the ST column shows it."""

    ACTIVE = "·"
    CLOSING = "fin"
    """FIN or RST was seen; the flow ends when no packet follows."""
    ENDED = "end"


class Volume(NamedTuple):
    """What went one way: octets/s, packets/s, IP octets and wire packets."""

    octet_rate: float
    octet_rate_10s: float
    octet_rate_60s: float
    packet_rate: float
    octet_total: int
    packet_total: int


class Sides(NamedTuple):
    """What came in and what went out, as this host sees it: see fields.networks.REMOTE_RULE."""

    into: Volume
    out_of: Volume


class FlowRow(NamedTuple):
    """One flow of a Page, or one group of flows, or a biflow, in plain Python values.

    A group has the sums of its flows (each packet once), its first and last packet, and its own flow_id, which is kept
    as long as the query's group fields do not change. Values that may differ between its flows (addresses ... ttl) are
    0. It has ended when all its flows have ended. Its peak is the highest of its flows.

    A biflow has the sums of both directions and its own flow_id; addresses ... ttl are the initiator's.

    Addresses are 16 bytes (IPv4 in the first 4), MACs 6 bytes, rates in octets/s and packets/s, times in ms since
    1970 UTC, ages in seconds.
    """

    flow_id: int
    source_address: bytes
    destination_address: bytes
    source_port: int
    destination_port: int
    protocol: int
    ip_version: int
    kind: int
    direction: int
    vlan_id: int
    customer_vlan_id: int
    ifindex: int
    source_mac: bytes
    destination_mac: bytes
    tcp_control_bits: int
    tos: int
    ttl: int
    end_reason: int
    """EndReason; 0 while alive."""
    closing: bool
    """FIN or RST was seen."""
    duplicate: bool
    """The totals count these packets in the flow of another Observation Point."""
    packet_delta: int
    """Wire packets in the last tick."""
    octet_delta: int
    """IP octets in the last tick."""
    packet_total: int
    octet_total: int
    octet_rate: float
    octet_rate_10s: float
    octet_rate_60s: float
    octet_rate_peak: float
    """Highest octet_rate of any tick so far."""
    packet_rate: float
    packet_rate_10s: float
    packet_rate_60s: float
    start_ms: int
    end_ms: int
    age_s: float
    """Last packet minus first."""
    idle_s: float
    """Now minus last packet."""
    ended_s: float = 0.0
    """Now minus the flow's end; 0 while alive."""
    syn_ms: int = 0
    """Time of the first packet with SYN; 0: none was seen. Of a group: 0."""
    fin_ms: int = 0
    rst_ms: int = 0
    rtt_us: int = 0
    """TCP round-trip time: smoothed, of the local socket that sends or receives this flow; of files from SYN to
    SYN-ACK. 0: not known. Of groups: the longest."""
    congestion_window: int = 0
    """Congestion window in segments of the local socket that sends or receives this flow; 0: no such socket."""
    retransmitted: int = 0
    """TCP segments retransmitted: by the local socket so far; for files: see metering/tcp.py."""
    out_of_order: int = 0
    """TCP segments of files that arrived after segments that were sent later."""
    flows: int = 1
    """Number of flows of a group; a flow seen at several Observation Points counts once."""
    tunnel: int = 0
    """Tunnel: what carried it; of a parent, what it carries flows in."""
    tunnel_id: int = 0
    record_bits: int = 0
    """RecordBits: what the exporter does not report of the flow."""
    flow_count: int = 0
    """How many flows the exporter says that it stands for; 0: not reported."""
    group: tuple[tuple[int, ...], ...] = ()
    """Key of a group: for each field of Query.group the value that `keys` of the registry gives."""
    more: Mapping[str, Any] = NO_MORE
    """Values of fields that are nowhere else in the row, by the field's id: numbers and codes."""
    ways: Ways | None = None
    """Of a biflow: its two directions."""
    sides: Sides | None = None
    """Of a group or biflow: the same traffic by in and out."""
    shares: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of the octets of all listed flows: 0..1, over the last tick, 10 s and 60 s."""

    @property
    def state(self) -> State:
        """Active, closing or ended."""
        if self.end_reason:
            return State.ENDED
        return State.CLOSING if self.closing else State.ACTIVE


class Ways(NamedTuple):
    """The two directions of a biflow: a row each, of one flow or the sum of several, with the flow_id of the flow that
    was seen first."""

    forward: FlowRow
    """From the initiator."""
    reverse: FlowRow | None
    """To the initiator; None: not seen."""
    opened: bool
    """Whether the initiator is known by its SYN or ICMP request."""
    tags_differ: bool = False
    """Its flows have different VLAN tags."""
    guessed: bool = False
    """Which end is the client is a guess: see query.biflows.Biflows."""


class FlowValues(Protocol):
    """What a FlowRow and a Flow Record have both: a flow in plain values, for JSON and CSV. Units: see FlowRow; deltas
    are of the last tick, or since the previous record."""

    @property
    def flow_id(self) -> int: ...
    @property
    def source_address(self) -> bytes: ...
    @property
    def destination_address(self) -> bytes: ...
    @property
    def source_port(self) -> int: ...
    @property
    def destination_port(self) -> int: ...
    @property
    def protocol(self) -> int: ...
    @property
    def ip_version(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def direction(self) -> int: ...
    @property
    def vlan_id(self) -> int: ...
    @property
    def customer_vlan_id(self) -> int: ...
    @property
    def ifindex(self) -> int: ...
    @property
    def tunnel(self) -> int: ...
    @property
    def tunnel_id(self) -> int: ...
    @property
    def record_bits(self) -> int: ...
    @property
    def flow_count(self) -> int: ...
    @property
    def source_mac(self) -> bytes: ...
    @property
    def destination_mac(self) -> bytes: ...
    @property
    def tcp_control_bits(self) -> int: ...
    @property
    def tos(self) -> int: ...
    @property
    def ttl(self) -> int: ...
    @property
    def end_reason(self) -> int: ...
    @property
    def duplicate(self) -> bool: ...
    @property
    def packet_delta(self) -> int: ...
    @property
    def octet_delta(self) -> int: ...
    @property
    def packet_total(self) -> int: ...
    @property
    def octet_total(self) -> int: ...
    @property
    def start_ms(self) -> int: ...
    @property
    def end_ms(self) -> int: ...
    @property
    def syn_ms(self) -> int: ...
    @property
    def fin_ms(self) -> int: ...
    @property
    def rst_ms(self) -> int: ...
    @property
    def rtt_us(self) -> int: ...
    @property
    def congestion_window(self) -> int: ...
    @property
    def retransmitted(self) -> int: ...
    @property
    def out_of_order(self) -> int: ...
    @property
    def more(self) -> Mapping[str, Any]: ...
