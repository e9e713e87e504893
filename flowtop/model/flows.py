"""Columns of flows, and the protocol of a flow table as queries read it, so that they need not import the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import Direction
from flowtop.model.record import CARRIED, DESCRIBED_DTYPE, FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE
from flowtop.model.reported import OPPOSITE, REPORTED, REPORTED_DTYPE, absent, is_absent

Array = npt.NDArray[Any]
Slots = npt.NDArray[np.int64]

FLOW_COLUMN_DTYPES: dict[str, np.dtype[Any]] = {
    "flow_id": np.dtype("u8"),
    **{name: FLOW_KEY_DTYPE[name] for name in FLOW_KEY_DTYPE.names or ()},
    "other_ifindex": np.dtype("u4"),
    **{name: DESCRIBED_DTYPE[name] for name in DESCRIBED_DTYPE.names or ()},
    **{name: FLOW_COUNTERS_DTYPE[name] for name in CARRIED},
    "tcp_control_bits": np.dtype("u2"),
    "opening": np.dtype("?"),
    "end_reason": np.dtype("u1"),
    "duplicate": np.dtype("?"),
    "conversation": np.dtype("i4"),
    "packet_delta": np.dtype("u8"),
    "octet_delta": np.dtype("u8"),
    "packet_total": np.dtype("u8"),
    "octet_total": np.dtype("u8"),
    "octets_10s": np.dtype("u8"),
    "octets_60s": np.dtype("u8"),
    "packets_10s": np.dtype("u8"),
    "packets_60s": np.dtype("u8"),
    "octet_rate_peak": np.dtype("f8"),
    "first_ns": np.dtype("i8"),
    "last_ns": np.dtype("i8"),
    "reported_ns": np.dtype("i8"),
    "syn_ns": np.dtype("i8"),
    "fin_ns": np.dtype("i8"),
    "rst_ns": np.dtype("i8"),
    "rtt_us": np.dtype("u4"),
    "congestion_window": np.dtype("u4"),
    "retransmitted": np.dtype("u4"),
    "out_of_order": np.dtype("u4"),
    "peer_name": np.dtype("u4"),
    **{name: REPORTED_DTYPE[name] for name in REPORTED},
}
"""Every column by name. Deltas: of the last tick. `*_10s`, `*_60s`: sums over the windows. Peak: octets/s.

`other_ifindex`: the other interface of an exporter's flow, 0: not reported; may have the bit model.reported.OPPOSITE.
`record_bits`, `flow_count`: see model.record.DESCRIBED_DTYPE.
`opening`: a TCP SYN without ACK was seen.
`reported_ns`: when a Flow Record was made last; of an ended flow, when it ended.
`conversation`: slot of the first flow of a flow's conversation where duplicates are looked for, -1 without one; for an
ended flow the slot may belong to another conversation by now.
`syn_ns`, `fin_ns`, `rst_ns`: of the first packet with that bit, 0 for none; a time of 0 is stored as 1.
`rtt_us` .. `out_of_order`: of TCP, 0 if not known; see FlowRow.
`peer_name`: see model.names_seen; 0: no name. Names of model.reported.REPORTED: see there.
"""

Together = Literal["sum", "max", "min", "formula", "none"]
"""How the values of several flows are combined: their sum, maximum or minimum; the field's formula applied to the
combined columns; or no combined value."""

TOGETHER: dict[str, Together] = {
    **dict.fromkeys(("packet_delta", "octet_delta", "packet_total", "octet_total", "octets_10s", "octets_60s",
                     "packets_10s", "packets_60s", "octets_then", "retransmitted", "out_of_order", "flow_count",
                     "fragments"), "sum"),
    **dict.fromkeys(("last_ns", "reported_ns", "octet_rate_peak", "rtt_us", "congestion_window"), "max"),
    **dict.fromkeys(("first_ns", "end_reason", "duplicate", "left"), "min"),
}
"""How columns are combined in groups and biflows; sums count each packet once. Other columns are not combined.
`octets_then`: only of a source with `then_ns`: octets that would give the rate of then over the window of 10 s; `left`:
whether a flow was there only then."""


def event_ms(at_ns: Array, unix_offset_ns: int) -> Array:
    """Times of the first SYN, FIN or RST as ms since 1970 UTC, at least 1; 0 for none."""
    return np.where(at_ns == 0, 0, ((at_ns + unix_offset_ns) // 1_000_000).clip(1))


class FlowColumns(Protocol):
    """Columns of flows: an array for each name in FLOW_COLUMN_DTYPES, of equal length, as in a structured array."""

    def __getitem__(self, name: str, /) -> Array:
        """The column with this name; do not write to it."""


def reports(columns: FlowColumns) -> bool:
    """Whether an exporter has reported any value of model.reported of these flows."""
    return not is_absent(columns[REPORTED[0]])


def kept_column(columns: FlowColumns, name: str) -> Array:
    """A copy of a column that stays as it is; one that takes no memory is not copied."""
    column = columns[name]
    return column if is_absent(column) else column.copy()


class WithoutReports:
    """Columns of flows that have none of those of model.reported: these are 0.

    Args:
        count: number of flows.
    """

    def __init__(self, columns: FlowColumns, count: int) -> None:
        self._columns, self._count = columns, count

    def __getitem__(self, name: str) -> Array:
        return absent(name, self._count) if name in _REPORTED else self._columns[name]


_REPORTED = frozenset(REPORTED)


def ingress_ifindex(columns: FlowColumns) -> Array:
    """ifindex of the interface where each flow came in, of an exporter's flow or of one of this host; 0: not known."""
    return _side(columns, egress=False)


