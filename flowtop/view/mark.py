"""Counting from a mark: what flows have had since then, in the same columns, for one asker; the table knows nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.view.flows import Array, FlowColumns, FlowSource, with_columns

COUNTED = ("packet_total", "octet_total")
"""The columns that count from the mark."""


@dataclass(frozen=True, slots=True)
class _Base:
    """What every slot's flow had at the mark: 16 octets a slot, and 8 to tell whose they are."""

    number: int
    flow_ids: npt.NDArray[np.uint64]
    counts: dict[str, Array]


class Mark:
    """The mark of one asker, the newest only."""

    def __init__(self) -> None:
        self._base: _Base | None = None

    def since(self, number: int | None, source: FlowSource) -> FlowSource:
        """The source, with counters of life taken since the mark of that number.

        A number seen for the first time marks the source's last tick. Flows born since count from their birth. None
        forgets the mark.
        """
        if number is None:
            self._base = None
            return source
        columns = source.columns
        if self._base is None or self._base.number != number:
            self._base = _Base(number, columns["flow_id"].copy(), {name: columns[name].copy() for name in COUNTED})
        return with_columns(source, _Since(columns, self._base), source.visible)


class _Since:
    """Columns in which COUNTED are what has come since."""

    def __init__(self, columns: FlowColumns, base: _Base) -> None:
        self._columns = columns
        self._base = base
        self._made: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in COUNTED:
            return self._columns[name]
        if name not in self._made:
            self._made[name] = self._since(name)
        return self._made[name]

    def _since(self, name: str) -> Array:
        counts, base = self._columns[name].copy(), self._base
        known = min(len(counts), len(base.flow_ids))  # the table may have grown since
        same = self._columns["flow_id"][:known] == base.flow_ids[:known]
        counts[:known][same] -= base.counts[name][:known][same]
        return counts
