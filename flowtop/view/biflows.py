"""Both ways of a conversation as one row: biflows (RFC 5103), the initiator first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.record import UNKNOWN_DIRECTION, Kind
from flowtop.view.flows import FLOW_COLUMN_DTYPES, Array, FlowColumns, FlowSource, Slots, Subset, address_words
from flowtop.view.grouping import SUMMED, DerivedColumns, DerivedSource, extreme, summed
from flowtop.view.icmp import ANSWERS
from flowtop.view.labels import Labels, label

FORWARD, REVERSE = "forward ", "reverse "
"""Before the name of a summed column of biflows: that way alone."""

_ANSWERS = {protocol: {request << 8: answer << 8 for request, answer in answers.items()}
            for protocol, answers in ANSWERS.items()}
"""By ICMP protocol: the destination port (type and code) of a request, and that of its answer."""
_NO_IDS = np.zeros(0, np.uint64)


@dataclass(frozen=True, slots=True)
class ChosenBiflows:
    """Some biflows, in order.

    Attributes:
        source: one element a biflow, as Biflows.source.
        ways: two elements a biflow, the initiator's way first; one that was not seen has no packets.
        seen: shape (biflows, 2): which ways were seen.
        opened: whether the initiator is known by what was sent, not only by who was seen first.
    """

    source: DerivedSource
    ways: DerivedSource
    seen: npt.NDArray[np.bool_]
    opened: npt.NDArray[np.bool_]


class Biflows:
    """The biflows of some flows.

    Where duplicates are looked for, each packet is in one flow that is none: these belong together wherever they were
    seen (routes differ by the way, and so do VLANs). Duplicates, and flows where nobody looks for them, belong to
    the flow of the way back at their own Observation Point. Fragments and aggregates stay alone: nothing in them
    tells a conversation.

    The initiator is who sent a SYN without ACK, or an ICMP request, when only one did; else who was seen first; at the
    same time, who sends to the lower port, or has the lower address.

    Args:
        source: of the flows.
        slots: of the flows, ascending.
        seed: biflows keep their ids (column `flow_id`) as long as it stays.

    Attributes:
        source: one element a biflow: sums of both ways; what flows differ in is the initiator's.
    """

    def __init__(self, source: FlowSource, slots: Slots, seed: int) -> None:
        self._table, self._slots = source, slots
        flows = Subset(source.columns, slots)
        self._request, requested = _icmp(flows)
        keys, self._back = _keys(flows, requested, source.dedupes)
        self._labels = label(keys, seed)
        self.source = self._both(np.arange(len(slots)), self._labels).source

    @property
    def of(self) -> Slots:
        """The biflow of each flow."""
        return self._labels.of

    def take(self, chosen: Slots) -> ChosenBiflows:
        """Only the chosen biflows, in that order: their columns are made of their flows alone."""
        place = np.full(self._labels.count, -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        of = place[self._labels.of]
        members = np.flatnonzero(of >= 0)
        both = self._both(members, Labels(of[members], np.arange(len(chosen)), self._labels.ids[chosen]))
        first = both.first_way()
        order = np.stack((first, first ^ 1), axis=1)
        rows = np.arange(len(chosen))[:, None]
        return ChosenBiflows(both.source, both.ways(order), both.seen[rows, order],
                             both.opening[:, 0] != both.opening[:, 1])

    def _both(self, members: Slots, labels: Labels) -> _Both:
        flows = Subset(self._table.columns, self._slots[members])
        return _Both(self._table, flows, labels, self._back[members], self._request[members])


class _Both:
    """Flows by biflow and way; everything is worked out when it is first asked for."""

    def __init__(self, table: FlowSource, flows: FlowColumns, labels: Labels, back: npt.NDArray[np.bool_],
                 request: npt.NDArray[np.bool_]) -> None:
        self._table, self._flows, self._labels, self._back, self._request = table, flows, labels, back, request
        self._way: Labels | None = None
        self._columns = DerivedColumns(self._made)
        self.source = DerivedSource(table, DerivedColumns(self._biflow), labels.count)

    def ways(self, order: Slots) -> DerivedSource:
        """A row a way, of each biflow in the order given, shape (biflows, 2)."""
        at = (2 * np.arange(len(order))[:, None] + order).ravel()
        return DerivedSource(self._table, DerivedColumns(lambda name: self._columns[name][at]), len(at))

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Which ways have flows, shape (biflows, 2)."""
        return self._columns["seen"].reshape(-1, 2)

    @property
    def opening(self) -> npt.NDArray[np.bool_]:
        """Which ways began it by what they sent, shape (biflows, 2)."""
        return self._columns["opening"].reshape(-1, 2)

    def first_way(self) -> Slots:
        """The initiator's way of each biflow, 0 or 1."""
        return self._columns["first way"]

    def _initiators(self) -> Array:
        seen, opening = self.seen, self.opening
        first_ns = self._columns["first_ns"].reshape(-1, 2)
        port = self._columns["destination_port"].reshape(-1, 2)
        later = (first_ns[:, 1] < first_ns[:, 0]) | ((first_ns[:, 1] == first_ns[:, 0]) & (port[:, 1] < port[:, 0]))
        way = np.where(opening[:, 0] != opening[:, 1], opening[:, 1], later)
        return np.where(seen.all(axis=1), way, seen[:, 1]).astype(np.int64)

    def _of_way(self) -> Labels:
        """Two groups of flows for each biflow; in `one` nothing of use."""
        if self._way is None:
            of = 2 * self._labels.of + self._back
            self._way = Labels(of, np.zeros(2 * self._labels.count, np.int64), _NO_IDS)
        return self._way

    def _made(self, name: str) -> Array:
        """A column of two elements a biflow, by way."""
        flows, ways = self._flows, self._of_way()
        if name == "seen":
            return np.bincount(ways.of, minlength=ways.count) > 0
        if name == "first way":
            return self._initiators()
        if name == "opening":
            return extreme(np.maximum, flows["opening"] | self._request, ways)
        if name in SUMMED:
            return summed(flows[name], ways)
        if name == "tcp_control_bits":
            bits = np.zeros(ways.count, np.uint16)
            np.bitwise_or.at(bits, ways.of, flows[name])
            return bits
        if name in ("first_ns", "end_reason"):
            return extreme(np.minimum, flows[name], ways)
        if name in ("last_ns", "reported_ns", "octet_rate_peak"):
            return extreme(np.maximum, flows[name], ways)
        if name == "earliest":
            return self._earliest(ways)
        return flows[name][self._columns["earliest"]]

    def _earliest(self, ways: Labels) -> Slots:
        """Position of the flow of each way that was seen first; 0 where there is none."""
        first = np.flatnonzero(self._flows["first_ns"] == self._columns["first_ns"][ways.of])[::-1]
        found = np.zeros(ways.count, np.int64)
        found[ways.of[first]] = first
        return found

    def _biflow(self, name: str) -> Array:
        labels, flows = self._labels, self._flows
        if name == "flow_id":
            return labels.ids
        if name == "flows":
            return np.bincount(labels.of, minlength=labels.count)
        if name in SUMMED:
            return summed(flows[name], labels)
        if name in ("first_ns", "end_reason", "duplicate"):
            return extreme(np.minimum, flows[name], labels)
        if name in ("last_ns", "reported_ns", "octet_rate_peak"):
            return extreme(np.maximum, flows[name], labels)
        if name == "tcp_control_bits":
            both = self._columns[name].reshape(-1, 2)
            bits: Array = both[:, 0] | both[:, 1]
            return bits
        for prefix, turned in ((FORWARD, 0), (REVERSE, 1)):
            if name.startswith(prefix):
                way: Array = self._columns[name.removeprefix(prefix)].reshape(-1, 2)[
                    self._rows, self.first_way() ^ turned]
                return way
        if name not in FLOW_COLUMN_DTYPES:
            raise KeyError(name)
        return flows[name][self._columns["earliest"].reshape(-1, 2)[self._rows, self.first_way()]]

    @property
    def _rows(self) -> Slots:
        return np.arange(self._labels.count)


