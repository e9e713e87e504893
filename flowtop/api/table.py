"""The flow table of the library, and queries to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, overload

from flowtop.api.metering import Metering
from flowtop.api.rows import Biflow, Flow, Group, Rows
from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.filters.filter import compile_filter
from flowtop.model.exporters import CollectingStatistics
from flowtop.query.layout import sort_column
from flowtop.query.query import Books, Query


class Table:
    """A flow table, made by `read` or a `Collector`. For one thread at a time.

    Args:
        metering: what holds them.
        update: brings it up to date before it is asked.
    """

    def __init__(self, metering: Metering, update: Callable[[], None] = lambda: None) -> None:
        self._metering = metering
        self._update = update

    @overload
    def query(self, filter: str = "", *, sort: str = "bytes", descending: bool | None = None,
              limit: int | None = None, offset: int = 0) -> Rows[Flow]: ...

    @overload
    def query(self, filter: str = "", *, biflow: Literal[True], sort: str = "bytes",
              descending: bool | None = None, limit: int | None = None, offset: int = 0) -> Rows[Biflow]: ...

    @overload
    def query(self, filter: str = "", *, group: str | Sequence[str], sort: str = "bytes",
              descending: bool | None = None, limit: int | None = None, offset: int = 0) -> Rows[Group]: ...

    def query(self, filter: str = "", *, sort: str = "bytes", descending: bool | None = None,  # noqa: A002
              limit: int | None = None, offset: int = 0, group: str | Sequence[str] = (),
              biflow: bool = False) -> Rows[Flow] | Rows[Biflow] | Rows[Group]:
        """The flows that pass a filter, or groups or biflows of them, in order.

        Args:
            filter: in the language of the command line; "": all.
            sort: id of a column, as `-s` has them.
            descending: largest first; None: as the column has it by itself.
            limit: rows at most; None: all.
            offset: rows to leave out first.
            group: ids of the fields that the flows of a group agree in, as `-g` has them; several in a sequence, or
                separated by commas.
            biflow: both directions of a conversation in one row; not together with `group`.

        Raises:
            FilterError: the filter cannot be understood; it says where.
            FlowtopError: no such column or field, or groups and biflows at once, or a negative number.
        """
        for name, number in (("limit", limit), ("offset", offset)):
            if number is not None and number < 0:
                raise FlowtopError(f"{name} is {number}", hint="it counts rows: 0 or more", exit_code=EXIT_USAGE)
        fields = (group.split(",") if group else ()) if isinstance(group, str) else group
        query = Query(limit=limit, offset=offset, biflow=biflow, group=tuple(field.strip() for field in fields),
                      filter=compile_filter(filter) if filter.strip() else None)
        column = sort_column(sort, query)
        query = replace(query, sort=column.id,
                        descending=column.descending_first if descending is None else descending)
        self._update()
        page = self._metering.page(query)
        if query.group:
            return Rows(page, Group)
        return Rows(page, Biflow) if biflow else Rows(page, Flow)

    @property
    def books(self) -> Books:
        """The accounts: observed = accounted + ignored + filtered + lost, in packets and octets; what was left out."""
        self._update()
        return self._metering.now().books

    @property
    def collecting(self) -> CollectingStatistics | None:
        """Of collected flows, and of an IPFIX file: what was read, what was refused and why, gaps; None of packets."""
        self._update()
        return self._metering.now().collecting

    @property
    def fault(self) -> FlowtopError | None:
        """Why a file was not read to its end, or what in it could not be used; None: nothing is missing."""
        source = self._metering.now().source
        return None if source is None else source.fault

    def __len__(self) -> int:
        """How many flows there are."""
        return self.query(limit=0).matched
