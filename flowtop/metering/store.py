"""Storage of flows: one numpy array per field, one slot per flow; slots are reused."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.metering.key_index import KEY_WORDS, Slots, Words
from flowtop.model.record import CARRIED, FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE
from flowtop.model.reported import REPORTED_DTYPE, Reported, plain, rows_of, update, words_of
from flowtop.native import library
from flowtop.native.store import clear_items

U8 = npt.NDArray[np.uint64]
U4 = npt.NDArray[np.uint32]
I8 = npt.NDArray[np.int64]

_LEAST_CAPACITY = 1024

_FIELDS: dict[str, npt.DTypeLike] = {
    "flow_id": "u8", "other_ifindex": "u4", "record_bits": "u4", "flow_count": "u4", "flow_count_reported": "u4",
    **{name: FLOW_COUNTERS_DTYPE[name] for name in CARRIED},
    "occupied": "?", "end_reason": "u1", "duplicate": "?", "tcp_control_bits": "u2", "opening": "?",
    "first_ns": "i8", "last_ns": "i8", "reported_ns": "i8", "record_count": "u4",
    "syn_ns": "i8", "fin_ns": "i8", "rst_ns": "i8", "rtt_us": "u4", "congestion_window": "u4",
    "retransmitted": "u4", "out_of_order": "u4", "retransmitted_reported": "u4", "out_of_order_reported": "u4",
    "opening_ns": "i8", "sequence_end": "i8", "segment_end": "i8",
    "packet_total": "u8", "octet_total": "u8", "packet_reported": "u8", "octet_reported": "u8",
    "peer_name": "u4",
    "head": "i4", "members": "i4", "echo_ns": "i8",
    "packet_duplicate": "u8", "octet_duplicate": "u8", "repeated": "u8", "ahead": "u4", "ahead_ns": "i8",
    "before_ns": "i8",
    "open_packets": "u8", "open_octets": "u8", "packet_delta": "u8", "octet_delta": "u8", "octet_rate_peak": "f8",
    "packets_10s": "u8", "octets_10s": "u8", "packets_60s": "u8", "octets_60s": "u8",
    "bucket_packets": "u8", "bucket_octets": "u8", "bucket_listed": "?", "born_bucket": "i4",
}

_KEPT_ON_REUSE = frozenset({"bucket_listed"})
"""Fields that belong to the slot, not to the flow in it."""


class FlowStore:
    """Fields by slot. Arrays have `capacity` items; slots from `top` on have never been used.

    Fields of a new slot are zero, except those that Rates keeps per slot. Growing creates new arrays, so do not keep
    references to them. Each value that counters carry (model.record.CARRIED) has a field of the same name.
    `reported` (model.reported.REPORTED_DTYPE) exists once an exporter has reported such values; `collected`: flows come
    from exporters; `before`: see conversation_words; `native`: the library for passes over its fields; None: numpy.

    Attributes (units): *_ns on the capture's clock; *_reported: part of the total that was in Flow Records;
    reported_ns: time of the last record, or of the end for an ended flow; record_count: number of records; *_duplicate:
    part of the rest that is duplicate; head, members, repeated, ahead, ahead_ns, before_ns: see dedupe.py; syn_ns ..
    out_of_order: see tcp.py; opening_ns (of the latest SYN without ACK), sequence_end (the highest), segment_end (of
    the latest segment): see tcp.py; echo_ns: time of the first packet if it is an ICMP echo, else 0; open_packets ..
    born_bucket: see rates.py.
    """

    flow_id: U8
    other_ifindex: npt.NDArray[np.uint32]
    record_bits: U4
    flow_count: U4
    flow_count_reported: U4
    socket_cookie: U8
    occupied: npt.NDArray[np.bool_]
    end_reason: npt.NDArray[np.uint8]
    duplicate: npt.NDArray[np.bool_]
    tcp_control_bits: npt.NDArray[np.uint16]
    opening: npt.NDArray[np.bool_]
    syn_ns: I8
    fin_ns: I8
    rst_ns: I8
    rtt_us: U4
    congestion_window: U4
    retransmitted: U4
    out_of_order: U4
    retransmitted_reported: U4
    out_of_order_reported: U4
    peer_name: U4
    opening_ns: I8
    sequence_end: I8
    segment_end: I8
    echo: npt.NDArray[np.uint8]
    echo_identifier: npt.NDArray[np.uint16]
    echo_sequence: npt.NDArray[np.uint16]
    echo_ns: I8
    first_ns: I8
    last_ns: I8
    reported_ns: I8
    record_count: npt.NDArray[np.uint32]
    packet_total: U8
    octet_total: U8
    packet_reported: U8
    octet_reported: U8
    packet_duplicate: U8
    octet_duplicate: U8
    repeated: U8
    ahead: U4
    ahead_ns: I8
    before_ns: I8
    head: npt.NDArray[np.int32]
    members: npt.NDArray[np.int32]
    open_packets: U8
    open_octets: U8
    packet_delta: U8
    octet_delta: U8
    octet_rate_peak: npt.NDArray[np.float64]
    packets_10s: U8
    octets_10s: U8
    packets_60s: U8
    octets_60s: U8
    bucket_packets: U8
    bucket_octets: U8
    bucket_listed: npt.NDArray[np.bool_]
    born_bucket: npt.NDArray[np.int32]

    def __init__(self) -> None:
        self.native = library.loaded()
        self.capacity = 0
        self.top = 0
        self.occupied_count = 0
        self._free: npt.NDArray[np.int64] = np.empty(_LEAST_CAPACITY, np.int64)
        self._free_count = 0
        self.keys: npt.NDArray[np.void] = np.zeros(0, FLOW_KEY_DTYPE)
        self.reported: Reported | None = None
        self.collected = False
        self.before: Words | None = None
        for name, dtype in _FIELDS.items():
            setattr(self, name, np.zeros(0, dtype))
        self._grow(_LEAST_CAPACITY)

    @property
    def key_words(self) -> Words:
        """`keys` as u64 words, shape (capacity, KEY_WORDS)."""
        return self.keys.view(np.uint64).reshape(-1, KEY_WORDS)

    @property
    def conversation_words(self) -> Words:
        """As `key_words`; of flows with address translation the ends before it: `before`, once there is such a flow."""
        return self.key_words if self.before is None else self.before

    def place(self, slots: Slots, keys: Words, conversations: Words | None) -> None:
        """Store the keys of new flows; `conversations`: see FlowBatch."""
        self.key_words[slots] = keys
        if self.before is None and conversations is not None:
            self.before = self.key_words.copy()
        if self.before is not None:
            self.before[slots] = keys if conversations is None else conversations

    @property
    def nbytes(self) -> int:
        """Octets of address space; slots that were never used may not be resident."""
        fields: list[npt.NDArray[Any]] = [getattr(self, name) for name in ("keys", *_FIELDS)]
        reported = 0 if self.reported is None else self.reported.nbytes
        reported += 0 if self.before is None else self.before.nbytes
        return self._free.nbytes + reported + sum(field.nbytes for field in fields)

    @property
    def live(self) -> npt.NDArray[np.bool_]:
        """Whether each slot below `top` holds a flow that has not ended."""
        live: npt.NDArray[np.bool_] = self.occupied[:self.top] & (self.end_reason[:self.top] == 0)
        return live

    def observation_points(self, slots: Slots) -> I8:
        """The Observation Point of each flow as one integer, from ifindex and direction."""
        ifindex: I8 = self.keys["ifindex"][slots].astype(np.int64)
        return ifindex << 2 | self.keys["direction"][slots].astype(np.int64)

    def allocate(self, n: int) -> Slots:
        """Allocate n slots with all fields zero."""
        reused = self._free[max(0, self._free_count - n):self._free_count].copy()
        self._free_count -= len(reused)
        fresh = n - len(reused)
        if self.top + fresh > self.capacity:
            self._grow(max(self.top + fresh, 2 * self.capacity))
        slots = np.concatenate((reused, np.arange(self.top, self.top + fresh)))
        self.top += fresh
        if len(reused):
            fields: list[npt.NDArray[Any]] = [getattr(self, name) for name in _FIELDS.keys() - _KEPT_ON_REUSE]
            if self.native is not None:
                clear_items(self.native, fields, reused)
            else:
                for field in fields:
                    field[reused] = np.zeros(1, field.dtype)
            if self.reported is not None:
                words_of(self.reported)[reused] = 0
        self.occupied[slots] = True
        self.occupied_count += n
        return slots

    def report(self, slots: Slots, reported: Reported) -> None:
        """Store what exporters reported of flows, each once; what they reported before stays where this has nothing."""
        measured, reported = reported.dtype != REPORTED_DTYPE, plain(reported)
        if self.reported is None:
            if measured and not words_of(reported).any():
                return  # it was measurements of TCP alone, see tcp.py
            self.reported = np.zeros(self.capacity, REPORTED_DTYPE)
        words = words_of(self.reported)
        words[slots] = words_of(update(rows_of(self.reported, slots), reported))

    def release(self, slots: Slots) -> None:
        """Free slots."""
        self.occupied[slots] = False
        self.occupied_count -= len(slots)
        if self._free_count + len(slots) > len(self._free):
            longer = np.empty(max(self._free_count + len(slots), 2 * len(self._free)), np.int64)
            longer[:self._free_count] = self._free[:self._free_count]
            self._free = longer
        self._free[self._free_count:self._free_count + len(slots)] = slots
        self._free_count += len(slots)

    def _grow(self, capacity: int) -> None:
        """Enlarge the arrays field by field, so that only one field is in memory twice."""
        for name in ("keys", *_FIELDS):
            old: npt.NDArray[Any] = getattr(self, name)
            new = np.zeros(capacity, old.dtype)
            new[:len(old)] = old
            setattr(self, name, new)
        if self.reported is not None:
            self.reported = np.concatenate((self.reported, np.zeros(capacity - len(self.reported), REPORTED_DTYPE)))
        if self.before is not None:
            self.before = np.concatenate((self.before, np.zeros((capacity - len(self.before), KEY_WORDS), np.uint64)))
        self.capacity = capacity
