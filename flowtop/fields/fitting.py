"""Which columns fit a line, their widths and order: by priority, by what distinguishes the rows, or as arranged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from flowtop.fields.arrangement import AUTOMATIC, Arrangement
from flowtop.fields.biflows import WAYS, both_ways, of_both
from flowtop.fields.columns import Column, Window, Wording, rate_column
from flowtop.fields.registry import BIFLOW_COLUMNS, COLUMNS
from flowtop.model.rows import FlowRow
from flowtop.text.lookups import Lookups

_Fields = Callable[[FlowRow], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Distinctions:
    """What distinguishes the rows seen so far. Values only grow, so that columns do not come and go with the rows.

    Attributes:
        tunnels: there were flows in tunnels.
        digits: number of digits of the longest tunnel id.
        tags: largest number of VLAN tags of a flow: 0, 1 or 2.
        vlans: there were flows that differ only in VLAN.
        kinds: there were flows that differ only in the kind of tunnel.
        reported: ids of columns of exporters' reports (Column.of_reports) that had a value.
        interfaces: there were flows at more than one interface.
        filled: ids of columns that had a text in some row; None: it is not known which.
        endpoint: cells of the longest source or destination, as far as that decides anything; 0: not known.
        process: those of the longest name of a process, likewise.
    """

    tunnels: bool = False
    digits: int = 0
    tags: int = 0
    vlans: bool = False
    kinds: bool = False
    reported: frozenset[str] = frozenset()
    interfaces: bool = False
    filled: frozenset[str] | None = None
    endpoint: int = 0
    process: int = 0

    def with_texts(self, rows: Sequence[FlowRow], columns: Iterable[Column], wording: Wording,
                   lookups: Lookups) -> Distinctions:
        """A new value that includes which columns have texts in the first of these rows, and how long endpoints are."""
        if not rows:
            return self
        known, columns = self.filled or frozenset(), tuple(columns)
        longest = self.endpoint
        if longest < _USUAL_ENDPOINT:
            longest = max(longest, max((len(column.text(row, wording, lookups)) for column in columns
                                        if column.flexible for row in rows[:_LOOKED_AT]), default=0))
        process = self.process
        if process < _USUAL_PROCESS:
            process = max(process, max((len(column.text(row, wording, lookups)) for column in columns
                                        if column.id == "process" for row in rows[:_LOOKED_AT]), default=0))
        found = {column.id for column in columns if column.id not in known
                 and any(column.text(row, wording, lookups).strip() for row in rows[:_LOOKED_AT])}
        if found <= known and self.filled is not None and (longest, process) == (self.endpoint, self.process):
            return self
        return replace(self, filled=known | found, endpoint=longest, process=min(process, _USUAL_PROCESS))

    def with_rows(self, rows: Iterable[FlowRow], *, tunnels: bool) -> Distinctions:
        """A new value that includes these rows.

        Args:
            tunnels: some flow was in a tunnel, listed or not.
        """
        rows = [row for row in rows if not row.group]
        tags = max((2 if row.customer_vlan_id else 1 for row in rows if row.vlan_id or row.customer_vlan_id), default=0)
        tunnels = self.tunnels or tunnels
        return Distinctions(
            tunnels,
            max(self.digits, max((len(str(row.tunnel_id)) for row in rows if row.tunnel_id), default=0)),
            max(self.tags, tags),
            self.vlans or (tags > 0 and _alike(rows, lambda row: (row.tunnel, row.tunnel_id), _vlan)),
            self.kinds or (tunnels and _alike(rows, lambda row: (row.tunnel_id, *_vlan(row)), _tunnel)),
            self.reported | _reported(rows, self.reported),
            self.interfaces or len({row.ifindex for row in rows}) > 1,
            self.filled, self.endpoint, self.process)


def _reported(rows: Sequence[FlowRow], known: frozenset[str]) -> frozenset[str]:
    """The ids of columns of exporters' reports for which a row has a value, without the known ones."""
    ids = [column.id for column in COLUMNS.values() if column.of_reports and column.id not in known]
    ids = [column_id for column_id in ids if rows and column_id in rows[0].more]
    return frozenset(column_id for column_id in ids if any(row.more.get(column_id) not in _NOTHING for row in rows))


