"""Flows of now beside those of a past moment, as one source: what was there then, and is gone, is listed too.

Groups, biflows, filters and orders treat it like any other source: a flow of then adds nothing to the counters of now,
but to `octets_then`, which says what its rate over 10 s was, and it is marked (`left`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from flowtop.model.flows import FLOW_COLUMN_DTYPES, Array, FlowColumns, FlowsAtRest, FlowSource, reports, with_columns
from flowtop.model.reported import REPORTED, absent

_OF_NOW = frozenset({"packet_delta", "octet_delta", "octets_10s", "octets_60s", "packets_10s", "packets_60s"})
"""What flows that are gone have nothing of."""
_REPORTED = frozenset(REPORTED)


def compared(now: FlowSource, then: FlowSource) -> FlowsAtRest:
    """Both as one source, with `then_ns` set: flows of now in their slots, behind them those that were there only then.

    Args:
        now: the flows.
        then: those of another time of the same table.
    """
    ids_now, ids_then = now.columns["flow_id"], then.columns["flow_id"]
    there = np.flatnonzero(then.visible)
    there = there[np.argsort(ids_then[there])]  # the few: the past keeps no more of a tick
    at = np.full(len(there), -1, np.int64)
    if len(there):
        found = np.minimum(np.searchsorted(ids_then[there], ids_now), len(there) - 1)
        slots = np.flatnonzero((ids_then[there[found]] == ids_now) & now.visible)
        at[found[slots]] = slots
    octets = np.zeros(len(ids_now) + int(np.count_nonzero(at < 0)), np.uint64)
    # In octets of the window of now, so that both divide by the same time.
    scaled = np.rint(then.columns["octets_10s"][there] * (now.window_10s_s / then.window_10s_s)).astype(np.uint64)
    octets[at[at >= 0]] = scaled[at >= 0]
    octets[len(ids_now):] = scaled[at < 0]
    columns = _Both(now.columns, then.columns, there[at < 0], octets)
    visible = np.concatenate((now.visible, np.ones(len(octets) - len(ids_now), np.bool_)))
    return replace(with_columns(now, columns, visible), then_ns=then.now_ns)


class _Both:
    """Columns of now, behind them those of flows of then, each joined when it is asked for first."""

    def __init__(self, now: FlowColumns, then: FlowColumns, gone: npt.NDArray[np.int64], octets: Array) -> None:
        self._now, self._then, self._gone = now, then, gone
        self._reports = reports(now) or reports(then)
        left = np.arange(len(octets)) >= len(octets) - len(gone)
        self._made: dict[str, Array] = {"octets_then": octets, "left": left}

    def __getitem__(self, name: str) -> Array:
        if name not in self._made:
            self._made[name] = self._joined(name)
        return self._made[name]

    def _joined(self, name: str) -> Array:
        if name in _REPORTED and not self._reports:
            return absent(name, len(self._made["octets_then"]))
        if name not in FLOW_COLUMN_DTYPES:
            raise KeyError(name)
        now = self._now[name]
        if not len(self._gone):
            return now
        gone = np.zeros(len(self._gone), now.dtype) if name in _OF_NOW else self._then[name][self._gone]
        if name == "conversation":  # slots of then
            gone = np.full(len(self._gone), -1, now.dtype)
        return np.concatenate((now, gone.astype(now.dtype, copy=False)))
