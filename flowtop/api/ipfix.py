"""IPFIX (RFC 7011) for programs: decode messages, define Templates, export records of them. `flowtop.ipfix`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from flowtop.api.decoding import Message, decode_ipfix
from flowtop.api.errors import EncodeError, encoding
from flowtop.api.templates import FieldDefinition, Values, record_set, template
from flowtop.wire.ipfix import (
    MAX_MESSAGE_OCTETS,
    EncodedMessages,
    RecordSet,
    encode_messages,
    template_sets,
    withdrawal_sets,
)
from flowtop.wire.ipfix_template import VARIABLE_LENGTH, FieldSpecifier, Template
from flowtop.wire.values import GivenValue, PlainValue

__all__ = [
    "UNKNOWN_MTU_OCTETS", "VARIABLE_LENGTH", "ExportSession", "FieldDefinition", "FieldSpecifier", "GivenValue",
    "PlainValue", "SentStatistics", "Template", "Values", "decode", "template",
]

UNKNOWN_MTU_OCTETS = 512
"""Largest datagram when the path MTU is not known (RFC 7011 section 10.3.3)."""
_LEAST_OCTETS = 64


def decode(octets: bytes) -> Message:
    """Decode a single message. Only Templates in this message are known; a `Decoder` keeps those of earlier messages.

    Raises DecodeError: not an IPFIX message.
    """
    return decode_ipfix(octets)


@dataclass(frozen=True, slots=True)
class SentStatistics:
    """Counters of a session: messages, Data Records in them, octets, and announcements of Templates."""

    messages: int = 0
    records: int = 0
    octets: int = 0
    announcements: int = 0


class ExportSession:
    """One Transport Session of an Exporting Process: makes messages, for the caller to send in order.

    Sequence numbers continue through the session. Templates are sent before the first records that need them, and
    repeatedly over UDP. After a connection was lost, start a new session with `renewed`.

    Args:
        templates: Templates of the records; more can be added later.
        domain: Observation Domain ID.
        datagram: True: each message is sent in a datagram over UDP. False: over TCP or TLS, or to a file (RFC 5655).
        max_octets: maximum length of a message; None: 512 for datagrams, otherwise 65,535. The longest datagram for a
            path is the MTU minus headers: 28 octets, 48 over IPv6.
        refresh_s, refresh_messages: over UDP Templates are sent again after this time, and after this many messages.
        clock: gives seconds since 1970 UTC.

    Raises EncodeError: two Templates with one id, or a Template that does not fit a message.
    """

    def __init__(self, templates: Iterable[Template] = (), *, domain: int = 1, datagram: bool = True,
                 max_octets: int | None = None, refresh_s: float = 60.0, refresh_messages: int = 1_000,
                 clock: Callable[[], float] = time.time) -> None:
        longest = MAX_MESSAGE_OCTETS
        octets = (UNKNOWN_MTU_OCTETS if datagram else longest) if max_octets is None else max_octets
        if not _LEAST_OCTETS <= octets <= longest:
            raise EncodeError(f"messages of {octets} octets", hint=f"from {_LEAST_OCTETS} to {longest}")
        if not 0 <= domain < 1 << 32:
            raise EncodeError(f"observation domain {domain}", hint="it is a number of 32 bits")
        self.domain = domain
        self.datagram = datagram
        self.max_octets = octets
        self._refresh_s = refresh_s
        self._refresh_messages = refresh_messages
        self._clock = clock
        self._templates: dict[int, Template] = {}
        self._announced: set[int] = set()
        self._announced_s = 0.0
        self._since_announced = 0
        self._sequence = 0
        self._statistics = SentStatistics()
        for one in templates:
            self.add(one)

    @property
    def sequence(self) -> int:
        """Sequence number of the next message."""
        return self._sequence

    @property
    def templates(self) -> tuple[Template, ...]:
        """The Templates of the session, in order of id."""
        return tuple(self._templates[id_] for id_ in sorted(self._templates))

    @property
    def statistics(self) -> SentStatistics:
        """The counters now."""
        return self._statistics

    def add(self, template: Template) -> None:
        """Add a Template; it is sent before the next records.

        Raises EncodeError: another Template has its id (over TCP `withdraw` that first; over UDP use another id), or it
            does not fit a message, or NetFlow does not allow it.
        """
        known = self._templates.get(template.id)
        if known is not None and known != template:
            raise EncodeError(f"this session has a different template {template.id}",
                              hint="use another id, or withdraw that template first")
        with encoding():
            self._encode(self._template_sets([template]), self._sequence, 0.0)
        self._templates[template.id] = template

    def messages(self, template: Template, records: Iterable[Values]) -> list[bytes]:
        """Messages with these records, to send now; Templates come first when they are due.

        Args:
            template: the Template of all these records; it is added if it is new.
            records: each record is a mapping from field name to value, or a sequence of values in order of the fields.
                Addresses are text or `ipaddress` objects, times are integers since 1970 UTC in the unit of the element
                name; see the manual.

        Raises EncodeError: a Template or a value cannot be encoded. Nothing was encoded, and the session is unchanged.
        """
        if self._templates.get(template.id) != template:
            self.add(template)
        rest = list(self._record_set(template, records).records)
        now_s = self._clock()
        with encoding():
            if rest:  # if the longest record fits, all do: no error can occur half-way
                self._encode([RecordSet(template.id, [max(rest, key=len)], template.min_octets)], 0, now_s)
        messages: list[bytes] = []
        while rest:
            messages += self._announce(self._due(now_s), now_s)
            encoded, count = self._until_refresh(template, rest, now_s)
            messages += self._made(encoded)
            rest = rest[count:]
        return messages

    def _until_refresh(self, template: Template, records: Sequence[bytes], now_s: float) -> tuple[EncodedMessages, int]:
        """Encode the records that may be sent before Templates are due again; also give their number."""
        room = max(1, self._refresh_messages - self._since_announced) if self.datagram else len(records)
        part = records[:room * (self.max_octets // template.min_octets + 1)]
        while True:
            encoded = self._encode([RecordSet(template.id, part, template.min_octets)], self._sequence, now_s)
            if len(encoded.messages) <= room:
                return encoded, len(part)
            part = part[:sum(encoded.record_counts[:room])]

    def announcement(self) -> list[bytes]:
        """Messages with all Templates, to send now. Over UDP, send them also when there are no records for a long time:
        Templates expire at the collector.

        Over TCP a Template is sent only once: those that were sent are omitted.
        """
        now_s = self._clock()
        templates = [one for one in self.templates if self.datagram or one.id not in self._announced]
        return self._announce(templates, now_s)

    def withdraw(self, *templates: Template) -> list[bytes]:
        """Messages that withdraw Templates (RFC 7011 section 8.1); their ids can then be used again.

        Raises EncodeError: over UDP, where Templates expire instead; or a Template that is not in this session.
        """
        if self.datagram:
            raise EncodeError("templates are not withdrawn over UDP", hint="they expire when they are not sent again")
        for one in templates:
            if self._templates.get(one.id) != one:
                raise EncodeError(f"template {one.id} is not in this session")
        announced = [one for one in templates if one.id in self._announced]
        with encoding():
            encoded = self._encode(withdrawal_sets(announced), self._sequence, self._clock())
        for one in templates:
            self._templates.pop(one.id, None)
            self._announced.discard(one.id)
        return self._made(encoded)

    def renewed(self) -> ExportSession:
        """A new session with the same Templates and settings and sequence number 0, for a new connection."""
        return type(self)(self.templates, domain=self.domain, datagram=self.datagram, max_octets=self.max_octets,
                          refresh_s=self._refresh_s, refresh_messages=self._refresh_messages, clock=self._clock)

    def _due(self, now_s: float) -> list[Template]:
        """Templates to send before records."""
        # After the clock was set back the time since the last announcement is not known: announce again.
        if self.datagram and (self._since_announced >= self._refresh_messages
                              or not 0 <= now_s - self._announced_s < self._refresh_s):
            return list(self.templates)
        return [one for one in self.templates if one.id not in self._announced]

    def _announce(self, templates: Sequence[Template], now_s: float) -> list[bytes]:
        if not templates:
            return []
        with encoding():
            encoded = self._encode(self._template_sets(templates), self._sequence, now_s)
        self._announced.update(one.id for one in templates)
        if len(templates) == len(self._templates):
            self._announced_s, self._since_announced = now_s, 0
        self._statistics = replace(self._statistics, announcements=self._statistics.announcements + 1)
        return self._made(encoded)

    def _made(self, encoded: EncodedMessages) -> list[bytes]:
        self._sequence = encoded.next_sequence
        self._since_announced += len(encoded.messages)
        before = self._statistics
        self._statistics = replace(
            before, messages=before.messages + len(encoded.messages),
            records=before.records + sum(encoded.record_counts),
            octets=before.octets + sum(map(len, encoded.messages)))
        return encoded.messages

    # ---- overridden for NetFlow

    def _record_set(self, template: Template, records: Iterable[Values]) -> RecordSet:
        return record_set(template, records)

    def _template_sets(self, templates: Iterable[Template]) -> list[RecordSet]:
        return template_sets(templates)

    def _encode(self, sets: Sequence[RecordSet], sequence: int, now_s: float) -> EncodedMessages:
        """Raises IpfixEncodeError."""
        return encode_messages(sets, domain=self.domain, sequence=sequence, export_time_s=int(now_s),
                               max_octets=self.max_octets)
