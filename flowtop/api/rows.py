"""Rows of a query: flows, groups and biflows, each with attributes and as a dict."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, Generic, TypeVar, overload

from flowtop.fields.groups import group_fields, member_names
from flowtop.model.kinds import Kind
from flowtop.model.rows import FlowRow, Ways
from flowtop.output.records import page_record
from flowtop.query.query import Page

_ICMP = {1: "icmpTypeCodeIPv4", 58: "icmpTypeCodeIPv6"}


class Row:
    """What flows, groups and biflows have in common; a group or a biflow has the sums of its flows."""

    __slots__ = ("_page", "_record", "_row")

    def __init__(self, row: FlowRow, page: Page) -> None:
        self._row = row
        self._page = page
        self._record: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """IANA names and plain values, a new dict: what `flowtop -o json` writes for the same row."""
        return dict(self._members)

    @property
    def _members(self) -> dict[str, Any]:
        if self._record is None:
            self._record = page_record(self._row, self._page)
        return self._record

    @property
    def id(self) -> int:
        """Unique in its table. Groups and biflows have their own, which stay as long as the table is asked alike."""
        return self._row.flow_id

    @property
    def bytes(self) -> int:
        """IP octets: header and payload, no frame octets; over the flow's life."""
        return self._row.octet_total

    @property
    def packets(self) -> int:
        """Wire packets, over the flow's life."""
        return self._row.packet_total

    @property
    def bytes_per_s(self) -> float:
        """IP octets a second over the last tick: of a file that is all of its time, first packet to last."""
        return self._row.octet_rate

    @property
    def packets_per_s(self) -> float:
        """Wire packets a second over the last tick."""
        return self._row.packet_rate

    @property
    def start_ms(self) -> int:
        """The first packet, ms since 1970 UTC."""
        return self._row.start_ms

    @property
    def end_ms(self) -> int:
        """The last packet so far, ms since 1970 UTC."""
        return self._row.end_ms

    @property
    def duration_s(self) -> float:
        """From the first packet to the last."""
        return self._row.age_s

    @property
    def rtt_us(self) -> int:
        """TCP round-trip time in microseconds: of a file from SYN to SYN-ACK; 0: not known."""
        return self._row.rtt_us

    @property
    def retransmits(self) -> int:
        """TCP segments that were sent again."""
        return self._row.retransmitted

    @property
    def out_of_order(self) -> int:
        """TCP segments that came out of order."""
        return self._row.out_of_order


