"""Decode the Sets of IPFIX Messages and NetFlow 9 datagrams, and what a damaged message still has.

Input is not trusted. With `strict`, any fault raises IpfixDecodeError. Without, a part that is not valid costs that
part alone, and is counted by kind: where the next part begins is found by lengths, by padding, or not at all.
"""

from __future__ import annotations

import struct
from collections import ChainMap
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from flowtop.model.elements import Element
from flowtop.text import units
from flowtop.wire.completion import Properties, completed, defined_properties, described_elements, with_descriptions
from flowtop.wire.data_set import DataSet, UndecodedSet, decode_data_set
from flowtop.wire.ipfix import HEADER_OCTETS, SET_HEADER, SET_HEADER_OCTETS, begins_message
from flowtop.wire.ipfix_template import (
    FIRST_TEMPLATE_ID,
    OPTIONS_TEMPLATE_SET,
    TEMPLATE_SET,
    DecodeFault,
    FieldSpecifier,
    IpfixDecodeError,
    SkippedPart,
    Template,
    specifier_of,
)
from flowtop.wire.template_store import UNREADABLE, ChangedTemplates, DomainTemplates, TemplateStore, layout_of

_MAX_REMARKS = 20
_NOT_GONE = -1
_TEMPLATES, _LEAST_TEMPLATES = struct.Struct(">HHH"), 8
"""Set ID, length and first Template ID of a Set with Templates, and the octets that it has at least."""
_LONGEST_PADDING = 3
"""Octets at the end of a Set that need not be a record."""


def only_data_sets(octets: bytes, offset: int, known: DomainTemplates,
                   ) -> tuple[tuple[DataSet, ...], tuple[UndecodedSet, ...]] | None:
    """The Sets from this offset on if they are what most messages have: Data Sets, and whole; and those of them whose
    Template is not known.

    None: there is anything else, and SetsDecoder has to look at it.
    """
    found = []
    unknown: list[UndecodedSet] = []
    end = len(octets)
    while offset + SET_HEADER_OCTETS <= end:
        set_id, length = SET_HEADER.unpack_from(octets, offset)
        template = known.get(set_id)
        following = offset + length
        if template is None:
            if set_id < FIRST_TEMPLATE_ID or length < SET_HEADER_OCTETS or following > end:
                return None
            unknown.append(UndecodedSet(set_id, bytes(octets[offset + SET_HEADER_OCTETS:following])))
            offset = following
            continue
        if not template.simple or length < SET_HEADER_OCTETS or following > end:
            return None
        count, rest = divmod(length - SET_HEADER_OCTETS, template.min_octets)
        if rest >= SET_HEADER_OCTETS:
            return None
        found.append(DataSet(template, bytes(octets[offset + SET_HEADER_OCTETS:following - rest]), count))
        offset = following
    return (tuple(found), tuple(unknown)) if offset == end else None


@dataclass(slots=True)
class _Mark:
    """Where a Set with Templates or records began, and what there was before it.

    Attributes:
        start: offset of its content.
        gone: by id, what was known of Templates that are gone, and has changed since; _NOT_GONE: nothing.
    """

    set_id: int
    start: int
    data_sets: int
    undecoded: int
    templates: int
    skipped: dict[str, int]
    gone: dict[int, int | None] = field(default_factory=dict)


