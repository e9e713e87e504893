"""Holds the Flow Records of one direction until those of the other one come, for exports of biflows."""

from __future__ import annotations

import threading

import numpy as np

from flowtop.model.record import FLOW_RECORD_DTYPE, FlowRecords, chosen, joined
from flowtop.wire.biflows import pairable, pairs, pairs_first

HOLD_S = 15.0
"""How long a record waits: the other direction of a conversation ends at most an idle timeout later."""
MAX_HELD = 65_536
"""Limit of waiting records; beyond it the oldest are exported as they are."""


class Hold:
    """Flow Records that wait for their other direction. Thread-safe.

    Args:
        hold_s: how long they wait.
    """

    def __init__(self, hold_s: float = HOLD_S) -> None:
        self._hold_s = hold_s
        self._lock = threading.Lock()
        self._records = np.zeros(0, FLOW_RECORD_DTYPE)
        self._since_s = np.zeros(0)
        self._over = False

    def __len__(self) -> int:
        """Number of waiting records."""
        return len(self._records)

    def put(self, records: FlowRecords, now_s: float) -> FlowRecords:
        """Add records; returns those that wait no longer: pairs first, then those that waited for too long.

        Args:
            now_s: monotonic.
        """
        with self._lock:
            waiting = joined((self._records, records)) if len(self._records) else records
            since_s = np.concatenate((self._since_s, np.full(len(records), now_s)))
            waits = pairable(waiting) & (now_s - since_s < self._hold_s) & np.bool_(not self._over)
            waits[pairs(waiting).ravel()] = False
            surplus = int(waits.sum()) - MAX_HELD
            if surplus > 0:
                waits[np.flatnonzero(waits)[:surplus]] = False
            self._records, self._since_s = chosen(waiting, waits), since_s[waits]
            return pairs_first(chosen(waiting, ~waits))

    def release(self, now_s: float) -> FlowRecords:
        """The records that have waited for too long by now."""
        return self.put(np.zeros(0, FLOW_RECORD_DTYPE), now_s)

    def end(self) -> FlowRecords:
        """All records; from now on none waits."""
        self._over = True
        return self.put(np.zeros(0, FLOW_RECORD_DTYPE), 0.0)
