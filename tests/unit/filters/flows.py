"""Flows to filter: a FlowSource built from dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.filters.filter import compile_filter
from flowtop.model.flows import FLOW_COLUMN_DTYPES
from flowtop.model.record import FLOW_RECORD_DTYPE, FlowRecords
from flowtop.text.lookups import Lookups
from tests.unit.factories import SECOND, START_NS, UNIX_OFFSET_NS, packed

DTYPE = np.dtype(list(FLOW_COLUMN_DTYPES.items()))
INTERFACES = Lookups({2: "eth0", 3: "veth1", 4: "wg0"})
TICK_S = 2.0
NOW_NS = START_NS + 100 * SECOND


@dataclass
class Source:
    """A flow table at rest."""

    columns: npt.NDArray[Any]
    visible: npt.NDArray[np.bool_] = field(init=False)
    tick_s: float = TICK_S
    window_10s_s: float = 10.0
    window_60s_s: float = 20.0
    now_ns: int = NOW_NS
    unix_offset_ns: int = UNIX_OFFSET_NS
    dedupes: bool = True
    then_ns: int | None = None

    def __post_init__(self) -> None:
        self.visible = np.ones(len(self.columns), np.bool_)


def fields_of(flow: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by column name; `source` and `destination` are addresses in text."""
    fields = {"source": "10.0.0.1", "destination": "10.0.0.2", "protocol": 6, "ifindex": 2, "first_ns": START_NS,
              "last_ns": NOW_NS, "packet_total": 1, "octet_total": 100, **flow}
    source, destination = fields.pop("source"), fields.pop("destination")
    fields["ip_version"] = 6 if ":" in source else 4
    return {**fields, "source_address": packed(source), "destination_address": packed(destination)}


def table(flows: Sequence[Mapping[str, Any]]) -> Source:
    """A source of these flows."""
    columns = np.zeros(len(flows), DTYPE)
    for slot, flow in enumerate(flows):
        for name, value in fields_of(flow).items():
            columns[name][slot] = np.void(value) if isinstance(value, bytes) else value
    return Source(columns)


def passing(text: str, flows: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Names of the flows that pass the filter."""
    mask = compile_filter(text).mask(table(list(flows.values())), INTERFACES)
    assert mask.dtype == np.bool_ and mask.shape == (len(flows),)
    return {name for name, passes in zip(flows, mask.tolist(), strict=True) if passes}


def records(flows: Sequence[Mapping[str, Any]]) -> FlowRecords:
    """Flow Records with these fields."""
    found = np.zeros(len(flows), FLOW_RECORD_DTYPE)
    for position, flow in enumerate(flows):
        for name, value in fields_of(flow).items():
            if name in (FLOW_RECORD_DTYPE.names or ()):
                found[name][position] = np.void(value) if isinstance(value, bytes) else value
    return found