_LOOKED_AT = 40
"""Rows that tell which columns are empty."""
_NOTHING = (0, None, bytes(16))
"""Values of exporters' reports that are none: numbers, and addresses."""


def _vlan(row: FlowRow) -> tuple[int, ...]:
    return row.vlan_id, row.customer_vlan_id


def _tunnel(row: FlowRow) -> tuple[int, ...]:
    return (row.tunnel,)


def _alike(rows: Iterable[FlowRow], same: _Fields, other: _Fields) -> bool:
    """Whether two rows with the same endpoints, Observation Point and `same` fields differ in the `other` fields."""
    seen: dict[tuple[object, ...], tuple[int, ...]] = {}
    for row in rows:
        key = (row.source_address, row.destination_address, row.source_port, row.destination_port, row.protocol,
               row.ifindex, row.direction, row.kind, *same(row))
        if seen.setdefault(key, other(row)) != other(row):
            return True
    return False


NO_DISTINCTIONS = Distinctions()


def fit(width: int, window: Window = "tick", names: Iterable[str] = (), keep: str = "", gap: int = 1,
        columns: Iterable[Column] | None = None, arrangement: Arrangement = AUTOMATIC,
        distinctions: Distinctions = NO_DISTINCTIONS,
        needed: frozenset[str] = frozenset()) -> list[tuple[Column, int]]:
    """The columns that fit a line, in order, each with its width. Flexible columns share the cells that are left.

    Args:
        width: of the line in cells, including gaps between columns.
        window: its rate column is the last rate column to be left out.
        names: names of interfaces: their column grows to the longest one as long as addresses have enough room. Names
            that are URLs mean that flows come from exporters, and the columns of exporters are shown.
        keep: id of a column that is always shown: the sorted one.
        gap: cells between two columns.
        columns: the columns to choose from; None: those of flows.
        arrangement: the user's choices.
        distinctions: what distinguishes the rows: VLANs and tunnel ids that do take precedence over the interface.
            Columns without any text make room for the others.
        needed: ids of columns that are always shown too, where there are such: those filtered by.

    Returns:
        Columns of priority 1, unless flexible columns become too narrow; then others in order of priority while they
        fit and leave source and destination room for an IPv4 address with port, or, for columns of low priority, for a
        short IPv6 address with port.
    """
    set_widths = dict(arrangement.widths)
    names = tuple(names)
    local = [name for name in names if "://" not in name]
    listening = len(local) < len(names)
    ordered = arrangement.ordered(COLUMNS.values() if columns is None else columns)
    if not {COLUMNS.get("process"), BIFLOW_COLUMNS.get("process")} & set(ordered):  # of groups it is one among others
        distinctions = replace(distinctions, reported=distinctions.reported - {"process"})
    there = needed | {keep}
    every = [column for column in ordered if column.id in there
             or (column.id not in arrangement.hidden and not _empty(column, distinctions, arrangement)
                 and (listening or not column.of_exporters)
                 and (distinctions.tunnels or not column.of_tunnels or column.id in arrangement.shown)
                 and (not column.of_reports or column.id in distinctions.reported or column.id in arrangement.shown)
                 and (not column.on_request or column.id in arrangement.shown))]
    least = _least_widths(every, distinctions, set_widths, local)
    flexible = [column for column in every if column.flexible and column.id not in set_widths]
    stay = there | arrangement.shown
    instead = _instead_of_interface(distinctions, local) & {column.id for column in every}
    priorities = _priorities(every, window, stay | instead)
    if instead and "interface" not in stay and COLUMNS["interface"] in every and not distinctions.interfaces:
        priorities["interface"] = 2
    if distinctions.tags and "vlan" in priorities:
        priorities["vlan"] = min(priorities["vlan"], 2)
    if "process" in distinctions.reported and "process" in priorities:
        priorities["process"] = 1
    whole = {column.id: _USUAL_PROCESS for column in every if column.id == "process" and column.id not in set_widths}
    chosen = _chosen(every, flexible, priorities, least | whole, width, gap)  # others come when it is not cut
    fixed = {column.id: 0 if column in flexible else least[column.id] for column in every}
    if "process" in distinctions.reported:  # who it is matters more than these, but not more than how much it is
        usual = min(_USUAL_ENDPOINT, distinctions.endpoint or _USUAL_ENDPOINT)  # no more than these rows need
        if "process" in fixed and "process" not in set_widths:  # whole, where something else can give way
            names_whole = {"process": max(least["process"], min(distinctions.process, _USUAL_PROCESS))}
            others = _narrowed(chosen, width - len(flexible) * usual, fixed | names_whole, gap, stay, distinctions,
                               (*_leave_for_process(distinctions, fixed), "protocol"))
            if _taken(others, fixed | names_whole, gap) <= width - len(flexible) * usual:
                chosen, least, fixed = others, least | names_whole, fixed | names_whole
        chosen = _narrowed(chosen, width - len(flexible) * usual, fixed, gap, stay, distinctions,
                           _leave_for_process(distinctions, fixed))
    short = min(_SHORT_ENDPOINT, distinctions.endpoint or _SHORT_ENDPOINT)
    chosen = _narrowed(chosen, width - len(flexible) * short, fixed, gap, stay, distinctions)
    widths = {column.id: least[column.id] for column in chosen if column not in flexible}
    left = max(0, width - sum(widths.values()) - gap * (len(chosen) - 1))
    if "interface" in widths and "interface" not in set_widths:
        left -= _grow(widths, "interface", min(max(map(len, local), default=0), _LONGEST_INTERFACE), left, flexible)
    if "exporter" in widths and "exporter" not in set_widths:
        left -= _grow(widths, "exporter", _ADDRESS, left, flexible)
    for column in chosen:
        if column.of_addresses and column.id not in set_widths:
            left -= _grow(widths, column.id, _ADDRESS, left, flexible)
    for column in chosen:
        if column.longest and column.id in widths and column.id not in set_widths:
            left -= _grow(widths, column.id, column.longest, left, flexible)
    widths |= _shares(left, flexible)
    return [(column, widths[column.id]) for column in chosen]


