"""Sequence numbers of exporters: a gap is what was lost on the way.

Numbers count for an Observation Domain. Of exporters that send from several source ports over UDP, some count each port
for itself (RFC 7011 section 3.1), others have one sequence for all ports (RFC 3954 section 5.1: all Export Packets of a
Source ID). Both are followed, and which of them fits the numbers decides what is lost.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable
from dataclasses import dataclass, field

from flowtop.capture.collector.sessions import Session, has_rebooted
from flowtop.capture.collector.shares import Shares

_MODULUS = 1 << 32
_LARGEST_GAP = 1 << 24
"""A gap larger than this counts as a restart of the sequence, not as loss."""
_LATEST = 1 << 16
"""How far behind a message may be to count as late; further behind, the exporter has restarted."""
MAX_STREAMS = 4_096
"""Limit of sequences per exporter's address."""
MAX_ALL_STREAMS = 8_192
"""Limit of sequences over all sessions; the least recently used are forgotten."""
_CERTAIN = 32
"""So many more messages that fit one way of counting than the other settle which it is."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of checking one sequence number.

    Attributes:
        lost: units missing before this message. Negative for a late message, which corrects an earlier count.
        late: it arrived after a later one.
        reset: the exporter has restarted.
        fits: it has the number that was expected; None: none was.
    """

    lost: int = 0
    late: bool = False
    reset: bool = False
    fits: bool | None = field(default=None, compare=False)


EXPECTED, _ANY = Verdict(fits=True), Verdict()
"""Verdicts of most messages: the number that was expected, and one that says nothing."""


class SequenceTracker:
    """Checks the numbers of one sequence."""

    def __init__(self) -> None:
        self._expected: int | None = None
        self._export_time_s = 0
        self._boot_ms: int | None = None
        self._lost = 0

    def see(self, sequence: int, units: int | None, export_time_s: int, boot_ms: int | None) -> Verdict:
        """Check the sequence number of one message.

        Args:
            sequence: units sent before this message (NetFlow 9: may include it; only differences count).
            units: units in this message; None if unknown, so that the next number cannot be checked.
            export_time_s: from the message header.
            boot_ms: when the exporter booted, or None.
        """
        restarted = boot_ms is not None and self._restarted(export_time_s, boot_ms)
        expected = self._expected
        ahead = 0 if expected is None else (sequence - expected) % _MODULUS
        behind = -ahead % _MODULUS
        if not restarted and expected is not None and 0 < behind <= _LATEST and export_time_s <= self._export_time_s:
            back = min(units or 0, self._lost)
            self._lost -= back
            return Verdict(lost=-back, late=True, fits=False)
        self._export_time_s = export_time_s
        self._boot_ms = boot_ms
        self._expected = None if units is None else (sequence + units) % _MODULUS
        if restarted or ahead > _LARGEST_GAP:
            self._lost = 0
            return Verdict(reset=True, fits=None if restarted else False)
        if not ahead:
            return _ANY if expected is None else EXPECTED
        self._lost += ahead
        return Verdict(lost=ahead, fits=False)

    def _restarted(self, export_time_s: int, boot_ms: int) -> bool:
        """Whether the exporter has rebooted since the last message."""
        if self._boot_ms is None or export_time_s < self._export_time_s:
            return False
        return has_rebooted(self._boot_ms, boot_ms)


