"""NetFlow 9 datagrams (RFC 3954) as the Messages of IPFIX, which is based on it.

Remaining differences: sequence numbers count datagrams, times count from the exporter's boot, and there is no
Enterprise bit: element numbers from 32768 on belong to the vendor. Scopes of Options get the IPFIX elements of the same
meaning.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterable, Iterator, Sequence

from flowtop.wire.ipfix import (
    HEADER_OCTETS,
    SET_HEADER,
    SET_HEADER_OCTETS,
    EncodedMessages,
    RecordSet,
    encode_messages,
    template_sets,
)
from flowtop.wire.ipfix_decoder import Message, message_of
from flowtop.wire.ipfix_template import (
    FIRST_TEMPLATE_ID,
    OPTIONS_TEMPLATE_SET,
    TEMPLATE_SET,
    VARIABLE_LENGTH,
    FieldSpecifier,
    IpfixDecodeError,
    IpfixEncodeError,
    Template,
    specifier_of,
)
from flowtop.wire.sets_decoder import SetsDecoder, empty, only_data_sets
from flowtop.wire.template_store import TemplateStore

VERSION = 9
HEADER = struct.Struct(">HHIIII")
"""Version, count of records, ms since boot, s since 1970 UTC, sequence number, Source ID."""

_TEMPLATE_FLOWSET, _OPTIONS_FLOWSET = 0, 1
_SCOPES = {1: 144, 2: 10, 3: 141, 4: 143, 5: 145}
"""System, Interface, Line Card, Cache, Template: exportingProcessId, ingressInterface, lineCardId, meteringProcessId,
templateId."""
_UNKNOWN_SCOPE = 0x7FFF


def decode_netflow9(octets: bytes, store: TemplateStore, *, session: Hashable, strict: bool = True) -> Message:
    """Decode one datagram and store the Templates it announces; see decode_message.

    Raises IpfixDecodeError: not a NetFlow 9 datagram; if strict, a malformed one. The store is unchanged then.
    """
    if len(octets) < HEADER.size:
        raise IpfixDecodeError(f"{len(octets)} octets are too few for a message", 0)
    version, count, uptime_ms, export_time_s, sequence, source_id = HEADER.unpack_from(octets)
    if version != VERSION:
        raise IpfixDecodeError(f"version {version}, not {VERSION}", 0, "version")
    boot_ms = export_time_s * 1000 - uptime_ms
    known = store.domain(session, source_id)
    simple = only_data_sets(octets, HEADER.size, known)
    if simple is not None and (strict or simple[1] or count in (
            sum(data_set.count for data_set in simple[0]), len(simple[0]))):
        return Message(export_time_s, sequence, source_id, (), (), *simple, (), VERSION, boot_ms)
    decoder = _FlowSetsDecoder(bytes(octets), store, session, source_id, datagram=True, strict=strict, known=known)
    decoder.count = count
    decoder.decode(HEADER.size, len(octets))
    decoder.check_count()
    decoder.commit()
    return message_of(decoder, export_time_s, sequence, VERSION, boot_ms)


class _FlowSetsDecoder(SetsDecoder):
    """FlowSets: Sets with other ids, and Options Templates that count octets instead of fields."""

    count = 0
    """Records by the header."""
    _withdrawals = False  # In an Options Template this number is the scope's length: 0 means Options without a scope.
    _foreign_template_set = TEMPLATE_SET

    def check_count(self) -> None:
        """Compare the header's number with the records read; some exporters count Data Records alone, or FlowSets."""
        if self._strict or self.undecoded or self.skipped:
            return
        data_records = sum(data_set.count for data_set in self.data_sets)
        records = len(self.templates) + data_records
        if self.count not in (records, data_records, self._set_count()):
            self.skip("count", IpfixDecodeError(f"the header counts {self.count} records, not {records}", 2))

    def _set_count(self) -> int:
        """Number of FlowSets."""
        count, offset = 0, HEADER.size
        while offset + SET_HEADER_OCTETS <= len(self._octets):
            offset += max(SET_HEADER.unpack_from(self._octets, offset)[1], SET_HEADER_OCTETS)
            count += 1
        return count

    def _padding_from(self, offset: int) -> bool:
        """Whether only zeros follow: some exporters pad datagrams, and the header has no length."""
        if any(self._octets[offset:offset + SET_HEADER_OCTETS]) or any(self._octets[offset:]):
            return False
        self._remark(f"{len(self._octets) - offset} octets of zeros follow the last flowset")
        return True

    def _is_cut(self, set_id: int, offset: int, length: int) -> bool:
        """Whether the datagram was longer: its header counts as many records as are here, or more."""
        del length
        template = self.known.get(set_id)
        if template is None:
            return False
        here = (len(self._octets) - offset - SET_HEADER_OCTETS) // template.min_octets
        return len(self.templates) + sum(data_set.count for data_set in self.data_sets) + here <= self.count

    def _template_kind(self, set_id: int) -> int | None:
        return {_TEMPLATE_FLOWSET: TEMPLATE_SET, _OPTIONS_FLOWSET: OPTIONS_TEMPLATE_SET}.get(set_id)

    def _template(self, template_id: int, count: int, set_id: int, start: int, end: int) -> tuple[Template, int, str]:
        offset, scope_count, reason = start + 4, 0, self._reserved(template_id)
        if reason and self._strict:
            raise IpfixDecodeError(reason, start, "template")
        if set_id == OPTIONS_TEMPLATE_SET:
            scope_octets, option_octets = count, self._unpack(">H", offset, end)[0]
            offset += 2
            if scope_octets % 4 or option_octets % 4:
                reason = reason or f"fields of options template {template_id} are cut off"
            elif not scope_octets:
                reason = reason or f"options template {template_id} has no scope"
            if reason:
                following = offset + scope_octets + option_octets
                self._unpack(f"{min(following, end + 1) - offset}x", offset, end)
                return Template(template_id, ()), following, reason
            scope_count, count = scope_octets // 4, (scope_octets + option_octets) // 4
        elif not count:
            return Template(template_id, ()), offset, reason or f"template {template_id} has no fields"
        self._bound_fields(template_id, count, start)
        if end - offset < 4 * count:
            self._unpack(f"{4 * count}x", offset, end)
        octets, first = self._octets, offset
        offset += 4 * count
        template = self._store.record(
            "netflow9 options" if scope_count else "netflow9", octets[start:offset],
            lambda: Template(template_id, tuple(_specifiers(octets, first, count, scope_count)), scope_count))
        return template, offset, reason or empty(template)


