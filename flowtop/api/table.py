"""The flow table of the library, and queries."""

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
    """A flow table, made by `read` or a `Collector`. Use it from one thread at a time.

    Args:
        metering: holds the flows.
        update: called before each query, to bring the table up to date.
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
        """The flows that match a filter, or their groups or biflows, sorted.

        Args:
            filter: in the filter language of the command line; "": all flows.
            sort: id of a column, as for `-s`.
            descending: True: largest first; None: the default of the column.
            limit: maximum number of rows; None: all.
            offset: number of rows to skip.
            group: ids of group fields, as for `-g`: a sequence, or one text separated by commas.
            biflow: both directions of a conversation in one row; not together with `group`.

        Raises:
            FilterError: the filter is not valid; it has the position.
            FlowtopError: unknown column or field, `group` and `biflow` together, a limit that is no whole number, or a
                filter by names of hosts, which the library does not look up.
        """
        for name, number in (("limit", limit), ("offset", offset)):
            if number is not None and (not isinstance(number, int) or number < 0):
                raise FlowtopError(f"{name} is {number}", hint="it counts rows: a whole number, 0 or more",
                                   exit_code=EXIT_USAGE)
        fields = (group.split(",") if group else ()) if isinstance(group, str) else group
        query = Query(limit=limit, offset=offset, biflow=biflow, group=tuple(field.strip() for field in fields),
                      filter=compile_filter(filter) if filter.strip() else None)
        if query.filter is not None and query.filter.of_names:
            raise FlowtopError("names of hosts are known only on the screen", exit_code=EXIT_USAGE,
                               hint="filter by address, as in 'net 192.0.2.0/24'")
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
        """Counters: observed = accounted + ignored + filtered + lost, in packets and octets; and others."""
        self._update()
        return self._metering.now().books

    @property
    def collecting(self) -> CollectingStatistics | None:
        """Counters of collected flows and of IPFIX files: received, refused, lost. None for captures of packets."""
        self._update()
        return self._metering.now().collecting

    @property
    def fault(self) -> FlowtopError | None:
        """Why a file was not read completely, or what in it could not be used; None: it was read completely."""
        source = self._metering.now().source
        return None if source is None else source.fault

    def __len__(self) -> int:
        """Number of flows in the table."""
        return self.query(limit=0).matched
