"""What Options Data say about other records: types of elements (RFC 5610), and properties in common (RFC 5473).

An exporter sends the properties that many flows share once, in Options Data whose scope is a commonPropertiesId; Data
Records that have this id have these properties too. Both are kept for a Transport Session, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.model.elements import Element
from flowtop.wire.data_set import DataSet
from flowtop.wire.iana import REVERSE_ENTERPRISE, named, registered
from flowtop.wire.ipfix import Records
from flowtop.wire.ipfix_template import COMMON_PROPERTIES_ID, FieldSpecifier, Template, TemplatesById

MAX_ELEMENTS = 2_048
MAX_PROPERTIES = 4_096
MAX_PROPERTY_OCTETS = 1 << 20
"""Limits of one session."""
_OCTETS_A_FIELD = 64
"""Octets of properties that count like one Field Specifier in the limit over all sessions."""
_MAX_NAME = 64

_TYPES = ("octetArray", "unsigned8", "unsigned16", "unsigned32", "unsigned64", "signed8", "signed16", "signed32",
          "signed64", "float32", "float64", "boolean", "macAddress", "string", "dateTimeSeconds",
          "dateTimeMilliseconds", "dateTimeMicroseconds", "dateTimeNanoseconds", "ipv4Address", "ipv6Address",
          "basicList", "subTemplateList", "subTemplateMultiList", "unsigned256")
"""By informationElementDataType."""
_UNITS = ("", "bits", "octets", "packets", "flows", "s", "ms", "us", "ns", "4-octet words", "messages", "hops",
          "entries", "frames", "ports", "infections")
"""By informationElementUnits."""


@dataclass(frozen=True, slots=True)
class Properties:
    """One record of properties.

    Attributes:
        template: its Options Template.
        fields: the properties' fields: all but the scope, and those of length 0.
        values: of these fields, as in decoded records.
    """

    template: Template
    fields: tuple[FieldSpecifier, ...]
    values: tuple[Any, ...]


@dataclass(slots=True)
class Described:
    """What the Options Data of a session describe.

    Attributes:
        elements: by enterprise number and element id.
        properties: by Observation Domain and commonPropertiesId.
    """

    elements: dict[tuple[int, int], Element] = field(default_factory=dict)
    properties: dict[tuple[int, int], Properties] = field(default_factory=dict)
    property_octets: int = 0

    @property
    def fields(self) -> int:
        """What this is worth in Field Specifiers, for the limit over all sessions."""
        return len(self.elements) + len(self.properties) + self.property_octets // _OCTETS_A_FIELD

    def learn(self, elements: Mapping[tuple[int, int], Element],
              properties: Mapping[tuple[int, int], Properties]) -> bool:
        """Add descriptions; beyond the limits, new ones are ignored. Returns whether an element is new or different."""
        changed = False
        for key, element in elements.items():
            if self.elements.get(key) != element and (key in self.elements or len(self.elements) < MAX_ELEMENTS):
                self.elements[key] = element
                changed = True
        for place, found in properties.items():
            old = self.properties.get(place)
            octets = self.property_octets + _octets(found) - (0 if old is None else _octets(old))
            if octets <= MAX_PROPERTY_OCTETS and (old is not None or len(self.properties) < MAX_PROPERTIES):
                self.properties[place] = found
                self.property_octets = octets
        return changed

    def withdraw(self, domain: int, template_id: int) -> None:
        """Forget the properties that records of an Options Template gave."""
        for place, found in list(self.properties.items()):
            if place[0] == domain and found.template.id == template_id:
                self.property_octets -= _octets(found)
                del self.properties[place]


def _octets(properties: Properties) -> int:
    return 16 * len(properties.values) + sum(len(value) for value in properties.values if isinstance(value, bytes))


# ---- RFC 5610

def described_elements(data_set: DataSet) -> dict[tuple[int, int], Element]:
    """The enterprises' elements that Options Data describe, by enterprise number and element id.

    Names are the exporter's: those that the registry has, or that are no names, are left out.
    """
    names = data_set.template.names
    found: dict[tuple[int, int], Element] = {}
    if "informationElementId" not in names or "informationElementName" not in names:
        return found
    for values in _rows(data_set):
        number, enterprise = _integer(values, "informationElementId"), _integer(values, "privateEnterpriseNumber")
        name = _name(values["informationElementName"])
        if not name or not number or not enterprise or enterprise == REVERSE_ENTERPRISE:
            continue
        if registered(number & 0x7FFF, enterprise) is None:
            type_, units = _integer(values, "informationElementDataType"), _integer(values, "informationElementUnits")
            found[enterprise, number & 0x7FFF] = Element(
                name, number & 0x7FFF, _TYPES[type_] if type_ < len(_TYPES) else "octetArray",
                _UNITS[units] if units < len(_UNITS) else "", enterprise=enterprise)
    return found


def _rows(data_set: DataSet) -> Iterator[dict[str, Any]]:
    names = data_set.records.dtype.names or ()
    for row in data_set.records.tolist():
        yield dict(zip(names, row, strict=True))


def _integer(values: Mapping[str, Any], name: str) -> int:
    value = values.get(name, 0)
    return int.from_bytes(value[:8], "big") if isinstance(value, bytes) else int(value)


def _name(value: object) -> str:
    """A name from an exporter: letters, digits, `_` and `-`, and none of IANA's, which have a meaning."""
    text = value.rstrip(b"\0").decode("ascii", "replace") if isinstance(value, bytes) else ""
    good = text.isascii() and text.replace("-", "_").isidentifier() and len(text) <= _MAX_NAME
    return text if good and named(text) is None else ""