def _specifiers(octets: bytes, offset: int, count: int, scope_count: int) -> Iterator[FieldSpecifier]:
    for number in range(count):
        field_type, length = SET_HEADER.unpack_from(octets, offset + 4 * number)
        scope = number < scope_count
        yield specifier_of(_SCOPES.get(field_type, _UNKNOWN_SCOPE) if scope else field_type, length)


def netflow9_template_sets(templates: Iterable[Template]) -> list[RecordSet]:
    """What announces the Templates, for `encode_netflow9`.

    Raises IpfixEncodeError: one has what NetFlow 9 lacks: another enterprise's elements, fields of variable length,
        Scope Fields other than those that RFC 3954 names.
    """
    templates = tuple(templates)
    for template in templates:
        for name, specifier in zip(template.names, template.fields, strict=True):
            if specifier.enterprise or specifier.length == VARIABLE_LENGTH:
                raise IpfixEncodeError(f"template {template.id}: NetFlow 9 has no place for {name}: "
                                       f"{'another enterprise' if specifier.enterprise else 'variable length'}")
    sets = template_sets(template for template in templates if not template.scope_count)
    options = [_options_octets(template) for template in templates if template.scope_count]
    return [*sets, RecordSet(OPTIONS_TEMPLATE_SET, options, min(map(len, options)))] if options else sets


def _options_octets(template: Template) -> bytes:
    """An Options Template Record (RFC 3954 section 6.1)."""
    numbers = {element: scope for scope, element in _SCOPES.items()}
    scopes, options = template.fields[:template.scope_count], template.fields[template.scope_count:]
    for specifier in scopes:
        if specifier.element_id not in numbers:
            raise IpfixEncodeError(f"template {template.id}: NetFlow 9 has no scope {specifier.name}")
    fields = [(numbers[specifier.element_id], specifier.length) for specifier in scopes]
    fields += [(specifier.element_id, specifier.length) for specifier in options]
    return struct.pack(">HHH", template.id, 4 * len(scopes), 4 * len(options)) + b"".join(
        struct.pack(">HH", *numbers_of_field) for numbers_of_field in fields)


def encode_netflow9(sets: Sequence[RecordSet], *, source_id: int, sequence: int, export_time_s: int, uptime_ms: int,
                    max_octets: int) -> EncodedMessages:
    """As `ipfix.encode_messages`, in datagrams of NetFlow 9; the sequence counts these.

    Args:
        uptime_ms: since the exporter booted: what sysUpTime fields count from.

    Raises IpfixEncodeError: a record that is too long for any datagram of that size.
    """
    longer = HEADER.size - HEADER_OCTETS
    encoded = encode_messages(sets, domain=source_id, sequence=0, export_time_s=export_time_s,
                              max_octets=max_octets - longer)
    datagrams = []
    for number, (message, records) in enumerate(zip(encoded.messages, encoded.record_counts, strict=True)):
        flowsets, announced = _flowsets(message)
        header = HEADER.pack(VERSION, announced + records, uptime_ms & 0xFFFF_FFFF, export_time_s & 0xFFFF_FFFF,
                             sequence + number & 0xFFFF_FFFF, source_id)
        datagrams.append(header + flowsets)
    return EncodedMessages(datagrams, encoded.record_counts, sequence + len(datagrams) & 0xFFFF_FFFF)


def _flowsets(message: bytes) -> tuple[bytes, int]:
    """The Sets of a message with the numbers that FlowSets have, and how many Template Records there are in them."""
    parts, announced, offset = [], 0, HEADER_OCTETS
    while offset < len(message):
        set_id, length = SET_HEADER.unpack_from(message, offset)
        end = offset + length
        at = offset + SET_HEADER_OCTETS
        while set_id < FIRST_TEMPLATE_ID and end - at > SET_HEADER_OCTETS:
            _, first, second = struct.unpack_from(">HHH", message, at)
            at += 6 + first + second if set_id == OPTIONS_TEMPLATE_SET else 4 + 4 * first
            announced += 1
        flowset = {TEMPLATE_SET: _TEMPLATE_FLOWSET, OPTIONS_TEMPLATE_SET: _OPTIONS_FLOWSET}.get(set_id, set_id)
        parts += [SET_HEADER.pack(flowset, length), message[offset + SET_HEADER_OCTETS:end]]
        offset = end
    return b"".join(parts), announced