def _empty(column: Column, distinctions: Distinctions, arrangement: Arrangement) -> bool:
    """No row had a text there, nor in the column of the other way, and nothing asks for the column."""
    return (distinctions.filled is not None and distinctions.filled.isdisjoint(both_ways(column.id))
            and column.priority > 1 and column.id not in arrangement.shown)


def _least_widths(every: Sequence[Column], distinctions: Distinctions, set_widths: dict[str, int],
                  local: Sequence[str]) -> dict[str, int]:
    """Minimum width of each column in cells, or the width that the user set."""
    least = {column.id: column.width for column in every} | _tag_widths(distinctions) | set_widths
    if "interface" in least and "interface" not in set_widths:
        least["interface"] = min(max(map(len, local), default=_USUAL_INTERFACE), _USUAL_INTERFACE)
        least["interface"] = max(least["interface"], COLUMNS["interface"].width)
    return least


def _narrowed(chosen: list[Column], room: int, fixed: dict[str, int], gap: int, stay: set[str] | frozenset[str],
              distinctions: Distinctions, leave: Sequence[str] = ()) -> list[Column]:
    """The columns that remain after leaving out enough for the widths in `fixed` and the gaps to fit `room` cells."""
    # Biflows show three rates, so their bytes are less useful than state and protocol. VLANs and an interface that
    # distinguish no rows are the least useful, and the rates of each way where one asks what changed.
    first = (("vlan",) * (not distinctions.vlans) + ("bytes",) * ("rate" + WAYS[0] in fixed)
             + ("interface",) * (not distinctions.interfaces and "process" in distinctions.reported))
    narrow = (*_LEAVE_WHEN_NARROW, *(("rate" + way for way in WAYS) if "change" in stay else ()))
    leaving = sorted(leave or narrow, key=lambda column_id: column_id not in first)
    ways = {"rate" + way for way in WAYS}
    for column_id in leaving:
        if _taken(chosen, fixed, gap) <= room:
            break
        leaves = ways if column_id in ways else {column_id}  # not one way alone
        chosen = [column for column in chosen if column.id not in leaves or column.id in stay  # those of groups stay
                  or column not in (COLUMNS.get(column.id), BIFLOW_COLUMNS.get(column.id))]
    return chosen


def _taken(chosen: Sequence[Column], fixed: Mapping[str, int], gap: int) -> int:
    """Cells of these columns and the gaps between them, without those of flexible ones."""
    return sum(fixed[column.id] for column in chosen) + gap * (len(chosen) - 1)


