"""Which columns fit a line, how wide and in which order: by importance, by what tells rows apart, or as arranged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from flowtop.fields.arrangement import AUTOMATIC, Arrangement
from flowtop.fields.biflows import WAYS, of_both
from flowtop.fields.columns import Column, Window, rate_column
from flowtop.fields.registry import BIFLOW_COLUMNS, COLUMNS
from flowtop.model.rows import FlowRow

_Fields = Callable[[FlowRow], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Telling:
    """What was seen so far. It only grows, so that columns do not come and go with the rows.

    Attributes:
        tunnels: flows came in tunnels.
        digits: of the longest tunnel id.
        tags: VLAN tags that a flow had at most: 0, 1 or 2.
        vlans: there were flows that differ in nothing but VLAN.
        kinds: there were flows that differ in nothing but the kind of tunnel.
    """

    tunnels: bool = False
    digits: int = 0
    tags: int = 0
    vlans: bool = False
    kinds: bool = False

    def and_of(self, rows: Iterable[FlowRow], *, tunnels: bool) -> Telling:
        """With what these rows show.

        Args:
            tunnels: some flow came in a tunnel, listed or not.
        """
        rows = [row for row in rows if not row.group]
        tags = max((2 if row.customer_vlan_id else 1 for row in rows if row.vlan_id or row.customer_vlan_id), default=0)
        tunnels = self.tunnels or tunnels
        return Telling(
            tunnels,
            max(self.digits, max((len(str(row.tunnel_id)) for row in rows if row.tunnel_id), default=0)),
            max(self.tags, tags),
            self.vlans or (tags > 0 and _alike(rows, lambda row: (row.tunnel, row.tunnel_id), _vlan)),
            self.kinds or (tunnels and _alike(rows, lambda row: (row.tunnel_id, *_vlan(row)), _tunnel)))


def _vlan(row: FlowRow) -> tuple[int, ...]:
    return row.vlan_id, row.customer_vlan_id


def _tunnel(row: FlowRow) -> tuple[int, ...]:
    return (row.tunnel,)


def _alike(rows: Iterable[FlowRow], same: _Fields, other: _Fields) -> bool:
    """Whether two rows are the same but for the `other` fields: in their ends, Observation Point and `same` fields."""
    found: dict[tuple[object, ...], tuple[int, ...]] = {}
    for row in rows:
        key = (row.source_address, row.destination_address, row.source_port, row.destination_port, row.protocol,
               row.ifindex, row.direction, row.kind, *same(row))
        if found.setdefault(key, other(row)) != other(row):
            return True
    return False


NOTHING = Telling()


def fit(width: int, window: Window = "tick", names: Iterable[str] = (), keep: str = "", gap: int = 1,
        columns: Iterable[Column] | None = None, arrangement: Arrangement = AUTOMATIC,
        telling: Telling = NOTHING) -> list[tuple[Column, int]]:
    """The columns that fit a line, in order, each with its width; flexible ones share what is left.

    Args:
        width: cells of the line, gaps between columns included.
        window: its rate column is the one that stays longest.
        names: of interfaces: their column grows to the longest while addresses keep the room they need. URLs are
            where exporters are listened to, who have columns of their own then.
        keep: id of a column that stays however narrow the line is: the sorted one.
        gap: cells between two columns.
        columns: that there are; None: those of flows.
        arrangement: what the reader chose.
        telling: what tells rows apart: VLANs and tunnel ids that do are worth more than the interface.

    Returns:
        Columns of priority 1 as long as they leave flexible ones some room; others in order of priority while they fit
        and leave source and destination room for an IPv4 address with its port, the least important ones for a
        short IPv6 one.
    """
    set_widths = dict(arrangement.widths)
    names = tuple(names)
    local = [name for name in names if "://" not in name]
    listening = len(local) < len(names)
    there = arrangement.ordered(COLUMNS.values() if columns is None else columns)
    every = [column for column in there if column.id == keep
             or (column.id not in arrangement.hidden and (listening or not column.of_exporters)
                 and (telling.tunnels or not column.of_tunnels or column.id in arrangement.shown))]
    least = _least_widths(every, telling, set_widths, local)
    flexible = [column for column in every if column.flexible and column.id not in set_widths]
    stay = {keep} | arrangement.shown
    instead = _instead_of_interface(telling, local) & {column.id for column in every}
    priorities = _priorities(every, window, stay | instead)
    if instead and "interface" not in stay and COLUMNS["interface"] in every:
        priorities["interface"] = 2
    chosen = _chosen(every, flexible, priorities, least, width, gap)
    fixed = {column.id: 0 if column in flexible else least[column.id] for column in every}
    chosen = _narrowed(chosen, width - len(flexible) * _SHORT_ENDPOINT, fixed, gap, stay, telling)
    widths = {column.id: least[column.id] for column in chosen if column not in flexible}
    left = max(0, width - sum(widths.values()) - gap * (len(chosen) - 1))
    if "interface" in widths and "interface" not in set_widths:
        left -= _grow(widths, "interface", min(max(map(len, local), default=0), _LONGEST_INTERFACE), left, flexible)
    if "exporter" in widths and "exporter" not in set_widths:
        left -= _grow(widths, "exporter", _ADDRESS, left, flexible)
    widths |= _shares(left, flexible)
    return [(column, widths[column.id]) for column in chosen]


def _least_widths(every: Sequence[Column], telling: Telling, set_widths: dict[str, int],
                  local: Sequence[str]) -> dict[str, int]:
    """Cells that each column needs, or was given by the reader."""
    least = {column.id: column.width for column in every} | _tag_widths(telling) | set_widths
    if "interface" in least and "interface" not in set_widths:
        least["interface"] = min(max(map(len, local), default=_USUAL_INTERFACE), _USUAL_INTERFACE)
        least["interface"] = max(least["interface"], COLUMNS["interface"].width)
    return least


def _narrowed(chosen: list[Column], room: int, fixed: dict[str, int], gap: int, stay: set[str] | frozenset[str],
              telling: Telling) -> list[Column]:
    """The columns that are left when they have no more than so many cells, by what each has that is not shared."""
    # The bytes of biflows stand behind three rates: their state and protocol say more. VLANs that tell no rows apart
    # say least.
    first = ("vlan",) * (not telling.vlans) + ("bytes",) * ("rate" + WAYS[0] in fixed)
    leaving = sorted(_LEAVE_WHEN_NARROW, key=lambda column_id: column_id not in first)
    for column_id in leaving:
        if sum(fixed[column.id] for column in chosen) + gap * (len(chosen) - 1) <= room:
            break
        chosen = [column for column in chosen if column.id != column_id or column.id in stay
                  or column not in (COLUMNS[column_id], BIFLOW_COLUMNS.get(column_id))]  # what groups are by stays
    return chosen


def _tag_widths(telling: Telling) -> dict[str, int]:
    """Cells of what was seen of VLANs and tunnel ids, where that is known: no more than these need."""
    widths = {"vlan": _ONE_TAG} if telling.tags == 1 else {}
    return widths | ({"vni": max(_LEAST_ID, telling.digits)} if telling.digits else {})


def _instead_of_interface(telling: Telling, local: Sequence[str]) -> set[str]:
    """Columns that tell rows apart where the interface does not."""
    found = ({"vni"} if telling.tunnels else set()) | ({"tunnel"} if telling.kinds else set())
    return found | ({"vlan"} if telling.vlans or (telling.tags > 0 and len(local) == 1) else set())


def _grow(widths: dict[str, int], column_id: str, wanted: int, left: int, flexible: Sequence[Column]) -> int:
    """Widen a column while addresses keep the room they need; gives by how much."""
    growth = max(0, min(wanted - widths[column_id], left - len(flexible) * _ENDPOINT))
    widths[column_id] += growth
    return growth


def _priorities(every: Sequence[Column], window: Window, stay: frozenset[str] | set[str]) -> dict[str, int]:
    """Of each column: 1 stays."""
    rate = rate_column(window)
    found = {column.id: 4 if of_both(column.id) == "rate" else column.priority for column in every}
    return found | dict.fromkeys(stay | {rate} | {rate + way for way in WAYS}, 1)


def _chosen(every: Sequence[Column], flexible: Sequence[Column], priorities: dict[str, int], least: dict[str, int],
            width: int, gap: int) -> list[Column]:
    """The columns there is room for, most important ones first into the room, in order."""
    found: list[str] = []
    used = -gap
    for column in sorted(every, key=lambda column: priorities[column.id]):
        priority = priorities[column.id]
        if column not in flexible:
            used += least[column.id] + gap
        endpoint = _ENDPOINT if priority < 5 else _ROOMY_ENDPOINT
        if priority > 1 and used + sum(max(endpoint, least[each.id]) + gap for each in flexible) > width:
            break
        found.append(column.id)
    return [column for column in every if column.id in found]


_LEAVE_WHEN_NARROW = ("state", "bytes", "interface", "protocol", "tunnel", "vlan", "vni")
"""What gives way first where not even addresses are legible any more."""
_ONE_TAG = len("4094")
_LEAST_ID = len("VNI")
_USUAL_INTERFACE = len("enp0s3")
_LONGEST_INTERFACE = 15
"""IFNAMSIZ, without the zero that ends it."""
_SHORT_ENDPOINT = len("198.51.100.7:443")
_ADDRESS = len("255.255.255.255")
_ENDPOINT = len("255.255.255.255:65535")
_ROOMY_ENDPOINT = len("[2001:db8:1111:2222::1]:65535")
_LONGEST_ENDPOINT = len("[2001:db8:1111:2222:3333:4444:5555:6666]:65535")


def _shares(cells: int, flexible: Sequence[Column]) -> dict[str, int]:
    """Cells of each flexible column: equal shares, the first gets an odd cell; none below its width or past use."""
    shares: dict[str, int] = {}
    for position, column in enumerate(flexible):
        share = -(-cells // (len(flexible) - position))
        shares[column.id] = min(max(share, column.width), _LONGEST_ENDPOINT)
        cells = max(0, cells - share)
    return shares
