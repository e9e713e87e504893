"""Export messages as plain values; Templates are kept for each session."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowtop.api.errors import DecodeError, decoding
from flowtop.wire import ipfix
from flowtop.wire.data_set import DataSet, UndecodedSet
from flowtop.wire.datagrams import decode_export
from flowtop.wire.ipfix_decoder import Message as WireMessage
from flowtop.wire.ipfix_decoder import decode_message
from flowtop.wire.ipfix_template import FieldSpecifier, IpfixDecodeError, Template
from flowtop.wire.structured import list_of
from flowtop.wire.template_store import TemplateStore
from flowtop.wire.values import PlainValue, reader

MAX_SESSIONS = 1_024
MAX_FIELDS = 262_144
"""Fields of Templates in all sessions. Above these limits the least recently used session is forgotten."""


class Record(Mapping[str, PlainValue]):
    """One Data Record: values by field name, in the order of its Template; the second field `x` is named `x#2`.

    Attributes:
        template: its Template.
        options: True for Options Data, which describe the exporter, its interfaces or sampling, not a flow.
    """

    __slots__ = ("_values", "options", "template")

    def __init__(self, template: Template, values: dict[str, PlainValue]) -> None:
        self.template = template
        self.options = bool(template.scope_count)
        self._values = values

    def __getitem__(self, name: str) -> PlainValue:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Record of template {self.template.id} {self._values}>"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of IPFIX or NetFlow.

    Attributes:
        version: 10 for IPFIX, 1 or 5 to 9 for NetFlow.
        export_time_s: since 1970 UTC, by the exporter's clock.
        sequence: sequence number: Data Records (IPFIX), datagrams (NetFlow 9) or flows (NetFlow 5 to 8) sent before it.
        domain: Observation Domain ID; Source ID of NetFlow 9; engine type * 256 + engine id of NetFlow 5, 6 and 8.
        templates: Templates in the message.
        withdrawn: ids of Templates that it withdraws.
        records: all Data Records whose Template is known, in order.
        undecoded: Sets whose Template is not known: their ids and octets, without the Set Header.
        remarks: faults of the exporter that did not prevent decoding.
        boot_ms: start of the exporter's sysUpTime (NetFlow), ms since 1970 UTC; None for IPFIX.
        sampling_interval: NetFlow 5: one in this many packets was sampled; 0: not reported.
        skipped: parts of a damaged message that were not read, by kind; each has a remark. Empty for a strict Decoder.
        rest: octets behind the message that are another message, for a Decoder that is not strict: decode them, too.
    """

    version: int
    export_time_s: int
    sequence: int
    domain: int
    templates: tuple[Template, ...]
    withdrawn: tuple[int, ...]
    records: tuple[Record, ...]
    undecoded: tuple[UndecodedSet, ...]
    remarks: tuple[str, ...]
    boot_ms: int | None
    sampling_interval: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    rest: bytes = b""


@dataclass(frozen=True, slots=True)
class DecodingStatistics:
    """Counters of a Decoder since its creation.

    Attributes:
        messages: messages decoded.
        records: Data Records in them.
        undecoded_sets: Sets whose Template was not known.
        refused: messages that could not be decoded, by DecodeError.fault.
        skipped: parts of damaged messages that were not read, by kind: see Message.skipped.
        forgotten_sessions: sessions forgotten because of the limits.
    """

    messages: int
    records: int
    undecoded_sets: int
    refused: Mapping[str, int]
    forgotten_sessions: int
    skipped: Mapping[str, int] = field(default_factory=dict)


class Decoder:
    """Decodes IPFIX and NetFlow, and keeps Templates by session. Use it from one thread at a time.

    Args:
        strict: refuse a message with any fault. False: a part that is not valid costs that part alone, as in the
            collector and flowtop-dump; only what is no message at all is refused.
    """

    def __init__(self, *, strict: bool = True) -> None:
        self._strict = strict
        self._store = TemplateStore()
        self._sessions: OrderedDict[Hashable, None] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()

    def decode(self, octets: bytes, session: Hashable = None, *, datagram: bool = True) -> Message:
        """Decode one whole message.

        Args:
            octets: exactly one message.
            session: identifies the Transport Session, which has its own Templates: for example the sender's address
                and port.
            datagram: True for UDP, where Templates are not withdrawn.

        Raises DecodeError: the message is not valid. It is counted, and no Template has changed.
        """
        self._sessions[session] = None
        self._sessions.move_to_end(session)
        try:
            message = plain_message(decode_export(octets, self._store, session=session, datagram=datagram,
                                                  strict=self._strict))
        except IpfixDecodeError as refusal:
            self._refused[refusal.fault] += 1
            raise DecodeError(str(refusal), refusal.offset, refusal.fault) from refusal
        finally:
            while len(self._sessions) > 1 and (len(self._sessions) > MAX_SESSIONS or self._store.weight > MAX_FIELDS):
                self.end(next(iter(self._sessions)))
                self._counts["forgotten"] += 1
        self._counts["messages"] += 1
        self._counts["records"] += len(message.records)
        self._counts["undecoded"] += len(message.undecoded)
        self._skipped.update(message.skipped)
        return message

    def end(self, session: Hashable) -> None:
        """End a session: forget its Templates."""
        self._sessions.pop(session, None)
        self._store.forget(session)

    @property
    def statistics(self) -> DecodingStatistics:
        """The counters now."""
        counts = self._counts
        return DecodingStatistics(counts["messages"], counts["records"], counts["undecoded"], dict(self._refused),
                                  counts["forgotten"], dict(self._skipped))


def plain_message(message: WireMessage) -> Message:
    """The message with plain values in its records. Raises IpfixDecodeError."""
    records = tuple(record for data_set in message.data_sets for record in _records(data_set))
    return Message(message.version, message.export_time_s, message.sequence, message.domain, message.templates,
                   message.withdrawn, records, message.undecoded, message.remarks, message.boot_ms,
                   message.sampling_interval, dict(message.skipped), message.rest)


def _records(data_set: DataSet) -> Iterator[Record]:
    if not data_set.count:
        return
    template = data_set.template
    readers = [(name, reader(specifier)) for name, specifier in template.named_fields]
    if data_set.templates is None:
        for row in data_set.records.tolist():
            yield Record(template, {name: read(value) for (name, read), value in zip(readers, row, strict=True)})
        return
    for row in data_set.records.tolist():
        values: dict[str, PlainValue] = {}
        for (name, specifier), (_, read), value in zip(template.named_fields, readers, row, strict=True):
            found = list_of(value, specifier, data_set.templates, _plain)
            values[name] = read(value) if found is None else found
        yield Record(template, values)


def _plain(value: Any, specifier: FieldSpecifier) -> PlainValue:
    return reader(specifier)(value)


def decode_ipfix(octets: bytes) -> Message:
    """Decode a single IPFIX message: see flowtop.api.ipfix.decode."""
    with decoding():
        return plain_message(decode_message(octets, TemplateStore(), session=None, datagram=True))


def decode_netflow(octets: bytes) -> Message:
    """Decode a single datagram of NetFlow: see flowtop.api.netflow.decode."""
    with decoding():
        if int.from_bytes(octets[:2], "big") == ipfix.VERSION:
            raise IpfixDecodeError(f"version {ipfix.VERSION} is IPFIX, not NetFlow", 0, "version")
        return plain_message(decode_export(octets, TemplateStore(), session=None))