class Flow(Row):
    """One flow: the packets of one direction of a conversation at one Observation Point."""

    __slots__ = ()

    @property
    def source(self) -> str:
        """Source address; "" of an aggregate entry, whose addresses are not known."""
        return str(self._members.get("sourceIPv4Address") or self._members.get("sourceIPv6Address", ""))

    @property
    def destination(self) -> str:
        """Destination address; "" of an aggregate entry."""
        return str(self._members.get("destinationIPv4Address") or self._members.get("destinationIPv6Address", ""))

    @property
    def source_port(self) -> int:
        """Source port; 0 where the protocol has none, and of fragments whose first fragment was not seen."""
        return int(self._members.get("sourceTransportPort", 0))

    @property
    def destination_port(self) -> int:
        """Destination port; 0 where there is none, and of ICMP: see `icmp`."""
        return int(self._members.get("destinationTransportPort", 0))

    @property
    def icmp(self) -> tuple[int, int] | None:
        """ICMP or ICMPv6 type and code; None of other protocols."""
        both = self._members.get(_ICMP.get(self._row.protocol, ""))
        return None if both is None else divmod(int(both), 256)

    @property
    def protocol(self) -> int:
        """IP protocol number, behind all extension headers of IPv6."""
        return self._row.protocol

    @property
    def ip_version(self) -> int:
        """4 or 6; 0 of an aggregate of both."""
        return self._row.ip_version

    @property
    def interface(self) -> str:
        """Name of the interface or file where it was observed: untrusted text, without control characters."""
        return str(self._members["interfaceName"])

    @property
    def exporter(self) -> str:
        """Address of the exporter that reported it; "" where packets were read."""
        return str(self._members.get("exporterIPv4Address") or self._members.get("exporterIPv6Address", ""))

    @property
    def direction(self) -> str:
        """`ingress` or `egress`, as seen at the interface; "" where nobody said."""
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
        """What carried it, where tunnels are looked into: `vxlan`, `gre`, ...; "" outside tunnels."""
        return str(self._members.get("tunnel", ""))

    @property
    def tunnel_id(self) -> int:
        """VNI, key or label of that tunnel, 0 where it has none."""
        return int(self._members.get("tunnelId", 0))

    @property
    def end_reason(self) -> int:
        """flowEndReason: 1 idle timeout, 3 end of flow, 4 forced end (the file's), 5 lack of resources; 0: none yet."""
        return self._row.end_reason

    @property
    def parent(self) -> bool:
        """It carries other flows (with `decap`), which its packets are counted in: it is in no sum."""
        return self._row.kind == Kind.PARENT

    @property
    def duplicate(self) -> bool:
        """Its packets are counted in the flow of another Observation Point too."""
        return self._row.duplicate

    def __repr__(self) -> str:
        return (f"<Flow {self.protocol} {_end(self.source, self.source_port)} > "
                f"{_end(self.destination, self.destination_port)} {self.packets} packets {self.bytes} bytes>")


def _end(address: str, port: int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}" if port else host


class Group(Row):
    """Flows that agree in the fields that were asked for; a packet seen at several Observation Points counts once."""

    __slots__ = ()

    @property
    def key(self) -> dict[str, Any]:
        """What they have in common, by IANA names; nothing of aggregates, which hide it."""
        names = member_names(group_fields(self._page.query.group))
        return {name: self._members[name] for name in names if name in self._members}

    @property
    def flows(self) -> int:
        """How many there are; one seen at several Observation Points counts once."""
        return self._row.flows

    def __repr__(self) -> str:
        return f"<Group {self.key} {self.flows} flows {self.packets} packets {self.bytes} bytes>"


class Biflow(Row):
    """Both directions of a conversation (RFC 5103): the way from the initiator, and the way to it."""

    __slots__ = ()

    @property
    def _ways(self) -> Ways:
        ways = self._row.ways
        assert ways is not None, "rows of a query for biflows have ways"
        return ways

    @property
    def forward(self) -> Flow:
        """From the initiator: who sent the first SYN or ICMP request, or else the first packet that was seen."""
        return Flow(self._ways.forward, self._page)

    @property
    def reverse(self) -> Flow | None:
        """To the initiator; None: no packet was seen."""
        return None if self._ways.reverse is None else Flow(self._ways.reverse, self._page)

    @property
    def initiator_known(self) -> bool:
        """The initiator is known by its SYN or ICMP request."""
        return self._ways.opened

    def __repr__(self) -> str:
        return f"<Biflow {self.forward!r} {self.reverse!r}>"


RowT = TypeVar("RowT", bound=Row, covariant=True)


class Rows(Sequence[RowT], Generic[RowT]):
    """The rows of one query, in order; they do not change when the table does."""

    def __init__(self, page: Page, kind: type[RowT]) -> None:
        self._page = page
        self._rows = tuple(kind(row, page) for row in page.rows)

    @property
    def matched(self) -> int:
        """How many rows there are without `limit` and `offset`."""
        return self._page.matched

    @property
    def matched_flows(self) -> int:
        """How many flows pass the filter."""
        return self._page.matched_flows

    @property
    def time_ms(self) -> int:
        """The table's time when it was asked, ms since 1970 UTC."""
        return self._page.unix_ms

    def as_dicts(self) -> list[dict[str, Any]]:
        """`as_dict` of each."""
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
