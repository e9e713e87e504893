"""Decode IPFIX Messages (RFC 7011): for the collector, files of RFC 5655, and tests.

NetFlow 9, the predecessor of IPFIX, has Sets too (flowtop/wire/netflow9.py); flowtop/wire/datagrams.py distinguishes
the versions.

Input is not trusted. A message is decoded, or IpfixDecodeError is raised and nothing changes. Memory and time are
bounded by the message's length (at most 65,535 octets) and by the limit of a TemplateStore.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable
from dataclasses import dataclass

from flowtop.wire.data_set import DataSet, UndecodedSet, decode_data_set
from flowtop.wire.ipfix import HEADER_OCTETS, MESSAGE_HEADER, SET_HEADER, SET_HEADER_OCTETS, VERSION
from flowtop.wire.ipfix_template import (
    FIRST_TEMPLATE_ID,
    OPTIONS_TEMPLATE_SET,
    TEMPLATE_SET,
    DecodeFault,
    FieldSpecifier,
    IpfixDecodeError,
    Template,
)
from flowtop.wire.template_store import DomainTemplates, TemplateStore

_MAX_REMARKS = 20


@dataclass(frozen=True, slots=True)
class Message:
    """An IPFIX Message, or a NetFlow 5 or 9 datagram in the same form.

    Attributes:
        export_time_s: since 1970 UTC, modulo 2**32.
        sequence: Data Records sent before it, modulo 2**32 (NetFlow 9: messages; NetFlow 5: flows).
        domain: Observation Domain ID (NetFlow 9: Source ID; NetFlow 5: engine type * 256 + engine id).
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


def decode_message(octets: bytes, store: TemplateStore, *, session: Hashable, datagram: bool) -> Message:
    """Decode one message and store the Templates it announces.

    Args:
        octets: exactly one message.
        store: Templates known so far.
        session: key of the Transport Session that the message belongs to.
        datagram: received over UDP, where withdrawals are ignored and redefinitions are normal (RFC 7011 section 8.4).

    Raises IpfixDecodeError: malformed message (RFC 7011 section 9.1). The store is unchanged then.
    """
    if len(octets) < HEADER_OCTETS:
        raise IpfixDecodeError(f"{len(octets)} octets are too few for a message", 0)
    version, length, export_time_s, sequence, domain = MESSAGE_HEADER.unpack_from(octets)
    if version != VERSION:
        raise IpfixDecodeError(f"version {version}, not {VERSION}", 0, "version")
    if length != len(octets):
        raise IpfixDecodeError(f"header length {length}, message length {len(octets)}", 2)
    decoder = SetsDecoder(bytes(octets), store.domain(session, domain), datagram)
    decoder.decode(HEADER_OCTETS)
    if decoder.changed:
        store.replace(session, domain, decoder.known)
    return Message(export_time_s, sequence, domain, tuple(decoder.templates), tuple(decoder.withdrawn),
                   tuple(decoder.data_sets), tuple(decoder.undecoded), tuple(decoder.remarks))


