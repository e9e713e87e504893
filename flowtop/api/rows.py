"""Rows of a query: flows, groups and biflows, each with attributes and as a dict."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, Generic, TypeVar, overload

from flowtop.fields.groups import group_fields, member_names
from flowtop.model.kinds import ICMP_VERSIONS, IpVersion, Kind
from flowtop.model.rows import FlowRow, Ways
from flowtop.output.records import page_record
from flowtop.query.query import Page

_ICMP = {int(protocol): f"icmpTypeCodeIPv{version}" for protocol, version in ICMP_VERSIONS.items()}


class Row:
    """Base class of flows, groups and biflows. Groups and biflows have the sums of their flows."""

    __slots__ = ("_page", "_record", "_row")

    def __init__(self, row: FlowRow, page: Page) -> None:
        self._row = row
        self._page = page
        self._record: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """A new dict of IANA names and plain values, the same as in the output of `flowtop -o json`."""
        return dict(self._members)

    @property
    def _members(self) -> dict[str, Any]:
        if self._record is None:
            self._record = page_record(self._row, self._page)
        return self._record

    @property
    def id(self) -> int:
        """Unique in its table. Ids of groups and biflows stay the same between equal queries."""
        return self._row.flow_id

    @property
    def bytes(self) -> int:
        """IP octets (header and payload, no frame octets) over the flow's life."""
        return self._row.octet_total

    @property
    def packets(self) -> int:
        """Wire packets, over the flow's life."""
        return self._row.packet_total

    @property
    def bytes_per_s(self) -> float:
        """IP octets per second over the last tick; for a file: from its first packet to its last."""
        return self._row.octet_rate

    @property
    def packets_per_s(self) -> float:
        """Wire packets per second over the last tick; for a file: from its first packet to its last."""
        return self._row.packet_rate

    @property
    def start_ms(self) -> int:
        """Time of the first packet, ms since 1970 UTC."""
        return self._row.start_ms

    @property
    def end_ms(self) -> int:
        """Time of the last packet so far, ms since 1970 UTC."""
        return self._row.end_ms

    @property
    def duration_s(self) -> float:
        """Time from the first packet to the last, seconds."""
        return self._row.age_s

    @property
    def rtt_us(self) -> int:
        """TCP round-trip time in microseconds, from SYN to SYN-ACK; 0: not known."""
        return self._row.rtt_us

    @property
    def retransmits(self) -> int:
        """TCP segments that were retransmitted."""
        return self._row.retransmitted

    @property
    def out_of_order(self) -> int:
        """TCP segments that arrived out of order."""
        return self._row.out_of_order


class Flow(Row):
    """One flow: the packets of one direction of a conversation at one Observation Point."""

    __slots__ = ()

    def _end(self, side: str) -> str:
        names = [f"IPv{version}{what}" for what in ("Address", "Prefix") for version in IpVersion]
        if not self._row.ip_version and self._row.kind == Kind.FLOW:
            names = ["MacAddress"]
        return str(next((value for name in names if (value := self._members.get(f"{side}{name}"))), ""))

    @property
    def source(self) -> str:
        """Source address: an IP address, that of a network, or a MAC address, as the exporter reports it; "" for an
        aggregate entry, whose addresses are not known."""
        return self._end("source")

    @property
    def destination(self) -> str:
        """Destination address; "" for an aggregate entry."""
        return self._end("destination")

    @property
    def source_port(self) -> int:
        """Source port; 0 for protocols without ports, and for fragments whose first fragment was not seen."""
        return int(self._members.get("sourceTransportPort", 0))

    @property
    def destination_port(self) -> int:
        """Destination port; 0 when there is none, and for ICMP: see `icmp`."""
        return int(self._members.get("destinationTransportPort", 0))

    @property
    def icmp(self) -> tuple[int, int] | None:
        """ICMP or ICMPv6 type and code; None for other protocols."""
        both = self._members.get(_ICMP.get(self._row.protocol, ""))
        return None if both is None else divmod(int(both), 256)

    @property
    def protocol(self) -> int:
        """IP protocol number, after all IPv6 extension headers."""
        return self._row.protocol

    @property
    def ip_version(self) -> int:
        """4 or 6; 0 for an aggregate of both."""
        return self._row.ip_version

    @property
    def interface(self) -> str:
        """Name of the interface or file where the flow was observed. Untrusted text, without control characters."""
        return str(self._members["interfaceName"])

    @property
    def exporter(self) -> str:
        """Address of the exporter that reported the flow; "" when it was made from packets."""
        return str(self._members.get("exporterIPv4Address") or self._members.get("exporterIPv6Address", ""))

    @property
    def ingress_interface(self) -> int:
        """The exporter's number of the interface where the flow came in; 0: not reported, or no exporter."""
        return int(self._members.get("ingressInterface", 0))

    @property
    def egress_interface(self) -> int:
        """The exporter's number of the interface where the flow leaves; 0: not reported, or no exporter."""
        return int(self._members.get("egressInterface", 0))

    @property
    def source_as(self) -> int:
        """Autonomous system of the source, as the exporter reports it; 0: not reported."""
        return int(self._members.get("bgpSourceAsNumber", 0))

    @property
    def destination_as(self) -> int:
        """Autonomous system of the destination, as the exporter reports it; 0: not reported."""
        return int(self._members.get("bgpDestinationAsNumber", 0))

    @property
    def next_hop(self) -> str:
        """Address of the next hop, as the exporter reports it; "": not reported."""
        return str(self._members.get("ipNextHopIPv4Address") or self._members.get("ipNextHopIPv6Address", ""))

    @property
    def application(self) -> str:
        """Application, as the exporter reports it: its name, or `engine:selector`; "": not reported. Untrusted text."""
        return str(self._members.get("applicationName") or self._members.get("applicationId", ""))

    @property
    def user(self) -> str:
        """User, as the exporter reports it; "": not reported. Untrusted text, without control characters."""
        return str(self._members.get("userName", ""))

    @property
    def direction(self) -> str:
        """`ingress` or `egress` at the interface; "" when it is not known."""
        return {0: "ingress", 1: "egress"}.get(self._members.get("flowDirection", -1), "")

    @property
    def tcp_flags(self) -> int:
        """OR of the TCP control bits of all packets: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, ..."""
        return self._row.tcp_control_bits

    @property
    def vlan(self) -> int:
        """VLAN ID of the outer tag, 0 when untagged."""
        return self._row.vlan_id

    @property
    def dscp(self) -> int:
        """Differentiated services code point of the first packet."""
        return self._row.tos >> 2

    @property
    def ttl(self) -> int:
        """TTL or hop limit of the first packet."""
        return self._row.ttl

    @property
    def tunnel(self) -> str:
        """Kind of the tunnel that carried the flow (with `decap`): `vxlan`, `gre`, ...; "" outside tunnels."""
        return str(self._members.get("tunnel", ""))

    @property
    def tunnel_id(self) -> int:
        """VNI, key or label of that tunnel; 0 when it has none."""
        return int(self._members.get("tunnelId", 0))

    @property
    def end_reason(self) -> int:
        """flowEndReason: 1 idle timeout, 3 end of flow, 4 end of the file, 5 lack of resources; 0: still active."""
        return self._row.end_reason

    @property
    def parent(self) -> bool:
        """True for a tunnel (with `decap`): its packets are counted in the flows it carries, and it is in no sum."""
        return self._row.kind == Kind.PARENT

    @property
    def duplicate(self) -> bool:
        """True when its packets are also counted in a flow of another Observation Point."""
        return self._row.duplicate

    def __repr__(self) -> str:
        return (f"<Flow {self.protocol} {_end(self.source, self.source_port)} > "
                f"{_end(self.destination, self.destination_port)} {self.packets} packets {self.bytes} bytes>")


