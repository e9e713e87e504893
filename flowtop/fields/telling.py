"""What tells rows apart beside their ends, as far as rows have shown: which columns are worth their room. No numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flowtop.model.rows import FlowRow

Fields = Callable[[FlowRow], tuple[int, ...]]


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


def _alike(rows: Iterable[FlowRow], same: Fields, other: Fields) -> bool:
    """Whether two rows are the same but for the `other` fields: in their ends, Observation Point and `same` fields."""
    found: dict[tuple[object, ...], tuple[int, ...]] = {}
    for row in rows:
        key = (row.source_address, row.destination_address, row.source_port, row.destination_port, row.protocol,
               row.ifindex, row.direction, row.kind, *same(row))
        if found.setdefault(key, other(row)) != other(row):
            return True
    return False


NOTHING = Telling()
