"""What flows can be grouped by: the description of one such field, which `view.groups` has one of for each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowtop.view.columns import Column, Wording
from flowtop.view.flows import FLOW_COLUMN_DTYPES, Array, FlowColumns
from flowtop.view.query import FlowRow

Key = tuple[int, ...]
"""One field's values of one group, as its `keys` gave them."""
Names = Mapping[int, str]
"""Interface names by ifindex."""


@dataclass(frozen=True, slots=True)
class GroupField:
    """Something flows have in common.

    Attributes:
        id: what `--group` and Query.group say.
        header: of its column on screen.
        width: least cells of that column.
        doc: one line for help and README.
        keys: integer arrays, one value a flow: flows are together when all are equal. Their order is the column's.
        text: a key -> text of printable single cells.
        term: a key -> the filter that passes this group's flows; "" when there is no such filter (aggregates).
        values: a key -> JSON members, IANA names where there are any.
        members: every name `values` may give.
        named: as `text`, with names in the place of numbers where the wording has them; None: there are none.
        alike: the keys are Observation Points; together are those of whose names this says the same. None: no point is
            like another.
        of_exporters: means something only where flows come from exporters.
        flexible: the column takes a share of the cells that are left.
        choose: the text after `:` in `--group` -> the field as chosen; None: takes none. Raises ValueError.
        argument: what that text is, for help and README.
    """

    id: str
    header: str
    width: int
    doc: str
    keys: Callable[[FlowColumns], tuple[Array, ...]]
    text: Callable[[Key, Names], str]
    term: Callable[[Key, Names], str]
    values: Callable[[Key, Names], dict[str, Any]]
    members: tuple[str, ...]
    named: Callable[[Key, Wording], str] | None = None
    alike: Callable[[str], Hashable] | None = None
    of_exporters: bool = False
    flexible: bool = False
    choose: Callable[[str], GroupField] | None = None
    argument: str = ""

    def column(self, position: int) -> Column:
        """The column that shows this field where it is the query's group field number `position`."""
        def text(row: FlowRow, wording: Wording, interfaces: Names) -> str:
            key = row.group[position]
            return self.named(key, wording) if self.named else self.text(key, interfaces)

        return Column(self.id, self.header, self.width, self.doc, text,
                      tuple(_key_part(position, part) for part in range(self.parts)), 1,
                      lambda row, interfaces: self.term(row.group[position], interfaces), flexible=self.flexible)

    @property
    def parts(self) -> int:
        """How many arrays `keys` gives."""
        return len(self.keys(_NO_FLOWS))


def key_name(position: int, part: int) -> str:
    """Name of the column (of groups) that holds a part of the key of the query's group field `position`."""
    return f"group {position} {part}"


def _key_part(position: int, part: int) -> Callable[[FlowColumns], Array]:
    return lambda columns: columns[key_name(position, part)]


_NO_FLOWS = np.zeros(0, list(FLOW_COLUMN_DTYPES.items()))
"""To learn how many keys a field has."""


def group_keys(field: GroupField, flows: FlowColumns, interfaces: Names) -> tuple[Array, ...]:
    """The field's keys of these flows; points that are alike have one number, that of the first of them."""
    found = field.keys(flows)
    if field.alike is None:
        return found
    (points,) = found
    different, inverse = np.unique(points, return_inverse=True)
    first: dict[Hashable, int] = {}
    numbers = [first.setdefault(field.alike(interfaces.get(number, "")), number) for number in different.tolist()]
    return (np.array(numbers, points.dtype)[inverse],)
