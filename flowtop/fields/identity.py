"""What identifies a conversation at every host: its Community ID."""

from __future__ import annotations

import numpy as np

from flowtop.fields.columns import Column
from flowtop.fields.field import Detail, Field, FilterKey, GroupField, Key, Member
from flowtop.model.community import VERSION, community_id, digest_of, digests, text_of
from flowtop.model.flows import Array, FlowColumns
from flowtop.model.kinds import Kind
from flowtop.model.rows import FlowRow, FlowValues
from flowtop.text.lookups import Lookups

_COMPARED_BITS = 48
"""Of a hash, in filters: numbers are compared as float64."""


def _of(flow: FlowRow | FlowValues) -> str:
    if flow.kind not in (Kind.FLOW, Kind.PARENT) or not flow.ip_version:
        return ""
    return community_id(flow.source_address, flow.destination_address, flow.source_port, flow.destination_port,
                        flow.protocol, flow.ip_version)


def _words(columns: FlowColumns) -> tuple[Array, Array, Array]:
    words = digests(columns).astype(np.uint64)
    return words[:, 0] << np.uint64(32) | words[:, 1], words[:, 2] << np.uint64(32) | words[:, 3], words[:, 4]


def _compared(columns: FlowColumns) -> Array:
    first = _words(columns)[0] >> np.uint64(64 - _COMPARED_BITS)
    return np.where(first == 0, np.nan, first.astype(np.float64))


def _read(operand: str) -> float:
    if operand.isdecimal():  # "community >= 0": it has one
        return float(operand)
    return float(int.from_bytes(digest_of(operand)[:_COMPARED_BITS // 8], "big"))


def _term(text: str) -> str:
    """`=` at the end of the text would have to be quoted, and says nothing."""
    return f"community {text.rstrip('=')}" if text else "not community >= 0"


def _text(key: Key) -> str:
    return text_of(b"".join(part.to_bytes(size, "big") for part, size in zip(key, (8, 8, 4), strict=True))) if any(
        key) else ""


def _group_text(key: Key, _: Lookups) -> str:
    return _text(key) or "-"


def _group_values(key: Key, _: Lookups) -> dict[str, str]:
    return {"communityId": _text(key)} if any(key) else {}


_DOC = "Community ID: the same at every host, for both directions, and in Zeek, Suricata and Wireshark."
_WIDTH, _LEAST_WIDTH = len(VERSION) + 28, 10
COMMUNITY = Field(
    "community", _DOC,
    column=Column("community", "COMMUNITY", _LEAST_WIDTH, _DOC, lambda row, _, __: _of(row),
                  (lambda columns: _words(columns)[0],), 14, lambda row, _: _term(_of(row)), on_request=True,
                  longest=_WIDTH),
    key=FilterKey("community", f"{_DOC[:-1]}; `=` at its end may be omitted.",
                  "community 1:wCb3OG7yAFWelaUydu0D+125CLM",
                  "a Community ID, such as 1:wCb3OG7yAFWelaUydu0D+125CLM", _read,
                  lambda source: _compared(source.columns), _compared),
    group=GroupField("community", "COMMUNITY ID", _WIDTH, _DOC, _words, text=_group_text,
                     term=lambda key, _: _term(_text(key)), values=_group_values, members=("communityId",), parts=3),
    members=(Member("communityId", lambda flow, _: _of(flow) or None, _DOC, of_packets=True),),
    detail=Detail("community", lambda row, _: _of(row), of_way=False, optional=True, at_end=True))

FIELDS = (COMMUNITY,)
