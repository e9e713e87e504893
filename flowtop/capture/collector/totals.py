"""What exporters report of a flow since it began, as what came since their previous report: in bounded memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.wire.flow_records import Collected
from flowtop.wire.record_counters import Bools, Totals

MAX_FLOWS = 262_144
"""Limit of flows whose totals are known. The least recently reported are forgotten, ended ones first."""

_STATE = np.dtype([("octets", "u8"), ("packets", "u8"), ("end_ms", "i8"), ("ended", "?"), ("used", "i8")])
"""Counted so far of a flow, the end of its latest report, whether that was its last, and the turn of its last use."""
MAX_DOMAINS = 65_536
"""Limit of Observation Domains known to report deltas."""
_LATEST_MS = 600_000
"""A report that is further behind the latest of its flow is not late: the exporter's clock was set back."""
_UNITS = ("octets", "packets")
_WORDS = FLOW_KEY_DTYPE.itemsize // 8 + 2
_MULTIPLIERS = np.random.default_rng().integers(1, 1 << 63, _WORDS, np.uint64) << np.uint64(1) | np.uint64(1)
"""Random multipliers, so that no sender can choose colliding flows."""
_MIX = np.uint64(0x9E37_79B9_7F4A_7C15)
_HALF = np.uint64(32)
_WRAP = np.uint64(1 << 32)


class ReportedTotals:
    """Flows of all exporters whose records have totals.

    A flow is a Flow Key of one Observation Domain of an exporter, with its flowId and start if it has them. A total
    that is lower than before and of a later report is of another flow, which is counted from its beginning, unless a
    counter of 32 bits has wrapped: the flow's other counter has grown, or its start is the same. Where
    records have deltas, too, these count alone, unless they have been 0 in all records of the Observation Domain.

    Attributes:
        unchanged: number of rows whose totals were those of the previous report, without a firewall's.
        forgotten: number of flows forgotten because of MAX_FLOWS, without ended ones.
    """

    def __init__(self) -> None:
        self._ids = np.zeros(0, np.uint64)
        self._states = np.zeros(0, _STATE)
        self._turn = 0
        self._with_deltas: set[int] = set()
        self.unchanged = 0
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._ids)

    def settle(self, rows: Collected, totals: Totals, domain: int) -> Bools:
        """Add to the rows' counters what their totals have gained; rows are in the order in which they came.

        Args:
            domain: any number that is the same for the rows of one exporter and Observation Domain.

        Returns:
            Which rows to keep: not those whose totals have gained nothing.
        """
        keep = np.ones(len(rows), np.bool_)
        # A firewall's event without traffic has no part in this.
        counts = np.logical_or.reduce([values[unit] > 0 for values in (rows, totals) for unit in _UNITS])
        counts &= self._not_as_deltas(rows, totals, domain, keep)
        for connection in (False, True):
            some = np.flatnonzero(counts & (totals["connection"] == connection))
            if len(some):
                self._settle(rows, totals, some, domain, connection, keep)
        return keep

    def _not_as_deltas(self, rows: Collected, totals: Totals, domain: int, keep: Bools) -> Bools:
        """Which rows have no deltas that count alone; of the others those without traffic are not kept."""
        deltas: Bools = totals["deltas"]
        traffic = (rows["octets"] > 0) | (rows["packets"] > 0)
        if domain not in self._with_deltas:
            if not (deltas & traffic).any():
                return np.ones(len(rows), np.bool_)
            if len(self._with_deltas) >= MAX_DOMAINS:
                self._with_deltas.clear()  # they are noted again by their next delta
            self._with_deltas.add(domain)
        keep[deltas & ~traffic] = False
        self.unchanged += int((deltas & ~traffic).sum())
        return ~deltas

    def _settle(self, rows: Collected, totals: Totals, some: npt.NDArray[np.intp], domain: int, connection: bool,
                keep: Bools) -> None:
        """The same for some rows: either a firewall's connections, or other flows."""
        self._turn += 1
        ids = _identities(rows[some], totals["flow"][some], domain)
        # In order of time within a flow: datagrams overtake each other.
        order = np.lexsort((rows["end_ms"][some], ids))
        some, ids = some[order], ids[order]
        flows = _Sorted(ids, self._known(ids), rows["end_ms"][some], totals["final"][some], totals["started"][some])
        counted, state = (_connections if connection else _growth)(
            flows, {unit: rows[unit][some] for unit in _UNITS}, {unit: totals[unit][some] for unit in _UNITS})
        for unit in _UNITS:
            rows[unit][some] = counted[unit]
        idle = (counted["octets"] == 0) & (counted["packets"] == 0)
        keep[some[idle]] = False
        self.unchanged += 0 if connection else int(idle.sum())
        self._store(ids[flows.last], state)

    def _known(self, ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.void]:
        """The state of each flow, shape (n,); `used` is 0 for a new one."""
        states = np.zeros(len(ids), _STATE)
        places = np.searchsorted(self._ids, ids)
        places[places == len(self._ids)] = 0
        if len(self._ids):
            known = np.flatnonzero(self._ids[places] == ids)
            states[known] = self._states[places[known]]
        return states

    def _store(self, ids: npt.NDArray[np.uint64], states: npt.NDArray[np.void]) -> None:
        """Replace or add the state of flows, ids ascending."""
        states["used"] = self._turn
        places = np.searchsorted(self._ids, ids)
        known = np.zeros(len(ids), np.bool_)
        inside = places < len(self._ids)
        known[inside] = self._ids[places[inside]] == ids[inside]
        self._states[places[known]] = states[known]
        if known.all():
            return
        self._ids = np.insert(self._ids, places[~known], ids[~known])
        self._states = np.insert(self._states, places[~known], states[~known])
        surplus = len(self._ids) - MAX_FLOWS
        if surplus > 0:
            order = np.lexsort((self._states["used"], ~self._states["ended"]))[:surplus]
            self.forgotten += int((~self._states["ended"][order]).sum())
            self._ids, self._states = np.delete(self._ids, order), np.delete(self._states, order)


