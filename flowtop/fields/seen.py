"""Texts of the flows in view, for completion while a filter is typed."""

from __future__ import annotations

from collections.abc import Iterable

from flowtop.fields.registry import FIELDS
from flowtop.model.rows import FlowRow
from flowtop.text import units
from flowtop.text.lookups import Lookups


def seen_texts(rows: Iterable[FlowRow], lookups: Lookups) -> dict[str, tuple[str, ...]]:
    """The different texts of these flows in order of the rows, by the filter word of each text field. Codes without a
    text and texts that are not printable are omitted."""
    rows = tuple(rows)
    seen = {}
    for field in FIELDS.values():
        if field.texts is None or field.key is None or field.code is None:
            continue
        names, code = field.texts.names(lookups), field.code
        texts = dict.fromkeys(field.texts.text(number, lookups) for number in map(code, rows) if number in names)
        seen[field.key.word] = tuple(text for text in texts if text and text == units.printable(text))
    return seen
