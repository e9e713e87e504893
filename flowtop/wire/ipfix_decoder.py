"""IPFIX Messages (RFC 7011) back into records: for a Collecting Process, files of RFC 5655, and tests.

What comes in is hostile until parsed. A message either decodes or raises IpfixDecodeError and changes nothing; memory
and time are bounded by the message's length (65,535 octets at most) and by what a TemplateStore may hold.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from flowtop.wire.ipfix import HEADER_OCTETS, MESSAGE_HEADER, SET_HEADER, SET_HEADER_OCTETS, VERSION, Records
from flowtop.wire.ipfix_template import (
    FIRST_TEMPLATE_ID,
    OPTIONS_TEMPLATE_SET,
    TEMPLATE_SET,
    VARIABLE_LENGTH,
    FieldSpecifier,
    IpfixDecodeError,
    Template,
)

_MAX_REMARKS = 20


@dataclass(frozen=True, slots=True)
class DataSet:
    """Data Records of one Set.

    Attributes:
        template: what describes them; Options Data when it has Scope Fields.
        records: `template.dtype`, shape (n,), its own memory.
    """

    template: Template
    records: Records


@dataclass(frozen=True, slots=True)
class UndecodedSet:
    """A Set whose Template is not known (yet): `decode_data_set` takes it once it is.

    Attributes:
        set_id: the Template's id.
        octets: what follows the Set Header.
    """

    set_id: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """One IPFIX Message.

    Attributes:
        export_time_s: since 1970 UTC, modulo 2**32.
        sequence: Data Records sent before it, modulo 2**32.
        domain: Observation Domain ID.
        templates: announced in it.
        withdrawn: ids of Templates it withdrew.
        data_sets: in order.
        undecoded: Sets without Template, in order.
        remarks: what is wrong with the exporter though the message can be read: worth a log line each.
    """

    export_time_s: int
    sequence: int
    domain: int
    templates: tuple[Template, ...]
    withdrawn: tuple[int, ...]
    data_sets: tuple[DataSet, ...]
    undecoded: tuple[UndecodedSet, ...]
    remarks: tuple[str, ...]


@dataclass(slots=True)
class DomainTemplates:
    """Templates of one Transport Session and Observation Domain, by id: Data Templates and Options Templates."""

    data: dict[int, Template]
    options: dict[int, Template]

    def get(self, template_id: int) -> Template | None:
        """The Template of that id, of either kind."""
        return self.data.get(template_id) or self.options.get(template_id)

    def fields(self) -> int:
        """Field Specifiers held: what the memory goes into."""
        return sum(len(template.fields) for kind in (self.data, self.options) for template in kind.values())


class TemplateStore:
    """Templates received, by Transport Session and Observation Domain. Not for several threads at once.

    Args:
        max_fields: Field Specifiers kept for one session, over all its domains; a message that brings more is refused.
    """

    def __init__(self, max_fields: int = 32_768) -> None:
        self._max_fields = max_fields
        self._sessions: dict[Hashable, dict[int, DomainTemplates]] = {}
        self._fields: dict[Hashable, int] = {}

    def get(self, session: Hashable, domain: int, template_id: int) -> Template | None:
        """The Template, None when it is not known."""
        return self.domain(session, domain).get(template_id)

    def domain(self, session: Hashable, domain: int) -> DomainTemplates:
        """Everything known of an Observation Domain: not to be changed."""
        return self._sessions.get(session, {}).get(domain) or DomainTemplates({}, {})

    def replace(self, session: Hashable, domain: int, templates: DomainTemplates) -> None:
        """Take these for all that is known of an Observation Domain. Raises IpfixDecodeError: more than max_fields."""
        added = templates.fields()
        total = self._fields.get(session, 0) - self.domain(session, domain).fields() + added
        if total > self._max_fields:
            raise IpfixDecodeError(f"templates of more than {self._max_fields} fields in one session", HEADER_OCTETS)
        domains = self._sessions.setdefault(session, {})
        domains.pop(domain, None)
        if added:
            domains[domain] = templates
        self._fields[session] = total
        if not domains:
            self.forget(session)

    def forget(self, session: Hashable) -> None:
        """The Transport Session has ended, and its Templates with it."""
        self._sessions.pop(session, None)
        self._fields.pop(session, None)


def split_messages(stream: bytes) -> tuple[list[bytes], bytes]:
    """Messages out of a TCP stream or an RFC 5655 file, and the beginning of the one that is not complete.

    Raises IpfixDecodeError: at the offset in the stream where no message begins.
    """
    messages = []
    offset = 0
    while len(stream) - offset >= 4:
        version, length = SET_HEADER.unpack_from(stream, offset)
        if version != VERSION or length < HEADER_OCTETS:
            raise IpfixDecodeError(f"no message of version {VERSION} but {version}, length {length}", offset)
        if len(stream) - offset < length:
            break
        messages.append(stream[offset:offset + length])
        offset += length
    return messages, stream[offset:]


def decode_message(octets: bytes, store: TemplateStore, *, session: Hashable, datagram: bool) -> Message:
    """Decode one message, and keep the Templates it announces.

    Args:
        octets: the message, whole and nothing else.
        store: Templates known so far.
        session: the Transport Session it came in.
        datagram: it came over UDP, where withdrawals are ignored and redefinitions are usual (RFC 7011 section 8.4).

    Raises IpfixDecodeError: not a message (RFC 7011 section 9.1). The store is as before then.
    """
    if len(octets) < HEADER_OCTETS:
        raise IpfixDecodeError(f"{len(octets)} octets are no message", 0)
    version, length, export_time_s, sequence, domain = MESSAGE_HEADER.unpack_from(octets)
    if version != VERSION:
        raise IpfixDecodeError(f"version {version}, not {VERSION}", 0)
    if length != len(octets):
        raise IpfixDecodeError(f"the header says {length} octets, the message has {len(octets)}", 2)
    decoder = _MessageDecoder(bytes(octets), store.domain(session, domain), datagram)
    decoder.decode()
    if decoder.changed:
        store.replace(session, domain, decoder.known)
    return Message(export_time_s, sequence, domain, tuple(decoder.templates), tuple(decoder.withdrawn),
                   tuple(decoder.data_sets), tuple(decoder.undecoded), tuple(decoder.remarks))


class _MessageDecoder:
    """The Sets of one message, in order, with the Templates as they are from Set to Set."""

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

    def decode(self) -> None:
        """All Sets. Raises IpfixDecodeError."""
        offset = HEADER_OCTETS
        while offset < len(self._octets):
            if len(self._octets) - offset < SET_HEADER_OCTETS:
                raise IpfixDecodeError("a set header is cut off", offset)
            set_id, length = SET_HEADER.unpack_from(self._octets, offset)
            left = len(self._octets) - offset
            if not SET_HEADER_OCTETS <= length <= left:
                raise IpfixDecodeError(f"set {set_id} says {length} octets, {left} are left", offset)
            self._set(set_id, offset + SET_HEADER_OCTETS, offset + length)
            offset += length

    def _set(self, set_id: int, start: int, end: int) -> None:
        if set_id in (TEMPLATE_SET, OPTIONS_TEMPLATE_SET):
            self._template_set(set_id, start, end)
        elif set_id < FIRST_TEMPLATE_ID:
            self._remark(f"set {set_id} is reserved")
        else:
            template = self.known.get(set_id)
            if template:
                self.data_sets.append(DataSet(template, _records(template, self._octets, start, end)))
            else:
                self.undecoded.append(UndecodedSet(set_id, self._octets[start:end]))

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
        """One Template Record, and where the next begins."""
        offset, scope_count = start + 4, 0
        if template_id < FIRST_TEMPLATE_ID:
            raise IpfixDecodeError(f"template id {template_id} is reserved", start)
        if set_id == OPTIONS_TEMPLATE_SET:
            scope_count = self._unpack(">H", offset, end)[0]
            offset += 2
            if not 0 < scope_count <= count:
                raise IpfixDecodeError(f"{scope_count} of {count} fields of template {template_id} are scope", start)
        fields = []
        for _ in range(count):
            number, length = self._unpack(">HH", offset, end)
            offset += 4
            enterprise = 0
            if number & 0x8000:
                enterprise = self._unpack(">I", offset, end)[0]
                offset += 4
            fields.append(FieldSpecifier(number & 0x7FFF, length, enterprise))
        template = Template(template_id, tuple(fields), scope_count)
        if not template.min_octets:
            raise IpfixDecodeError(f"records of template {template_id} would be empty", start)
        return template, offset

    def _unpack(self, layout: str, offset: int, end: int) -> tuple[int, ...]:
        if end - offset < struct.calcsize(layout):
            raise IpfixDecodeError("a template record is cut off", offset)
        return struct.unpack_from(layout, self._octets, offset)

    def _define(self, template: Template) -> None:
        self.templates.append(template)
        old = self.known.get(template.id)
        if old == template:
            return
        if old and not self._datagram:
            self._remark(f"template {template.id} was redefined without having been withdrawn")
        self._own_templates()
        self.known.data.pop(template.id, None)
        self.known.options.pop(template.id, None)
        (self.known.options if template.scope_count else self.known.data)[template.id] = template

    def _withdraw(self, template_id: int, set_id: int, offset: int) -> None:
        if template_id < FIRST_TEMPLATE_ID and template_id != set_id:
            raise IpfixDecodeError(f"template id {template_id} is reserved", offset)
        if self._datagram:
            self._remark(f"withdrawal of template {template_id} over UDP was ignored")
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
            self._remark(f"template {template_id} was withdrawn, but it is not known")

    def _own_templates(self) -> None:
        """From here on change a copy: the store takes it when the whole message has proved good."""
        if not self.changed:
            self.known = DomainTemplates(dict(self.known.data), dict(self.known.options))
            self.changed = True

    def _remark(self, text: str) -> None:
        if len(self.remarks) < _MAX_REMARKS:
            self.remarks.append(text)


def decode_data_set(template: Template, octets: bytes) -> DataSet:
    """Decode what follows a Set Header: an UndecodedSet whose Template has come.

    Raises IpfixDecodeError: offsets count from the start of `octets`.
    """
    return DataSet(template, _records(template, octets, 0, len(octets)))


def _records(template: Template, octets: bytes, start: int, end: int) -> Records:
    """The records of a Data Set; what is shorter than the shortest record is padding."""
    if end - start < template.min_octets:
        return template.no_records  # A template may have thousands of fields, and a message thousands of empty sets.
    if template.fixed_length:
        count = (end - start) // template.min_octets
        return _from_wire(template, np.frombuffer(octets, template.wire_dtype, count, start), {})
    fixed: list[bytes] = []
    variable: dict[str, list[bytes]] = {name: [] for name, specifier in template.named_fields
                                        if specifier.length == VARIABLE_LENGTH}
    count = 0
    while end - start >= template.min_octets:
        for name, specifier in template.named_fields:
            if specifier.length == VARIABLE_LENGTH:
                value, start = _variable_value(octets, start, end)
                variable[name].append(value)
            elif specifier.length > end - start:
                raise IpfixDecodeError(f"{name} of {specifier.length} octets is cut off", start)
            else:
                fixed.append(octets[start:start + specifier.length])
                start += specifier.length
        count += 1
    if not template.wire_dtype.itemsize:
        return _from_wire(template, np.empty(count, template.wire_dtype), variable)
    return _from_wire(template, np.frombuffer(b"".join(fixed), template.wire_dtype, count), variable)


def _variable_value(octets: bytes, start: int, end: int) -> tuple[bytes, int]:
    """A variable-length value (RFC 7011 section 7) and where the next field begins."""
    header = 1
    if start < end and (length := octets[start]) == 255:
        header = 3
        length = int.from_bytes(octets[start + 1:start + 3], "big")
    if end - start < header or end - start - header < length:
        raise IpfixDecodeError("a variable-length value is longer than its set", start)
    return octets[start + header:start + header + length], start + header + length


def _from_wire(template: Template, wire: Records, variable: dict[str, list[bytes]]) -> Records:
    """Records of the Template's dtype: fixed-length fields column by column, variable-length ones from lists."""
    records = np.zeros(len(wire), template.dtype)
    for name, specifier in template.named_fields:
        if specifier.length == VARIABLE_LENGTH:
            records[name] = variable[name]
        elif wire[name].ndim == 1:
            records[name] = wire[name]
        else:
            records[name] = _from_octets(wire[name], signed=specifier.format[0] == "i")
    return records


def _from_octets(octets: np.ndarray[tuple[int, int], np.dtype[np.uint8]], signed: bool) -> np.ndarray[
        tuple[int], np.dtype[np.unsignedinteger] | np.dtype[np.signedinteger]]:
    """Integers of a size numpy lacks: shape (n, length) to (n,)."""
    count, length = octets.shape
    full = np.zeros((count, 8), np.uint8)
    full[:, 8 - length:] = octets
    if signed:
        full[:, :8 - length] = np.where(octets[:, :1] & 0x80, 0xFF, 0)
    return full.view(">i8" if signed else ">u8").ravel()
