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
        if not self.order:
            return every
        by_id = {column.id: column for column in every}
        ids = [column_id for column_id in dict.fromkeys(self.order) if column_id in by_id]
        named, before = set(ids), -1
        for column_id in by_id:
            if column_id in named:
                before = ids.index(column_id)
            else:
                before += 1
                ids.insert(before, column_id)
        return [by_id[column_id] for column_id in ids]


AUTOMATIC = Arrangement()
"""No choices: everything automatic."""
