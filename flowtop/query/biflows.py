"""Both directions of a conversation in one row: biflows (RFC 5103), the initiator first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from flowtop.fields.networks import REMOTE_IS_SOURCE, networked
from flowtop.fields.registry import MEASURES
from flowtop.model.flows import (
    FLOW_COLUMN_DTYPES,
    INTO,
    OUT_OF,
    Array,
    FlowColumns,
    FlowSource,
    Slots,
    Subset,
    Together,
    address_words,
    all_visible,
)
from flowtop.model.kinds import (
    CLIENT_PORTS,
    ICMP_ANSWERS,
    PORT_PROTOCOLS,
    UNKNOWN_DIRECTION,
    IpVersion,
    Kind,
    Protocol,
    RecordBits,
)
from flowtop.query.grouping import DerivedColumns
from flowtop.query.labels import Labels, label, pieces
from flowtop.query.measures import about_addresses, columns_at, together

_INITIATOR, _RESPONDER = np.uint32(RecordBits.INITIATOR), np.uint32(RecordBits.RESPONDER)
_UFUNCS: dict[Together, np.ufunc] = {"sum": np.add, "min": np.minimum, "max": np.maximum}


def _combined(name: str) -> np.ufunc | None:
    """How values of several flows are combined; None: the value of the flow that was seen first."""
    return np.bitwise_or if name == "tcp_control_bits" else _UFUNCS.get(together(name))


_ALIKE = frozenset({"kind", "protocol", "ip_version"})
"""What all flows of a biflow have in common: which of them is the initiator's need not be known."""
_TCP = np.uint8(Protocol.TCP)
_HAVE_PORTS = np.isin(np.arange(256), list(PORT_PROTOCOLS))
"""By protocol."""
_CLIENT_PORTS = np.uint16(CLIENT_PORTS)


def _of_clients(ports: Array) -> npt.NDArray[np.bool_]:
    of_clients: npt.NDArray[np.bool_] = ports >= _CLIENT_PORTS
    return of_clients


_ANSWERS = {protocol: {request << 8: answer << 8 for request, answer in answers.items()}
            for protocol, answers in ICMP_ANSWERS.items()}
"""By ICMP protocol: destination port (type and code) of requests and of their answers."""


@dataclass(frozen=True, slots=True)
class ChosenBiflows:
    """Selected biflows, in order.

    Attributes:
        source: one element per biflow, as in Biflows.source.
        ways: two elements per biflow, the initiator's direction first; a direction that was not seen has no packets.
        seen: shape (biflows, 2): which directions were seen.
        opened: whether the initiator is known by its SYN or request, not only by the order of flows.
        tags_differ: whether its flows have different VLAN tags.
        guessed: whether the initiator is a guess.
    """

    source: FlowSource
    ways: FlowSource
    seen: npt.NDArray[np.bool_]
    opened: npt.NDArray[np.bool_]
    tags_differ: npt.NDArray[np.bool_]
    guessed: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pairing:
    """Which flows belong to the same biflow.

    This is the most expensive part of a query for biflows. The result is the same for the next query if no flow has
    begun, left or become a duplicate, as keys never change.

    Attributes:
        flow_ids, duplicates: those of the flows, in order.
        dedupes: that of the source.
        labels: biflow of each flow.
        back: whether a flow is in the reverse direction; requests: whether it is an ICMP request.
    """

    flow_ids: npt.NDArray[np.uint64]
    duplicates: npt.NDArray[np.bool_]
    dedupes: bool
    labels: Labels
    back: npt.NDArray[np.bool_]
    requests: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, source: FlowSource, slots: Slots, seed: int) -> Pairing:
        """Pair the flows in these slots, ascending."""
        flows = Subset(source.columns, slots)
        keys, back, requests = _keys(source.columns, slots, source.dedupes)
        if flows["tunnel"].any():
            keys.append(_tunnels(flows, keys, source.dedupes, seed))
        return cls(flows["flow_id"].copy(), flows["duplicate"].copy(), source.dedupes, label(keys, seed), back,
                   requests)

    def holds(self, source: FlowSource, slots: Slots) -> bool:
        """Whether this is the pairing of these flows."""
        flows = Subset(source.columns, slots)
        return self.dedupes == source.dedupes and np.array_equal(flows["flow_id"], self.flow_ids) and np.array_equal(
            flows["duplicate"], self.duplicates)

    def around(self, anchor: int) -> tuple[int, tuple[int, ...]] | None:
        """The biflow with this id, or with a flow of this id: its id and its flows' ids, ascending; or None."""
        at = np.flatnonzero(self.labels.ids == np.uint64(anchor))
        if not len(at):
            at = self.labels.of[np.flatnonzero(self.flow_ids == np.uint64(anchor))]
        if not len(at):
            return None
        return int(self.labels.ids[at[0]]), tuple(np.sort(self.flow_ids[self.labels.of == at[0]]).tolist())