class SetsDecoder:
    """Decodes the Sets of one message in order; each Set is decoded with the Templates that precede it.

    A Data Set whose Template was not known before, and follows in the same message, is decoded with that.

    Args:
        octets: the message.
        store: Templates known so far; not modified before `commit`.
        session, domain: the Transport Session and the Observation Domain.
        datagram, strict: as in decode_message.
        known: the Templates of that domain in the store.
    """

    _withdrawals = True
    """Whether a Template without fields withdraws one."""
    _foreign_template_set = 0
    """The id of Template Sets in the other protocol, NetFlow 9 or IPFIX."""

    def __init__(self, octets: bytes, store: TemplateStore, session: Hashable, domain: int, *, datagram: bool,
                 strict: bool, known: DomainTemplates) -> None:
        self.known: DomainTemplates | ChangedTemplates = known
        self.templates: list[Template] = []
        self.withdrawn: list[int] = []
        self.data_sets: list[DataSet] = []
        self.undecoded: list[UndecodedSet] = []
        self.remarks: list[str] = []
        self.skipped: dict[str, int] = {}
        self._octets = octets
        self._store = store
        self._session = session
        self.domain = domain
        self._datagram = datagram
        self._strict = strict
        self._changed: ChangedTemplates | None = None
        self._former = store.former(session)
        self._gone: dict[int, int | None] = {}
        self.stale: list[int] = []
        self._places: list[int] = []
        self._waiting: dict[int, None] = {}
        self._declared = 0
        self._last: _Mark | None = None
        self._resumed = False

    # ---- Sets

    def decode(self, offset: int, end: int) -> bytes:
        """Decode the Sets from this offset to the end of the message by its header; returns octets of a next message.

        Without `strict` the header's length is not believed if the Sets contradict it.

        Raises IpfixDecodeError: only if strict.
        """
        rest = self._end_at(offset, end) if end != len(self._octets) else b""
        self._decode_sets(offset)
        if self._waiting and self.templates:
            self._decode_early()
        return rest

    def _end_at(self, offset: int, end: int) -> bytes:
        """End the message where its header says, if that can be; returns octets of a next message."""
        left = len(self._octets)
        rest = self._octets[end:]
        self._declared = end
        fault = IpfixDecodeError(f"header length {end}, message length {left}", 2)
        another = begins_message(rest)
        if end > left or end < HEADER_OCTETS or not (another or not any(rest) or (
                self._is_chain(offset, end) and not self._is_chain(end, left))):
            self.skip("length", fault)  # It is wrong: Sets follow behind it, or the end is cut off.
            return b""
        self._octets = self._octets[:end]
        if not another:
            self.skip("trailing" if any(rest) else "padding", fault)
        return rest if another else b""

    def _decode_sets(self, offset: int) -> None:
        octets = self._octets
        end = len(octets)
        while offset < end:
            if octets[offset] and offset + SET_HEADER_OCTETS <= end:  # A Data Set: most are, so in short.
                set_id, length = SET_HEADER.unpack_from(octets, offset)
                following = offset + length
                if length >= SET_HEADER_OCTETS and following <= end:
                    self._mark(set_id, offset + SET_HEADER_OCTETS)
                    self._data(set_id, offset + SET_HEADER_OCTETS, following)
                    offset = following
                    continue
            elif not octets[offset] and offset + _LEAST_TEMPLATES <= end:  # A Template Set, as a rule.
                set_id, length, first = _TEMPLATES.unpack_from(octets, offset)
                kind = self._template_kind(set_id)
                following = offset + length
                if kind is not None and length >= _LEAST_TEMPLATES and following <= end and first >= FIRST_TEMPLATE_ID:
                    self._mark(set_id, offset + SET_HEADER_OCTETS)
                    self._template_set(kind, offset + SET_HEADER_OCTETS, following)
                    offset = following
                    continue
            if not octets[offset] and self._padding_from(offset):
                return
            fault = self._fault_of(offset)
            if fault is None:
                set_id, length = SET_HEADER.unpack_from(octets, offset)
                self._set(set_id, offset + SET_HEADER_OCTETS, offset + length)
                offset += length
                continue
            behind = self._next_set(offset)
            if behind is None:
                self.skip("set", fault)
                behind = self._resume(offset)
                if behind is None:
                    self._decode_cut_set(offset)
                    return
                self._decode_resized(offset, behind)
                offset = behind
                continue
            self.skip("padding", IpfixDecodeError(f"{behind - offset} octets of padding between sets", offset))
            offset = behind

    def _fault_of(self, offset: int) -> IpfixDecodeError | None:
        """Why no Set begins here; None: one does."""
        left = len(self._octets) - offset
        if left < SET_HEADER_OCTETS:
            return IpfixDecodeError("a set header is cut off", offset, "set")
        set_id, length = SET_HEADER.unpack_from(self._octets, offset)
        if not SET_HEADER_OCTETS <= length <= left:
            return IpfixDecodeError(f"set {set_id} has length {length}, but {left} octets are left", offset, "set")
        if set_id >= FIRST_TEMPLATE_ID or self._strict or self._is_set(offset):
            return None
        # A Set with a reserved id, or padding before the next Set.
        if length == left or self._is_set(offset + length) or self._next_set(offset) is None:
            return None
        return IpfixDecodeError(f"no set begins here: {set_id}", offset, "set")

    def _next_set(self, offset: int) -> int | None:
        """Where the next Set begins if only zeros precede it: padding that no Set's length includes. None: nowhere."""
        if self._strict:
            return None
        found = offset
        while found < len(self._octets) and not self._octets[found]:
            found += 1
        return next((place for place in (found - 1, found) if place > offset and self._is_set(place)), None)

    def _is_set(self, offset: int) -> bool:
        """Whether a Set can begin here: its id, its length, and for Template Sets the first id in it."""
        left = len(self._octets) - offset
        if left < SET_HEADER_OCTETS:
            return False
        set_id, length = SET_HEADER.unpack_from(self._octets, offset)
        if not SET_HEADER_OCTETS <= length <= left:
            return False
        if set_id >= FIRST_TEMPLATE_ID:
            return True
        start = offset + SET_HEADER_OCTETS
        if self._template_kind(set_id) is None or length < SET_HEADER_OCTETS + 4:
            return self._has_templates(set_id, start, offset + length)
        first = int.from_bytes(self._octets[start:start + 2], "big")
        return first >= FIRST_TEMPLATE_ID or first == set_id

    def _is_chain(self, offset: int, end: int) -> bool:
        """Whether Sets follow each other from here exactly to the end."""
        while offset < end:
            if not self._is_set(offset) or offset + SET_HEADER.unpack_from(self._octets, offset)[1] > end:
                return False
            offset += SET_HEADER.unpack_from(self._octets, offset)[1]
        return offset == end

    def _resume(self, offset: int) -> int | None:
        """Where a Set begins from which Sets follow each other to the end, if the walk has led nowhere at this offset.

        A length was wrong: that of the Set here, or of the one before. None: nowhere, or this would be the second time.
        """
        if self._strict or self._resumed:
            return None
        self._resumed = True
        octets, end = self._octets, len(self._octets)
        last = self._last
        zeros = min(_LONGEST_PADDING, end - len(octets.rstrip(b"\0")))
        announced = 0
        if self._template_kind(int.from_bytes(octets[offset:offset + 2], "big")) is not None:
            announced = int.from_bytes(octets[offset + SET_HEADER_OCTETS:offset + SET_HEADER_OCTETS + 2], "big")
        begins = bytearray(end - zeros) + b"\1" * (zeros + 1)  # or a message could end there
        found = None
        for place in range(end - SET_HEADER_OCTETS, last.start if last else offset, -1):
            length = octets[place + 2] << 8 | octets[place + 3]
            if length < SET_HEADER_OCTETS or place + length > end or not begins[place + length] or place == offset:
                continue
            set_id = octets[place] << 8 | octets[place + 1]
            if self._is_set(place):
                begins[place] = 1
                if set_id == announced or self._is_known(set_id):
                    found = place
        if found is None and last and self._adds_up(last.set_id, last.start, end) and not self._is_known(
                int.from_bytes(octets[offset:offset + 2], "big")):
            return end
        return found

    def _is_known(self, set_id: int) -> bool:
        """Whether it is the id of Sets of Templates, or of a Template that this domain has, had, or has announced."""
        return (self.known.get(set_id) is not None or self._template_kind(set_id) is not None or set_id in self._gone
                or set_id in self._waiting)

    def _decode_resized(self, offset: int, end: int) -> None:
        """Decode the Set whose length was wrong as if it ended where the next one begins, if that adds up."""
        start = offset + SET_HEADER_OCTETS
        set_id = int.from_bytes(self._octets[offset:offset + 2], "big")
        last = self._last
        if start == end and self._is_known(set_id):
            return  # a header alone
        if start < end and self._adds_up(set_id, start, end):
            self._set(set_id, start, end)
        elif last is not None and self._adds_up(last.set_id, last.start, end):
            del self.data_sets[last.data_sets:], self.undecoded[last.undecoded:], self._places[last.undecoded:]
            del self.templates[last.templates:]
            for template_id, layout in last.gone.items():
                self._gone.pop(template_id)
                if layout != _NOT_GONE:
                    self._gone[template_id] = layout
            self.skipped = last.skipped
            self._count("set")
            self._set(last.set_id, last.start, end)

    def _adds_up(self, set_id: int, start: int, end: int) -> bool:
        """Whether a Set's content can be this long."""
        template = self.known.get(set_id)
        if template is None:
            return (self._template_kind(set_id) is not None and end - start > SET_HEADER_OCTETS
                    and int.from_bytes(self._octets[start:start + 2], "big") >= FIRST_TEMPLATE_ID)
        return not template.fixed_length or (end - start) % template.min_octets <= _LONGEST_PADDING

    def _mark(self, set_id: int, start: int) -> None:
        self._last = _Mark(set_id, start, len(self.data_sets), len(self.undecoded), len(self.templates),
                           dict(self.skipped))

    def _decode_cut_set(self, offset: int) -> None:
        """Decode what there is of a Set that exceeds the message, if the rest was sent and is not here."""
        if len(self._octets) - offset < SET_HEADER_OCTETS:
            return
        set_id, length = SET_HEADER.unpack_from(self._octets, offset)
        if length >= SET_HEADER_OCTETS and self._is_cut(set_id, offset, length):
            self._set(set_id, offset + SET_HEADER_OCTETS, len(self._octets))

    def _is_cut(self, set_id: int, offset: int, length: int) -> bool:
        """Whether the message was longer: by its header."""
        del set_id
        return offset + length <= self._declared

    def _padding_from(self, offset: int) -> bool:
        """Whether only padding follows. Not in IPFIX, where the header gives the message's length."""
        if self._strict or any(self._octets[offset:offset + SET_HEADER_OCTETS]) or any(self._octets[offset:]):
            return False
        self.skip("padding", IpfixDecodeError(f"{len(self._octets) - offset} octets of zeros follow the last set",
                                              offset))
        return True

    def _template_kind(self, set_id: int) -> int | None:
        """TEMPLATE_SET, OPTIONS_TEMPLATE_SET, or None: another Set."""
        return set_id if set_id in (TEMPLATE_SET, OPTIONS_TEMPLATE_SET) else None

    def _has_templates(self, set_id: int, start: int, end: int) -> bool:
        """Whether this is a Template Set with the id of the other protocol, which some exporters send."""
        if self._strict or set_id != self._foreign_template_set or end - start < 4:
            return False
        template_id, count = struct.unpack_from(">HH", self._octets, start)
        return bool(template_id >= FIRST_TEMPLATE_ID and 0 < 4 * count <= end - start - 4)

    def _set(self, set_id: int, start: int, end: int) -> None:
        kind = self._template_kind(set_id)
        if set_id >= FIRST_TEMPLATE_ID:
            self._data(set_id, start, end)
        elif kind is not None:
            self._mark(set_id, start)
            self._template_set(kind, start, end)
        elif self._has_templates(set_id, start, end):
            self._remark(f"set {set_id} has templates")
            self._template_set(TEMPLATE_SET, start, end)
        else:
            self._count("reserved")
            self._remark(f"set {set_id} is reserved")

    def _data(self, set_id: int, start: int, end: int) -> None:
        template = self.known.get(set_id)
        if template:
            self._append(decode_data_set(template, self._octets, start, end, self._strict))
        else:
            self._waiting[set_id] = None
            self._places.append(len(self.data_sets))
            self.undecoded.append(UndecodedSet(set_id, self._octets[start:end]))

    def _append(self, data_set: DataSet) -> None:
        if data_set.cut:
            self._count("record")
            self._remark(f"set {data_set.template.id}: {data_set.cut}")
        if data_set.template.plain:
            self.data_sets.append(data_set)
        else:
            self._append_completed(data_set)

    def _append_completed(self, data_set: DataSet) -> None:
        """Learn what Options Data describe; give Data Records the common properties that they refer to."""
        if data_set.template.scope_count:
            self._elements.maps[0].update(described_elements(data_set))
            self._properties.maps[0].update(defined_properties(data_set, self.domain))
        known = self.known
        if isinstance(known, DomainTemplates):
            known.lent = True
        else:
            known.lend()
        parts, unknown = completed(data_set, known, self.domain, self._properties)
        if unknown:
            self._count("properties", unknown)
            self._remark(f"set {data_set.template.id}: common properties are not known, {unknown} of them")
        self.data_sets += parts

    def _decode_early(self) -> None:
        """Decode Data Sets whose Template followed in the same message, in the place where they were."""
        defined = {template.id for template in self.templates} & self._waiting.keys()
        if not defined:
            return
        late, waiting = self.data_sets, []
        self.data_sets, taken = [], 0
        for place, early in zip(self._places, self.undecoded, strict=True):
            template = self.known.get(early.set_id) if early.set_id in defined else None
            if template is None:
                waiting.append(early)
                continue
            self.data_sets += late[taken:place]
            taken = place
            self._append(decode_data_set(template, early.octets, strict=self._strict))
        self.data_sets += late[taken:]
        self.undecoded = waiting

    # ---- Templates

    def _template_set(self, set_id: int, start: int, end: int) -> None:
        if self._store.closed and not self._strict:
            self._count("bound")
            return
        while end - start >= 4:
            template_id, count = struct.unpack_from(">HH", self._octets, start)
            if not template_id and not count:
                zeros = end - start - len(self._octets[start:end].lstrip(b"\0"))
                if zeros < end - start:  # Otherwise it is padding to more than 4 octets.
                    self.skip("template", _bad("template id 0 is reserved", start))
                start += zeros - zeros % 4
                continue
            if not count and self._withdrawals:
                self._withdraw(template_id, set_id, start)
                start += 4
                continue
            try:
                template, following, reason = self._template(template_id, count, set_id, start, end)
            except IpfixDecodeError as fault:  # Where the next record begins is not known.
                self.skip("bound" if fault.fault == "bound" else "template", fault)
                self._unlearn(template_id)
                return
            if reason:
                self.skip("template", _bad(reason, start))
                self._unlearn(template_id)
            else:
                self._define(template)
            start = following

    def _template(self, template_id: int, count: int, set_id: int, start: int, end: int) -> tuple[Template, int, str]:
        """Decode one Template Record; returns it, the offset of the next, and why it is not valid ("": it is).

        Raises IpfixDecodeError: it is cut off.
        """
        offset, scope_count, reason = start + 4, 0, self._reserved(template_id)
        if reason and self._strict:
            raise _bad(reason, start)
        if set_id == OPTIONS_TEMPLATE_SET:
            scope_count = self._unpack(">H", offset, end)[0]
            offset += 2
            if not 0 < scope_count <= count:
                reason = reason or f"{scope_count} of {count} fields of template {template_id} are scope"
                if self._strict:
                    raise _bad(reason, start)
        self._bound_fields(template_id, count, start)
        first, octets = offset, self._octets
        for _ in range(count):
            following = offset + (8 if offset < end and octets[offset] & 0x80 else 4)
            if following > end:
                raise _bad("a template record is cut off", offset if end - offset < 4 else offset + 4)
            offset = following
        template = self._store.record(
            "ipfix options" if scope_count else "ipfix", octets[start:offset],
            lambda: Template(template_id, tuple(_specifiers(octets, first, count)), scope_count))
        if "_elements" in self.__dict__ or self._store.described(self._session).elements:
            template = with_descriptions(template, self._elements)
        return template, offset, reason or empty(template)

    def _bound_fields(self, template_id: int, count: int, start: int) -> None:
        """Raises IpfixDecodeError: too many fields."""
        if count > self._store.most_fields:
            raise IpfixDecodeError(f"template {template_id} has {count} fields, more than {self._store.most_fields}",
                                   start, "bound")

    def _reserved(self, template_id: int) -> str:
        return f"template id {template_id} is reserved" if template_id < FIRST_TEMPLATE_ID else ""

    def _unpack(self, layout: str, offset: int, end: int) -> tuple[int, ...]:
        if end - offset < struct.calcsize(layout):
            raise _bad("a template record is cut off", offset)
        return struct.unpack_from(layout, self._octets, offset)

    def _define(self, template: Template) -> None:
        self.templates.append(template)
        self._check_former(template)
        old = self.known.get(template.id)
        if old == template:
            self._store.use(self._session, self.domain, template.id)
            return
        if old and not self._datagram:
            self._remark(f"template {template.id} was redefined without a withdrawal")
        self._own_templates().define(template)

    def _check_former(self, template: Template) -> None:
        """Data Sets that wait for this id are of an earlier Template if there was one; drop them if it was another."""
        layout = self._gone.get(template.id, self._former.get((self.domain, template.id)))
        if layout is None:
            return
        self._note_gone(template.id, None)
        if layout != layout_of(template):
            self._drop_waiting(template.id)

    def _drop_waiting(self, template_id: int) -> None:
        """Drop Data Sets without Template: those before in this message, and those held by the caller (`stale`)."""
        self.stale.append(template_id)
        if template_id not in self._waiting:
            return
        del self._waiting[template_id]
        kept = [(place, early) for place, early in zip(self._places, self.undecoded, strict=True)
                if early.set_id != template_id]
        dropped = len(self.undecoded) - len(kept)
        if dropped:
            self._count("withdrawn", dropped)
            self._remark(f"{units.things(dropped, 'set')} of a template {template_id} that was withdrawn or replaced")
            self._places, self.undecoded = [place for place, _ in kept], [early for _, early in kept]

    def _unlearn(self, template_id: int) -> None:
        """Forget a Template that was replaced by one that cannot be read."""
        if template_id >= FIRST_TEMPLATE_ID:
            self._forget(template_id, UNREADABLE)

    def _forget(self, template_id: int, layout: int) -> None:
        self._own_templates().forget(template_id)
        self._note_gone(template_id, layout)

    def _note_gone(self, template_id: int, layout: int | None) -> None:
        if self._last is not None:
            self._last.gone.setdefault(template_id, self._gone.get(template_id, _NOT_GONE))
        self._gone[template_id] = layout

    def _withdraw(self, template_id: int, set_id: int, offset: int) -> None:
        if template_id < FIRST_TEMPLATE_ID and template_id != set_id:
            self.skip("template", _bad(f"template id {template_id} is reserved", offset))
            return
        if self._datagram:
            if not self._strict:
                self._count("template")
            self._remark(f"withdrawal of template {template_id} over UDP ignored")
            return
        options = set_id == OPTIONS_TEMPLATE_SET
        known = self.known.get(template_id)
        if template_id == set_id:
            gone = self._own_templates().take_all(options)
        else:
            gone = [template_id] if known is not None and (known.scope_count > 0) == options else []
        for id_ in gone:
            old = self.known.get(id_)
            assert old is not None
            self._forget(id_, layout_of(old))
        self.withdrawn += gone
        if template_id == set_id:
            for id_ in tuple(self._waiting):
                self._drop_waiting(id_)
            self.stale.append(template_id)
        else:
            self._drop_waiting(template_id)
            if not gone:
                self._remark(f"template {template_id} was withdrawn, but is not known")

    def _own_templates(self) -> ChangedTemplates:
        """The Templates with this message's changes: the store takes them if the whole message is valid."""
        if self._changed is None:
            assert isinstance(self.known, DomainTemplates)
            self.known = self._changed = ChangedTemplates(self.known)
        return self._changed

    # ---- what Options Data describe: the message's first, then what is known from before

    @cached_property
    def _elements(self) -> ChainMap[tuple[int, int], Element]:
        return ChainMap({}, self._store.described(self._session).elements)

    @cached_property
    def _properties(self) -> ChainMap[tuple[int, int], Properties]:
        return ChainMap({}, self._store.described(self._session).properties)

    # ---- results

    def skip(self, part: SkippedPart, fault: IpfixDecodeError) -> None:
        """Count a part that is not read. Raises the fault if strict."""
        if self._strict:
            raise fault
        self._count(part)
        self._remark(str(fault))

    def _count(self, part: SkippedPart, number: int = 1) -> None:
        self.skipped[part] = self.skipped.get(part, 0) + number

    def commit(self) -> None:
        """Store the Templates. Raises IpfixDecodeError: too many of them, and strict."""
        if self._changed is not None and self._changed.changes:
            try:
                self._store.change(self._session, self.domain, self._changed.changes)
            except IpfixDecodeError as fault:
                self.skip("bound", fault)
                self.templates, self._gone = [], {}
        if self._gone:
            self._store.note_former(self._session, self.domain, self._gone)
        for template_id in self.withdrawn:
            self._store.withdraw_properties(self._session, self.domain, template_id)
        elements, properties = self.__dict__.get("_elements"), self.__dict__.get("_properties")
        if elements is not None or properties is not None:
            self._store.describe(self._session, {} if elements is None else elements.maps[0],
                                 {} if properties is None else properties.maps[0])

    def _remark(self, text: str) -> None:
        if len(self.remarks) < _MAX_REMARKS:
            self.remarks.append(text)


def _specifiers(octets: bytes, offset: int, count: int) -> Iterator[FieldSpecifier]:
    for _ in range(count):
        number, length = SET_HEADER.unpack_from(octets, offset)
        if number & 0x8000:
            yield specifier_of(number & 0x7FFF, length, int.from_bytes(octets[offset + 4:offset + 8], "big"))
            offset += 8
        else:
            yield specifier_of(number, length)
            offset += 4


def empty(template: Template) -> str:
    """Why a Template cannot be used whose records would be empty: their number would be unbounded."""
    return "" if template.min_octets else f"records of template {template.id} would be empty"


def _bad(reason: str, offset: int) -> IpfixDecodeError:
    fault: DecodeFault = "template"
    return IpfixDecodeError(reason, offset, fault)
