"""Flow Records out of the store."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flowtop.metering.key_index import Slots
from flowtop.metering.store import I8, FlowStore
from flowtop.record import FLOW_KEY_DTYPE, FLOW_RECORD_DTYPE, EndReason, FlowRecords

_COPIED = ("flow_id", "source_mac", "destination_mac", "tcp_control_bits", "tos", "ttl", "socket_cookie",
           "packet_total", "octet_total")


class Reporting(NamedTuple):
    """What the Flow Records of one flow have told so far.

    Attributes:
        records: how many there were.
        packets, octets: that they told of.
        at_ns: when the last one was made; without any, the first packet's time.
        due_ns: when the next is due if packets go on coming; None: the flow has ended.
    """

    records: int
    packets: int
    octets: int
    at_ns: int
    due_ns: int | None


def no_records() -> FlowRecords:
    """FLOW_RECORD_DTYPE, shape (0,)."""
    return np.empty(0, FLOW_RECORD_DTYPE)


def report(store: FlowStore, slots: Slots, reason: EndReason, now_ns: int | I8, unix_offset_ns: int) -> FlowRecords:
    """A Flow Record for each slot, with what was not reported yet; from now on it is reported.

    A flow whose part changed, from counting to duplicate or back, since its last record gets two: one of what
    counted, one of what was duplicate.

    Args:
        now_ns: as in FlowBatch, for all, or for each.
        unix_offset_ns: as in FlowBatch.
    """
    records = np.zeros(len(slots), FLOW_RECORD_DTYPE)
    keys = store.key_words.take(slots, axis=0).view(FLOW_KEY_DTYPE)[:, 0]  # a structured array takes 20 times as long
    for name in FLOW_KEY_DTYPE.names or ():
        records[name] = keys[name]
    for name in _COPIED:
        records[name] = getattr(store, name)[slots]
    records["end_reason"] = reason
    records["packet_delta"] = store.packet_total[slots] - store.packet_reported[slots]
    records["octet_delta"] = store.octet_total[slots] - store.octet_reported[slots]
    records["start_ms"] = (store.first_ns[slots] + unix_offset_ns) // 1_000_000
    records["end_ms"] = (store.last_ns[slots] + unix_offset_ns) // 1_000_000
    duplicate_packets, duplicate_octets = store.packet_duplicate[slots], store.octet_duplicate[slots]
    duplicate = (duplicate_packets > 0) | (duplicate_octets > 0)
    empty = (records["packet_delta"] == 0) & (records["octet_delta"] == 0)
    records["duplicate"] = duplicate | (store.duplicate[slots] & empty)
    store.packet_duplicate[slots] = 0
    store.octet_duplicate[slots] = 0
    store.packet_reported[slots] = store.packet_total[slots]
    store.octet_reported[slots] = store.octet_total[slots]
    store.reported_ns[slots] = now_ns
    store.record_count[slots] += np.uint32(1)
    counting = (duplicate_packets < records["packet_delta"]) | (duplicate_octets < records["octet_delta"])
    both = duplicate & counting
    counted = records[both]
    counted["duplicate"] = False
    counted["packet_delta"] -= duplicate_packets[both]
    counted["octet_delta"] -= duplicate_octets[both]
    records["packet_delta"][both] = duplicate_packets[both]
    records["octet_delta"][both] = duplicate_octets[both]
    return np.concatenate((records, counted)) if len(counted) else records
