"""The flows of a table: how they are born, gain, are reported and end."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.metering.config import TableConfig
from flowtop.metering.dedupe import Deduplicator
from flowtop.metering.expiry import Lingering, Timeouts
from flowtop.metering.flag_log import FlagLog
from flowtop.metering.key_index import KeyIndex, Slots, Words, as_words
from flowtop.metering.rates import Rates
from flowtop.metering.records import report
from flowtop.metering.sequences import Sequences
from flowtop.metering.store import I8, FlowStore
from flowtop.metering.tcp import note_sockets, note_times, tcp_control_bits
from flowtop.record import TCP_OPENING_BIT, EndReason, FlowBatch, FlowRecords

CHUNK = 16_384
"""Entries worked on at once: bounds how long other threads wait, and fits the caches."""


class Flows:
    """What a FlowTable keeps flows in.

    Args:
        config: timeouts and bounds.
        rng: seeds the hash.

    Attributes:
        unix_offset_ns: as in FlowBatch, of the latest.
    """

    def __init__(self, config: TableConfig, rng: np.random.Generator) -> None:
        self.unix_offset_ns = 0
        self.store = FlowStore()
        self.index = KeyIndex(rng)
        self.rates = Rates(self.store, round(config.least_tick_s * 1e9))
        self.dedupe = None if config.dedupe == "off" else Deduplicator(self.store, rng)
        self.timeouts = Timeouts(*(round(s * 1e9) for s in (
            config.idle_timeout_s, config.active_timeout_s, config.end_timeout_s)))
        self.lingering = Lingering(round(config.linger_s * 1e9), config.max_flows // 4)
        self.flags = FlagLog()
        self.sequences = Sequences(self.store, self.index)
        self._dropping = config.dedupe == "drop"
        self._next_id = 1

    @property
    def nbytes(self) -> int:
        """Octets of memory held."""
        dedupe = self.dedupe.nbytes if self.dedupe else 0
        kept = self.flags.nbytes + self.sequences.nbytes
        return self.store.nbytes + self.index.nbytes + self.rates.nbytes + dedupe + kept

    def add_entries(self, batch: FlowBatch, now_ns: int) -> Slots:
        """Add the counters to flows, new ones are born; gives each entry's slot."""
        parts: list[Slots] = [np.empty(0, np.int64)]
        born: list[Slots] = []
        words = as_words(batch.keys)
        for start in range(0, len(words), CHUNK):
            keys, counters = words[start:start + CHUNK], batch.counters[start:start + CHUNK]
            hashes = self.index.hash(keys)
            slots = self.index.find(keys, hashes, self.store.key_words)
            missing = np.flatnonzero(slots < 0)
            if len(missing):
                slots[missing] = self.give_birth(keys[missing], counters[missing])
                self.index.insert(hashes[missing], slots[missing])
                born.append(slots[missing])
            self.note_flags(now_ns, slots, self.add(slots, counters))
            parts.append(slots)
        if self.dedupe:
            self.dedupe.join(born)
        slots = np.concatenate(parts)
        if batch.other_ifindexes is not None:
            told = batch.other_ifindexes != 0
            self.store.other_ifindex[slots[told]] = batch.other_ifindexes[told]
        return slots

    def give_birth(self, keys: Words, counters: npt.NDArray[np.void]) -> Slots:
        """New flows, with what they have from their first packet; in no index yet."""
        store = self.store
        slots = store.allocate(len(keys))
        store.key_words[slots] = keys
        store.flow_id[slots] = np.arange(self._next_id, self._next_id + len(slots), dtype=np.uint64)
        self._next_id += len(slots)
        for name in ("source_mac", "destination_mac", "tos", "ttl", "socket_cookie"):
            getattr(store, name)[slots] = counters[name]
        store.first_ns[slots] = store.reported_ns[slots] = counters["first_ns"]
        store.born_bucket[slots] = self.rates.bucket_number
        return slots

    def add(self, slots: Slots, counters: npt.NDArray[np.void]) -> npt.NDArray[np.uint16]:
        """Add to flows, each once; gives the TCP control bits that each had not shown before."""
        store = self.store
        packets, octets = np.ascontiguousarray(counters["packets"]), np.ascontiguousarray(counters["octets"])
        store.packet_total[slots] += packets
        store.octet_total[slots] += octets
        store.last_ns[slots] = np.maximum(store.last_ns[slots], counters["last_ns"].astype(np.int64))
        # Known flows seldom change in these: write only where they do.
        first_ns = counters["first_ns"].astype(np.int64)
        earlier = first_ns < store.first_ns[slots]
        if earlier.any():
            store.first_ns[slots[earlier]] = first_ns[earlier]
        old_bits = store.tcp_control_bits[slots]
        bits = old_bits | tcp_control_bits(counters["tcp_bit_seen"][:, :TCP_OPENING_BIT])
        changed = bits != old_bits
        store.tcp_control_bits[slots[changed]] = bits[changed]
        store.opening[slots[counters["tcp_bit_seen"][:, TCP_OPENING_BIT] != 0]] = True
        note_times(store, slots, counters)
        note_sockets(store, slots, counters)
        self.rates.add(slots, packets, octets)
        return bits & ~old_bits

    def note_flags(self, now_ns: int, slots: Slots, bits: npt.NDArray[np.uint16]) -> None:
        """These flows have shown these bits by now, and had not before."""
        some = np.flatnonzero(bits)
        self.flags.add(now_ns, self.store.flow_id[slots[some]], bits[some])

    def report_active(self, slots: Slots, now_ns: int | I8) -> FlowRecords:
        """Records of flows that go on; one that has nothing new to tell waits another active timeout.

        Args:
            now_ns: for all, or for each.
        """
        store = self.store
        store.reported_ns[slots] = now_ns
        news = slots[store.packet_total[slots] != store.packet_reported[slots]]
        return self.report(news, EndReason.ACTIVE_TIMEOUT, store.reported_ns[news])

    def finish(self, slots: Slots, reason: EndReason, now_ns: int | I8) -> FlowRecords:
        """Flows end; they are still in the index. Arguments as above."""
        self.store.end_reason[slots] = reason
        records = self.report(slots, reason, now_ns)
        self.store.reported_ns[slots] = now_ns
        return records

    def forget(self, slots: Slots) -> None:
        """Flows that have ended leave the index, so that the next packet of that key starts another flow."""
        for start in range(0, len(slots), CHUNK):
            part = slots[start:start + CHUNK]
            self.index.remove(self.store.key_words[part], part)
        if self.dedupe:
            self.dedupe.leave(slots)

    def end(self, slots: Slots, reason: EndReason, now_ns: int) -> FlowRecords:
        """Flows end, and are still visible."""
        records = self.finish(slots, reason, now_ns)
        self.forget(slots)
        self.lingering.add(now_ns, slots)
        return records

    def report(self, slots: Slots, reason: EndReason, now_ns: int | I8) -> FlowRecords:
        """A record for each; without duplicates, where they are dropped, but for those that have something to tell."""
        store = self.store
        if self._dropping:
            told = ~store.duplicate[slots] | (store.packet_total[slots] != store.packet_reported[slots])
            slots, now_ns = slots[told], now_ns[told] if isinstance(now_ns, np.ndarray) else now_ns
        records = report(store, slots, reason, now_ns, self.unix_offset_ns)
        if self._dropping:  # a former primary's: what it tells, nobody else does
            records["duplicate"] = False
        return records