class Biflows:
    """The biflows of some flows.

    With deduplication, each packet is in exactly one flow that is no duplicate; these flows are paired wherever they
    were seen (routes differ by direction, and so do VLANs). Duplicates, and all flows without deduplication, are paired
    with the reverse flow at the same Observation Point. Different tunnels (VNIs, GRE keys) are never paired; a flow
    outside tunnels is paired with one in a tunnel if it can be the same packets on the tunnel's device. Fragments and
    aggregates are not paired: they do not identify a conversation.

    The initiator, the client, is the end that the exporter reports (IE 239, bidirectional records); or the end that
    sent a SYN without ACK, or an ICMP request, if only one did. Else it is a guess. A TCP connection without a SYN was
    open before the start: the end with the lower port is the server. Of other protocols too, if the other port alone
    is one of clients; else the client is the one seen first; with equal times, the one that sends to the lower port or
    has the lower address. If port and order agree, it is no guess.

    Args:
        source: source of the flows.
        slots: slots of the flows, ascending.
        seed: ids of biflows (column `flow_id`) are stable for the same seed.
        known: pairing of the last query with that seed.

    Attributes:
        pairing: pairing for the next query.
        source: one element per biflow: sums of both directions; other columns are the initiator's.
    """

    def __init__(self, source: FlowSource, slots: Slots, seed: int, known: Pairing | None = None) -> None:
        self._table, self._slots = source, slots
        pairing = known if known is not None and known.holds(source, slots) else Pairing.of(source, slots, seed)
        self.pairing = pairing
        self._labels, self._back, self._request = pairing.labels, pairing.back, pairing.requests
        self.source = self._both(np.arange(len(slots)), self._labels).source

    @property
    def of(self) -> Slots:
        """Index of each flow's biflow."""
        return self._labels.of

    def take(self, chosen: Slots) -> ChosenBiflows:
        """The selected biflows, in that order; their columns are computed from their flows only."""
        place = np.full(self._labels.count, -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        of = place[self._labels.of]
        members = np.flatnonzero(of >= 0)
        both = self._both(members, Labels(of[members], np.arange(len(chosen)), self._labels.ids[chosen]))
        first = both.first_way().astype(np.int64)
        order = np.stack((first, first ^ 1), axis=1)
        rows = np.arange(len(chosen))[:, None]
        return ChosenBiflows(both.source, both.ways(order), both.seen[rows, order],
                             both.opening[:, 0] != both.opening[:, 1],
                             self._tags_differ(members, of[members], len(chosen)), both.guessed)

    def _tags_differ(self, members: Slots, of: Slots, count: int) -> npt.NDArray[np.bool_]:
        """Whether the members of each of `count` biflows have different VLAN tags; `of` is each member's biflow."""
        flows = Subset(self._table.columns, self._slots[members])
        tags = flows["vlan_id"].astype(np.uint32) << np.uint32(16) | flows["customer_vlan_id"]
        one, differ = np.zeros(count, np.uint32), np.zeros(count, np.bool_)
        one[of] = tags
        differ[of[tags != one[of]]] = True
        return differ

    def _both(self, members: Slots, labels: Labels) -> _Both:
        every = len(members) == len(self._slots)
        flows = (Subset(self._table.columns, self._slots) if every
                 else columns_at(self._table, self._slots[members]))
        return _Both(self._table, flows, labels, self._back[members], self._request[members])


class _Both:
    """Flows by biflow and direction; columns are computed on first access."""

    def __init__(self, table: FlowSource, flows: FlowColumns, labels: Labels, back: npt.NDArray[np.bool_],
                 request: npt.NDArray[np.bool_]) -> None:
        self._table, self._flows, self._labels, self._back, self._request = table, flows, labels, back, request
        self._of_way: _Ways | None = None
        self._columns = DerivedColumns(self._made)
        self._addresses = about_addresses(table.columns)
        columns = networked(DerivedColumns(self._biflow), *self._addresses, known=self._of_initiator)
        self.source = all_visible(table, columns, labels.count)

    def ways(self, order: Slots) -> FlowSource:
        """One row per direction, in the given order of each biflow, shape (biflows, 2)."""
        at = (2 * np.arange(len(order))[:, None] + order).ravel()
        columns = networked(DerivedColumns(lambda name: self._columns[name][at]), *self._addresses)
        return all_visible(self._table, columns, len(at))

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Which directions have flows, shape (biflows, 2)."""
        return self._columns["seen"].reshape(-1, 2)

    @property
    def opening(self) -> npt.NDArray[np.bool_]:
        """Which directions have an opening SYN or an ICMP request, shape (biflows, 2)."""
        return self._columns["opening"].reshape(-1, 2)

    def first_way(self) -> npt.NDArray[np.bool_]:
        """Whether the initiator's direction is number 1."""
        return self._columns["first way"]

    @cached_property
    def guessed(self) -> npt.NDArray[np.bool_]:
        """Whether the initiator is a guess."""
        seen, opening = self.seen, self.opening
        guessed: npt.NDArray[np.bool_] = opening[:, 0] == opening[:, 1]
        one = np.flatnonzero(guessed & (seen[:, 0] != seen[:, 1]))
        at = one, self.first_way()[one].astype(np.int64)
        source, port, protocol = (self._columns[name].reshape(-1, 2)[at] for name in (
            "source_port", "destination_port", "protocol"))
        guessed[one] = ~_HAVE_PORTS[protocol] | (protocol == _TCP) | _of_clients(port) | ~_of_clients(source)
        two = np.flatnonzero(guessed & seen[:, 0] & seen[:, 1])
        by_port, lower, first = self._signs(two)
        tcp = self._columns["protocol"].reshape(-1, 2)[two, 0] == _TCP
        guessed[two] = tcp | ~by_port | (lower != first)
        return guessed

    def _initiators(self) -> Array:
        seen, opening = self.seen, self.opening
        way = seen[:, 1] > seen[:, 0]
        both = seen[:, 0] & seen[:, 1]
        known = opening[:, 0] != opening[:, 1]
        opened = both & known
        way[opened] = opening[opened, 1]
        two = np.flatnonzero(both & ~known)
        if len(two):
            by_port, lower, first = self._signs(two)
            way[two] = np.where(by_port, lower, first)
        return way

    def _signs(self, two: Slots) -> tuple[Array, Array, Array]:
        """Of biflows with both directions and no opening: whether ports tell the client; whether direction 1 sends to
        the lower port; whether it was seen first."""
        first_ns, ports, protocol = (self._columns[name].reshape(-1, 2)[two] for name in (
            "first_ns", "destination_port", "protocol"))
        lower = ports[:, 1] < ports[:, 0]
        first = (first_ns[:, 1] < first_ns[:, 0]) | ((first_ns[:, 1] == first_ns[:, 0]) & lower)
        differ = _HAVE_PORTS[protocol[:, 0]] & (ports[:, 0] != ports[:, 1]) & ~self.opening[two, 0]
        apart = (protocol[:, 0] == _TCP) | (_of_clients(ports[:, 0]) != _of_clients(ports[:, 1]))
        return differ & apart, lower, first

    def _ways(self) -> _Ways:
        """Assign flows to directions: two numbers per biflow."""
        if self._of_way is None:
            self._of_way = _Ways(2 * self._labels.of + self._back, 2 * self._labels.count)
        return self._of_way

    def _made(self, name: str) -> Array:
        """A column with two elements per biflow, one per direction."""
        flows, ways = self._flows, self._ways()
        if name == "seen":
            return ways.counts > 0
        if name == "first way":
            return self._initiators()
        if name == "opening":
            opening = np.zeros(len(ways.counts), np.bool_)
            bits = flows["record_bits"]
            opening[ways.of[np.flatnonzero(flows["opening"] | self._request)]] = True
            if bits.any():  # what an exporter reports is right where a SYN says something else
                began = np.concatenate((ways.of[np.flatnonzero(bits & _INITIATOR)],
                                        ways.of[np.flatnonzero(bits & _RESPONDER)] ^ 1))
                opening[began ^ 1], opening[began] = False, True
            return opening
        how = _combined(name)
        if how is not None:
            return ways.combined(how, flows[name])
        if together(name) == "formula":
            columns = networked(self._columns, *self._addresses)
            return MEASURES[name].values(all_visible(self._table, columns, len(ways.counts)))
        if name == "earliest":
            return self._earliest(ways)
        return flows[name][self._columns["earliest"]]

    def _earliest(self, ways: _Ways) -> Slots:
        """Position of the first flow of each direction; 0 if there is none."""
        earliest = np.zeros(len(ways.counts), np.int64)
        earliest[ways.of] = np.arange(len(ways.of))
        if len(ways.several):
            among = ways.several[self._flows["first_ns"][ways.several]
                                 == self._columns["first_ns"][ways.of[ways.several]]][::-1]
            earliest[ways.of[among]] = among
        return earliest

    def _biflow(self, name: str) -> Array:
        if name == "flow_id":
            return self._labels.ids
        if name == "flows":
            flows: Array = self._ways().counts.reshape(-1, 2).sum(axis=1)
            return flows
        how = _combined(name)
        if how is not None:
            there, back = self._columns[name].reshape(-1, 2).T
            two: Array = how(there, back)
            return np.where(self.seen[:, 0], np.where(self.seen[:, 1], two, there), back)
        if name.startswith((INTO, OUT_OF)):
            outward = ~self.source.columns[REMOTE_IS_SOURCE]
            into = name.startswith(INTO)
            return self._of_one_way(name.removeprefix(INTO if into else OUT_OF), outward if into else ~outward)
        if together(name) == "formula":
            return MEASURES[name].values(self.source)
        if name not in FLOW_COLUMN_DTYPES and name not in MEASURES:
            raise KeyError(name)
        if name in _ALIKE:
            one = np.zeros(self._labels.count, np.int64)
            one[self._labels.of] = np.arange(len(self._labels.of))
            return self._flows[name][one]
        return self._of_initiator(name)

    def _of_initiator(self, name: str) -> Array:
        """A column of the first flow of the initiator's direction."""
        return self._flows[name][self._of_one_way("earliest", np.False_)]

    def _of_one_way(self, name: str, turned: npt.NDArray[np.bool_] | np.bool_) -> Array:
        """A column of one direction: the initiator's, or (`turned`) the other."""
        both = self._columns[name].reshape(-1, 2)
        return np.where(self.first_way() ^ turned, both[:, 1], both[:, 0])


class _Ways:
    """Flows grouped by direction. Nearly all are alone in their group, so they need not be combined.

    Args:
        of: group of each flow.
        count: number of groups.

    Attributes:
        counts: number of flows per group.
        several: positions of flows that are not alone, ascending.
    """

    def __init__(self, of: Slots, count: int) -> None:
        self.of = of
        self.counts = np.bincount(of, minlength=count)
        crowded = self.counts > 1
        self.several = np.flatnonzero(crowded[of]) if crowded.any() else of[:0]

    def combined(self, how: np.ufunc, values: Array) -> Array:
        """Combine the values of each group with a ufunc (add, minimum, maximum, bitwise_or); 0 for empty groups."""
        combined = np.zeros(len(self.counts), values.dtype)
        combined[self.of] = values
        if len(self.several):
            of, crowd = self.of[self.several], values[self.several]
            combined[of] = 0 if how is np.add else crowd  # it has one of these values already
            how.at(combined, of, crowd)
        return combined


def _icmp(flows: FlowColumns) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint64]]:
    """Whether flows are ICMP requests; and for answers the destination port of their requests, 0 for other flows."""
    request, requested = np.zeros(len(flows["protocol"]), np.bool_), np.zeros(len(flows["protocol"]), np.uint64)
    for protocol, answers in _ANSWERS.items():
        some = np.flatnonzero((flows["protocol"] == protocol) & (flows["kind"] == Kind.FLOW))
        ports = flows["destination_port"][some]
        for of_request, of_answer in answers.items():
            request[some[ports == of_request]] = True
            requested[some[ports == of_answer]] = of_request
    return request, requested


