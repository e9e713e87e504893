"""Later fragments get the ports of their packet's first fragment (join_fragment in bpf/flow.bpf.c)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets.frames import Integers
from flowtop.capture.packets.internet import FIRST_FRAGMENT, LATER_FRAGMENT, NO_FRAGMENT, PARSED_IP, Packets
from flowtop.model.kinds import Kind

LIFE_NS = 30_000_000_000
"""How long a first fragment is used: identifications are reused."""
KEPT = 8192
"""Limit of first fragments kept between calls."""

_WHOLE = np.dtype([("source", "V16"), ("destination", "V16"), ("id", "u4"), ("protocol", "u1"), ("version", "u1"),
                   ("pad", "V2")])
_FRAGMENT = np.dtype([("whole", _WHOLE), ("time_ns", "i8"), ("source_port", "u2"), ("destination_port", "u2"),
                      ("protocol", "u1"), ("first", "?")])


class FragmentJoiner:
    """Joins the fragments of one file, in its order."""

    def __init__(self) -> None:
        self._firsts = np.zeros(0, _FRAGMENT)

    def join(self, packets: Packets) -> npt.NDArray[np.bool_]:
        """Write ports and protocol into the keys of later fragments, or Kind.FRAGMENT if they are unknown.

        Returns:
            Which packets are later fragments whose first was not seen, shape (n,).
        """
        unjoined = np.zeros(len(packets.keys), np.bool_)
        rows = np.flatnonzero((packets.fragment != NO_FRAGMENT) & (packets.outcome == PARSED_IP))
        if not len(rows):
            return unjoined
        seen = np.concatenate((self._firsts, _fragments(packets, rows)))
        order, group_start = _by_whole(seen["whole"])
        position = np.arange(len(seen))
        first = np.maximum.accumulate(np.where(seen["first"][order], position, -1))
        known = first >= group_start
        lender = order[np.maximum(first, 0)]
        known &= seen["time_ns"][order] - seen["time_ns"][lender] < LIFE_NS
        lender_of = np.empty(len(seen), np.int64)
        lender_of[order] = np.where(known, lender, -1)
        self._lend(packets, rows, seen, lender_of[len(self._firsts):], unjoined)
        self._remember(seen, order, group_start)
        return unjoined

    @staticmethod
    def _lend(packets: Packets, rows: Integers, seen: npt.NDArray[np.void], lender: Integers,
              unjoined: npt.NDArray[np.bool_]) -> None:
        later = packets.fragment[rows] == LATER_FRAGMENT
        joined = later & (lender >= 0)
        for name in ("source_port", "destination_port", "protocol"):
            packets.keys[name][rows[joined]] = seen[name][lender[joined]]
        alone = rows[later & (lender < 0)]
        packets.keys["kind"][alone] = Kind.FRAGMENT
        unjoined[alone] = True

    def _remember(self, seen: npt.NDArray[np.void], order: Integers, group_start: Integers) -> None:
        """Keep the most recent first fragment of each packet, at most KEPT."""
        firsts = np.flatnonzero(seen["first"][order])
        last_of_group = np.append(group_start[firsts][1:] != group_start[firsts][:-1], True)[:len(firsts)]
        self._firsts = seen[np.sort(order[firsts[last_of_group]])[-KEPT:]]


def _fragments(packets: Packets, rows: Integers) -> npt.NDArray[np.void]:
    fragments = np.zeros(len(rows), _FRAGMENT)
    keys = packets.keys[rows]
    whole = fragments["whole"]
    for name, values in (("source", keys["source_address"]), ("destination", keys["destination_address"]),
                         ("id", packets.fragment_id[rows]), ("protocol", packets.fragment_protocol[rows]),
                         ("version", keys["ip_version"])):
        whole[name] = values
    for name in ("source_port", "destination_port", "protocol"):
        fragments[name] = keys[name]
    fragments["time_ns"] = packets.time_ns[rows]
    fragments["first"] = packets.fragment[rows] == FIRST_FRAGMENT
    return fragments


def _by_whole(wholes: npt.NDArray[np.void]) -> tuple[Integers, Integers]:
    """Return an order that groups fragments by packet, in order of arrival, and the start of each one's group."""
    words = np.ascontiguousarray(wholes).view(np.uint64).reshape(-1, _WHOLE.itemsize // 8)
    order = np.lexsort(words.T)
    ordered = words[order]
    begins = np.concatenate(([True], (ordered[1:] != ordered[:-1]).any(axis=1)))
    return order, np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
