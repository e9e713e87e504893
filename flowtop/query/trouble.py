"""Trouble, named: rules over the flow table, each with a threshold, looked at once a tick.

A rule is data: what it is called, what it means, how much is too much, and a function that finds the worst case in the
columns. Nothing here loops over flows. What was found stays for HOLD_S after it was found last, in the order of the
rules: on screen it does not blink.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.fields.networks import REMOTE_IS_SOURCE
from flowtop.model.flows import Array, FlowColumns, FlowSource, Slots
from flowtop.model.kinds import Kind, Protocol, TcpBits
from flowtop.text import quantities, units

HOLD_S = 30.0
"""How long trouble is shown after it was found last."""
AGO_S = 10
"""In longer steps than ticks, so that nothing blinks."""
RECENT_NS = 60_000_000_000
"""Flows that began before do not count as attempts."""
PATIENCE_NS = 3_000_000_000
"""A SYN without an answer for so long has none."""
WINDOW_NS = 10_000_000_000
"""Of retransmits."""

_OPENING, _SYN = np.uint16(TcpBits.SYN | TcpBits.ACK), np.uint16(TcpBits.SYN)
_FLOW = np.uint8(Kind.FLOW)
_TCP = np.uint8(Protocol.TCP)
_UNANSWERED = "flags syn and not flags ack"
_BUCKET_BITS = 16
_MIXERS = (np.uint64(0x9E37_79B9_7F4A_7C15), np.uint64(0xC2B2_AE3D_27D4_EB4F), np.uint64(0x1656_67B1_9E37_79F9))


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is probably wrong.

    Attributes:
        rule: its id, as in the settings.
        subject: what it is, and of whom: `scan? 203.0.113.66`.
        figure: how much: `1,620 ports`.
        view: id of the view that shows it; filter: which flows; sort: by which column, "" for the view's.
        within_s: it was found so many seconds ago at most, in steps of AGO_S, and is not found now; 0: it is now.
    """

    rule: str
    subject: str
    figure: str
    view: str
    filter: str
    sort: str = ""
    within_s: int = 0

    @property
    def text(self) -> str:
        """Both; and how long ago that was, when it is over."""
        return f"{self.subject}: {self.figure}{f', < {self.within_s} s ago' if self.within_s else ''}"

    @property
    def short(self) -> str:
        """Where there is little room."""
        return f"{self.subject}{' (over)' if self.within_s else ''}"

    @property
    def word(self) -> str:
        """Where several share little room; in brackets when it is over."""
        word = next((rule.word for rule in RULES if rule.id == self.rule), self.rule)
        return f"({word})" if self.within_s else word


class Looked:
    """The columns of a tick, with what several rules need of them; each made when it is asked for first.

    Args:
        source: the flows; its columns know which end of a flow is the remote one.
        retransmits: of the last seconds.
    """

    def __init__(self, source: FlowSource, retransmits: Retransmits) -> None:
        self.source = source
        self.columns: FlowColumns = source.columns
        self.retransmits = retransmits

    @cached_property
    def openings(self) -> Slots:
        """Flows that began with a SYN, within the last minute."""
        columns, now_ns = self.columns, self.source.now_ns
        found = np.flatnonzero(self.source.visible & columns["opening"] & (columns["first_ns"] > now_ns - RECENT_NS))
        return _once(columns, found)

    @cached_property
    def unanswered(self) -> Slots:
        """Connections that nothing but the client's SYN was ever seen of."""
        columns = self.columns
        bits = columns["tcp_control_bits"]
        found = np.flatnonzero(self.source.visible & (bits & _OPENING == _SYN))
        return _once(columns, found)


def _once(columns: FlowColumns, slots: Slots) -> Slots:
    """Those with ports, each packet once."""
    once: Slots = slots[(columns["kind"][slots] == _FLOW) & ~columns["duplicate"][slots]]
    return once


def _words(columns: FlowColumns, name: str, slots: Slots) -> tuple[Array, Array]:
    """Both halves of these flows' addresses, in the byte order of this host: to compare, not to order."""
    raw = np.ascontiguousarray(columns[name][slots])
    halves = raw.view(np.uint64).reshape(-1, 2)
    return halves[:, 0], halves[:, 1]


