"""What tells rows apart beside their ends, as far as rows have shown: which columns are worth their room. No numpy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flowtop.view.query import FlowRow, Page


@dataclass(frozen=True, slots=True)
class Telling:
    """What was seen so far. It only grows, so that columns do not come and go with the rows.

    Attributes:
        tunnels: flows came in tunnels.
        digits: of the longest tunnel id.
        tags: VLAN tags that a flow had at most: 0, 1 or 2.
        vlans: there were flows that differ in nothing but VLAN.
    """

    tunnels: bool = False
    digits: int = 0
    tags: int = 0
    vlans: bool = False

    def and_of(self, page: Page) -> Telling:
        """With what a page shows."""
        rows = [row for row in page.rows if not row.group]
        tags = max((2 if row.customer_vlan_id else 1 for row in rows if row.vlan_id or row.customer_vlan_id), default=0)
        return Telling(
            self.tunnels or page.tunnels,
            max(self.digits, max((len(str(row.tunnel_id)) for row in rows if row.tunnel_id), default=0)),
            max(self.tags, tags), self.vlans or (tags > 0 and _alike_but_for_vlans(rows)))


def _alike_but_for_vlans(rows: Iterable[FlowRow]) -> bool:
    """Whether two rows would look the same without their VLANs."""
    vlans: dict[tuple[int | bytes, ...], tuple[int, int]] = {}
    for row in rows:
        vlan = row.vlan_id, row.customer_vlan_id
        if vlans.setdefault((row.source_address, row.destination_address, row.source_port, row.destination_port,
                             row.protocol, row.ifindex, row.direction, row.tunnel, row.tunnel_id, row.kind),
                            vlan) != vlan:
            return True
    return False


NOTHING = Telling()