class _Sorted:
    """Reports ordered by flow and time.

    Attributes:
        first: which reports are the first of their flow in this call.
        last: index of the last report of each flow.
        known: the state before this call, of the report's flow.
        end_ms: of each report.
        final: which reports are the last of their flow.
        started: which reports' flow is known by its start.
        late: reports that a later report of their flow has overtaken.
    """

    def __init__(self, ids: npt.NDArray[np.uint64], known: npt.NDArray[np.void], end_ms: npt.NDArray[np.int64],
                 final: Bools, started: Bools) -> None:
        self.first = np.ones(len(ids), np.bool_)
        self.first[1:] = ids[1:] != ids[:-1]
        self.last = np.append(np.flatnonzero(self.first)[1:], len(ids)) - 1
        self.known = known
        self.end_ms = end_ms
        self.final = final
        self.started = started
        self.late = (known["used"] > 0) & (end_ms < known["end_ms"]) & (
            end_ms >= known["end_ms"] - _LATEST_MS)


_Counts = dict[str, npt.NDArray[np.uint64]]


def _growth(flows: _Sorted, deltas: _Counts, totals: _Counts) -> tuple[_Counts, npt.NDArray[np.void]]:
    """What each report counts: its delta, or how much its total has grown. And the state of each flow after them."""
    for unit in _UNITS:  # a total that was overtaken is not lower because the flow has begun anew
        totals[unit] = np.where(flows.late, np.maximum(totals[unit], flows.known[unit]), totals[unit])
    before = {}
    for unit in _UNITS:
        before[unit] = np.concatenate(([np.uint64(0)], totals[unit][:-1]))
        before[unit] = np.where(flows.first, flows.known[unit], before[unit])
    wrapped = {unit: _wrapped(flows, totals, before, unit) for unit in _UNITS}
    anew = np.logical_or.reduce([(totals[unit] < before[unit]) & ~wrapped[unit] for unit in _UNITS])
    anew |= flows.first & flows.known["ended"] & (flows.end_ms > flows.known["end_ms"])
    anew[1:] |= ~flows.first[1:] & flows.final[:-1] & (flows.end_ms[1:] > flows.end_ms[:-1])
    counted = {}
    for unit in _UNITS:
        grown = totals[unit] - np.where(anew, np.uint64(0), before[unit])
        grown += np.where(wrapped[unit] & ~anew, _WRAP, np.uint64(0))
        counted[unit] = np.where(deltas[unit] > 0, deltas[unit], grown)
    return counted, _after(flows, totals)


