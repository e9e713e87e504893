"""Packets → arrays of a FlowBatch: one entry per flow, and the totals of each Observation Point."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets.frames import Integers
from flowtop.capture.packets.internet import NO_FRAGMENT, PARSED_IP, Packets
from flowtop.model.kinds import IGNORED_KINDS, Direction, TcpBits
from flowtop.model.owners import latest_of_runs
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, OBSERVATION_DTYPE, SEGMENT_DTYPE, seen_bits
from flowtop.native import library
from flowtop.native.groups import group_keys, sum_groups

_WORDS = FLOW_KEY_DTYPE.itemsize // 8
_NOTED_BITS = np.uint16(TcpBits.FIN | TcpBits.SYN | TcpBits.RST)


def _multipliers() -> npt.NDArray[np.uint64]:
    """The same in every run: flows of a file then get the same ids, so that pages (--offset) of two runs fit together.

    They need not be secret: flows that collide on purpose cost a sort by keys.
    """
    rng = np.random.default_rng(1)
    return rng.integers(1, 1 << 63, _WORDS, np.uint64) << np.uint64(1) | np.uint64(1)


class Entries(NamedTuple):
    """Keys, counters and so on as in FlowBatch; with several steps, also each entry's step."""

    keys: npt.NDArray[np.void]
    counters: npt.NDArray[np.void]
    other_ifindexes: npt.NDArray[np.uint32] | None = None
    segments: npt.NDArray[np.void] | None = None
    steps: Integers | None = None
    described: npt.NDArray[np.void] | None = None
    reported: npt.NDArray[np.void] | None = None


def flow_entries(packets: Packets, start: int, end: int, steps: Integers | None = None,
                 owners: npt.NDArray[np.uint64] | None = None) -> Entries:
    """Merge the packets `start` to `end` into entries as in FlowBatch: one per flow, or one per flow and step.

    Args:
        steps: step of each packet, never decreasing.
        owners: of all packets; an entry has the last one. None: none has any.

    MACs, TOS and TTL are those of the flow's first packet in the file; first_ns and last_ns are the minimum and maximum
    of its times, in any order of packets.
    """
    words = packets.keys.view(np.uint64).reshape(-1, _WORDS)[start:end]
    ip = packets.outcome[start:end] == PARSED_IP
    if not ip.any():
        return Entries(np.zeros(0, FLOW_KEY_DTYPE), np.zeros(0, FLOW_COUNTERS_DTYPE), None, np.zeros(0, SEGMENT_DTYPE),
                       None if steps is None else steps[:0])
    if ip.all():
        order, begins = _by_flow(words)
        rows = order + start
    else:
        rows = np.flatnonzero(ip)
        order, begins = _by_flow(words.take(rows, axis=0))
        rows = rows[order] + start
    if steps is not None:
        begins = _by_step(begins, steps[rows - start])
    firsts = rows[begins]
    counters, native = np.zeros(len(begins), FLOW_COUNTERS_DTYPE), library.loaded()
    if native is None:
        segments = _sum(counters, packets, rows, begins, start, end)
    else:
        segments = np.empty(len(rows), SEGMENT_DTYPE)
        segments = segments[:sum_groups(native, packets, rows, begins, counters, segments)]
    if owners is not None:
        counters["owner"] = latest_of_runs(owners[rows], begins, np.append(begins[1:], len(rows)))
    words = packets.keys.view(np.uint64).reshape(-1, _WORDS)
    keys = words.take(firsts, axis=0).view(FLOW_KEY_DTYPE)[:, 0]  # taking from a structured array is 20 times slower
    return Entries(keys, counters, None, segments, None if steps is None else steps[firsts - start])


def _sum(counters: npt.NDArray[np.void], packets: Packets, rows: Integers, begins: Integers, start: int,
         end: int) -> npt.NDArray[np.void]:
    """Sum packets into the counters of their entries; returns their segments. native.groups does the same."""
    firsts = rows[begins]
    counters["packets"] = np.diff(np.append(begins, len(rows)))
    counters["octets"] = np.add.reduceat(packets.octets[rows], begins)
    counters["first_ns"], counters["last_ns"] = _span(packets.time_ns[start:end], rows - start, begins)
    bits = np.bitwise_or.reduceat(packets.tcp_bits[rows], begins)
    counters["tcp_bits_hint"] = bits
    counters["tcp_bit_seen"] = seen_bits(bits)
    for name in ("source_mac", "destination_mac", "tos", "ttl"):
        counters[name] = getattr(packets, name)[firsts]
    _note_times(counters, packets, rows, begins)
    _note_echoes(counters, packets, firsts)
    fragments = packets.fragment[rows] != NO_FRAGMENT
    if fragments.any():
        counters["fragments"] = np.add.reduceat(fragments, begins, dtype=np.uint32)
    return _segments(packets, rows, begins)


