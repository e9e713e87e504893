"""What the peer of a flow is called: as its client looked it up, or as the flow itself names its server."""

from __future__ import annotations

from dataclasses import replace

from flowtop.fields import make
from flowtop.fields.field import Field, Known
from flowtop.model.flows import Array, FlowColumns
from flowtop.model.names_seen import NAMES, OF_SOURCE, Origin, name_codes, name_origins
from flowtop.model.rows import FlowRow
from flowtop.text.lookups import Lookups, Texts

_KNOWN: tuple[Known, ...] = ("live", "file")
_NAME, _ORIGIN = "name", "name_origin"
NAME_TEXTS = Texts(lambda lookups: lookups.named(NAMES), lambda _: "")
_ORIGINS = {origin | side: origin.name.lower() for origin in Origin for side in (0, OF_SOURCE)}
ORIGIN_TEXTS = Texts(lambda _: _ORIGINS, lambda _: "")


def _codes(columns: FlowColumns) -> Array:
    return name_codes(columns["peer_name"])


def _origins(columns: FlowColumns) -> Array:
    return name_origins(columns["peer_name"])


def _shown_if_known(made: Field, *, on_request: bool = False) -> Field:
    """The field, with a filter for flows that have no name, and shown only where some flow has one."""
    assert made.column
    assert made.group
    column, group = replace(made.column, of_reports=True, on_request=on_request), made.group
    word = made.id

    def term(row: FlowRow, lookups: Lookups) -> str:
        return column.term(row, lookups) or f"not {word} ?*"

    return made.but(
        column=replace(column, term=term), biflow_columns=(replace(column, term=term),),
        group=replace(group, term=lambda key, lookups: group.term(key, lookups) or f"not {word} ?*"),
        members=tuple(replace(member, of_reports=True) for member in made.members))


def _name() -> Field:
    made = _shown_if_known(make.text(
        _NAME, "NAME", "Peer's name: from DNS, TLS, HTTP or QUIC.", json="peerName",
        texts=NAME_TEXTS, codes=lambda source: _codes(source.columns), records=_codes, width=10, priority=3,
        known=_KNOWN))
    assert made.group
    assert made.detail
    assert made.column
    column = replace(made.column, longest=24)
    group = replace(made.group, keys=lambda columns: (_codes(columns),), flexible=True)
    return made.but(key=None, column=column, biflow_columns=(column,), group=group,
                    detail=replace(made.detail, line="name", optional=True, rank=2))


def _origin() -> Field:
    made = _shown_if_known(make.text(
        _ORIGIN, "NAMED BY", "How the name was seen: dns, tls, http, quic, file.", json="peerNameOrigin",
        texts=ORIGIN_TEXTS, codes=lambda source: _origins(source.columns), records=_origins, width=8, priority=14,
        expected="dns, tls, http, quic or file", example="name_origin tls", known=_KNOWN), on_request=True)
    assert made.group
    assert made.detail
    assert made.key
    group = replace(made.group, keys=lambda columns: (_origins(columns),))
    return made.but(key=replace(made.key, choices=tuple(origin.name.lower() for origin in Origin)), group=group,
                    detail=replace(made.detail, line="name", optional=True, rank=2))


FIELDS = (_name(), _origin())
"""The filter word `name` is one of the grammar: it takes `src` and `dst` before it, and knows other names too."""
