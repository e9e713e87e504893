"""Flow Records as JSON Lines: for files, and for collectors that read lines over TCP or UDP."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from flowtop.export.context import ExportContext
from flowtop.export.session import FlowMessages
from flowtop.fields.records import plain_records
from flowtop.model.record import FlowRecords
from flowtop.process import agent


def json_lines(records: FlowRecords, context: ExportContext, more: dict[str, Any]) -> list[bytes]:
    """One line per record, with the keys of `flowtop -b -o json`.

    Args:
        more: members that each line has too.
    """
    return [json.dumps(record | more, separators=(",", ":")).encode() + b"\n"
            for record in plain_records(records, context.metering().lookups)]


class LineSession:
    """JSON Lines in place of the messages of a Transport Session: without Templates, Options and sequence numbers."""

    def __init__(self) -> None:
        self._agent = {"agent": agent()}

    def announcement(self, context: ExportContext, max_octets: int) -> list[bytes]:
        """Nothing: lines describe themselves."""
        del context, max_octets
        return []

    changed_interfaces = announcement
    reports = announcement

    def arranged(self, records: FlowRecords) -> FlowRecords:
        """The records as they are."""
        return records

    def flows(self, records: FlowRecords, context: ExportContext, max_octets: int) -> FlowMessages:
        """Whole lines, as many together as `max_octets` has room for; a longer line is alone."""
        messages: list[bytes] = []
        counts: list[int] = []
        for line in json_lines(records, context, self._agent):
            if counts and len(messages[-1]) + len(line) <= max_octets:
                messages[-1] += line
                counts[-1] += 1
            else:
                messages.append(line)
                counts.append(1)
        return FlowMessages(messages, counts, records, counts)

    def not_sent(self, flows: FlowMessages, sent: int, context: ExportContext) -> FlowRecords:
        """The records that are not in the first `sent` messages."""
        del context
        rest: FlowRecords = flows.records[int(np.sum(flows.record_counts[:sent], dtype=np.int64)):]
        return rest
