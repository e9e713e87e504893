"""Fields of a flow's state and kind: active or ended, duplicate, parent, fragment."""

from __future__ import annotations

import numpy as np

from flowtop.fields import cell_terms as terms
from flowtop.fields.columns import Column
from flowtop.fields.field import Field, FilterKey, Member, stored
from flowtop.model.flows import Array, FlowColumns
from flowtop.model.kinds import TCP_CLOSING_BITS, EndReason, Kind, Tunnel
from flowtop.model.rows import FlowRow
from flowtop.text import operands

_CLOSING_BITS = np.uint16(TCP_CLOSING_BITS)
"""FIN and RST."""


def _rank(columns: FlowColumns) -> Array:
    """0 active, 1 closing, 2 duplicate or parent, 3 ended."""
    rank = (columns["tcp_control_bits"] & _CLOSING_BITS != 0).view(np.uint8)
    rank = np.where(columns["duplicate"] | (columns["kind"] == Kind.PARENT), np.uint8(2), rank)
    return np.where(columns["end_reason"] != 0, np.uint8(3), rank)


def _state(columns: FlowColumns, ended: Array) -> Array:
    """0 active, 1 closing, 2 ended."""
    closing = (columns["tcp_control_bits"] & _CLOSING_BITS != 0).view(np.uint8)
    return np.where(ended, np.uint8(2), closing)


def _ended(records: FlowColumns) -> Array:
    reasons = records["end_reason"]
    ended: Array = (reasons != EndReason.NONE) & (reasons != EndReason.ACTIVE_TIMEOUT)
    return ended


def _state_text(row: FlowRow) -> str:
    if row.kind == Kind.PARENT and not row.end_reason:
        return "sec" if row.tunnel == Tunnel.IPSEC else "tun"
    return "dup" if row.duplicate and not row.end_reason else row.state.value


_STATE_COLUMN = Column(
    "state", "ST", 3, "· active, fin closing, dup counted at another Observation Point, tun a tunnel whose "
    "packets are counted in the flows it carries, sec decrypted by IPsec and counted as it came, end ended.",
    lambda row, _, __: _state_text(row), (_rank,), 1,
    terms.state_term)
STATE = Field(
    "state", _STATE_COLUMN.doc, column=_STATE_COLUMN, biflow_columns=(_STATE_COLUMN,),
    key=FilterKey(
        "state", "State of the flow: active, closing (FIN or RST seen), ended.", "state ended",
        "active, closing or ended", operands.ReadChoice((("active", 0), ("closing", 1), ("ended", 2), ("end", 2))),
        lambda source: _state(source.columns, source.columns["end_reason"] != 0),
        lambda records: _state(records, _ended(records)), choices=("active", "closing", "ended"), of_aggregates=True),
    members=(Member("flowEndReason", lambda flow, _: flow.end_reason or None, both_ways=True, rank=27),))


def _is_fragment(columns: FlowColumns) -> Array:
    fragments: Array = columns["kind"] == Kind.FRAGMENT
    return fragments


def _is_parent(columns: FlowColumns) -> Array:
    parents: Array = columns["kind"] == Kind.PARENT
    return parents


FRAGMENT = Field(
    "fragment", "Later fragments whose first fragment was not seen: their ports are unknown.",
    key=FilterKey("fragment", "Later fragments whose first fragment was not seen: their ports are unknown.",
                  "fragment", "0 or 1", operands.ReadInteger(0, 1), lambda source: _is_fragment(source.columns),
                  _is_fragment, optional=True, rank=5))
DUPLICATE = Field(
    "duplicate", "Already counted at another Observation Point (dup).",
    key=FilterKey("duplicate", "Already counted at another Observation Point (dup).", "not duplicate", "0 or 1",
                  operands.ReadInteger(0, 1), *stored("duplicate"), optional=True, of_aggregates=True, rank=6),
    members=(Member("duplicate", lambda flow, _: True if flow.duplicate else None,
                    "True: a flow of another Observation Point counts its packets; otherwise absent.", rank=52),))
_PARENT_DOC = "In no sum: with --decap a tunnel, counted in the flows it carries; what IPsec decrypted."
PARENT = Field(
    "parent", _PARENT_DOC,
    key=FilterKey("parent", _PARENT_DOC, "not parent",
                  "0 or 1", operands.ReadInteger(0, 1), lambda source: _is_parent(source.columns), _is_parent,
                  optional=True, of_aggregates=True, rank=6),
    members=(Member("parent", lambda flow, _: True if flow.kind == Kind.PARENT else None,
                    "True: its packets count in other flows (a tunnel, or decrypted by IPsec); otherwise absent.",
                    rank=53),))
FLOW_ID = Field("flow_id", "The flow's unique number.",
                members=(Member("flowId", lambda flow, _: flow.flow_id, rank=1),))

FIELDS = (STATE, FLOW_ID, FRAGMENT, DUPLICATE, PARENT)
