"""Flow Key, counters and Flow Record as numpy dtypes, and the batch that a capture returns.

The first three dtypes mirror bpf/flow.h; tests/kernel compares them with the compiled C, field by field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flowtop.errors import FlowtopError
from flowtop.model.devices import DeviceView
from flowtop.model.exporters import CollectingStatistics
from flowtop.model.kinds import IGNORED_KINDS, TCP_OPENING_BIT, Direction, TcpBits
from flowtop.model.names_seen import NameStatistics, PeerNames
from flowtop.model.owners import OwnerStatistics
from flowtop.model.reported import REPORTED, REPORTED_DTYPE

_SYN, _SYN_ACK = np.uint16(TcpBits.SYN), np.uint16(TcpBits.SYN | TcpBits.ACK)

FLOW_KEY_DTYPE = np.dtype([
    ("source_address", "V16"),
    ("destination_address", "V16"),
    ("source_port", "u2"),
    ("destination_port", "u2"),
    ("protocol", "u1"),
    ("ip_version", "u1"),
    ("kind", "u1"),
    ("direction", "u1"),
    ("vlan_id", "u2"),
    ("customer_vlan_id", "u2"),
    ("ifindex", "u4"),
    ("tunnel_id", "u4"),
    ("tunnel", "u4"),
])
"""struct flow_key, 56 bytes: addresses and MACs as on the wire, the rest host order."""

CONVERSATION_BYTES = 39
"""The leading bytes of a Flow Key that do not depend on the Observation Point (all before `direction`)."""

FLOW_COUNTERS_DTYPE = np.dtype([
    ("packets", "u8"),
    ("octets", "u8"),
    ("first_ns", "u8"),
    ("last_ns", "u8"),
    ("socket_cookie", "u8"),
    ("source_mac", "V6"),
    ("destination_mac", "V6"),
    ("tcp_bits_hint", "u2"),
    ("tos", "u1"),
    ("ttl", "u1"),
    ("tcp_bit_seen", "u1", (TCP_OPENING_BIT + 1,)),
    ("echo", "u1"),
    ("pad", "V2"),
    ("syn_ns", "u8"),
    ("fin_ns", "u8"),
    ("rst_ns", "u8"),
    ("smoothed_rtt_us", "u4"),
    ("congestion_window", "u4"),
    ("retransmitted", "u4"),
    ("fragments", "u4"),
    ("echo_identifier", "u2"),
    ("echo_sequence", "u2"),
    ("echo_after_ns", "u4"),
    ("owner", "u8"),
])
"""struct flow_counters, 128 bytes: packets on the wire, IP octets, CLOCK_MONOTONIC ns.

tcp_bit_seen: the 12 TCP control bits of IE 6, then whether a SYN without ACK was seen. syn_ns, fin_ns, rst_ns: the
first packet with that bit, 0 for none. smoothed_rtt_us .. retransmitted are of the local TCP socket that sent the flow,
at its latest packet (but for a tick of the clock): us, segments, and segments in the socket's life; 0 of other flows.
Of flows that a local socket receives, the first two, at the first packet after a drain.
fragments: how many of the packets are fragments. echo: 1 if the first packet is an ICMP echo request or reply; then
echo_identifier and echo_sequence are its, and echo_after_ns is its precise time, in ns after first_ns. owner: whose
socket it is, see model/owners.py; 0: not known.
"""

Merge = Literal["first", "last", "known", "max", "min", "sum", "or"]
"""How a member of the counters is combined with that of later packets of the flow: the first value stays, the last one
replaces it, the last owner that is a process replaces it, or both values are combined."""

CARRIED: dict[str, Merge] = {
    "socket_cookie": "first",
    "source_mac": "first",
    "destination_mac": "first",
    "tos": "first",
    "ttl": "first",
    "fragments": "sum",
    "echo": "first",
    "echo_identifier": "first",
    "echo_sequence": "first",
    "owner": "known",
}
"""Members of FLOW_COUNTERS_DTYPE that the flow table, its columns (model.flows.FLOW_COLUMN_DTYPES) and Flow Records
have with the same name and type. For a new one, one line here is enough."""

SELDOM = frozenset({"fragments", "echo", "echo_identifier", "echo_sequence", "owner"})
"""Those of CARRIED that are 0 in nearly all flows, or of some sources in all: then they are not copied."""

SEGMENT_DTYPE = np.dtype([
    ("entry", "u4"),
    ("sequence", "u4"),
    ("octets", "u4"),
    ("bits", "u2"),
    ("time_ns", "i8"),
])
"""A captured TCP segment: which entry of the batch it is of, its sequence number, how many it takes (SYN and FIN one
each), its control bits, its time on the batch's clock."""


