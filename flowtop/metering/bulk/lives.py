"""Assign the entries of a batch of many steps to flows, with the same result as step by step.

The entries of a key form a chain; if the table has a flow of that key, it is the first link. Flows may end only at
certain moments, the ends of steps. If a flow would have ended at a moment between two links, its life ends there, and
the next entry begins another life. All chains are cut at once, without a loop over moments.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.metering.expiry import Timeouts
from flowtop.metering.store import I8

Bools = npt.NDArray[np.bool_]

_NEVER = (1 << 63) - 1


class Links(NamedTuple):
    """Entries and existing flows, chain by chain, in order of time; shape (n,).

    Attributes:
        begins: whether a link begins a chain.
        moment: index of the first moment after it; 0 for existing flows.
        last_ns: time of its latest packet.
        closing: whether it has FIN or RST.
    """

    begins: Bools
    moment: I8
    last_ns: I8
    closing: Bools


class Lives(NamedTuple):
    """Lives of flows.

    Attributes:
        start: index of each life's first link, shape (m,).
        owner: index of each link's life, shape (n,).
        end: index of the moment at which it ends, shape (m,); the number of moments if it continues.
        closed: whether it ends because of FIN or RST.
    """

    start: I8
    owner: I8
    end: I8
    closed: Bools


class Portion(NamedTuple):
    """Links of flows up to their next report.

    Attributes:
        lives: indexes of the flows.
        first, stop: range of links of each; may be empty.
        moment: index of the moment of the report; the number of moments if it is not in this batch.
        ends: whether the flow ends there.
    """

    lives: I8
    first: I8
    stop: I8
    moment: I8
    ends: Bools


def cut(links: Links, moments_ns: I8, timeouts: Timeouts) -> Lives:
    """Cut all chains into lives.

    Args:
        moments_ns: when flows may end, ascending.
    """
    if not len(links.begins):
        nothing = np.zeros(0, np.int64)
        return Lives(nothing, nothing, nothing, np.zeros(0, np.bool_))
    n = len(moments_ns)
    soon_ns = min(timeouts.end_ns, timeouts.idle_ns)
    following = np.append(np.where(links.begins[1:], n, links.moment[1:]), n)
    latest_ns = np.append(moments_ns, _NEVER)[following - 1]  # before the next link; unused for links at moment 0
    any_between = following > links.moment
    idle = any_between & (links.last_ns + timeouts.idle_ns <= latest_ns)
    quiet = any_between & (links.last_ns + soon_ns <= latest_ns)
    closed = _closed(links, quiet)
    over = np.where(closed, quiet, idle)
    patience_ns = np.where(closed, soon_ns, timeouts.idle_ns)
    end = np.where(over, np.maximum(np.searchsorted(moments_ns, links.last_ns + patience_ns), links.moment), n)
    starts = links.begins.copy()
    starts[1:] |= over[:-1]
    start = np.flatnonzero(starts)
    last = np.append(start[1:], len(starts)) - 1
    ends = end[last]
    by_end = closed[last] & (links.last_ns[last] + timeouts.end_ns <= np.append(moments_ns, _NEVER)[ends])
    return Lives(start, np.cumsum(starts) - 1, ends, by_end)


def _closed(links: Links, quiet: Bools) -> Bools:
    """Whether the life of each link has shown FIN or RST up to it. Loops over links, in the few chains with any.

    Args:
        quiet: links after which a life ends if it has.
    """
    closed = np.zeros(len(quiet), np.bool_)
    if not links.closing.any():
        return closed
    begin = np.flatnonzero(links.begins)
    stop = np.append(begin[1:], len(quiet))
    some = np.logical_or.reduceat(links.closing, begin)
    for first, end in zip(begin[some].tolist(), stop[some].tolist(), strict=True):
        seen = False
        for link in range(first, end):
            seen = seen or bool(links.closing[link])
            closed[link] = seen
            if seen and quiet[link]:
                seen = False
    return closed


def portions(links: Links, lives: Lives, moments_ns: I8, reported_ns: I8, active_ns: int) -> Iterator[Portion]:
    """Divide all lives into portions: up to their first report, up to the second, and so on.

    Args:
        reported_ns: time of each life's last report, or of its start.
        active_ns: time between two reports of a flow that continues.
    """
    n = len(moments_ns)
    place = lives.owner * (n + 1) + links.moment
    which = np.arange(len(lives.start))
    first, reported_ns = lives.start.copy(), reported_ns.copy()
    reported = links.moment[lives.start] - 1
    while len(which):
        due = np.maximum(np.searchsorted(moments_ns, reported_ns + active_ns), reported + 1)
        moment = np.minimum(due, lives.end[which])
        stop = np.searchsorted(place, which * (n + 1) + moment, "right")
        yield Portion(which, first, stop, moment, moment == lives.end[which])
        on = moment < lives.end[which]
        which, first, reported = which[on], stop[on], moment[on]
        reported_ns = moments_ns[reported]