@dataclass(slots=True)
class _Numbering:
    """The streams of one exporter, protocol and domain from several ports.

    Attributes:
        first: of the first port.
        ports: number of streams.
        whole: follows all of them as one sequence; None: there was never more than one.
        votes: messages that fit one sequence alone, less those that fit their port's alone.
        apart, together: units lost if each port counts for itself, and if all count together, since both were equal.
        counted: of these, what was said to be lost.
    """

    first: SequenceTracker
    ports: int = 0
    whole: SequenceTracker | None = None
    votes: int = 0
    apart: int = 0
    together: int = 0
    counted: int = 0

    def judge(self, own: Verdict, whole: Verdict) -> Verdict:
        """Which of two verdicts on a message is right. `lost` also corrects what was said on earlier messages."""
        self.apart += own.lost
        self.together += whole.lost
        if own.fits is not None and whole.fits is not None and own.fits != whole.fits:
            self.votes = max(-_CERTAIN, min(_CERTAIN, self.votes + (1 if whole.fits else -1)))
        one = self.votes > 0
        right, lost = (whole, self.together) if one else (own, self.apart)
        verdict = Verdict(lost - self.counted, right.late, right.reset, right.fits)
        self.counted = lost
        if abs(self.votes) == _CERTAIN:
            self.apart = self.together = lost
        return verdict


@dataclass(slots=True)
class _Stream:
    numbering: _Numbering
    tracker: SequenceTracker


_StreamKey = tuple[Hashable, int, Hashable]
_Place = tuple[Hashable, int, Hashable]
"""Exporter (over UDP its address, else the session), protocol, domain."""


class Sequences:
    """The sequences of all exporters, in bounded memory.

    Attributes:
        shares: which of them are kept.
        added: number of those that are new; the owner sets it to 0.
        closed: new ones are not followed, but counted as evicted.
    """

    def __init__(self) -> None:
        self.added = 0
        self.closed = False
        self.shares: Shares[_StreamKey] = Shares(MAX_ALL_STREAMS, MAX_STREAMS)
        self._streams: dict[_StreamKey, _Stream] = {}
        self._latest: tuple[_StreamKey | None, _Stream | None] = None, None
        self._by_session: dict[Hashable, dict[_StreamKey, _Place]] = {}
        self._numberings: dict[_Place, _Numbering] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def see(self, session: Session, protocol: int, domain: Hashable, sequence: int, units: int | None,
            export_time_s: int, boot_ms: int | None) -> Verdict:
        """Check the sequence number of one message; see SequenceTracker.see.

        Args:
            session: the Transport Session.
            protocol: its version of IPFIX or NetFlow; another number for others.
            domain: the Observation Domain, or what else has a sequence of its own.
        """
        key = session.key, protocol, domain
        latest, stream = self._latest
        if key != latest:
            stream = self._streams.get(key)
            if stream is not None:
                self.shares.use(key)
        if stream is None:
            if self.closed:
                self.shares.evicted += 1
                return _ANY
            self.added += 1
            stream = self._add(session, protocol, domain)
        self._latest = key, stream
        own = stream.tracker.see(sequence, units, export_time_s, boot_ms)
        numbering = stream.numbering
        if numbering.whole is None:
            return own
        return numbering.judge(own, numbering.whole.see(sequence, units, export_time_s, boot_ms))

    def _add(self, session: Session, protocol: int, domain: Hashable) -> _Stream:
        key, place, tracker = (session.key, protocol, domain), (session.group, protocol, domain), SequenceTracker()
        numbering = self._numberings.setdefault(place, _Numbering(tracker))
        numbering.ports += 1
        if numbering.ports > 1 and numbering.whole is None:
            numbering.whole = copy.copy(numbering.first)
        stream = self._streams[key] = _Stream(numbering, tracker)
        self._by_session.setdefault(session.key, {})[key] = place
        gone = self.shares.add(key, session.exporter)
        if gone is not None:
            self._remove(gone)
        return stream

    def forget(self, session: Session) -> None:
        """Remove the sequences of a session."""
        for key in list(self._by_session.get(session.key, ())):
            self.shares.remove(key)
            self._remove(key)

    def _remove(self, key: _StreamKey) -> None:
        self._latest = None, None
        mine = self._by_session[key[0]]
        place = mine.pop(key)
        if not mine:
            del self._by_session[key[0]]
        del self._streams[key]
        self._numberings[place].ports -= 1
        if not self._numberings[place].ports:
            del self._numberings[place]
