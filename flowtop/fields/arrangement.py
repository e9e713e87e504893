"""What a reader chose for the columns of the list: which, in which order, how wide. Imports no numpy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowtop.fields.columns import Column


WIDEST = 60
"""Cells that a reader may give a column."""


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Choices by id of column. Ids that are not there any more mean nothing.

    Attributes:
        order: ids from left to right; columns that are not named stand behind their neighbours of the registry.
        hidden: never shown, unless the list is sorted by it.
        shown: shown as long as anything is.
        widths: cells of columns that the reader set, by id.
    """

    order: tuple[str, ...] = ()
    hidden: frozenset[str] = frozenset()
    shown: frozenset[str] = frozenset()
    widths: tuple[tuple[str, int], ...] = ()

    def ordered(self, columns: Iterable[Column]) -> list[Column]:
        """All of these columns in the reader's order."""
        every = list(columns)
        by_id = {column.id: column for column in every}
        found = [by_id[column_id] for column_id in dict.fromkeys(self.order) if column_id in by_id]
        for position, column in enumerate(every):
            if column not in found:
                found.insert(found.index(every[position - 1]) + 1 if position else 0, column)
        return found


AUTOMATIC = Arrangement()
"""Nothing chosen."""
