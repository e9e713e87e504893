"""Which entries of a batch of many steps are of one flow: what the table would find if it met the steps one by one.

A key's entries are a chain; a flow that the table knows already stands before its key's. Between two of a chain there
are moments at which flows may end, the ends of steps: where the flow would have ended at one of them, a life is over
and the next entry begins another. All chains are cut at once, without a look at each moment.
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
    """Entries and known flows, chain by chain, in order of time; shape (n,).

    Attributes:
        begins: which begin a chain.
        moment: the first of the moments that comes after it; of a known flow 0.
        last_ns: of its latest packet.
        closing: whether it has FIN or RST.
    """

    begins: Bools
    moment: I8
    last_ns: I8
    closing: Bools


class Lives(NamedTuple):
    """Flows.

    Attributes:
        start: the link that each begins with, shape (m,).
        owner: the life of each link, shape (n,).
        end: the moment at which each ends, shape (m,); as many as there are moments: it goes on.
        closed: whether it has shown FIN or RST by then, and ends for that.
    """

    start: I8
    owner: I8
    end: I8
    closed: Bools


class Portion(NamedTuple):
    """What flows gained until something is told of them.

    Attributes:
        lives: which flows.
        first, stop: links of each, from, and up to; there may be none.
        moment: when it is told; as many as there are moments: not in this batch.
        ends: whether the flow ends there.
    """

    lives: I8
    first: I8
    stop: I8
    moment: I8
    ends: Bools


def cut(links: Links, moments_ns: I8, timeouts: Timeouts) -> Lives:
    """The lives of all chains.

    Args:
        moments_ns: when flows may end, rising.
    """
    n = len(moments_ns)
    soon_ns = min(timeouts.end_ns, timeouts.idle_ns)
    following = np.append(np.where(links.begins[1:], n, links.moment[1:]), n)
    latest_ns = np.append(moments_ns, _NEVER)[following - 1]  # before the next link; the last of none is not looked at
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
    """Whether the life that each link is of has shown FIN or RST by then: one by one, in the few chains that have any.

    Args:
        quiet: after which links a life ends if it has.
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
    """What all lives gained until they are reported for the first time, then until the second time, and so on.

    Args:
        reported_ns: when each was reported last, or began.
        active_ns: after how long one that goes on is reported again.
    """
    n = len(moments_ns)
    place = lives.owner * (n + 1) + links.moment
    which = np.arange(len(lives.start))
    first, reported_ns = lives.start.copy(), reported_ns.copy()
    told = links.moment[lives.start] - 1
    while len(which):
        due = np.maximum(np.searchsorted(moments_ns, reported_ns + active_ns), told + 1)
        moment = np.minimum(due, lives.end[which])
        stop = np.searchsorted(place, which * (n + 1) + moment, "right")
        yield Portion(which, first, stop, moment, moment == lives.end[which])
        on = moment < lives.end[which]
        which, first, told = which[on], stop[on], moment[on]
        reported_ns = moments_ns[told]
