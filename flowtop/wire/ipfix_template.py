"""IPFIX Templates (RFC 7011 sections 3.2 and 3.4): fields, their encodings, and numpy dtypes of records."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import cached_property, lru_cache
from typing import Literal, Protocol

import numpy as np

from flowtop.model.elements import ELEMENTS, ELEMENTS_BY_NUMBER, Element
from flowtop.wire.iana import CERT_ENTERPRISE, CERT_REVERSE, named, registered

TEMPLATE_SET = 2
OPTIONS_TEMPLATE_SET = 3
FIRST_TEMPLATE_ID = 256
VARIABLE_LENGTH = 65_535
"""Field length of a variable-length Information Element (RFC 7011 section 7)."""


class IpfixEncodeError(ValueError):
    """A value, a record or a Template that does not fit an IPFIX Message of the requested size."""


DecodeFault = Literal["version", "length", "set", "template", "value", "bound"]
"""Kind of fault in a message; the collector has a counter for each."""
SkippedPart = Literal["length", "count", "padding", "trailing", "set", "reserved", "template", "record", "withdrawn",
                      "properties", "list", "bound"]
"""Part of a message that was not read, while the rest was; the collector has a counter for each.

length: the header's length is not the message's.
count: the header's number of records is not the message's.
padding: zeros behind the message or between Sets, which no length includes.
trailing: other octets behind the message.
set: a Set that is cut off, or whose length is wrong. Where the next Sets are found, it is read up to them.
reserved: a Set whose id is reserved.
template: a Template Record that describes no records.
record: Data Records that are cut off, or whose values exceed their Set.
withdrawn: Data Sets of a Template that was withdrawn, or replaced before its successor was read.
properties: common properties (RFC 5473) that no Options Data gave.
list: lists in records (RFC 6313) that are cut off, or whose Template is not known.
bound: Templates beyond the limit of a session.
"""


class IpfixDecodeError(ValueError):
    """Octets that are not a valid IPFIX Message (RFC 7011 section 9.1) or, where supported, NetFlow or sFlow.

    Attributes:
        reason: what is wrong.
        offset: of the first wrong octet, from the start of the message.
        fault: kind of fault.
    """

    def __init__(self, reason: str, offset: int, fault: DecodeFault = "length") -> None:
        super().__init__(f"{reason}, at octet {offset}")
        self.reason = reason
        self.offset = offset
        self.fault: DecodeFault = fault


_INTEGERS = {f"{sign}{bits}": (code, bits // 8)
             for sign, code in (("unsigned", "u"), ("signed", "i")) for bits in (8, 16, 32, 64)}
_FIXED = {"ipv4Address": ("V", 4), "ipv6Address": ("V", 16), "macAddress": ("V", 6), "boolean": ("u", 1),
          "dateTimeSeconds": ("u", 4), "dateTimeMilliseconds": ("u", 8), "dateTimeMicroseconds": ("u", 8),
          "dateTimeNanoseconds": ("u", 8), "float32": ("f", 4)}


LIST_TYPES = frozenset(("basicList", "subTemplateList", "subTemplateMultiList"))
"""Abstract data types of structured data (RFC 6313)."""
COMMON_PROPERTIES_ID, INFORMATION_ELEMENT_ID = 137, 303
"""Elements that refer to common properties (RFC 5473), and to an element whose type Options describe (RFC 5610)."""
CERT_INITIAL_FLAGS, CERT_UNION_FLAGS = 14, 15
"""TCP control bits of the first packet, and of all others."""
_CERT_FLAGS = frozenset(number | reverse for number in (CERT_INITIAL_FLAGS, CERT_UNION_FLAGS)
                        for reverse in (0, CERT_REVERSE))


@dataclass(frozen=True, slots=True)
class FieldSpecifier:
    """One field of a Template (RFC 7011 section 3.2).

    Attributes:
        element_id: 0..32767.
        length: octets of every value, or VARIABLE_LENGTH. Less than the type's length is reduced-size encoding.
        enterprise: private enterprise number, 0 for IANA.
        described: the element as the exporter's Options describe it (RFC 5610), if the registry does not have it.
    """

    element_id: int
    length: int
    enterprise: int = 0
    described: Element | None = dataclass_field(default=None, compare=False, repr=False)

    @property
    def element(self) -> Element | None:
        """The registered element, or None."""
        return (self.described or ELEMENTS_BY_NUMBER.get((self.enterprise, self.element_id))
                or registered(self.element_id, self.enterprise))

    @property
    def is_list(self) -> bool:
        """Whether values are structured data."""
        element = self.element
        return element is not None and element.type in LIST_TYPES

    @property
    def name(self) -> str:
        """The element's name; `ie999` or `ie29305.999` if it is not registered."""
        element = self.element
        if element:
            return element.name
        return f"ie{self.enterprise}.{self.element_id}" if self.enterprise else f"ie{self.element_id}"

    @property
    def format(self) -> tuple[str, int]:
        """numpy kind and octets of a decoded value: `u`, `i`, `f`, `S` (string, trailing NULs removed) or `V` (octets).

        `V` is also used if RFC 7011 section 6 does not allow the length for the element's type, and for unknown
        elements; `O` (a bytes object) for variable length. A `boolean` is 1 for true and 2 for false, and
        `dateTimeMicroseconds` and `dateTimeNanoseconds` are NTP timestamps, as on the wire.
        """
        if self.length == VARIABLE_LENGTH:
            return "O", 8
        type_ = self.element.type if self.element else ""
        if type_ in _INTEGERS and 0 < self.length <= _INTEGERS[type_][1]:
            return _INTEGERS[type_]
        if type_ in _FIXED and self.length == _FIXED[type_][1]:
            return _FIXED[type_]
        if type_ == "float64" and self.length in (4, 8):
            return "f", 8
        return ("S" if type_ == "string" else "V"), self.length

    def octets(self) -> bytes:
        """The specifier as encoded in a Template Record."""
        if self.enterprise:
            return struct.pack(">HHI", self.element_id | 0x8000, self.length, self.enterprise)
        return struct.pack(">HH", self.element_id, self.length)