def _by_step(begins: Integers, steps: Integers) -> Integers:
    """Start positions of entries, if each step of a flow has its own entry.

    Args:
        begins: start positions of flows.
        steps: step of each packet, by flow.
    """
    changes = np.zeros(len(steps), np.bool_)
    changes[1:] = steps[1:] != steps[:-1]
    changes[begins] = True
    return np.flatnonzero(changes)


def _segments(packets: Packets, rows: Integers, begins: Integers) -> npt.NDArray[np.void]:
    """The TCP segments among the packets `rows`, for round-trip times and retransmissions."""
    octets = packets.segment_octets[rows]
    some = np.flatnonzero(octets)
    segments = np.empty(len(some), SEGMENT_DTYPE)
    chosen = rows[some]
    segments["entry"] = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, len(rows))))[some]
    segments["octets"] = octets[some]
    for name, values in (("sequence", packets.sequence), ("bits", packets.tcp_bits), ("time_ns", packets.time_ns)):
        segments[name] = values[chosen]
    return segments


def _note_times(counters: npt.NDArray[np.void], packets: Packets, rows: Integers, begins: Integers) -> None:
    """Set the times of the first SYN, FIN and RST."""
    closing = np.flatnonzero(packets.tcp_bits[rows] & _NOTED_BITS)
    bits, times = packets.tcp_bits[rows[closing]], packets.time_ns[rows[closing]].clip(1)  # 0 stands for "none"
    entry = np.searchsorted(begins, closing, "right") - 1
    for bit, name in ((TcpBits.FIN, "fin_ns"), (TcpBits.SYN, "syn_ns"), (TcpBits.RST, "rst_ns")):
        some = np.flatnonzero(bits & np.uint16(bit))
        latest_first = some[np.argsort(times[some], kind="stable")[::-1]]
        counters[name][entry[latest_first]] = times[latest_first]


def _note_echoes(counters: npt.NDArray[np.void], packets: Packets, firsts: Integers) -> None:
    """Set what is known of the ICMP echo that is a flow's first packet."""
    some = np.flatnonzero(packets.echo[firsts])
    if not len(some):
        return
    rows = firsts[some]
    counters["echo"][some] = 1
    counters["echo_identifier"][some] = packets.sequence[rows] >> np.uint32(16)
    counters["echo_sequence"][some] = packets.sequence[rows] & np.uint32(0xFFFF)
    after_ns = packets.time_ns[rows] - counters["first_ns"][some].astype(np.int64)
    counters["echo_after_ns"][some] = after_ns.clip(0, np.iinfo(np.uint32).max)


def _span(times: Integers, rows: Integers, begins: Integers) -> tuple[Integers, Integers]:
    """The earliest and latest time of each flow; `begins` has each flow's start in `rows`."""
    if (times[1:] >= times[:-1]).all():  # nearly always: the first and last packet's
        return times[rows[begins]], times[rows[np.append(begins[1:], len(rows)) - 1]]
    ordered = times[rows]
    return np.minimum.reduceat(ordered, begins), np.maximum.reduceat(ordered, begins)


def _by_flow(words: npt.NDArray[np.uint64]) -> tuple[Integers, Integers]:
    """Return an order that groups packets by flow, in the file's order within a flow, and each flow's start in it."""
    native = library.loaded()
    grouped = None if native is None else group_keys(native, words, _MULTIPLIERS)
    if grouped is not None:
        return grouped
    hashes = words[:, 0] * _MULTIPLIERS[0]
    for number in range(1, _WORDS):
        hashes += words[:, number] * _MULTIPLIERS[number]
    hashes = (hashes ^ hashes >> np.uint64(29)) * np.uint64(0x9E3779B97F4A7C15)
    hashes >>= np.uint64(16)
    order = np.argsort(hashes.astype(np.uint16), kind="stable")
    for shift in (16, 32):  # numpy sorts 16 bits by radix: three passes take half the time of one over 48 bits
        order = order[np.argsort((hashes >> np.uint64(shift)).astype(np.uint16)[order], kind="stable")]
    begins = _changes(words.take(order, axis=0))
    ordered = hashes[order]
    if np.count_nonzero(begins) != np.count_nonzero(ordered[1:] != ordered[:-1]) + 1:  # two flows with one hash
        order = np.lexsort(words.T)
        begins = _changes(words.take(order, axis=0))
    return order, np.flatnonzero(begins)


