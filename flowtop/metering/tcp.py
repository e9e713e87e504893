"""What packets and sockets tell of TCP connections → the TCP columns of the flow table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.metering.key_index import Slots
from flowtop.metering.store import FlowStore
from flowtop.record import Kind

_TIMES = ("syn_ns", "fin_ns", "rst_ns")


def note_times(store: FlowStore, slots: Slots, counters: npt.NDArray[np.void]) -> None:
    """The first SYN, FIN and RST of each flow.

    Args:
        slots: of the flows, each once.
        counters: FLOW_COUNTERS_DTYPE, one a slot.
    """
    for name in _TIMES:
        some = np.flatnonzero(counters[name])
        if len(some):
            some = some[store.keys["kind"][slots[some]] == Kind.FLOW]
            kept: npt.NDArray[np.int64] = getattr(store, name)
            at, found = slots[some], counters[name][some].astype(np.int64)
            kept[at] = np.where(kept[at] == 0, found, np.minimum(kept[at], found))


def note_sockets(store: FlowStore, slots: Slots, counters: npt.NDArray[np.void]) -> None:
    """What local sockets say of their connections, in the sockets' life: the latest counts. Arguments as above.

    A socket that has just sent its SYN knows no round trip yet.
    """
    some = np.flatnonzero(counters["congestion_window"])  # no socket has none
    if not len(some):
        return
    some = some[store.keys["kind"][slots[some]] == Kind.FLOW]
    at = slots[some]
    store.congestion_window[at] = counters["congestion_window"][some]
    store.retransmitted[at] = counters["retransmitted"][some]
    round_trip = counters["smoothed_rtt_us"][some]
    store.rtt_us[at] = np.where(round_trip, round_trip, store.rtt_us[at])


def tcp_control_bits(seen: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """tcp_bit_seen, shape (n, 12), as IE 6: bit i set where column i is."""
    columns = np.zeros((len(seen), 16), np.uint8)  # one row of bits after another: five times as fast as by rows
    columns[:, :seen.shape[1]] = seen
    bits: npt.NDArray[np.uint16] = np.packbits(columns, bitorder="little").view("<u2")
    return bits