def _wrapped(flows: _Sorted, totals: _Counts, before: _Counts, unit: str) -> Bools:
    """Which totals are lower than before because a counter of 32 bits has wrapped, by less than its half."""
    other = _UNITS[unit == _UNITS[0]]
    grown = totals[unit] + _WRAP - before[unit]  # modulo 2**64
    goes_on = (totals[other] > before[other]) | (flows.started & (totals[other] == before[other]))
    wrapped: Bools = goes_on & (totals[unit] < before[unit]) & (before[unit] < _WRAP) & (grown < _WRAP // np.uint64(2))
    return wrapped


def _connections(flows: _Sorted, deltas: _Counts, totals: _Counts) -> tuple[_Counts, npt.NDArray[np.void]]:
    """The same for a firewall's events: the final total is of all deltas, also of those that are still on their way.

    Reports after the final one, and of a later time, are of the next connection.
    """
    final = flows.final
    over = flows.known["ended"] & (flows.end_ms <= flows.known["end_ms"])
    anew = flows.first & flows.known["ended"] & ~over
    anew[1:] |= final[:-1] & ~flows.first[1:] & (flows.end_ms[1:] > flows.end_ms[:-1])
    anew[1:] |= over[:-1] & ~over[1:] & ~flows.first[1:]
    starts = np.flatnonzero(flows.first | anew)
    of = np.cumsum(flows.first | anew) - 1
    ends = np.append(starts[1:], len(of)) - 1
    goes_on = (flows.first & ~anew)[starts]
    closing = np.full(len(starts), -1, np.int64)  # the last final report of each connection
    closing[of[final]] = np.flatnonzero(final)
    closed = closing >= 0
    counted, state = {}, _after(flows, totals)
    of_last = of[flows.last]
    for unit in _UNITS:
        counted[unit] = np.where(over, np.uint64(0), deltas[unit])
        before = np.where(goes_on, flows.known[unit][starts], np.uint64(0))
        reported = before + np.add.reduceat(counted[unit], starts)
        whole = np.maximum(np.maximum.reduceat(totals[unit], starts), reported)
        counted[unit][closing[closed]] += (whole - reported)[closed]
        state[unit] = whole[of_last]
    state["ended"] = closed[of_last] | (flows.known["ended"][flows.last] & over[flows.last])
    state["end_ms"] = np.maximum(np.where(closed, flows.end_ms[closing], flows.end_ms[ends])[of_last],
                                 np.where(goes_on, flows.known["end_ms"][starts], 0)[of_last])
    return counted, state


def _after(flows: _Sorted, totals: _Counts) -> npt.NDArray[np.void]:
    """The state of each flow after its last report."""
    state = np.zeros(len(flows.last), _STATE)
    for unit in _UNITS:
        state[unit] = totals[unit][flows.last]
    state["end_ms"] = np.where(flows.late, flows.known["end_ms"], flows.end_ms)[flows.last]
    state["ended"] = flows.final[flows.last]
    return state


def _identities(rows: Collected, flow: npt.NDArray[np.uint64], domain: int) -> npt.NDArray[np.uint64]:
    """A hash of each row's flow, shape (n,)."""
    keys = np.empty(len(rows), FLOW_KEY_DTYPE)
    for name in FLOW_KEY_DTYPE.names or ():
        keys[name] = rows[name]
    words = np.empty((len(rows), _WORDS), np.uint64)
    words[:, :-2] = keys.view(np.uint64).reshape(len(rows), -1)
    words[:, -2], words[:, -1] = flow, np.uint64(domain)
    mixed = (words ^ words >> _HALF) * _MULTIPLIERS
    mixed ^= mixed >> _HALF
    ids: npt.NDArray[np.uint64] = (mixed * _MIX).sum(axis=1, dtype=np.uint64)
    return ids
