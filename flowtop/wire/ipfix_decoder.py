"""Decode IPFIX Messages (RFC 7011): for the collector, files of RFC 5655, and tests.

NetFlow 9, the predecessor of IPFIX, has Sets too (flowtop/wire/netflow9.py); flowtop/wire/datagrams.py distinguishes
the versions.

Input is not trusted. A message is decoded, or IpfixDecodeError is raised and nothing changes. On request (`strict` off)
a part that is not valid costs that part alone, and is counted by kind. Memory and time are bounded by the message's
length (at most 65,535 octets) and by the limit of a TemplateStore.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from flowtop.wire.data_set import DataSet, UndecodedSet
from flowtop.wire.ipfix import HEADER_OCTETS, MESSAGE_HEADER, SET_HEADER, VERSION
from flowtop.wire.ipfix_template import IpfixDecodeError, Template
from flowtop.wire.sets_decoder import SetsDecoder, only_data_sets
from flowtop.wire.template_store import TemplateStore


@dataclass(slots=True)
class Message:
    """An IPFIX Message, or a NetFlow datagram in the same form.

    Attributes:
        export_time_s: since 1970 UTC, modulo 2**32.
        sequence: Data Records sent before it, modulo 2**32 (NetFlow 9: messages; NetFlow 5 to 8: flows).
        domain: Observation Domain ID (NetFlow 9: Source ID; NetFlow 5: engine type * 256 + engine id, as 6 and 8).
        templates: Templates announced in this message.
        withdrawn: ids of Templates withdrawn in this message.
        data_sets: decoded Data Sets, in order.
        undecoded: Data Sets without a known Template, in order.
        remarks: faults of the exporter that did not prevent decoding; one log line each.
    """

    export_time_s: int
    sequence: int
    domain: int
    templates: tuple[Template, ...]
    withdrawn: tuple[int, ...]
    data_sets: tuple[DataSet, ...]
    undecoded: tuple[UndecodedSet, ...]
    remarks: tuple[str, ...]
    version: int = VERSION
    boot_ms: int | None = None
    """When the exporter booted, ms since 1970 UTC on its own clock; NetFlow's flow times count from it."""
    sampling_interval: int = 0
    """1 of this many packets was sampled, from the header of NetFlow 5; 0 if not reported."""
    sampling_mode: int = 0
    """Mode of sampling, from the same header; 0 for none, but many exporters that sample leave it 0."""
    skipped: tuple[tuple[str, int], ...] = ()
    """Parts that were not read, by kind (SkippedPart); each has a remark."""
    stale: tuple[int, ...] = ()
    """Template ids whose waiting Data Sets, from earlier messages, are of a Template that is gone: drop them before
    looking at `templates`. TEMPLATE_SET or OPTIONS_TEMPLATE_SET: those of all ids."""
    rest: bytes = b""
    """Octets behind the message in the same datagram that are another message."""

    @property
    def record_count(self) -> int:
        """Number of decoded Data Records."""
        return sum(data_set.count for data_set in self.data_sets)


def split_messages(stream: bytes) -> tuple[list[bytes], bytes]:
    """Split a TCP stream or an RFC 5655 file into messages and the incomplete rest.

    Raises IpfixDecodeError: no message begins there; its offset counts from the start of the stream.
    """
    messages = []
    offset = 0
    while len(stream) - offset >= 4:
        version, length = SET_HEADER.unpack_from(stream, offset)
        if version != VERSION or length < HEADER_OCTETS:
            raise IpfixDecodeError(f"expected version {VERSION}, not {version}, length {length}", offset,
                                   "version" if version != VERSION else "length")
        if len(stream) - offset < length:
            break
        messages.append(stream[offset:offset + length])
        offset += length
    return messages, stream[offset:]


def decode_message(octets: bytes, store: TemplateStore, *, session: Hashable, datagram: bool,
                   strict: bool = True) -> Message:
    """Decode one message and store the Templates it announces.

    Args:
        octets: exactly one message.
        store: Templates known so far.
        session: key of the Transport Session that the message belongs to.
        datagram: received over UDP, where withdrawals are ignored and redefinitions are normal (RFC 7011 section 8.4).
        strict: refuse a message with any fault (RFC 7011 section 9.1). Otherwise a bad part costs that part: see
            Message.skipped, and Message.rest for octets behind the message.

    Raises IpfixDecodeError: not an IPFIX Message; if strict, a malformed one. The store is unchanged then.
    """
    if len(octets) < HEADER_OCTETS:
        raise IpfixDecodeError(f"{len(octets)} octets are too few for a message", 0)
    version, length, export_time_s, sequence, domain = MESSAGE_HEADER.unpack_from(octets)
    if version != VERSION:
        raise IpfixDecodeError(f"version {version}, not {VERSION}", 0, "version")
    known = store.domain(session, domain)
    simple = only_data_sets(octets, HEADER_OCTETS, known) if length == len(octets) else None
    if simple is not None:
        return Message(export_time_s, sequence, domain, (), (), *simple, ())
    decoder = SetsDecoder(bytes(octets), store, session, domain, datagram=datagram, strict=strict,
                          known=known)
    if length != len(octets) and strict:
        raise IpfixDecodeError(f"header length {length}, message length {len(octets)}", 2)
    rest = decoder.decode(HEADER_OCTETS, length)
    decoder.commit()
    return message_of(decoder, export_time_s, sequence, rest=rest)


def message_of(decoder: SetsDecoder, export_time_s: int, sequence: int, version: int = VERSION,
               boot_ms: int | None = None, rest: bytes = b"") -> Message:
    """What was decoded, as a Message."""
    skipped = tuple(sorted(decoder.skipped.items())) if decoder.skipped else ()
    return Message(export_time_s, sequence, decoder.domain, tuple(decoder.templates), tuple(decoder.withdrawn),
                   tuple(decoder.data_sets), tuple(decoder.undecoded), tuple(decoder.remarks), version, boot_ms,
                   skipped=skipped, stale=tuple(decoder.stale), rest=rest)
