"""A flow table of fixed rows, for the real pager: the columns are what the rows say, nothing is metered."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.model.flows import FLOW_COLUMN_DTYPES, Slots
from flowtop.model.rows import FlowRow

SECOND_NS = 1_000_000_000
_COLUMNS = np.dtype(list(FLOW_COLUMN_DTYPES.items()))
_AS_IN_ROWS = [name for name in FlowRow._fields if name in FLOW_COLUMN_DTYPES]
_TCP = 6
_FIN = 1


@dataclass(frozen=True, slots=True)
class Reporting:
    """What the Flow Records of a flow have told."""

    records: int
    packets: int
    octets: int
    at_ns: int
    due_ns: int | None


class RowTable:
    """A `DetailSource` (query/details.py) of the rows that were given last; a flow stays in its slot.

    Rates are rounded to whole octets and packets of a tick of a second. A duplicate belongs to the first flow of its
    conversation that is none.

    Args:
        unix_offset_ns: add it to a time of the table to get ns since 1970 UTC.
    """

    tick_s, window_10s_s, window_60s_s = 1.0, 10.0, 60.0
    dedupes = True
    then_ns = None

    def __init__(self, unix_offset_ns: int) -> None:
        self.unix_offset_ns = unix_offset_ns
        self.now_ns = 0
        self.columns = np.zeros(0, _COLUMNS)
        self.visible: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._slots: dict[int, int] = {}
        self._ended_ns: dict[int, int] = {}
        self._shown: tuple[Sequence[FlowRow], int, frozenset[int]] | None = None

    def show(self, rows: Sequence[FlowRow], now_ns: int, openers: Collection[int] = ()) -> None:
        """These are the flows now.

        Args:
            rows: of flows; no two have the same flow_id. Others are another list: one that is known is not read again.
            now_ns: time of the tick.
            openers: flow_ids of those that sent a SYN without ACK.
        """
        shown = rows, now_ns, frozenset(openers)
        if self._shown is not None and self._shown[0] is rows and self._shown[1:] == shown[1:]:
            return
        self._shown, self.now_ns = shown, now_ns
        slots = np.array([self._slots.setdefault(row.flow_id, len(self._slots)) for row in rows], np.int64)
        assert len(np.unique(slots)) == len(rows), "two rows of one flow_id"
        found = np.zeros(len(rows), _COLUMNS)
        for name in _AS_IN_ROWS:
            found[name] = np.array([getattr(row, name) for row in rows], _COLUMNS[name])
        for prefix in ("octet", "packet"):
            for column, rate, seconds in ((f"{prefix}_delta", f"{prefix}_rate", self.tick_s),
                                          (f"{prefix}s_10s", f"{prefix}_rate_10s", self.window_10s_s),
                                          (f"{prefix}s_60s", f"{prefix}_rate_60s", self.window_60s_s)):
                found[column] = np.rint([getattr(row, rate) * seconds for row in rows])
        for column, name in (("first_ns", "start_ms"), ("last_ns", "end_ms"), ("syn_ns", "syn_ms"),
                             ("fin_ns", "fin_ms"), ("rst_ns", "rst_ms")):
            at_ms = np.array([getattr(row, name) for row in rows], np.int64)
            found[column] = np.where((at_ms == 0) & (column[:3] in ("syn", "fin", "rst")), 0,
                                     at_ms * 1_000_000 - self.unix_offset_ns)
        found["tcp_control_bits"] |= np.array(
            [_FIN * (row.closing and row.protocol == _TCP) for row in rows], np.uint16)
        found["opening"] = [row.flow_id in openers for row in rows]
        found["reported_ns"] = [self._reported_ns(row) for row in rows]
        found["conversation"] = self._heads(rows)
        self.columns, self.visible = np.zeros(len(self._slots), _COLUMNS), np.zeros(len(self._slots), np.bool_)
        self.columns[slots], self.visible[slots] = found, True

    def _reported_ns(self, row: FlowRow) -> int:
        if not row.end_reason:
            return self.now_ns - 12 * SECOND_NS
        return self._ended_ns.setdefault(row.flow_id, self.now_ns - int(row.ended_s * SECOND_NS))

    def _heads(self, rows: Sequence[FlowRow]) -> list[int]:
        conversations = [(row.source_address, row.destination_address, row.source_port, row.destination_port,
                          row.protocol, row.ip_version, row.kind) for row in rows]
        heads: dict[object, int] = {}
        for row, conversation in zip(rows, conversations, strict=True):
            if not row.duplicate:
                heads.setdefault(conversation, self._slots[row.flow_id])
        return [heads.get(conversation, -1) for conversation in conversations]

    def keep(self, flow_ids: frozenset[int]) -> None:
        """Flows stay and leave as the rows say."""

    def history(self, slot: int) -> Sequence[tuple[int, int]]:
        """Two minutes of a rate that goes up and down."""
        rate = int(self.columns["octet_delta"][slot])
        return [(SECOND_NS, int(rate * (1 + 0.6 * math.sin(second / 7)))) for second in range(120)]

    def histories(self, groups: Sequence[Slots]) -> Sequence[tuple[int, Sequence[int]]]:
        """The sum of each group's."""
        flows = [[[octets for _, octets in self.history(int(slot))] for slot in slots] for slots in groups]
        sums = [[sum(octets[second] for octets in group) for group in flows] for second in range(120)]
        return [(SECOND_NS, octets) for octets in sums] if sum(map(len, groups)) else []

    def flags(self, slot: int) -> Sequence[tuple[int, int]]:
        """A TCP flow's handshake a minute ago, data two seconds later, what ended it now."""
        bits = int(self.columns["tcp_control_bits"][slot])
        times = (self.now_ns - 60 * SECOND_NS, 0b10010), (self.now_ns - 58 * SECOND_NS, 0b1000), (self.now_ns, 0b101)
        return [(at_ns, bits & seen) for at_ns, seen in times if bits & seen]

    def reporting(self, slot: int) -> Reporting:
        """Three records told of most packets, the last one 12 s ago; the next is due in 48 s."""
        packets, octets = (int(self.columns[f"{name}_total"][slot]) * 9 // 10 for name in ("packet", "octet"))
        due_ns = None if self.columns["end_reason"][slot] else self.now_ns + 48 * SECOND_NS
        return Reporting(3, packets, octets, self.now_ns - 12 * SECOND_NS, due_ns)
