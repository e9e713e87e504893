"""The fields that a query groups by: their keys, texts and filters."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import lru_cache

import numpy as np

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.fields.columns import Wording
from flowtop.fields.field import GroupField
from flowtop.fields.registry import GROUPS, REGISTRY, field_id
from flowtop.model.flows import Array, FlowColumns
from flowtop.model.rows import FlowRow
from flowtop.text.lookups import Lookups
from flowtop.text.suggestions import nearest


def group_keys(field: GroupField, flows: FlowColumns, lookups: Lookups) -> tuple[Array, ...]:
    """The field's keys for these flows. Codes that are `alike` are replaced by the lowest of them."""
    keys, alike = field.keys(flows), field.alike
    if alike is None:
        return keys
    (codes,) = keys
    different, inverse = np.unique(codes, return_inverse=True)
    first: dict[Hashable, int] = {}
    numbers = [first.setdefault(alike(number, lookups), number) for number in different.tolist()]
    return (np.array(numbers, codes.dtype)[inverse],)


def group_fields(ids: tuple[str, ...]) -> tuple[GroupField, ...]:
    """The fields with these ids. `flow` means no grouping: each flow by itself.

    Raises:
        FlowtopError: unknown field, invalid argument, or a field that is named twice.
    """
    return _group_fields(ids, REGISTRY.revision)


@lru_cache(maxsize=64)
def _group_fields(ids: tuple[str, ...], _: int) -> tuple[GroupField, ...]:
    fields = tuple(_field(text) for text in ids if text != "flow")
    if len({field.id for field in fields}) < len(fields):
        raise FlowtopError(f"a group field is named twice: {', '.join(ids)}", hint="name each once",
                           exit_code=EXIT_USAGE)
    return fields


def drill_term(group: tuple[str, ...], row: FlowRow, lookups: Lookups) -> str:
    """The filter that matches the flows of a group: the terms of all its fields; "" when a field has no term."""
    terms = [field.term(key, lookups) for field, key in zip(group_fields(group), row.group, strict=True)]
    return " and ".join(terms) if all(terms) else ""


def group_text(group: tuple[str, ...], row: FlowRow, lookups: Lookups, wording: Wording = Wording()) -> str:
    """A group's key as its cells show it: the texts of its fields, with names."""
    fields = zip(group_fields(group), row.group, strict=True)
    return " ".join(field.named(key, wording) if field.named else field.text(key, lookups) for field, key in fields)


def _field(text: str) -> GroupField:
    name, colon, argument = text.partition(":")
    field = GROUPS.get(name) or GROUPS.get(field_id(name))
    if field is None:
        near = nearest(name, [*GROUPS, "flow"], 2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"fields: flow, {', '.join(GROUPS)}"
        raise FlowtopError(f"unknown group field {name!r}", hint=hint, exit_code=EXIT_USAGE)
    if not colon:
        return field
    if field.choose is None:
        raise FlowtopError(f"{name} takes nothing after a colon", hint=f"write {name}", exit_code=EXIT_USAGE)
    try:
        return field.choose(argument)
    except ValueError as error:
        raise FlowtopError(f"cannot group by {text!r}: {error}", hint=f"write {name}:{field.argument}",
                           exit_code=EXIT_USAGE) from error


def member_names(fields: Iterable[GroupField]) -> list[str]:
    """Names of the JSON members that groups by these fields may have, without repeats, in order."""
    return list(dict.fromkeys(name for field in fields for name in field.members))