def with_descriptions(template: Template, elements: Mapping[tuple[int, int], Element]) -> Template:
    """The Template with descriptions of its enterprises' elements that the registry does not have."""
    if not elements or not any(specifier.enterprise for specifier in template.fields):
        return template
    fields = tuple(replace(specifier, described=elements[specifier.enterprise, specifier.element_id])
                   if (specifier.enterprise, specifier.element_id) in elements
                   and registered(specifier.element_id, specifier.enterprise) is None else specifier
                   for specifier in template.fields)
    return template if all(map(_same, fields, template.fields)) else Template(template.id, fields, template.scope_count)


def _same(one: FieldSpecifier, other: FieldSpecifier) -> bool:
    return one.described == other.described


# ---- RFC 5473

def defined_properties(data_set: DataSet, domain: int) -> dict[tuple[int, int], Properties]:
    """The common properties that Options Data define, by Observation Domain and id."""
    template = data_set.template
    places = [number for number, specifier in enumerate(template.fields[:template.scope_count])
              if (specifier.enterprise, specifier.element_id) == (0, COMMON_PROPERTIES_ID)]
    if not places:
        return {}
    scope = {template.names[number] for number in range(template.scope_count)}
    pairs = [(number, specifier) for number, (name, specifier) in enumerate(template.named_fields) if name not in scope]
    fields = tuple(specifier for _, specifier in pairs)
    ids = _identifiers(data_set.records, template.names[places[0]])
    return {(domain, id_): Properties(template, fields, tuple(row[number] for number, _ in pairs))
            for id_, row in zip(ids.tolist(), data_set.records.tolist(), strict=True)}


def _identifiers(records: Records, name: str) -> npt.NDArray[np.uint64]:
    """A column of commonPropertiesId, of any length up to 8 octets; 0 where there is none."""
    column = records[name] if name in (records.dtype.names or ()) else np.zeros(len(records), np.uint64)
    return column.astype(np.uint64) if column.dtype.kind == "u" else np.zeros(len(records), np.uint64)


def with_properties(data_set: DataSet, domain: int, described: Mapping[tuple[int, int], Properties]) -> tuple[
        list[DataSet], int]:
    """The Data Records with the properties that they refer to.

    Returns Data Sets in the order of the records, with a Template that has the properties' fields after its own, and
    how many ids are not known.
    """
    parts, unknown = [data_set], 0
    for name, specifier in data_set.template.named_fields:
        if (specifier.enterprise, specifier.element_id) == (0, COMMON_PROPERTIES_ID):
            done: list[DataSet] = []
            for part in parts:
                completed, missing = _completed(part, name, domain, described)
                done += completed
                unknown += missing
            parts = done
    return parts, unknown