_MULTIPLIERS = _multipliers()


def _changes(ordered: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Whether each row differs from the previous one; True for the first."""
    changes = np.ones(len(ordered), np.bool_)
    changes[1:] = ordered[1:, 0] != ordered[:-1, 0]
    for number in range(1, _WORDS):
        changes[1:] |= ordered[1:, number] != ordered[:-1, number]
    return changes


class Observations:
    """Totals of a file's interfaces in both directions, added up batch by batch."""

    def __init__(self) -> None:
        self._rows = np.zeros(0, OBSERVATION_DTYPE)

    def add(self, packets: Packets, unjoined: npt.NDArray[np.bool_], start: int, end: int) -> None:
        """Count the packets `start` to `end`."""
        if start == end:
            return
        keys, outcome = packets.keys[start:end], packets.outcome[start:end]
        points = _points(keys)
        self._grow(int(points.max()) + 1)
        room = len(self._rows)
        octets, frame_octets = packets.octets[start:end], packets.frame_octets[start:end]
        frames = np.bincount(points, minlength=room).astype(np.uint64)
        self._rows["frames"] += frames
        self._rows["packets"] += frames
        self._rows["octets"] += _sums(points, octets, room)
        self._rows["frame_octets"] += _sums(points, frame_octets, room)
        if unjoined.any():
            alone = np.bincount(points[unjoined[start:end]], minlength=room)
            self._rows["unjoined_fragments"] += alone.astype(np.uint64)
        lying = packets.lying[start:end]
        if lying.any():
            self._rows["lying_lengths"] += np.bincount(points[lying], minlength=room).astype(np.uint64)
        for kind in range(len(IGNORED_KINDS)):
            mine = outcome == kind
            if mine.any():
                self._rows["ignored_packets"][:, kind] += np.bincount(points[mine], minlength=room).astype(np.uint64)
                self._rows["ignored_octets"][:, kind] += _sums(points[mine], octets[mine], room)

    def add_encapsulation(self, keys: npt.NDArray[np.void], octets: Integers) -> None:
        """Count the encapsulation of packets that were counted before.

        Args:
            keys: FLOW_KEY_DTYPE, shape (n,): for interface and direction.
            octets: encapsulation octets of each.
        """
        if len(keys):
            self._rows["encapsulation_octets"] += _sums(_points(keys), octets, len(self._rows))

    def _grow(self, points: int) -> None:
        if points > len(self._rows):
            points += -points % len(Direction)
            old = len(self._rows)
            self._rows = np.concatenate((self._rows, np.zeros(points - old, OBSERVATION_DTYPE)))
            numbers = np.arange(points)
            self._rows["ifindex"] = numbers // len(Direction) + 1
            self._rows["direction"] = numbers % len(Direction)

    def rows(self) -> npt.NDArray[np.void]:
        """Cumulative OBSERVATION_DTYPE, one row per interface and direction; must not be modified."""
        return self._rows


def _points(keys: npt.NDArray[np.void]) -> Integers:
    """The row index of each key's Observation Point."""
    points: Integers = (keys["ifindex"].astype(np.int64) - 1) * len(Direction) + keys["direction"]
    return points


def _sums(points: Integers, octets: Integers, room: int) -> npt.NDArray[np.uint64]:
    """Exact sums of octets by point; bincount's weights are floats, which are exact below 2**53 only."""
    if not points.any():
        sums = np.zeros(room, np.uint64)
        sums[0] = octets.sum()
        return sums
    low = np.bincount(points, octets & 0xFFFFF, room)
    high = np.bincount(points, octets >> 20, room)
    return low.astype(np.uint64) + (high.astype(np.uint64) << np.uint64(20))
