"""Fields of ICMP: the identifier of echoes, which tells one ping from another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flowtop.fields import make
from flowtop.fields.field import Detail, Field
from flowtop.model.flows import Array, FlowColumns
from flowtop.model.kinds import ICMP_VERSIONS
from flowtop.model.rows import FlowRow
from flowtop.text import operands, units

_NONE = -1
_LARGEST = 65_535


def _identifier(columns: FlowColumns) -> Array:
    return np.where(columns["echo"] != 0, columns["echo_identifier"].astype(np.int32), _NONE)


def _detail(row: FlowRow) -> str:
    identifier = row.more.get("icmp_id", _NONE)
    if row.protocol not in ICMP_VERSIONS or identifier == _NONE:
        return ""
    return f"id {identifier}" + (f", rtt {' '.join(units.span(row.rtt_us).split())}" if row.rtt_us else "")


def _icmp_id() -> Field:
    made = make.numeric(
        "icmp_id", "ICMPID", "Identifier of the flow's first ICMP echo request or reply.", json="icmpEchoIdentifier",
        values=lambda source: _identifier(source.columns), records=_identifier, text=str, priority=14,
        read=operands.ReadInteger(0, _LARGEST), expected="a number from 0 to 65535", example="icmp_id 4660",
        group=True, unknown=_NONE, descending_first=False, known=("live", "file"))
    assert made.column is not None and made.group is not None
    return made.but(column=replace(made.column, on_request=True),
                    group=replace(made.group, keys=lambda columns: (_identifier(columns),)),
                    detail=Detail("echo", lambda row, _: _detail(row), optional=True))


FIELDS = (_icmp_id(),)
