"""All fields, and what is made from them: columns, groups, filter words, JSON keys, lines of details.

The fields that flowtop ships are entries in the modules that are joined here. `register` adds one at run time. The
views (COLUMNS, GROUPS, ...) are read-only mappings that always reflect the current fields: look things up in them, and
do not keep copies of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from flowtop.fields import (
    change,
    ends,
    headers,
    icmp,
    identity,
    life,
    names,
    networks,
    owners,
    points,
    reported,
    tcp,
    volume,
)
from flowtop.fields.columns import Column
from flowtop.fields.field import Detail, Field, FilterKey, GroupField, Measure, Member
from flowtop.text.operands import PROTOCOL_WORDS

Value = TypeVar("Value")


class Registry:
    """Fields by id, in the order of their columns on screen.

    Attributes:
        revision: changes with each change of the fields: for caches of what is made from them.
    """

    def __init__(self, fields: Iterable[Field]) -> None:
        self.revision = 0
        self._fields: dict[str, Field] = {}
        self._taken: dict[tuple[str, str], str] = {}
        self._group_keys: frozenset[str] = frozenset()
        for field in fields:
            self.register(field)
        self._group_keys = frozenset(name for field in self.fields if field.group for name in field.group.members)

    @property
    def fields(self) -> tuple[Field, ...]:
        """All fields."""
        return tuple(self._fields.values())

    def register(self, field: Field) -> None:
        """Add a field after the others.

        Raises:
            ValueError: its id, filter word or JSON key is used already, reserved, or not a name.
        """
        names = _names(field)
        for kind, name in names:
            if (kind, name) in self._taken:
                raise ValueError(f"field {field.id!r}: {kind} {name} is used by field {self._taken[kind, name]!r}")
            reserved = _RESERVED[kind] | (self._group_keys if kind == "JSON key" else frozenset())
            if name in reserved or not _FORMS[kind].fullmatch(name):
                raise ValueError(f"field {field.id!r}: {kind} {name!r} is reserved or not a name")
        self._taken.update(dict.fromkeys(names, field.id))
        self._fields[field.id] = field
        self.revision += 1

    def remove(self, field_id: str) -> None:
        """Remove a field. Raises KeyError: there is none with this id."""
        for name in _names(self._fields.pop(field_id)):
            del self._taken[name]
        self.revision += 1


def _names(field: Field) -> list[tuple[str, str]]:
    """Names that must be unique: ("id", ...), ("filter word", ...), ("JSON key", ...)."""
    words = [("filter word", field.key.word)] if field.key is not None else []
    columns = [("id", id_) for id_ in dict.fromkeys(
        column.id for column in (*field.biflow_columns, *field.group_ways)) if id_ != field.id]
    return [("id", field.id), *words, *(("JSON key", member.name) for member in field.members), *columns]


_FORMS = {"id": re.compile(r"[a-z][a-z0-9_]*"), "filter word": re.compile(r"[a-z][a-z0-9_]*"),
          "JSON key": re.compile(r"[A-Za-z][A-Za-z0-9_]*")}
_RESERVED: dict[str, frozenset[str]] = {
    "id": frozenset({"flow", "biflow"}),
    "filter word": frozenset({
        "and", "or", "not", "src", "dst", "host", "net", "mask", "port", "portrange", "ip", "ip6", "ipv4", "ipv6",
        "ether", "mac", "name", "private", "text", "as", "nat", "vrf", *PROTOCOL_WORDS}),
    "JSON key": frozenset({"deltaFlowCount", "biflowDirection", "round", "time"}),
}
"""Names with another meaning: arguments of `-g`, words of the grammar, keys of groups, biflows and rounds."""


REGISTRY = Registry((*points.FIELDS, *headers.PATH, *ends.FIELDS, *owners.PROCESS, *names.FIELDS, *headers.CONTENT,
                     *volume.FIELDS, *change.FIELDS, *tcp.FIELDS,
                     *headers.HOPS, *life.FIELDS, *owners.MORE, *reported.FIELDS,
                     *icmp.FIELDS, *identity.FIELDS, *networks.FIELDS))


def field_id(name: str) -> str:
    """The id of the field that has this word in filters; any other name is returned as it is.

    So what is filtered by a word is sorted and grouped by the same word.
    """
    return next((field.id for field in REGISTRY.fields if field.key is not None and field.key.word == name
                 and name not in FIELDS), name)


def register(field: Field) -> None:
    """Add a field; see Registry.register. All views include it from now on."""
    REGISTRY.register(field)


def unregister(field_id: str) -> None:
    """Remove a field. Raises KeyError: there is none with this id."""
    REGISTRY.remove(field_id)


class View(Mapping[str, Value]):
    """A mapping made from the registry's fields, and made again after each change of them."""

    def __init__(self, make: Callable[[tuple[Field, ...]], dict[str, Value]]) -> None:
        self._make = make
        self._made: dict[str, Value] = {}
        self._revision = -1

    def _current(self) -> dict[str, Value]:
        if self._revision != REGISTRY.revision:
            self._made, self._revision = self._make(REGISTRY.fields), REGISTRY.revision
        return self._made

    def __getitem__(self, key: str) -> Value:
        return self._current()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._current())

    def __len__(self) -> int:
        return len(self._current())