def _icmp(flows: FlowColumns) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint64]]:
    """Which flows are ICMP requests; and of answers the destination port of their requests, 0 of all others."""
    request, requested = np.zeros(len(flows["protocol"]), np.bool_), np.zeros(len(flows["protocol"]), np.uint64)
    for protocol, answers in _ANSWERS.items():
        some = np.flatnonzero((flows["protocol"] == protocol) & (flows["kind"] == Kind.FLOW))
        ports = flows["destination_port"][some]
        for of_request, of_answer in answers.items():
            request[some[ports == of_request]] = True
            requested[some[ports == of_answer]] = of_request
    return request, requested


def _keys(flows: FlowColumns, requested: npt.NDArray[np.uint64],
          dedupes: bool) -> tuple[list[Array], npt.NDArray[np.bool_]]:
    """What a biflow is known by, the same for both its ways; and which flows are the way back of that."""
    answer = requested != 0  # turned, it has the ports of its request
    ports = (np.where(answer, requested, flows["source_port"]),
             np.where(answer, np.uint64(0), flows["destination_port"]))
    ends = ((*address_words(flows, "source_address"), ports[0]),
            (*address_words(flows, "destination_address"), ports[1]))
    back = _turned(flows, *ends, answer)
    near = [np.where(back, theirs, ours) for ours, theirs in zip(*ends, strict=True)]
    far = [np.where(back, ours, theirs) for ours, theirs in zip(*ends, strict=True)]
    four = flows["ip_version"] == 4  # these addresses are in the upper half of their first words: one holds both
    first = np.where(four, near[0] | far[0] >> np.uint64(32), near[0])
    second = np.where(four, np.uint64(0), far[0])
    numbers = near[2] << np.uint64(48) | far[2] << np.uint64(32)
    for shift, name in ((16, "protocol"), (8, "kind"), (0, "ip_version")):
        numbers |= flows[name].astype(np.uint64) << np.uint64(shift)
    return [first, second, near[1], far[1], numbers, _points(flows, back, dedupes)], back


