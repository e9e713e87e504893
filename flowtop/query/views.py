"""Views of the list: each is a query that is saved by name, with the columns that answer its question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from flowtop.fields.arrangement import Arrangement
from flowtop.fields.columns import Column, Window, rate_column
from flowtop.filters.filter import Filter
from flowtop.query.layout import columns_of, sort_column
from flowtop.query.query import Query

_GROUPS = ("rate", "rate_in", "rate_out", "flows", "share", "rtt", "retransmits", "bytes", "packets", "age")
_COMMON = ("rate_in", "rate_out", "share", "flows", "rtt", "retransmits", "bytes", "process", "service", "packets",
           "rate", "age")
_LISTED_PRIORITY = 2
_WINDOWED = ("rate", "share")


@dataclass(frozen=True, slots=True)
class ListView:
    """One view.

    Attributes:
        id: the name in the settings file.
        name: along the top of the screen.
        doc: one sentence for help and manual.
        group, biflow, sort: as in Query; the column's usual direction.
        filter: which flows it lists; None: all. The reader's own filter comes on top.
        columns: the most important first, behind those of the groups; empty: those that fit, as of any list. `rate`
            and `share` stand for those of the chosen window.
        of_owners: it is of use only where owners of flows are known.
    """

    id: str
    name: str
    doc: str
    group: tuple[str, ...] = ()
    biflow: bool = False
    sort: str = "rate"
    filter: Filter | None = None
    columns: tuple[str, ...] = ()
    of_owners: bool = False

    @property
    def query(self) -> Query:
        """What it lists."""
        query = Query(group=self.group, biflow=self.biflow, scope=self.filter)
        column = sort_column(self.sort, query)
        return replace(query, sort=column.id, descending=column.descending_first)

    def lists(self, query: Query) -> bool:
        """Whether the query's rows are those of this view, not those of one of its groups or of another grouping."""
        return (query.group, query.biflow, query.scope) == (self.group, self.biflow, self.filter)


VIEWS: tuple[ListView, ...] = (
    ListView("flows", "Flows", "Every flow by itself."),
    ListView("hosts", "Hosts", "Hosts at the remote end: what comes from each, and what goes there.", ("host",),
             sort="share", columns=("rate_in", "rate_out", "share", "flows", "rtt", "retransmits", "host_country",
                                    "host_as_name", "bytes_in", "bytes_out", "rate", "age")),
    ListView("services", "Services", "Protocols and ports of servers.", ("service",), sort="share", columns=_COMMON),
    ListView("processes", "Processes", "Processes of this host whose sockets the flows are of.", ("process",),
             sort="share", columns=_COMMON, of_owners=True),
    ListView("interfaces", "Interfaces", "Interfaces: traffic, errors, drops, and what was seen of it.",
             ("interface",), sort="pps", columns=(
                 "rate_in", "rate_out", "pps", "errors", "drops", "queue_drops", "coverage", "flows", "bytes_in",
                 "bytes_out", "packets", "rate")),
)
"""In the order of their keys, from 1."""


def user_views(settings: Mapping[str, Mapping[str, str | list[str]]]) -> tuple[ListView, ...]:
    """Views of the settings file.

    Args:
        settings: by name: `filter`, `group`, `sort`, `columns`, `title`; see cli.settings.

    Raises FlowtopError: a filter, group field or column is not valid.
    """
    from flowtop.filters.filter import compile_filter

    views = []
    for name, entry in settings.items():
        group = _words(entry.get("group", ()))
        biflow = "biflow" in group
        group = tuple(word for word in group if word not in ("flow", "biflow"))
        text = str(entry.get("filter", ""))
        columns = _words(entry.get("columns", ()))
        view = ListView(name, str(entry.get("title") or name), text or "A view of the settings file.", group, biflow,
                        str(entry.get("sort") or ("share" if group else "rate")),
                        compile_filter(text) if text.strip() else None, columns or (_COMMON if group else ()))
        query = view.query
        for column in columns:
            sort_column(column, query)
        views.append(view)
    return tuple(views)


def _words(value: str | Iterable[str]) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(word.strip() for word in parts if word.strip())


def view_of(query: Query, views: Iterable[ListView]) -> ListView | None:
    """The view that lists the rows of a query."""
    return next((view for view in views if view.lists(query)), None)


def in_window(column_id: str, window: Window) -> str:
    """The column of the same kind over another window: `rate_10s_in` for `rate_in`; any other id as it is."""
    stem, _, rest = column_id.partition("_")
    if stem not in _WINDOWED:
        return column_id
    way = next((f"_{part}" for part in rest.split("_") if part in ("in", "out")), "")
    return f"{stem}{rate_column(window).removeprefix('rate')}{way}"


def shown_columns(view: ListView | None, query: Query, window: Window, arrangement: Arrangement) -> tuple[Column, ...]:
    """The columns of a query's rows, from left to right: of groups those of the view, or the usual ones, come first,
    and others only when they are asked for. All columns where the user has arranged them, or the view names none."""
    columns = columns_of(query)
    own = view is not None and view.lists(query)
    names = view.columns if view is not None and own and view.columns else _GROUPS if query.group else ()
    if not names:
        return tuple(columns.values())
    listed = dict.fromkeys(in_window(name, window) for name in names)
    keys = [columns[field.partition(":")[0]] for field in query.group]
    first = [replace(columns[name], priority=_LISTED_PRIORITY, ranked=True) for name in listed
             if name in columns and columns[name] not in keys]
    rest = [replace(column, on_request=column.id not in arrangement.shown) for name, column in columns.items()
            if name not in listed and column not in keys]
    if not query.group:  # what names a flow stands at the left
        identity = [column for column in rest if not column.descending_first]
        return (*(replace(column, on_request=columns[column.id].on_request) for column in identity), *first,
                *(column for column in rest if column.descending_first))
    return (*keys, *first, *rest)
