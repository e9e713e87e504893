"""Fields of a flow's state and kind: active or ended, duplicate, parent, fragment."""

from __future__ import annotations

import numpy as np

from flowtop.fields import cell_terms as terms
from flowtop.fields.change import LEFT
from flowtop.fields.columns import Column
from flowtop.fields.field import Field, FilterKey, Member, stored
from flowtop.model.flows import Array, FlowColumns
from flowtop.model.kinds import TCP_CLOSING_BITS, EndReason, Kind, Protocol, TcpBits, Tunnel
from flowtop.model.rows import FlowRow
from flowtop.text import operands
from flowtop.text.lookups import Lookups
from flowtop.text.names import Names

_CLOSING_BITS = np.uint16(TCP_CLOSING_BITS)
"""FIN and RST."""
_OPENING_BITS, _SYN = np.uint16(TcpBits.SYN | TcpBits.ACK), np.uint16(TcpBits.SYN)
PATIENCE_S = 3.0
"""A SYN or request without an answer for so long has none: one second and two are when a SYN is sent again."""
NO_REPLY = "NO REPLY"
_LEFT_TEXT = "gone"
_NARROW = {NO_REPLY: "N/R", _LEFT_TEXT: "end"}


def _rank(columns: FlowColumns) -> Array:
    """0 active, 1 not answered so far, 2 FIN, 3 RST, 4 duplicate or parent, 5 ended."""
    bits = columns["tcp_control_bits"]
    rank = (bits & _OPENING_BITS == _SYN).view(np.uint8)
    for number, bit in ((2, TcpBits.FIN), (3, TcpBits.RST)):
        rank = np.where(bits & np.uint16(bit) != 0, np.uint8(number), rank)
    rank = np.where(columns["duplicate"] | (columns["kind"] == Kind.PARENT), np.uint8(4), rank)
    return np.where(columns["end_reason"] != 0, np.uint8(5), rank)


def _state(columns: FlowColumns, ended: Array) -> Array:
    """0 active, 1 closing, 2 ended."""
    closing = (columns["tcp_control_bits"] & _CLOSING_BITS != 0).view(np.uint8)
    return np.where(ended, np.uint8(2), closing)


def _ended(records: FlowColumns) -> Array:
    reasons = records["end_reason"]
    ended: Array = (reasons != EndReason.NONE) & (reasons != EndReason.ACTIVE_TIMEOUT)
    return ended


def _phase(row: FlowRow) -> str:
    """Of a connection in the words of those who look after it; "·" where there is none."""
    bits = row.tcp_control_bits
    waited = row.age_s + row.idle_s >= PATIENCE_S
    if row.protocol == Protocol.TCP and bits:
        if bits & TcpBits.RST:
            return "RST"
        if bits & TcpBits.FIN:
            return "FIN"
        if bits & (TcpBits.SYN | TcpBits.ACK) == TcpBits.SYN:
            return NO_REPLY if waited else "SYN"
        return "EST"
    ways = row.ways  # of a biflow: an ICMP request without an answer
    return NO_REPLY if waited and ways is not None and ways.opened and ways.reverse is None else "·"


def _state_text(row: FlowRow) -> str:
    if row.more.get("trend") == LEFT:  # of a comparison: its bits are those of then
        return _LEFT_TEXT
    if row.end_reason:  # how it ended, where that is worth a word
        phase = _phase(row)
        return phase if phase in ("RST", NO_REPLY) else "end"
    if row.kind == Kind.PARENT:
        return "sec" if row.tunnel == Tunnel.IPSEC else "tun"
    return "dup" if row.duplicate else _phase(row)


def _state_severity(row: FlowRow) -> int:
    return {"FIN": 1, "end": 1, _LEFT_TEXT: 1, "dup": 1, "SYN": 2, "RST": 3, NO_REPLY: 3}.get(_state_text(row), 0)


def _shortened(row: FlowRow, _: Names, width: int) -> str:
    text = _state_text(row)
    return text if len(text) <= width else _NARROW.get(text, text)


def _state_term(row: FlowRow, lookups: Lookups) -> str:
    """`state ended` and the like; `flags rst` for what is of TCP alone."""
    text = _state_text(row)
    if row.protocol != Protocol.TCP:
        return terms.state_term(row, lookups)
    return {"SYN": "flags syn and not flags ack", NO_REPLY: "flags syn and not flags ack", "RST": "flags rst",
            "FIN": "flags fin and not flags rst"}.get(text) or terms.state_term(row, lookups)


_STATE_COLUMN = Column(
    "state", "ST", 3, "SYN, EST, FIN, RST; NO REPLY (N/R) to a SYN or ping for 3 s; dup counted elsewhere; tun a "
    "tunnel, counted in the flows it carries; sec decrypted by IPsec, counted as it came; · active; end ended; "
    "gone left.",
    lambda row, _, __: _state_text(row), (_rank,), 1, _state_term, shortened=_shortened, longest=len(NO_REPLY),
    severity=_state_severity)
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
                    "True: a flow of another Observation Point counts its packets; otherwise absent.", rank=52,
                    holds=bool),))
_PARENT_DOC = "In no sum: with --decap a tunnel, counted in the flows it carries; what IPsec decrypted."
PARENT = Field(
    "parent", _PARENT_DOC,
    key=FilterKey("parent", _PARENT_DOC, "not parent",
                  "0 or 1", operands.ReadInteger(0, 1), lambda source: _is_parent(source.columns), _is_parent,
                  optional=True, of_aggregates=True, rank=6),
    members=(Member("parent", lambda flow, _: True if flow.kind == Kind.PARENT else None,
                    "True: its packets count in other flows (a tunnel, or decrypted by IPsec); otherwise absent.",
                    rank=53, holds=bool),))
FLOW_ID = Field("flow_id", "The flow's unique number.",
                members=(Member("flowId", lambda flow, _: flow.flow_id, rank=1),))

FIELDS = (STATE, FLOW_ID, FRAGMENT, DUPLICATE, PARENT)