class SetsDecoder:
    """Decodes the Sets of one message in order; each Set is decoded with the Templates that precede it.

    Args:
        octets: the message.
        known: Templates of the Observation Domain; not modified: see `known` and `changed` after decoding.
        datagram: as in decode_message.
    """

    def __init__(self, octets: bytes, known: DomainTemplates, datagram: bool) -> None:
        self.known = known
        self.changed = False
        self.templates: list[Template] = []
        self.withdrawn: list[int] = []
        self.data_sets: list[DataSet] = []
        self.undecoded: list[UndecodedSet] = []
        self.remarks: list[str] = []
        self._octets = octets
        self._datagram = datagram

    def decode(self, offset: int) -> None:
        """Decode all Sets from this offset on. Raises IpfixDecodeError."""
        while offset < len(self._octets) and not self._padding_from(offset):
            if len(self._octets) - offset < SET_HEADER_OCTETS:
                raise IpfixDecodeError("a set header is cut off", offset, "set")
            set_id, length = SET_HEADER.unpack_from(self._octets, offset)
            left = len(self._octets) - offset
            if not SET_HEADER_OCTETS <= length <= left:
                raise IpfixDecodeError(f"set {set_id} has length {length}, but {left} octets are left", offset, "set")
            self._set(set_id, offset + SET_HEADER_OCTETS, offset + length)
            offset += length

    def _padding_from(self, offset: int) -> bool:
        """Whether only padding follows. Never in IPFIX, where the header gives the message's length."""
        del offset
        return False

    def _set(self, set_id: int, start: int, end: int) -> None:
        if set_id >= FIRST_TEMPLATE_ID:
            template = self.known.get(set_id)
            if template:
                self.data_sets.append(decode_data_set(template, self._octets, start, end))
            else:
                self.undecoded.append(UndecodedSet(set_id, self._octets[start:end]))
        elif set_id in (TEMPLATE_SET, OPTIONS_TEMPLATE_SET):
            self._template_set(set_id, start, end)
        else:
            self._remark(f"set {set_id} is reserved")

    def _template_set(self, set_id: int, start: int, end: int) -> None:
        while end - start >= 4:
            template_id, count = struct.unpack_from(">HH", self._octets, start)
            if not template_id and not any(self._octets[start:end]):
                return  # Padding to more than 4 octets: zeros to the end.
            if not count:
                self._withdraw(template_id, set_id, start)
                start += 4
            else:
                template, start = self._template(template_id, count, set_id, start, end)
                self._define(template)

    def _template(self, template_id: int, count: int, set_id: int, start: int, end: int) -> tuple[Template, int]:
        """Decode one Template Record; returns it and the offset of the next."""
        offset, scope_count = start + 4, 0
        self._check_id(template_id, start)
        if set_id == OPTIONS_TEMPLATE_SET:
            scope_count = self._unpack(">H", offset, end)[0]
            offset += 2
            if not 0 < scope_count <= count:
                raise _bad(f"{scope_count} of {count} fields of template {template_id} are scope", start)
        fields = []
        for _ in range(count):
            number, length = self._unpack(">HH", offset, end)
            offset += 4
            enterprise = 0
            if number & 0x8000:
                enterprise = self._unpack(">I", offset, end)[0]
                offset += 4
            fields.append(FieldSpecifier(number & 0x7FFF, length, enterprise))
        return self._checked(Template(template_id, tuple(fields), scope_count), start), offset

    def _check_id(self, template_id: int, start: int) -> None:
        if template_id < FIRST_TEMPLATE_ID:
            raise _bad(f"template id {template_id} is reserved", start)

    def _checked(self, template: Template, start: int) -> Template:
        """Refuse a Template whose records would be empty: their number would be unbounded."""
        if not template.min_octets:
            raise _bad(f"records of template {template.id} would be empty", start)
        return template

    def _unpack(self, layout: str, offset: int, end: int) -> tuple[int, ...]:
        if end - offset < struct.calcsize(layout):
            raise _bad("a template record is cut off", offset)
        return struct.unpack_from(layout, self._octets, offset)

    def _define(self, template: Template) -> None:
        self.templates.append(template)
        old = self.known.get(template.id)
        if old == template:
            return
        if old and not self._datagram:
            self._remark(f"template {template.id} was redefined without a withdrawal")
        self._own_templates()
        self.known.data.pop(template.id, None)
        self.known.options.pop(template.id, None)
        (self.known.options if template.scope_count else self.known.data)[template.id] = template

    def _withdraw(self, template_id: int, set_id: int, offset: int) -> None:
        if template_id < FIRST_TEMPLATE_ID and template_id != set_id:
            raise _bad(f"template id {template_id} is reserved", offset)
        if self._datagram:
            self._remark(f"withdrawal of template {template_id} over UDP ignored")
            return
        self._own_templates()
        kind = self.known.options if set_id == OPTIONS_TEMPLATE_SET else self.known.data
        if template_id == set_id:
            self.withdrawn += kind
            kind.clear()
        elif template_id in kind:
            self.withdrawn.append(template_id)
            del kind[template_id]
        else:
            self._remark(f"template {template_id} was withdrawn, but is not known")

    def _own_templates(self) -> None:
        """Copy the Templates before the first change: the store takes the copy if the whole message is valid."""
        if not self.changed:
            self.known = DomainTemplates(dict(self.known.data), dict(self.known.options))
            self.changed = True

    def _remark(self, text: str) -> None:
        if len(self.remarks) < _MAX_REMARKS:
            self.remarks.append(text)


def _bad(reason: str, offset: int) -> IpfixDecodeError:
    fault: DecodeFault = "template"
    return IpfixDecodeError(reason, offset, fault)