def _turned(flows: FlowColumns, source: tuple[Array, ...], destination: tuple[Array, ...],
            answer: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which flows are the way back: ICMP answers, and those whose source is the upper end of the two."""
    upper = source[0] > destination[0]
    same = np.flatnonzero(source[0] == destination[0])
    for ours, theirs in zip(source[1:], destination[1:], strict=True):
        upper[same] = ours[same] > theirs[same]
        same = same[ours[same] == theirs[same]]
    pairs = (flows["kind"] == Kind.FLOW) & ~np.isin(flows["protocol"], list(_ANSWERS))
    turned: npt.NDArray[np.bool_] = np.where(pairs, upper, answer)
    return turned


def _points(flows: FlowColumns, back: npt.NDArray[np.bool_], dedupes: bool) -> Array:
    """Observation Point and VLANs, the same for the way back, which passes there in the other direction; 0 for flows
    that belong together wherever they were seen."""
    point = np.zeros(len(back), np.uint64)
    here = np.flatnonzero((flows["kind"] != Kind.FLOW) | flows["duplicate"] | (not dedupes))
    direction = flows["direction"][here].astype(np.uint64)
    direction ^= back[here] & (direction != UNKNOWN_DIRECTION)
    point[here] = direction << np.uint64(1) | np.uint64(1)
    for shift, name in ((32, "ifindex"), (16, "vlan_id"), (4, "customer_vlan_id")):
        point[here] |= flows[name][here].astype(np.uint64) << np.uint64(shift)
    return point
