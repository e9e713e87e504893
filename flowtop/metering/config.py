"""How a flow table is to behave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class TableConfig:
    """How flows end and what is kept.

    Attributes:
        idle_timeout_s: without a packet, until a flow ends.
        active_timeout_s: between two records of a flow that goes on.
        end_timeout_s: without a packet after FIN or RST, until a flow ends.
        linger_s: how long an ended flow stays visible; always until the end of the next tick, and one that is kept for
            as long as that: see FlowTable.keep.
        least_tick_s: rates are of this time at least: the last tick of a file may end with its last packet, and no
            packet came at a megabit a second because there was one in the file's last microseconds.
        max_flows: live flows; past it the least recently active end. A quarter more may linger, and those that end
            in a tick until it is shown.
        dedupe: what becomes of flows whose packets another Observation Point's flow counts already: marked; dropped
            (neither shown nor in records, though in the books); or nothing is looked for.
    """

    idle_timeout_s: float = 15
    active_timeout_s: float = 60
    end_timeout_s: float = 2
    linger_s: float = 10
    least_tick_s: float = 0.001
    max_flows: int = 1_000_000
    dedupe: Literal["mark", "drop", "off"] = "mark"