def _hashed(*parts: Array) -> Array:
    """A hash of 64 bits; its upper bits depend on all of the parts."""
    mixed = np.zeros(len(parts[0]), np.uint64)
    for part, mixer in zip(parts, _MIXERS, strict=False):
        mixed = (mixed ^ part.astype(np.uint64, copy=False)) * mixer
        mixed ^= mixed >> np.uint64(29)
    result: Array = mixed * _MIXERS[0]
    return result


def _most(hashes: Array, weights: Array | None = None) -> npt.NDArray[np.bool_] | None:
    """Which of them have the hash that counts most; None: none counts anything."""
    if not len(hashes):
        return None
    buckets = (hashes >> np.uint64(64 - _BUCKET_BITS)).astype(np.int64)
    counts = np.bincount(buckets, weights, minlength=1 << _BUCKET_BITS)
    among = np.flatnonzero(buckets == int(counts.argmax()))
    if not len(among):  # all weights are negative
        return None
    values = hashes[among]  # a bucket may hold several
    names, inverse = np.unique(values, return_inverse=True) if values.min() != values.max() else (values[:1], None)
    found = names[0]
    if inverse is not None:
        own = np.bincount(inverse, None if weights is None else weights[among])
        found = names[int(own.argmax())]
    same: npt.NDArray[np.bool_] = hashes == found
    return same


SAMPLE = 16_384