specifier_of = lru_cache(4_096)(FieldSpecifier)
"""The same specifier for the same numbers: exporters' Templates have the same elements."""


def field(name: str, length: int | None = None) -> FieldSpecifier:
    """The specifier of a registered element, with the type's default length unless one is given.

    The default for strings and octet arrays is variable length. Raises KeyError: no such element.
    """
    element = ELEMENTS.get(name) or named(name)
    if element is None:
        raise KeyError(name)
    if length is None:
        _, length = (_INTEGERS | _FIXED | {"float64": ("f", 8)}).get(element.type, ("O", VARIABLE_LENGTH))
    return FieldSpecifier(element.number, length, element.enterprise)


@dataclass(frozen=True)
class Template:
    """A Template Record, or an Options Template Record when it has Scope Fields (RFC 7011 section 3.4).

    Attributes:
        id: 256..65535.
        fields: in the order of the record.
        scope_count: how many of the first fields are Scope Fields.
    """

    id: int
    fields: tuple[FieldSpecifier, ...]
    scope_count: int = 0

    @property
    def set_id(self) -> int:
        """Id of the Set that announces this Template."""
        return OPTIONS_TEMPLATE_SET if self.scope_count else TEMPLATE_SET

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One name per field; the second `x` is `x#2`, and so on."""
        seen: dict[str, int] = {}
        names = []
        for specifier in self.fields:
            name = specifier.name
            seen[name] = seen.get(name, 0) + 1
            names.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
        return tuple(names)

    @cached_property
    def named_fields(self) -> tuple[tuple[str, FieldSpecifier], ...]:
        """Name and specifier of every field that has a value. Fields of length 0 have none and are in no array."""
        return tuple(pair for pair in zip(self.names, self.fields, strict=True) if pair[1].length)

    @cached_property
    def plain(self) -> bool:
        """Whether records are complete in themselves and describe none: see flowtop/wire/completion.py."""
        return not any(
            (not specifier.enterprise and specifier.element_id in (COMMON_PROPERTIES_ID, INFORMATION_ELEMENT_ID))
            or (specifier.enterprise == CERT_ENTERPRISE and specifier.element_id in _CERT_FLAGS)
            or specifier.is_list for specifier in self.fields)

    @cached_property
    def simple(self) -> bool:
        """Whether records are `plain` and have one length."""
        return self.plain and self.fixed_length

    @cached_property
    def fixed_length(self) -> bool:
        """Whether all records have the same length."""
        return all(specifier.length != VARIABLE_LENGTH for specifier in self.fields)

    @cached_property
    def min_octets(self) -> int:
        """Length of the shortest record; a variable-length field takes at least one octet."""
        return sum(1 if specifier.length == VARIABLE_LENGTH else specifier.length for specifier in self.fields)

    @cached_property
    def wire_dtype(self) -> np.dtype[np.void]:
        """The fixed-length fields as on the wire, packed: big-endian numbers, octets for sizes that numpy lacks."""
        columns: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
        for name, specifier in self.named_fields:
            kind, _ = specifier.format
            if kind in "VS":
                columns.append((name, f"{kind}{specifier.length}"))
            elif kind != "O" and specifier.length in (1, 2, 4, 8):
                columns.append((name, f">{kind}{specifier.length}"))
            elif kind != "O":
                columns.append((name, "u1", (specifier.length,)))
        return np.dtype(columns)

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """dtype of decoded records: native numbers of the elements' types, see FieldSpecifier.format."""
        return np.dtype([(name, "O" if specifier.format[0] == "O" else "{}{}".format(*specifier.format))
                         for name, specifier in self.named_fields])

    @cached_property
    def no_records(self) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """An empty array of decoded records, shape (0,)."""
        return np.zeros(0, self.dtype)

    def octets(self) -> bytes:
        """Encode the (Options) Template Record. Raises IpfixEncodeError: RFC 7011 does not allow it."""
        if not FIRST_TEMPLATE_ID <= self.id <= 65_535 or not self.min_octets or self.scope_count > len(self.fields):
            raise IpfixEncodeError(f"template {self.id} is not valid: {len(self.fields)} fields, "
                                   f"{self.scope_count} of them scope, {self.min_octets} octets")
        head = struct.pack(">HH", self.id, len(self.fields))
        scope = struct.pack(">H", self.scope_count) if self.scope_count else b""
        return head + scope + b"".join(specifier.octets() for specifier in self.fields)


class TemplatesById(Protocol):
    """Templates of an Observation Domain."""

    def get(self, template_id: int) -> Template | None:
        """The Template of that id, or None."""