def _columns(fields: Iterable[Field]) -> dict[str, Column]:
    columns = [field.column for field in fields if field.column is not None]
    return {column.id: column for column in sorted(columns, key=lambda column: column.rank)}


def _biflow_columns(fields: Iterable[Field]) -> dict[str, Column]:
    return {column.id: column for field in fields for column in field.biflow_columns}


def _group_columns(fields: Iterable[Field]) -> dict[str, Column]:
    columns = [column for field in fields for column in (field.group_column, *field.group_ways) if column is not None]
    return {column.id: column for column in sorted(columns, key=lambda column: column.rank)}


def _groups(fields: Iterable[Field]) -> dict[str, GroupField]:
    groups = [field.group for field in fields if field.group is not None]
    return {group.id: group for group in sorted(groups, key=lambda group: group.rank)}


def _keys(fields: Iterable[Field]) -> dict[str, FilterKey]:
    keys = [field.key for field in fields if field.key is not None]
    return {key.word: key for key in sorted(keys, key=lambda key: key.rank)}


def _members(fields: Iterable[Field]) -> dict[str, Member]:
    members = [member for field in fields for member in field.members]
    return {member.name: member for member in sorted(members, key=lambda member: member.rank)}


def _details(fields: Iterable[Field]) -> dict[str, Detail]:
    details = [(field.detail.rank, field.id, field.detail) for field in fields if field.detail is not None]
    return {field_id: detail for _, field_id, detail in sorted(details, key=lambda entry: entry[0])}


def _measures(fields: Iterable[Field]) -> dict[str, Measure]:
    return {field.id: field.measure for field in fields if field.measure is not None}


FIELDS: View[Field] = View(lambda fields: {field.id: field for field in fields})
"""Every field by id."""
OF_COLUMNS: View[Field] = View(lambda fields: {
    column.id: field for field in fields
    for column in (field.column, field.group_column, *field.biflow_columns) if column is not None})
"""The field of each column, by the column's id."""
COLUMNS: View[Column] = View(_columns)
"""Columns of flows by id, in the order of the screen."""
BIFLOW_COLUMNS: View[Column] = View(_biflow_columns)
"""Columns of biflows by id, in the order of the screen."""
GROUP_COLUMNS: View[Column] = View(_group_columns)
"""Columns of groups by id, in the order of the screen, without those of the group fields themselves."""
GROUPS: View[GroupField] = View(_groups)
"""Group fields by id, in the order of the group chooser."""
KEYS: View[FilterKey] = View(_keys)
"""Words of the filter language that take values, by word, in the order of the help."""
MEMBERS: View[Member] = View(_members)
"""Keys of a flow in JSON, by name, in column order of CSV."""
KNOWN_MEMBERS: Mapping[tuple[bool, bool], View[Member]] = {
    (reports, databases): View(lambda fields, reports=reports, databases=databases: {  # type: ignore[misc]
        name: member for name, member in _members(fields).items()
        if (reports or not member.of_reports) and (databases or not member.of_networks)})
    for reports in (False, True) for databases in (False, True)}
"""Those of MEMBERS that a flow may have: with what exporters report, and with databases of networks."""
DETAILS: View[Detail] = View(_details)
"""Entries of a flow's details, by field id, in the order of lines."""
MEASURES: View[Measure] = View(_measures)
"""Numbers that rows carry in `FlowRow.more`, by field id."""