def _commonest(*parts: Array) -> npt.NDArray[np.bool_] | None:
    """Which rows are equal to the commonest row; None: there are none. Of many rows, a sample finds which it is."""
    step = max(1, len(parts[0]) // SAMPLE)
    among = _most(_hashed(*(part[::step] for part in parts)))
    if among is None:
        return None
    one = step * int(among.argmax())
    same = np.ones(len(parts[0]), np.bool_)
    for part in parts:
        same &= part == part[one]
    return same


def _address(columns: FlowColumns, name: str, slot: int) -> str:
    return units.address(bytes(columns[name][slot]).ljust(16, b"\0"), int(columns["ip_version"][slot]))


def _scan(seen: Looked, threshold: float) -> Trouble | None:
    """One source, many ports or hosts, no answers."""
    slots, columns = seen.unanswered, seen.columns
    if len(slots) < threshold:
        return None
    same = _commonest(*_words(columns, "source_address", slots))
    if same is None or np.count_nonzero(same) < threshold:
        return None
    slots = slots[same]
    ports = int(np.count_nonzero(np.bincount(columns["destination_port"][slots])))
    count, what = ports, "port"
    if ports < threshold:
        count, what = len(np.unique(_hashed(*_words(columns, "destination_address", slots)))), "host"
    if count < threshold:
        return None
    who = _address(columns, "source_address", int(slots[0]))
    return Trouble("scan", f"scan? {who}", units.things(count, what), "flows", f"src host {who} and {_UNANSWERED}")


def _flood(seen: Looked, threshold: float) -> Trouble | None:
    """One port of one host, many half-open connections of many sources."""
    slots, columns = seen.unanswered, seen.columns
    if len(slots) < threshold:
        return None
    same = _commonest(*_words(columns, "destination_address", slots), columns["destination_port"][slots])
    if same is None or np.count_nonzero(same) < threshold:
        return None
    slots = slots[same]
    who, port = _address(columns, "destination_address", int(slots[0])), int(columns["destination_port"][slots[0]])
    return Trouble("flood", f"SYN flood? {who}", f"{len(slots):,} half-open to port {port}", "flows",
                   f"dst host {who} and dst port {port} and {_UNANSWERED}")


LEAST_ATTEMPTS = 20


def _refused(seen: Looked, threshold: float) -> Trouble | None:
    """Many of the connections to one port are not answered."""
    columns = seen.columns
    waiting = seen.unanswered
    waiting = waiting[columns["first_ns"][waiting] < seen.source.now_ns - PATIENCE_NS]
    if len(waiting) < LEAST_ATTEMPTS * threshold / 100:
        return None
    attempts = np.bincount(columns["destination_port"][seen.openings], minlength=1 << 16)
    waiting = waiting[columns["first_ns"][waiting] > seen.source.now_ns - RECENT_NS]
    failed = np.bincount(columns["destination_port"][waiting], minlength=1 << 16)
    bad = np.flatnonzero((attempts >= LEAST_ATTEMPTS) & (100 * failed >= threshold * attempts))
    if not len(bad):
        return None
    port = int(bad[failed[bad].argmax()])
    per_cent = 100 * failed[port] // attempts[port]
    return Trouble("unanswered", f"port {port} unanswered", f"{per_cent} % of {attempts[port]:,}", "flows",
                   f"dst port {port} and {_UNANSWERED}")


LEAST_SEGMENTS, LEAST_RESENT = 100, 10


def _retransmits(seen: Looked, threshold: float) -> Trouble | None:
    """Much is sent again."""
    resent, segments = seen.retransmits.sums
    if segments < LEAST_SEGMENTS or resent < LEAST_RESENT or 100 * resent < threshold * segments:
        return None
    return Trouble("retransmits", f"retransmits {100 * resent // segments} %",
                   f"{resent:,} of {segments:,} segments in 10 s", "flows", "retransmits", "retransmits")


LEAST_WINDOW_S = 20.0
_MOSTLY = 0.5


def _talker(seen: Looked, threshold: float) -> Trouble | None:
    """A remote host that was quiet takes much."""
    source, columns = seen.source, seen.columns
    ten, sixty = columns["octets_10s"], columns["octets_60s"]
    if source.window_60s_s < LEAST_WINDOW_S:
        return None  # at the start all are new
    new = source.visible & (columns["first_ns"] > source.now_ns - RECENT_NS) & (ten > 0)
    slots = np.flatnonzero(new)
    least = threshold * source.window_10s_s
    if not len(slots) or int(ten[slots].sum()) < least:
        return None
    slots = slots[(columns["kind"][slots] != np.uint8(Kind.PARENT)) & ~columns["duplicate"][slots]]
    at_source = columns[REMOTE_IS_SOURCE][slots]
    (high, low), (there_high, there_low) = (_words(columns, f"{end}_address", slots) for end in (
        "source", "destination"))
    high, low = np.where(at_source, high, there_high), np.where(at_source, low, there_low)
    before = sixty[slots].astype(np.float64) - ten[slots]
    same = _most(_hashed(high, low), ten[slots] - before / _MOSTLY)  # not those that talk all the time
    if same is None or int(ten[slots[same]].sum()) < least:
        return None
    first = slots[same][0]
    end = "source" if columns[REMOTE_IS_SOURCE][first] else "destination"
    busy = np.flatnonzero(source.visible & (sixty > 0))
    busy = busy[~columns["duplicate"][busy]]
    own = [half[0] for half in _words(columns, f"{end}_address", np.array([first]))]
    its = np.zeros(len(busy), np.bool_)
    for name in ("source_address", "destination_address"):
        halves = _words(columns, name, busy)
        its |= (halves[0] == own[0]) & (halves[1] == own[1])
    now, minute = int(ten[busy[its]].sum()), int(sixty[busy[its]].sum())
    before = minute - now
    if before > _MOSTLY * now:
        return None
    who = _address(columns, f"{end}_address", int(first))
    rate = " ".join(units.rate(now / source.window_10s_s).split())
    return Trouble("talker", f"new talker {who}", f"+{rate}", "flows", f"host {who}", "rate")


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of trouble.

    Attributes:
        id: its name in the settings file, under [trouble].
        word: its shortest name on screen.
        doc: when it is shown: one sentence.
        threshold: from which on it is shown.
        unit: of the threshold, in words.
        example: the threshold as one writes it in the settings.
        read: a value of the settings -> threshold. Raises ValueError.
        find: the worst case, when it is over the threshold.
    """

    id: str
    word: str
    doc: str
    threshold: float
    unit: str
    example: str
    read: Callable[[str], float]
    find: Callable[[Looked, float], Trouble | None]


RULES: tuple[Rule, ...] = (
    Rule("scan", "scan?", "One source has sent SYNs to this many ports, or hosts, that answered none of them.", 100,
         "ports or hosts", "100", quantities.count, _scan),
    Rule("flood", "flood?", "This many half-open connections to one port of one host, from whichever sources.", 1_000,
         "connections", "1000", quantities.count, _flood),
    Rule("unanswered", "unanswered", f"Of the connections to one port in the last minute ({LEAST_ATTEMPTS} or more), "
         "this part had no answer for 3 s.", 10, "per cent", "10", quantities.count, _refused),
    Rule("retransmits", "retransmits", "Of the TCP segments with data in the last 10 s, this part was sent again.", 5,
         "per cent", "5", quantities.count, _retransmits),
    Rule("talker", "talker", "A remote host that was quiet before takes this rate over 10 s.", 1_250_000,
         "rate", '"10Mbit"', quantities.rate, _talker),
)
"""In the order of the chips: the most alarming first."""

DEFAULTS: Mapping[str, float] = {rule.id: rule.threshold for rule in RULES}


def thresholds(settings: Mapping[str, str | float]) -> dict[str, float]:
    """The thresholds: those of the settings, else the usual ones; 0 turns a rule off.

    Raises ValueError: the name of a setting that is no rule, or whose value is none.
    """
    found = dict(DEFAULTS)
    rules = {rule.id: rule for rule in RULES}
    for name, value in settings.items():
        if name not in rules:
            raise ValueError(name)
        try:
            found[name] = rules[name].read(str(value))
        except ValueError as error:
            raise ValueError(name) from error
    return found


class _Spell(NamedTuple):
    at_ns: int
    resent: int
    segments: int


class Retransmits:
    """TCP segments with data, and how many were sent again, over the last 10 s."""

    _DATA = 100
    """Octets a packet, on average, of a flow that carries data: acknowledgements alone are smaller."""

    def __init__(self) -> None:
        self._spells: deque[_Spell] = deque()
        self._flow_ids = np.zeros(0, np.uint64)
        self._resent = np.zeros(0, np.uint32)
        self._packets = np.zeros(0, np.uint64)

    def tick(self, source: FlowSource) -> None:
        """Take the flows of now; what a flow did before it was seen first does not count."""
        columns = source.columns
        resent, packets, flow_ids = columns["retransmitted"], columns["packet_total"], columns["flow_id"]
        known = min(len(flow_ids), len(self._flow_ids))
        same = self._flow_ids[:known] == flow_ids[:known]
        some = np.flatnonzero(same & (resent[:known] > self._resent[:known]))
        again = int((resent[some] - self._resent[some]).sum())
        busy = np.flatnonzero(same & (packets[:known] > self._packets[:known]) & source.visible[:known])
        busy = busy[columns["octet_total"][busy] >= packets[busy] * np.uint64(self._DATA)]
        busy = busy[(columns["protocol"][busy] == _TCP) & ~columns["duplicate"][busy]]
        self._spells.append(_Spell(source.now_ns, again, int((packets[busy] - self._packets[busy]).sum())))
        while self._spells[0].at_ns <= source.now_ns - WINDOW_NS:
            self._spells.popleft()
        self._flow_ids, self._resent, self._packets = flow_ids.copy(), resent.copy(), packets.copy()

    @property
    def sums(self) -> tuple[int, int]:
        """Segments sent again, and segments."""
        return sum(spell.resent for spell in self._spells), sum(spell.segments for spell in self._spells)


@dataclass(slots=True)
class TroubleWatch:
    """Looks at each tick, and holds what was found for a while.

    Attributes:
        limits: threshold by rule; 0: the rule is off.
    """

    limits: Mapping[str, float] = field(default_factory=lambda: DEFAULTS)
    _retransmits: Retransmits = field(default_factory=Retransmits)
    _held: dict[str, tuple[int, Trouble]] = field(default_factory=dict)

    def tick(self, source: FlowSource) -> tuple[Trouble, ...]:
        """What is wrong at a tick that has just been closed, in the order of the rules.

        Args:
            source: the flows, whose columns know which end of a flow is the remote one.
        """
        self._retransmits.tick(source)
        seen = Looked(source, self._retransmits)
        for rule in RULES:
            limit = self.limits.get(rule.id, 0)
            found = rule.find(seen, limit) if limit > 0 else None
            if found is not None:
                self._held[rule.id] = source.now_ns, found
            elif rule.id in self._held and self._held[rule.id][0] < source.now_ns - HOLD_S * 1e9:
                del self._held[rule.id]
        return tuple(replace(trouble, within_s=_within_s(source.now_ns - at_ns)) for at_ns, trouble in (
            self._held[rule.id] for rule in RULES if rule.id in self._held))


def _within_s(ago_ns: int) -> int:
    return -(-ago_ns // (AGO_S * 1_000_000_000)) * AGO_S