def egress_ifindex(columns: FlowColumns) -> Array:
    """ifindex of the interface where each flow leaves; 0: not known."""
    return _side(columns, egress=True)


def _side(columns: FlowColumns, *, egress: bool) -> Array:
    other = columns["other_ifindex"]
    is_egress = (columns["direction"] == np.uint8(Direction.EGRESS)) ^ (other >= np.uint32(OPPOSITE))
    here, there = columns["ifindex"].astype(np.uint32), other & np.uint32(OPPOSITE - 1)
    return np.where(is_egress == egress, here, there)


class Subset:
    """Columns of some flows, each made on first use. Slots ascend; if they have no gaps, columns are views."""

    def __init__(self, columns: FlowColumns, slots: Slots) -> None:
        self._columns = columns
        gapless = len(slots) and slots[-1] - slots[0] == len(slots) - 1
        self._slots: Slots | slice = slice(int(slots[0]), int(slots[-1]) + 1) if gapless else slots

    def __getitem__(self, name: str) -> Array:
        return self._columns[name][self._slots]


class ColumnsAt:
    """Columns at some slots, in any order, with repetitions."""

    def __init__(self, columns: FlowColumns, slots: Slots) -> None:
        self._columns, self._slots = columns, slots

    def __getitem__(self, name: str) -> Array:
        return self._columns[name][self._slots]


def address_words(columns: FlowColumns, name: str) -> tuple[Array, Array]:
    """The two big-endian halves of an address column, u8, so that numeric order is address order."""
    words = columns[name].view(_WORDS)
    return words["high"].astype(np.uint64), words["low"].astype(np.uint64)


_WORDS = np.dtype([("high", ">u8"), ("low", ">u8")])


class FlowSource(Protocol):
    """A flow table between two ticks, as queries read it."""

    @property
    def columns(self) -> FlowColumns:
        """One element for each slot, also for slots without a flow."""

    @property
    def visible(self) -> npt.NDArray[np.bool_]:
        """Which slots hold a flow to show."""

    @property
    def tick_s(self) -> float:
        """Length of the last tick; deltas divide by it. > 0."""

    @property
    def window_10s_s(self) -> float:
        """Seconds that the 10 s sums cover. > 0."""

    @property
    def window_60s_s(self) -> float:
        """Seconds that the 60 s sums cover. > 0."""

    @property
    def now_ns(self) -> int:
        """Time of the last tick, on the clock of first_ns and last_ns."""

    @property
    def dedupes(self) -> bool:
        """Whether duplicates are looked for: then each packet is in exactly one flow that is not a duplicate."""

    @property
    def then_ns(self) -> int | None:
        """The moment that these flows are compared with, on the same clock; None: with none."""

    @property
    def unix_offset_ns(self) -> int:
        """Add it to a time on that clock to get ns since 1970 UTC."""


@dataclass(frozen=True, slots=True)
class FlowsAtRest:
    """A FlowSource made of values."""

    columns: FlowColumns
    visible: npt.NDArray[np.bool_]
    tick_s: float
    window_10s_s: float
    window_60s_s: float
    now_ns: int
    unix_offset_ns: int
    dedupes: bool
    then_ns: int | None = None


def with_columns(source: FlowSource, columns: FlowColumns, visible: npt.NDArray[np.bool_]) -> FlowsAtRest:
    """A FlowSource of other flows at the same tick."""
    return FlowsAtRest(columns, visible, source.tick_s, source.window_10s_s, source.window_60s_s, source.now_ns,
                       source.unix_offset_ns, source.dedupes, source.then_ns)


def all_visible(source: FlowSource, columns: FlowColumns, count: int) -> FlowsAtRest:
    """A FlowSource of `count` other flows at the same tick, all of them visible."""
    return with_columns(source, columns, np.ones(count, np.bool_))


INTO, OUT_OF = "in ", "out "
"""Prefixes of a summed column of groups and biflows: the sum of what came in, or went out, alone."""

PASSED_DTYPE = np.dtype([("ifindex", "u4"), *((f"{way}{name}", "u8") for name in ("octet_total", "packet_total")
                                              for way in (INTO, OUT_OF))])
"""What the flows of one interface have had since it was attached, in and out; named as those sums."""
