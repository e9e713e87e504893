"""When flows end (RFC 7011 section 5.1.1, flowEndReason), and how long ended flows remain visible."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from flowtop.metering.key_index import Slots
from flowtop.metering.store import FlowStore
from flowtop.model.kinds import TCP_CLOSING_BITS, EndReason
from flowtop.native.expiry import due_flows

_CLOSING_BITS = np.uint16(TCP_CLOSING_BITS)


class Timeouts(NamedTuple):
    """Timeouts in ns; see TableConfig."""

    idle_ns: int
    active_ns: int
    end_ns: int


def due(store: FlowStore, now_ns: int, timeouts: Timeouts) -> list[tuple[EndReason, Slots]]:
    """Live flows to report now, by reason; each slot at most once. ACTIVE_TIMEOUT flows continue, the others end.

    A flow with FIN or RST ends by END_OF_FLOW after end_ns without a packet, others by IDLE_TIMEOUT. A flow that
    continues is due active_ns after its first packet or its last record.
    """
    if store.native is not None:
        ended, timed_out, long = due_flows(store.native, store, now_ns - timeouts.end_ns, now_ns - timeouts.idle_ns,
                                           now_ns - timeouts.active_ns, int(_CLOSING_BITS))
        return _some(ended, timed_out, long)
    live = store.live
    last_ns = store.last_ns[:store.top]
    quiet = live & (last_ns <= now_ns - min(timeouts.end_ns, timeouts.idle_ns))
    slots = np.flatnonzero(quiet)
    closing = store.tcp_control_bits[slots] & _CLOSING_BITS != 0
    over = closing & (last_ns[slots] <= now_ns - timeouts.end_ns)
    idle = ~over & (last_ns[slots] <= now_ns - timeouts.idle_ns)
    ended, timed_out = slots[over], slots[idle]
    live[ended] = False
    live[timed_out] = False
    long = np.flatnonzero(live & (store.reported_ns[:store.top] <= now_ns - timeouts.active_ns))
    return _some(ended, timed_out, long)


def _some(ended: Slots, timed_out: Slots, long: Slots) -> list[tuple[EndReason, Slots]]:
    due_slots = ((EndReason.END_OF_FLOW, ended), (EndReason.IDLE_TIMEOUT, timed_out), (EndReason.ACTIVE_TIMEOUT, long))
    return [(reason, slots) for reason, slots in due_slots if len(slots)]


def least_recent(store: FlowStore, n: int) -> Slots:
    """The n least recently active live flows (of more); of equal ones, those in the lowest slots."""
    slots = np.flatnonzero(store.live)
    last_ns = store.last_ns[slots]
    limit = np.partition(last_ns, n - 1)[n - 1]
    older = slots[last_ns < limit]
    return np.concatenate((older, slots[last_ns == limit][:n - len(older)]))


class Lingering:
    """Ended flows that are still visible, oldest first. Each remains until a page could show it: see `mark`.

    Args:
        linger_ns: how long a flow remains visible.
        at_most: maximum number of flows that remain after a page could show them.

    Attributes:
        count: number of flows.
        unshown: number of flows that ended since `mark`.
    """

    def __init__(self, linger_ns: int, at_most: int) -> None:
        self._linger_ns = linger_ns
        self._at_most = at_most
        self._ended: deque[tuple[int, Slots]] = deque()
        self.count = 0
        self.unshown = 0

    def add(self, now_ns: int, slots: Slots) -> None:
        """Add flows that ended at `now_ns`."""
        if len(slots):
            self._ended.append((now_ns, slots))
            self.count += len(slots)
            self.unshown += len(slots)

    def mark(self) -> None:
        """The tick has ended: its page shows all flows that have ended so far."""
        self.unshown = 0

    def leave(self, now_ns: int) -> Slots:
        """Remove and return flows whose time is over."""
        over = 0
        for ended_ns, slots in self._ended:
            if ended_ns > now_ns - self._linger_ns:
                break
            over += len(slots)
        return self._oldest(min(over, self.count - self.unshown))

    def overflow(self) -> Slots:
        """Remove and return the oldest flows beyond the limit."""
        return self._oldest(min(self.count - self._at_most, self.count - self.unshown))

    def give_up(self, at_most: int) -> Slots:
        """Remove and return the oldest flows beyond `at_most`, shown or not."""
        return self._oldest(self.count - at_most)

    def _oldest(self, n: int) -> Slots:
        over: list[Slots] = [np.empty(0, np.int64)]
        while n > 0:
            ended_ns, slots = self._ended.popleft()
            over.append(slots[:n])
            if len(slots) > n:
                self._ended.appendleft((ended_ns, slots[n:]))
            n -= len(slots)
        taken = np.concatenate(over)
        self.count -= len(taken)
        self.unshown = min(self.unshown, self.count)
        return taken
