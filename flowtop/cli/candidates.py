"""What shells offer for words of the command line: columns, fields to group by, filters, pages of the manual."""

from __future__ import annotations

import click

from flowtop.errors import FlowtopError

HELP = "help"
"""The word that asks for the manual; no filter begins with it."""


def sort_columns(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Ids of columns, for `-s`: those of flows, of biflows with `-B`, of groups with `-g`."""
    from flowtop.query.layout import columns_of
    from flowtop.query.query import Query

    group = tuple(filter(None, (context.params.get("group") or "").split(",")))
    try:
        columns = columns_of(Query(group=group, biflow=not group and bool(context.params.get("biflow"))))
    except FlowtopError:  # -g has no such field: that is said when the command runs
        columns = columns_of(Query())
    return [column_id for column_id in columns if column_id.startswith(incomplete)]


def fields_to_group_by(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Fields, for `-g`, after those that are there already."""
    from flowtop.fields.registry import GROUPS

    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{field}" for field in GROUPS if field.startswith(last) and field not in taken]


def words_of_filters(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Words that may follow in a filter; after `help` pages of the manual."""
    words: tuple[str, ...] = context.params.get("filter") or ()
    if words == (HELP,):
        from flowtop.text import manual

        return [topic for topic in manual.topics() if topic.startswith(incomplete)]
    from flowtop.filters.completion import complete

    text = " ".join((*words, incomplete))
    found = complete(text, len(text))
    lead = text[len(text) - len(incomplete):found.start] if found.start > len(text) - len(incomplete) else ""
    offered = [lead + candidate for candidate in found.candidates]
    return [*offered, *([HELP] if not words and HELP.startswith(incomplete) else [])]
