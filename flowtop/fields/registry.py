"""Every field there is, and what is made of them: columns, groups, filter words, JSON keys, lines of details.

A field that flowtop ships is one entry in one of the modules that are joined here. `register` adds one at run time. The
views (COLUMNS, GROUPS, ...) are read-only mappings that always show the fields of the moment: look things up in them,
keep no copies of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from flowtop.fields import ends, headers, life, points, tcp, volume
from flowtop.fields.columns import Column
from flowtop.fields.field import Detail, Field, FilterKey, GroupField, Measure, Member

Value = TypeVar("Value")


class Registry:
    """Fields by id, in the order in which a screen shows their columns.

    Attributes:
        revision: another one after each change, for what is made of the fields and kept.
    """

    def __init__(self, fields: Iterable[Field]) -> None:
        self.revision = 0
        self._fields: dict[str, Field] = {}
        self._taken: dict[tuple[str, str], str] = {}
        for field in fields:
            self.register(field)

    @property
    def fields(self) -> tuple[Field, ...]:
        """All of them."""
        return tuple(self._fields.values())

    def register(self, field: Field) -> None:
        """Add a field behind the others.

        Raises:
            ValueError: there is a field of that id, or one with that filter word or JSON key.
        """
        names = _names(field)
        for name in names:
            if name in self._taken:
                raise ValueError(f"field {field.id!r}: {' '.join(name)} is of field {self._taken[name]!r}")
        self._taken.update(dict.fromkeys(names, field.id))
        self._fields[field.id] = field
        self.revision += 1

    def remove(self, field_id: str) -> None:
        """Take a field out again. Raises KeyError."""
        for name in _names(self._fields.pop(field_id)):
            del self._taken[name]
        self.revision += 1


def _names(field: Field) -> list[tuple[str, str]]:
    """What no other field may be called."""
    words = [("filter word", field.key.word)] if field.key is not None else []
    return [("id", field.id), *words, *(("JSON key", member.name) for member in field.members)]


REGISTRY = Registry((*points.FIELDS, *headers.PATH, *ends.FIELDS, *headers.CONTENT, *volume.FIELDS, *tcp.FIELDS,
                     *headers.HOPS, *life.FIELDS))


def register(field: Field) -> None:
    """Add a field; see Registry.register. From now on it is in every list, word and key that is made of fields."""
    REGISTRY.register(field)


def unregister(field_id: str) -> None:
    """Take a field out again. Raises KeyError."""
    REGISTRY.remove(field_id)


class View(Mapping[str, Value]):
    """A mapping made of the registry's fields, made anew after a change."""

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
    found = [field.column for field in fields if field.column is not None]
    return {column.id: column for column in sorted(found, key=lambda column: column.rank)}


def _biflow_columns(fields: Iterable[Field]) -> dict[str, Column]:
    return {column.id: column for field in fields for column in field.biflow_columns}


def _group_columns(fields: Iterable[Field]) -> dict[str, Column]:
    found = [field.group_column for field in fields if field.group_column is not None]
    return {column.id: column for column in sorted(found, key=lambda column: column.rank)}


def _groups(fields: Iterable[Field]) -> dict[str, GroupField]:
    found = [field.group for field in fields if field.group is not None]
    return {group.id: group for group in sorted(found, key=lambda group: group.rank)}


def _keys(fields: Iterable[Field]) -> dict[str, FilterKey]:
    found = [field.key for field in fields if field.key is not None]
    return {key.word: key for key in sorted(found, key=lambda key: key.rank)}


def _members(fields: Iterable[Field]) -> dict[str, Member]:
    found = [member for field in fields for member in field.members]
    return {member.name: member for member in sorted(found, key=lambda member: member.rank)}


def _details(fields: Iterable[Field]) -> dict[str, Detail]:
    found = [(field.detail.rank, field.id, field.detail) for field in fields if field.detail is not None]
    return {field_id: detail for _, field_id, detail in sorted(found, key=lambda entry: entry[0])}


def _measures(fields: Iterable[Field]) -> dict[str, Measure]:
    return {field.id: field.measure for field in fields if field.measure is not None}


FIELDS: View[Field] = View(lambda fields: {field.id: field for field in fields})
"""Every field by id."""
COLUMNS: View[Column] = View(_columns)
"""Columns of flows by id, in the order of the screen."""
BIFLOW_COLUMNS: View[Column] = View(_biflow_columns)
"""Columns of biflows likewise."""
GROUP_COLUMNS: View[Column] = View(_group_columns)
"""Columns of groups likewise, but for those of what they are grouped by."""
GROUPS: View[GroupField] = View(_groups)
"""What flows can be grouped by, by id, in the order in which a screen offers it."""
KEYS: View[FilterKey] = View(_keys)
"""Words of the filter language that take values, by word, in the order in which they are explained."""
MEMBERS: View[Member] = View(_members)
"""Keys of a flow in JSON, by name, in column order of CSV."""
DETAILS: View[Detail] = View(_details)
"""What a flow's details say of fields, by field, in the order of lines."""
MEASURES: View[Measure] = View(_measures)
"""Values that rows carry beside their own, by field."""