def _completed(data_set: DataSet, name: str, domain: int, described: Mapping[tuple[int, int], Properties]) -> tuple[
        list[DataSet], int]:
    """The same for one of the fields."""
    ids = _identifiers(data_set.records, name)
    different, places = np.unique(ids, return_inverse=True)
    found = [described.get((domain, id_)) for id_ in different.tolist()]
    unknown = sum(properties is None for id_, properties in zip(different.tolist(), found, strict=True) if id_)
    if not any(found):
        return [data_set], unknown
    layouts: dict[tuple[tuple[FieldSpecifier, ...], tuple[Element | None, ...]] | None, int] = {}
    kinds = np.array([layouts.setdefault(
        None if properties is None else (properties.fields, _descriptions(properties.fields)), len(layouts))
        for properties in found])[places]
    fields = [None if layout is None else layout[0] for layout in layouts]
    parts = []
    edges = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(ids)]
    for start, end in pairwise(edges):
        records, more = data_set.records[start:end], fields[kinds[start]]
        if more is None:
            parts.append(made_data_set(data_set, data_set.template, records))
            continue
        values = [found[place] for place in places[start:end].tolist()]
        columns = [_column(specifier, [properties.values[number] for properties in values if properties is not None])
                   for number, specifier in enumerate(more)]
        parts.append(widened(data_set, records, more, columns))
    return parts, unknown


def _column(specifier: FieldSpecifier, values: list[Any]) -> npt.NDArray[Any]:
    kind, length = specifier.format
    column = np.zeros(len(values), "O" if kind == "O" else f"{kind}{length}")
    for number, value in enumerate(values):
        column[number] = value
    return column


# ---- wider records

@lru_cache(1_024)
def _wider(template: Template, more: tuple[FieldSpecifier, ...], descriptions: tuple[Element | None, ...]) -> Template:
    """The Template with more fields; the same object for the same fields with the same descriptions."""
    del descriptions  # Fields are equal whatever their exporter says of them, and their types are not.
    return Template(template.id, (*template.fields, *more), template.scope_count)


def _descriptions(fields: tuple[FieldSpecifier, ...]) -> tuple[Element | None, ...]:
    return tuple(specifier.described for specifier in fields)


def widened(data_set: DataSet, records: Records, more: tuple[FieldSpecifier, ...],
            columns: list[npt.NDArray[Any]]) -> DataSet:
    """A Data Set of some of its records with more fields, one column each, shape (n,)."""
    template = data_set.template
    wider = _wider(template, more, _descriptions((*template.fields, *more)))
    wide = np.zeros(len(records), wider.dtype)
    own = len(template.named_fields)
    for name, _ in template.named_fields:
        wide[name] = records[name]
    for (name, _), column in zip(wider.named_fields[own:], columns, strict=True):
        wide[name] = column
    return made_data_set(data_set, wider, wide)


def made_data_set(data_set: DataSet, template: Template, records: Records) -> DataSet:
    """A Data Set of decoded records, which are not on the wire so."""
    made = DataSet(template, b"", len(records), "", data_set.templates)
    made.__dict__["records"] = records
    return made


def completed(data_set: DataSet, templates: TemplatesById, domain: int,
              described: Mapping[tuple[int, int], Properties]) -> tuple[list[DataSet], int]:
    """Data Records of a Template that is not `plain`: with common properties, and the Templates for their lists.

    Returns them, and how many ids of common properties are not known.
    """
    if any(specifier.is_list for specifier in data_set.template.fields):
        records = data_set.records
        data_set = replace(data_set, templates=templates)
        data_set.__dict__["records"] = records
    return ([data_set], 0) if data_set.template.scope_count else with_properties(data_set, domain, described)
