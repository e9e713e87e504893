"""Structured data (RFC 6313): basicList, subTemplateList and subTemplateMultiList, as plain values or as more fields.

Input is not trusted. A list takes at least as many octets as it has values, so that time and memory are bounded by the
message's length; nesting is bounded too. What is no list stays octets, and costs its record nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.wire.completion import made_data_set, widened
from flowtop.wire.data_set import DataSet, decode_data_set
from flowtop.wire.iana import CERT_ENTERPRISE, CERT_REVERSE, REVERSE_ENTERPRISE
from flowtop.wire.ipfix import Records
from flowtop.wire.ipfix_template import (
    CERT_INITIAL_FLAGS,
    CERT_UNION_FLAGS,
    LIST_TYPES,
    VARIABLE_LENGTH,
    FieldSpecifier,
    IpfixDecodeError,
    Template,
    TemplatesById,
    field,
)

MAX_DEPTH = 8
"""Lists within lists; what is deeper stays octets."""
_EMPTY_OCTETS = {"subTemplateList": 3, "subTemplateMultiList": 1}
"""Octets of a list without records: semantic, and of the first the Template."""
_SEMANTICS = {0: "noneOf", 1: "exactlyOneOf", 2: "oneOrMoreOf", 3: "allOf", 4: "ordered"}
Convert = Callable[[Any, FieldSpecifier], Any]
"""A decoded value of a field, to what is wanted of it."""


class _Block(NamedTuple):
    """Records of one Template in a list."""

    template: Template
    octets: bytes


def list_of(value: Any, specifier: FieldSpecifier, templates: TemplatesById, convert: Convert) -> dict[str, Any] | None:
    """A decoded value as a plain list; None: it is not structured data, or cannot be decoded. See `plain_list`."""
    if not isinstance(value, bytes) or not specifier.is_list or specifier.element is None:
        return None
    return plain_list(value, specifier.element.type, templates, convert)


def plain_list(octets: bytes, type_: str, templates: TemplatesById, convert: Convert, depth: int = 0) -> dict[
        str, Any] | None:
    """A list as a plain value; None: it is malformed, nested too deep, or of a Template that is not known.

    A basicList is {"semantic", "element", "values"}, the others {"semantic", "records"}; each record is a mapping by
    field name, and "#template" in it is its Template's id.
    """
    if depth >= MAX_DEPTH or not octets:
        return None
    semantic = _SEMANTICS.get(octets[0], "undefined")

    def value_of(value: Any, specifier: FieldSpecifier) -> Any:
        if isinstance(value, bytes) and specifier.is_list:
            assert specifier.element is not None
            inner = plain_list(value, specifier.element.type, templates, convert, depth + 1)
            if inner is not None:
                return inner
        return convert(value, specifier)

    try:
        if type_ == "basicList":
            specifier, values = _basic(octets)
            return {"semantic": semantic, "element": specifier.name,
                    "values": [value_of(value, specifier) for value in values]}
        records: list[dict[str, Any]] = []
        for block in _blocks(octets, type_, templates):
            fields = block.template.named_fields
            records += [{"#template": block.template.id} | {
                name: value_of(value, specifier) for (name, specifier), value in zip(fields, row, strict=True)}
                for row in decode_data_set(block.template, block.octets).records.tolist()]
    except IpfixDecodeError:
        return None
    return {"semantic": semantic, "records": records}


def _basic(octets: bytes) -> tuple[FieldSpecifier, list[Any]]:
    """The field of a basicList and its values. Raises IpfixDecodeError: malformed."""
    if len(octets) < 5:
        raise IpfixDecodeError("a list is cut off", 0, "value")
    number, length = struct.unpack_from(">HH", octets, 1)
    enterprise, start = 0, 5
    if number & 0x8000:
        if len(octets) < 9:
            raise IpfixDecodeError("a list is cut off", 0, "value")
        enterprise, start = int.from_bytes(octets[5:9], "big"), 9
    specifier = FieldSpecifier(number & 0x7FFF, length, enterprise)
    template = Template(0, (specifier,))
    if not length or (len(octets) - start) % (1 if length == VARIABLE_LENGTH else length):
        raise IpfixDecodeError("a list has values of another length", start, "value")
    return specifier, [value for value, in decode_data_set(template, octets, start).records.tolist()]


def _blocks(octets: bytes, type_: str, templates: TemplatesById) -> Iterator[_Block]:
    """The records in a list of Templates. Raises IpfixDecodeError: malformed, or the Template is not known."""
    if type_ == "subTemplateList":
        if len(octets) < 3:
            raise IpfixDecodeError("a list is cut off", 0, "value")
        yield _block(int.from_bytes(octets[1:3], "big"), octets[3:], templates)
        return
    start = 1
    while start < len(octets):
        if len(octets) - start < 4:
            raise IpfixDecodeError("a list is cut off", start, "value")
        template_id, length = struct.unpack_from(">HH", octets, start)
        if length < 4 or start + length > len(octets):
            raise IpfixDecodeError("a list has a length that leads nowhere", start, "value")
        yield _block(template_id, octets[start + 4:start + length], templates)
        start += length


def _block(template_id: int, octets: bytes, templates: TemplatesById) -> _Block:
    template = templates.get(template_id)
    if template is None:
        raise IpfixDecodeError(f"a list has records of template {template_id}, which is not known", 0, "value")
    return _Block(template, octets)


# ---- for the collector

def flattened(data_set: DataSet) -> tuple[list[DataSet], int]:
    """The Data Set with the fields of lists that have one record, as YAF puts a flow's TCP fields in one; and the
    number of lists of Templates that cannot be read.

    Records whose lists have other Templates are in Data Sets of their own. Also, tcpControlBits of CERT's two elements.
    """
    template = data_set.template
    lists = [(name, specifier.element.type) for name, specifier in template.named_fields
             if specifier.element is not None and specifier.element.type in LIST_TYPES]
    if not lists or data_set.templates is None:
        return [_with_flags(data_set)], 0
    groups: dict[tuple[Template, ...], tuple[list[int], list[list[Records]]]] = {}
    unread = 0
    for number, values in enumerate(zip(*(data_set.records[name].tolist() for name, _ in lists), strict=True)):
        single = []
        for value, (_, type_) in zip(values, lists, strict=True):
            try:
                single += _single(value, type_, data_set.templates)
            except IpfixDecodeError:
                unread += 1
        places, parts = groups.setdefault(tuple(inner for inner, _ in single), ([], []))
        places.append(number)
        parts.append([records for _, records in single])
    return [_with_flags(_merged(data_set, inner, places, parts)) for inner, (places, parts) in groups.items()], unread


def _single(octets: bytes, type_: str, templates: TemplatesById) -> list[tuple[Template, Records]]:
    """The records of a list that are alone in it, or in their block. Raises IpfixDecodeError."""
    if type_ == "basicList" or len(octets) <= _EMPTY_OCTETS[type_]:
        return []
    found = [(block.template, decode_data_set(block.template, block.octets).records)
             for block in _blocks(octets, type_, templates)]
    if not any(len(records) for _, records in found):
        raise IpfixDecodeError("a list is shorter than a record of its template", 0, "value")
    return [pair for pair in found if len(pair[1]) == 1]


def _merged(data_set: DataSet, inner: tuple[Template, ...], places: list[int], parts: list[list[Records]]) -> DataSet:
    records = data_set.records[places]
    if not inner:
        return made_data_set(data_set, data_set.template, records)
    more, columns = [], []
    for number, template in enumerate(inner):
        joined = np.concatenate([part[number] for part in parts])
        more += [specifier for _, specifier in template.named_fields]
        columns += [joined[name] for name, _ in template.named_fields]
    return widened(data_set, records, tuple(more), columns)


def _with_flags(data_set: DataSet) -> DataSet:
    """The Data Set with TCP control bits of both directions, where CERT's elements are and IANA's are not."""
    template = data_set.template
    names = {(specifier.enterprise, specifier.element_id): name for name, specifier in template.named_fields}
    more: list[FieldSpecifier] = []
    columns: list[npt.NDArray[Any]] = []
    for bit, enterprise in ((0, 0), (CERT_REVERSE, REVERSE_ENTERPRISE)):
        flags = [data_set.records[names[CERT_ENTERPRISE, number | bit]]
                 for number in (CERT_INITIAL_FLAGS, CERT_UNION_FLAGS) if (CERT_ENTERPRISE, number | bit) in names]
        bits = field("tcpControlBits")
        if flags and (enterprise, bits.element_id) not in names and all(column.dtype.kind == "u" for column in flags):
            more.append(FieldSpecifier(bits.element_id, 2, enterprise))
            columns.append(np.bitwise_or.reduce([column.astype(np.uint16) for column in flags]))
    return widened(data_set, data_set.records, tuple(more), columns) if more else data_set