def with_opening(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """TCP control bits of single packets, with TCP_OPENING_BIT set where there is SYN without ACK."""
    opening = (bits & _SYN_ACK == _SYN).astype(np.uint16)
    found: npt.NDArray[np.uint16] = bits | opening << np.uint16(TCP_OPENING_BIT)
    return found


def seen_bits(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    """tcp_bits_hint as tcp_bit_seen, shape (n, 13). Exact if no other processor changed it at the same time."""
    columns = np.unpackbits(bits.astype("<u2").view(np.uint8), bitorder="little").reshape(-1, 16)
    return columns[:, :TCP_OPENING_BIT + 1]


DESCRIBED_DTYPE = np.dtype([("record_bits", "u4"), ("flow_count", "u4")])
"""What an exporter's records say of a flow beside key and counters: RecordBits (of its first record; 0: all is known),
and how many flows it stands for (the sum of deltaFlowCount; 0: not reported; of a Flow Record since the previous)."""

FLOW_TOTALS_DTYPE = np.dtype([
    ("ifindex", "u4"),
    ("layer", "u2"),
    ("decrypts", "u2"),
    ("tick", "u8"),
    ("tick_ns", "u8"),
    ("frames", "u8"),
    ("frame_octets", "u8"),
    ("vlan_stripped_frames", "u8"),
    ("packets", "u8"),
    ("octets", "u8"),
    ("encapsulation_octets", "u8"),
    ("ignored_packets", "u8", (len(IGNORED_KINDS),)),
    ("ignored_octets", "u8", (len(IGNORED_KINDS),)),
    ("lost_packets", "u8"),
    ("lost_octets", "u8"),
    ("aggregated_packets", "u8"),
    ("aggregated_octets", "u8"),
    ("unjoined_fragments", "u8"),
    ("filtered_packets", "u8"),
    ("filtered_octets", "u8"),
    ("lying_lengths", "u8"),
    ("decrypted_packets", "u8"),
    ("decrypted_octets", "u8"),
])
"""struct flow_totals, 216 bytes."""
_TOTALS_HEAD = ("ifindex", "layer", "decrypts", "tick", "tick_ns")
FLOW_TOTALS_SUMS = tuple(name for name in FLOW_TOTALS_DTYPE.names or () if name not in _TOTALS_HEAD)
"""Fields of FLOW_TOTALS_DTYPE that are sums, which follow one another to its end."""

OBSERVATION_DTYPE = np.dtype([
    ("direction", "u1"),
    ("ifindex", "u4"),
    *[(name, FLOW_TOTALS_DTYPE[name]) for name in FLOW_TOTALS_SUMS],
    ("interface_packets", "u8"),
    ("interface_octets", "u8"),
    ("compared", "u1"),
])
"""One Observation Point since it was attached (cumulative): the kernel's totals, the interface's own counters, and
whether the interface has some that count what is seen there."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """State of a source with its own time (a file) after a batch.

    Attributes:
        closes_tick: the batch ends a tick.
        ended: nothing follows.
        octets_read: of the source.
        octets_total: of the source; None if that is not known (a pipe).
        fault: why it ended early, once it has ended.
    """

    closes_tick: bool
    ended: bool = False
    octets_read: int = 0
    octets_total: int | None = None
    fault: FlowtopError | None = None


@dataclass(frozen=True, slots=True)
class Unobserved:
    """A selected interface that is not observed, or not all of it.

    Attributes:
        interface: its name.
        reason: why.
        direction: of its packets; None: both.
        in_part: some packets of it are observed.
        packets: its flows are observed, but its packets cannot be written.
    """

    interface: str
    reason: str
    direction: Direction | None = None
    in_part: bool = False
    packets: bool = False

    @property
    def text(self) -> str:
        """For a person, in one line."""
        if self.packets:
            way = "" if self.direction is None else f"{self.direction.name.lower()} "
            return f"{way}packets of {self.interface} are not written: {self.reason}"
        what = self.interface if self.direction is None else f"{self.direction.name.lower()} of {self.interface}"
        return f"{what} is {'not all' if self.in_part else 'not'} observed: {self.reason}"


@dataclass(frozen=True, slots=True)
class Steps:
    """Several consecutive batches in one, each a step of it: cheaper when packets are few.

    Attributes:
        now_ns: i8, shape (k,), never falling: the time of each.
        entry: i8, shape (n,): the step of each entry.
        ignored_ns: times of the first and the last step with packets that are in no flow; 0, 0: there is none.
    """

    now_ns: npt.NDArray[np.int64]
    entry: npt.NDArray[np.int64]
    ignored_ns: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class FlowBatch:
    """The result of one drain of a capture.

    Attributes:
        keys: FLOW_KEY_DTYPE, shape (n,); each key at most once, or once a step: those of a key together and in order.
        counters: FLOW_COUNTERS_DTYPE, shape (n,): what was added to each key since the previous batch.
        observations: OBSERVATION_DTYPE, shape (m,): the books of each Observation Point ever attached, cumulative,
            consistent with the flows: the sum of all batches' counters plus ignored plus lost equals the sum here.
        now_ns: the drain's time on the clock of first_ns/last_ns.
        unix_offset_ns: add it to a time on that clock to get ns since 1970 UTC.
        interfaces: name by ifindex of every Observation Point ever attached.
        attached: names of the interfaces observed now, sorted; for a collector its addresses, as URLs.
        unobserved: what of the selected interfaces is not observed now.
        source: None for a live capture, whose ticks end when the pipeline ends them.
        collecting: statistics of a Collecting Process; None: the capture is not one.
        other_ifindexes: u4, shape (n,): the other interface of the exporter, 0 if it is not reported; None: without
            exporters. May have the bit model.reported.OPPOSITE.
        described: DESCRIBED_DTYPE, shape (n,); None: without exporters.
        reported: model.reported.REPORTED_DTYPE or MEASURED_DTYPE, shape (n,): what exporters report beside; None:
            nothing so far.
        texts: texts of its codes, see model.reported.TEXTS; of owners, see model.owners.TEXTS.
        owners: how the owners of flows are found; None: they are not looked for.
        names: gives flows the names of their peers; None: they are not looked for.
        name_statistics: what was seen of names; None likewise.
        named_addresses: what each address, 4 or 16 octets, was called last by whoever asked.
        segments: SEGMENT_DTYPE: whole TCP segments that take sequence numbers, those of an entry together, in the order
            in which they came; None: the capture does not look at them.
        conversations: u64, shape (n, 7): the keys, but with the ends of flows with address translation as they are
            before it: these are the same packets. None: no flow has any.
        devices: counters of the devices that are observed, by ifindex.
        steps: of a batch that holds several. Each packet came after the end of the step before its own, and before the
            end of its own.

    The arrays may be views of buffers that the next drain reuses: copy what you keep.
    """

    keys: npt.NDArray[np.void]
    counters: npt.NDArray[np.void]
    observations: npt.NDArray[np.void]
    now_ns: int
    unix_offset_ns: int
    interfaces: Mapping[int, str] = field(default_factory=dict)
    attached: tuple[str, ...] = ()
    source: SourceState | None = None
    collecting: CollectingStatistics | None = None
    other_ifindexes: npt.NDArray[np.uint32] | None = None
    segments: npt.NDArray[np.void] | None = None
    steps: Steps | None = None
    described: npt.NDArray[np.void] | None = None
    reported: npt.NDArray[np.void] | None = None
    texts: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    owners: OwnerStatistics | None = None
    conversations: npt.NDArray[np.uint64] | None = None
    devices: Mapping[int, DeviceView] = field(default_factory=dict)
    unobserved: tuple[Unobserved, ...] = ()
    names: PeerNames | None = None
    name_statistics: NameStatistics | None = None
    named_addresses: Mapping[bytes, str] = field(default_factory=dict)


FLOW_RECORD_DTYPE = np.dtype([
    ("flow_id", "u8"),
    *[(name, FLOW_KEY_DTYPE[name]) for name in FLOW_KEY_DTYPE.names or ()],
    *[(name, FLOW_COUNTERS_DTYPE[name]) for name in CARRIED],
    ("tcp_control_bits", "u2"),
    ("end_reason", "u1"),
    ("duplicate", "?"),
    ("packet_delta", "u8"),
    ("octet_delta", "u8"),
    ("packet_total", "u8"),
    ("octet_total", "u8"),
    ("start_ms", "u8"),
    ("end_ms", "u8"),
    ("syn_ms", "u8"),
    ("fin_ms", "u8"),
    ("rst_ms", "u8"),
    ("rtt_us", "u4"),
    ("retransmitted", "u4"),
    ("out_of_order", "u4"),
    ("congestion_window", "u4"),
    ("retransmitted_delta", "u4"),
    ("out_of_order_delta", "u4"),
    ("peer_name", "u4"),
    *[(name, DESCRIBED_DTYPE[name]) for name in DESCRIBED_DTYPE.names or ()],
])
"""A Flow Record as expiry reports it. Deltas: since the flow's previous record. Times: ms since 1970 UTC.

`peer_name`: see model.names_seen; 0: no name.
`duplicate`: the totals count these packets in the flow of another Observation Point.
`syn_ms` .. `congestion_window`: of TCP, 0 where it is not known; see FlowRow. `*_delta`: since the flow's previous
record. Messages have those that there are elements for: see wire/tcp_metrics.py.
"""

REPORTED_RECORD_DTYPE = np.dtype([
    *[(name, FLOW_RECORD_DTYPE[name]) for name in FLOW_RECORD_DTYPE.names or ()],
    ("other_ifindex", "u4"),
    *[(name, REPORTED_DTYPE[name]) for name in REPORTED],
])
"""A Flow Record of a collected flow, with what the exporter reported of it (model/reported.py)."""

RELAYED_RECORD_DTYPE = np.dtype([
    *[(name, REPORTED_RECORD_DTYPE[name]) for name in REPORTED_RECORD_DTYPE.names or ()],
    ("exporter", "V16"),
    ("domain", "u4"),
    ("ingress_interface", "u4"),
    ("egress_interface", "u4"),
    ("ingress_vrf_id", "u4"),
    ("egress_vrf_id", "u4"),
    ("application_id", "S24"),
    ("application_name", "S64"),
    ("vrf_name", "S64"),
    ("egress_vrf_name", "S64"),
    ("user_name", "S64"),
    ("unscaled_interval", "u4"),
])
"""A Flow Record that is passed on: complete without the tables of names and numbers of this process.

`exporter`, as the addresses of REPORTED_DTYPE, and `domain`: the Observation Domain that it is from. Interfaces: the
exporter's own numbers. `application_id`: as text, `engine:selector` (RFC 6759). Names in UTF-8. `vrf_name`: of the
ingress VRF. `unscaled_interval`: the counters have yet to be multiplied by it; 0: they are complete. Only records on
their way into a message have one (wire/selectors.py).
"""

FlowRecords = npt.NDArray[np.void]
"""FLOW_RECORD_DTYPE, REPORTED_RECORD_DTYPE or RELAYED_RECORD_DTYPE, shape (n,); each has the members of the one
before. Where members are added, they are 0."""


def widened(records: FlowRecords, dtype: np.dtype[np.void]) -> FlowRecords:
    """The records with the members of a wider dtype."""
    if records.dtype == dtype:
        return records
    found = np.zeros(len(records), dtype)
    for name in records.dtype.names or ():
        found[name] = records[name]
    return found


def chosen(records: FlowRecords, which: npt.NDArray[Any] | slice) -> FlowRecords:
    """`records[which]`, copied whole: numpy copies a structured array field by field, which takes 20 times as long."""
    whole = records.view(np.dtype((np.void, records.dtype.itemsize)))[which]
    found: FlowRecords = whole.view(records.dtype)
    return found


def joined(parts: Sequence[FlowRecords]) -> FlowRecords:
    """One after another, copied whole as by `chosen`, all as the widest; there is at least one part."""
    dtype = max((part.dtype for part in parts), key=lambda dtype: dtype.itemsize)
    parts = [widened(part, dtype) for part in parts]
    whole = np.concatenate([part.view(np.dtype((np.void, dtype.itemsize))) for part in parts])
    found: FlowRecords = whole.view(dtype)
    return found