def _keys(columns: FlowColumns, slots: Slots,
          dedupes: bool) -> tuple[list[Array], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Keys that are equal for both directions of a biflow; which flows are in reverse direction; which are requests."""
    keys = [np.zeros(len(slots), np.uint64) for _ in range(_KEYS)]
    back, request = np.zeros(len(slots), np.bool_), np.zeros(len(slots), np.bool_)
    for piece in pieces(len(slots)):
        flows = Subset(columns, slots[piece])
        request[piece], requested = _icmp(flows)
        made, back[piece] = _keys_of(flows, requested, dedupes)
        for key, part in zip(keys, made, strict=True):
            if part.any():  # some are always 0: do not touch their memory
                key[piece] = part
    return keys, back, request


_KEYS = 6


def _keys_of(flows: FlowColumns, requested: npt.NDArray[np.uint64],
             dedupes: bool) -> tuple[list[Array], npt.NDArray[np.bool_]]:
    answer = requested != 0  # after turning, it has the ports of its request
    ports = (np.where(answer, requested, flows["source_port"]),
             np.where(answer, np.uint64(0), flows["destination_port"]))
    ends = ((*address_words(flows, "source_address"), ports[0]),
            (*address_words(flows, "destination_address"), ports[1]))
    back = _turned(flows, *ends, answer)
    near = [np.where(back, theirs, ours) for ours, theirs in zip(*ends, strict=True)]
    far = [np.where(back, ours, theirs) for ours, theirs in zip(*ends, strict=True)]
    # IPv4 is in the upper half of the first words: one word holds both.
    four = flows["ip_version"] == np.uint8(IpVersion.V4)
    first = np.where(four, near[0] | far[0] >> np.uint64(32), near[0])
    second = np.where(four, np.uint64(0), far[0])
    numbers = near[2] << np.uint64(48) | far[2] << np.uint64(32)
    for shift, name in ((16, "protocol"), (8, "kind"), (0, "ip_version")):
        numbers |= flows[name].astype(np.uint64) << np.uint64(shift)
    return [first, second, near[1], far[1], numbers, _points(flows, back, dedupes)], back


def _tunnels(flows: FlowColumns, keys: list[Array], dedupes: bool, seed: int) -> npt.NDArray[np.uint64]:
    """The tunnel and its id as one key per flow, 0 outside tunnels.

    One direction may be counted on the tunnel's device and the other on the uplink, inside the tunnel. So a flow
    outside is assigned to the only tunnel of its conversation, unless the same interface saw both: then they are
    different packets.
    """
    tunnels: npt.NDArray[np.uint64] = flows["tunnel"].astype(np.uint64) << np.uint64(32) | flows["tunnel_id"]
    if not dedupes:
        return tunnels
    both = label(keys, seed)
    inside = np.flatnonzero(tunnels)
    bounds = []
    for values in (tunnels, flows["ifindex"].astype(np.uint64)):
        least, most = np.full(both.count, np.iinfo(np.uint64).max), np.zeros(both.count, np.uint64)
        np.minimum.at(least, both.of[inside], values[inside])
        np.maximum.at(most, both.of[inside], values[inside])
        bounds.append((least, most))
    (tunnel, another), uplinks = bounds
    outside = np.flatnonzero((tunnels == 0) & (tunnel == another)[both.of])
    group, ifindex = both.of[outside], flows["ifindex"][outside]
    elsewhere = (ifindex != uplinks[0][group]) & (ifindex != uplinks[1][group])
    tunnels[outside[elsewhere]] = tunnel[group[elsewhere]]
    return tunnels


def _turned(flows: FlowColumns, source: tuple[Array, ...], destination: tuple[Array, ...],
            answer: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which flows are in reverse direction: ICMP answers, and flows whose source is the greater of both ends."""
    upper = source[0] > destination[0]
    same = np.flatnonzero(source[0] == destination[0])
    for ours, theirs in zip(source[1:], destination[1:], strict=True):
        upper[same] = ours[same] > theirs[same]
        same = same[ours[same] == theirs[same]]
    pairs = (flows["kind"] == Kind.FLOW) & ~np.isin(flows["protocol"], list(_ANSWERS))
    turned: npt.NDArray[np.bool_] = np.where(pairs, upper, answer)
    return turned


def _points(flows: FlowColumns, back: npt.NDArray[np.bool_], dedupes: bool) -> Array:
    """Observation Point and VLANs as a key, equal for the reverse flow, which passes in the other direction.

    It is 0 for flows that are paired wherever they were seen.
    """
    point = np.zeros(len(back), np.uint64)
    here = np.flatnonzero((flows["kind"] != Kind.FLOW) | flows["duplicate"] | (not dedupes))
    direction = flows["direction"][here].astype(np.uint64)
    direction ^= back[here] & (direction != UNKNOWN_DIRECTION)
    point[here] = direction << np.uint64(1) | np.uint64(1)
    for shift, name in ((32, "ifindex"), (16, "vlan_id"), (4, "customer_vlan_id")):
        point[here] |= flows[name][here].astype(np.uint64) << np.uint64(shift)
    return point
