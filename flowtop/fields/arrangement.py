"""The user's choices for the columns of the list: which, in which order, how wide. Imports no numpy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowtop.fields.columns import Column


WIDEST = 60
"""Maximum width that the user may give a column, in cells."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Choices by column id. Ids of columns that no longer exist are ignored.

    Attributes:
        order: ids from left to right; columns that are not named follow their neighbours in the registry.
        hidden: never shown, unless the list is sorted by it.
        shown: always shown, however narrow the terminal is.
        widths: widths in cells that the user set, by id.
    """

    order: tuple[str, ...] = ()
    hidden: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()
    widths: tuple[tuple[str, int], ...] = ()

    def ordered(self, columns: Iterable[Column]) -> list[Column]:
        """All of these columns in the user's order."""
        every = list(columns)
        by_id = {column.id: column for column in every}
        columns_in_order = [by_id[column_id] for column_id in dict.fromkeys(self.order) if column_id in by_id]
        for position, column in enumerate(every):
            if column not in columns_in_order:
                before = columns_in_order.index(every[position - 1]) + 1 if position else 0
                columns_in_order.insert(before, column)
        return columns_in_order


AUTOMATIC = Arrangement()
"""No choices: everything automatic."""
