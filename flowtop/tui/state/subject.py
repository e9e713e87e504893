"""What is handed off: the flow, or the group of flows, under the cursor, in the words of each tool."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from flowtop.fields.groups import drill_term, group_text
from flowtop.filters.filter import all_of_texts
from flowtop.filters.terms import conversation_as_filter, flow_as_filter, flow_as_tcpdump, words_as_tcpdump
from flowtop.model.rows import FlowRow
from flowtop.output.records import page_record, rows_name
from flowtop.query.query import Page


@dataclass(frozen=True, slots=True)
class Subject:
    """A flow, a biflow, or a group as it is listed: only flows that pass the filters of the list.

    Attributes:
        what: `flow`, `group`, ...
        name: of a group, as its cells show it; "" for a flow.
        filter: which finds it again; of a flow, its direction alone; "" when it cannot be told apart.
        whole: the filter of its packets and records: of a flow, both directions.
        tcpdump: an expression for pcap-filter(7), "" where there is none.
        record: JSON.
        page: the page with this row alone, as it is when it is chosen; of a biflow, with its flows.
    """

    what: str
    name: str
    filter: str
    whole: str
    tcpdump: str
    record: str
    page: Page


def subject_of(row: FlowRow, page: Page) -> Subject:
    """What a row of the page is to other tools."""
    query, record = page.query, json.dumps(page_record(row, page))
    what = rows_name(query).removesuffix("s")
    if not row.group:
        one = flow_as_filter(row, page.lookups)
        whole = conversation_as_filter(row if row.ways is None else row.ways.forward, page.lookups) or one
        flows = (row,) if row.ways is None else tuple(way for way in row.ways[:2] if way is not None)
        alone = replace(page, rows=flows, query=replace(query, biflow=False))
        return Subject(what, "", one, whole, flow_as_tcpdump(row), record, alone)
    term = drill_term(query.group, row, page.lookups)
    listed = [one.text for one in (query.filter, query.scope) if one is not None]
    text = all_of_texts([*listed, term]) if term else ""
    return Subject(what, group_text(query.group, row, page.lookups), text, text, words_as_tcpdump(text), record,
                   replace(page, rows=(row,)))