def _leave_for_process(distinctions: Distinctions, fixed: dict[str, int]) -> tuple[str, ...]:
    """Columns that give way to who it is: an interface that is the same in all rows, the state, and bytes where the
    rates in and out say how much it is."""
    alike = () if distinctions.interfaces else ("interface",)
    return (*alike, "state", *(("bytes",) if "rate" + WAYS[0] in fixed else ()))


def _tag_widths(distinctions: Distinctions) -> dict[str, int]:
    """Widths of the columns of VLANs and tunnel ids, where the longest value seen is known."""
    widths = {"vlan": _ONE_TAG} if distinctions.tags == 1 else {}
    return widths | ({"vni": max(_LEAST_ID, distinctions.digits)} if distinctions.digits else {})


def _instead_of_interface(distinctions: Distinctions, local: Sequence[str]) -> set[str]:
    """Columns that distinguish rows better than the interface."""
    ids = ({"vni"} if distinctions.tunnels else set()) | ({"tunnel"} if distinctions.kinds else set())
    return ids | ({"vlan"} if distinctions.vlans or (distinctions.tags > 0 and len(local) == 1) else set())


def _grow(widths: dict[str, int], column_id: str, target: int, left: int, flexible: Sequence[Column]) -> int:
    """Widen a column up to `target` cells if addresses keep enough room; return by how many cells."""
    growth = max(0, min(target - widths[column_id], left - len(flexible) * _ENDPOINT))
    widths[column_id] += growth
    return growth


def _priorities(every: Sequence[Column], window: Window, stay: frozenset[str] | set[str]) -> dict[str, int]:
    """Priority of each column by id; 1: always shown."""
    rate = rate_column(window)
    priorities = {column.id: column.priority if column.ranked else 1 if of_both(column.id) == rate else 4 if of_both(
        column.id) == "rate" else column.priority for column in every}
    return priorities | dict.fromkeys(stay, 1)


def _chosen(every: Sequence[Column], flexible: Sequence[Column], priorities: dict[str, int], least: dict[str, int],
            width: int, gap: int) -> list[Column]:
    """The columns that fit, chosen by priority, in their order on screen."""
    chosen: list[str] = []
    used = -gap
    for column in sorted(every, key=lambda column: priorities[column.id]):
        priority = priorities[column.id]
        if column not in flexible:
            used += least[column.id] + gap
        endpoint = _ENDPOINT if priority < 5 else _ROOMY_ENDPOINT
        if priority > 1 and used + sum(max(endpoint, least[each.id]) + gap for each in flexible) > width:
            break
        chosen.append(column.id)
    return [column for column in every if column.id in chosen]


_LEAVE_WHEN_NARROW = ("state", "process", "bytes", "interface", "protocol", "tunnel", "vlan", "vni")
"""Columns to leave out, first to last, when addresses would become illegible."""
_ONE_TAG = len("4094")
_LEAST_ID = len("VNI")
_USUAL_INTERFACE = len("enp0s3")
_USUAL_PROCESS = 10
_LONGEST_INTERFACE = 15
"""IFNAMSIZ without the terminating zero."""
_USUAL_ENDPOINT = len("198.51.100.7:51514")
_LEAST_ENDPOINT = 7
_SHORT_ENDPOINT = len("198.51.100.7:443")
_ADDRESS = len("255.255.255.255")
_ENDPOINT = len("255.255.255.255:65535")
_ROOMY_ENDPOINT = len("[2001:db8:1111:2222::1]:65535")
_LONGEST_ENDPOINT = len("[2001:db8:1111:2222:3333:4444:5555:6666]:65535")


def _shares(cells: int, flexible: Sequence[Column]) -> dict[str, int]:
    """Width of each flexible column: equal shares, the odd cell goes to the first; at most that of the longest
    endpoint. Where there is little room it is less than the column's width: what is cut then has a mark."""
    shares: dict[str, int] = {}
    for position, column in enumerate(flexible):
        share = -(-cells // (len(flexible) - position))
        shares[column.id] = min(max(share, min(_LEAST_ENDPOINT, column.width)), _LONGEST_ENDPOINT)
        cells = max(0, cells - share)
    return shares