def _end(address: str, port: int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}" if port else host


class Group(Row):
    """Flows with equal group fields. A packet seen at several Observation Points counts once."""

    __slots__ = ()

    @property
    def key(self) -> dict[str, Any]:
        """Values of the group fields by IANA name; values that aggregates do not keep are absent."""
        names = member_names(group_fields(self._page.query.group))
        return {name: self._members[name] for name in names if name in self._members}

    @property
    def flows(self) -> int:
        """Number of flows; a flow seen at several Observation Points counts once."""
        return self._row.flows

    def __repr__(self) -> str:
        return f"<Group {self.key} {self.flows} flows {self.packets} packets {self.bytes} bytes>"


class Biflow(Row):
    """Both directions of a conversation (RFC 5103): the flow from the initiator, and the flow to it."""

    __slots__ = ()

    @property
    def _ways(self) -> Ways:
        ways = self._row.ways
        assert ways is not None, "a row of a biflow query has both directions"
        return ways

    @property
    def forward(self) -> Flow:
        """The flow from the initiator: the sender of the first SYN, ICMP request, or otherwise packet that was seen."""
        return Flow(self._ways.forward, self._page)

    @property
    def reverse(self) -> Flow | None:
        """The flow to the initiator; None: no packet was seen."""
        return None if self._ways.reverse is None else Flow(self._ways.reverse, self._page)

    @property
    def initiator_known(self) -> bool:
        """Whether a SYN or an ICMP request identified the initiator."""
        return self._ways.opened

    def __repr__(self) -> str:
        return f"<Biflow {self.forward!r} {self.reverse!r}>"


RowT = TypeVar("RowT", bound=Row, covariant=True)


class Rows(Sequence[RowT], Generic[RowT]):
    """The rows of one query, in order. Later changes of the table do not change them."""

    def __init__(self, page: Page, kind: type[RowT]) -> None:
        self._page = page
        self._rows = tuple(kind(row, page) for row in page.rows)

    @property
    def matched(self) -> int:
        """Number of rows without `limit` and `offset`."""
        return self._page.matched

    @property
    def matched_flows(self) -> int:
        """Number of flows that match the filter."""
        return self._page.matched_flows

    @property
    def time_ms(self) -> int:
        """Time of the table at the query, ms since 1970 UTC."""
        return self._page.unix_ms

    def as_dicts(self) -> list[dict[str, Any]]:
        """`as_dict` of each row."""
        return [row.as_dict() for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> RowT: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[RowT, ...]: ...

    def __getitem__(self, index: int | slice) -> RowT | tuple[RowT, ...]:
        return self._rows[index]

    def __repr__(self) -> builtins.str:
        return f"<{len(self._rows)} of {self.matched} rows>"
