"""Texts of flows in view: what is offered while a filter is typed."""

from __future__ import annotations

from collections.abc import Iterable

from flowtop.fields.registry import FIELDS
from flowtop.model.rows import FlowRow
from flowtop.text import units
from flowtop.text.lookups import Lookups


def seen_texts(rows: Iterable[FlowRow], lookups: Lookups) -> dict[str, tuple[str, ...]]:
    """By filter word of each text field: the texts of these flows, each once, in their order. Codes without a text, and
    texts that do not print, are left out."""
    rows = tuple(rows)
    found = {}
    for field in FIELDS.values():
        if field.texts is None or field.key is None or field.code is None:
            continue
        names, code = field.texts.names(lookups), field.code
        texts = dict.fromkeys(field.texts.text(number, lookups) for number in map(code, rows) if number in names)
        found[field.key.word] = tuple(text for text in texts if text and text == units.printable(text))
    return found
