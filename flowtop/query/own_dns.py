"""Which flows are the screen's own DNS questions: for names of the addresses in view. A monitor that lists what it
causes hides what it was opened for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.filters.tree import Compare, Match, Tree, leaves
from flowtop.filters.words import DESTINATION_PORT, SOURCE_PORT
from flowtop.model.flows import Array, FlowColumns, FlowSource, Slots
from flowtop.model.owners import pids_of
from flowtop.query.query import Query

_DNS = 53
_OF_OWN = frozenset({"process", "pid"})
"""Words of filters that ask for a process."""

Mask = npt.NDArray[np.bool_]


def own_dns(query: Query, source: FlowSource) -> Mask | np.bool_:
    """Which flows are DNS traffic of `query.own`, or what a resolver of this host asked for it, if the query does not
    ask for such flows."""
    if not query.own or any(_asks_for_dns(condition.tree) for condition in (query.filter, query.scope)
                            if condition is not None):
        return np.False_
    columns = source.columns
    pids = pids_of(columns["owner"])
    mine = pids == np.uint32(query.own)
    if not mine.any():
        return np.False_
    found: Mask = mine & (
        (columns["source_port"] == np.uint16(_DNS)) | (columns["destination_port"] == np.uint16(_DNS)))
    if found.any():
        found[_asked_upstream(np.flatnonzero(found), pids, source)] = True
    return found


def _asks_for_dns(tree: Tree) -> bool:
    return any(isinstance(test, Compare | Match) and (
        test.key.word in _OF_OWN or (test.key in (SOURCE_PORT, DESTINATION_PORT) and test == Compare(
            test.key, "=", _DNS))) for test in leaves(tree))


def _asked_upstream(own: Slots, pids: Array, source: FlowSource) -> Slots:
    """What a resolver asked while only this process was waiting for it, and its end of what they told each other.

    The resolver is the process at the other end of own questions, as seen on `lo`. While others wait for it too, it
    cannot be known for whom it asks: those flows stay in the list.

    Args:
        own: slots of own DNS flows.
        pids: of all flows.
    """
    columns = source.columns
    packets = np.zeros(len(pids), np.bool_)  # the same packets at both hooks of lo: one has us, the other the resolver
    heads = columns["conversation"][own]
    packets[heads[heads >= 0]] = True
    conversation = columns["conversation"]
    theirs = np.flatnonzero(packets[conversation] & (conversation >= 0) & (pids != 0) & (pids != pids[own[0]]))
    for name in ("source_port", "destination_port"):  # past ticks do not keep all heads
        theirs = theirs[columns[name][theirs] == columns[name][conversation[theirs]]]
    if not len(theirs):
        return theirs
    asks, answers = (columns[f"{end}_port"] == np.uint16(_DNS) for end in ("destination", "source"))
    at_resolver = _same_address(columns, "destination_address", asks, theirs) | _same_address(
        columns, "source_address", answers, theirs)
    upstream = np.flatnonzero(np.isin(pids, pids[theirs]) & (asks | answers) & ~at_resolver)
    clients = np.flatnonzero(at_resolver)
    ports = np.where(asks[clients], columns["source_port"][clients], columns["destination_port"][clients])
    ours = np.isin(ports, np.where(asks[own], columns["source_port"][own], columns["destination_port"][own]))
    times = columns["first_ns"][upstream]
    waits = [_waits(columns, clients[some], ports[some], asks, source.now_ns) for some in (ours, ~ours)]
    return np.concatenate((theirs, upstream[waits[0].over(times) & ~waits[1].over(times)]))


def _same_address(columns: FlowColumns, name: str, among: Mask, slots: Slots) -> Mask:
    """Which of some flows have the address that the first of these slots has there."""
    found = np.zeros(len(among), np.bool_)
    those = slots[among[slots]]
    if len(those):
        some = np.flatnonzero(among)
        found[some] = columns[name][some] == columns[name][those[0]]
    return found


class _Waits(NamedTuple):
    """Times between questions and their answers, in ns, each sorted."""

    starts: Array
    ends: Array

    def over(self, times: Array) -> Mask:
        """Which of these times are in any of them."""
        begun, over = np.searchsorted(self.starts, times, "right"), np.searchsorted(self.ends, times, "left")
        inside: Mask = begun > over
        return inside


def _waits(columns: FlowColumns, slots: Slots, ports: Array, asks: Mask, now_ns: int) -> _Waits:
    """Of each client's port: from the first question to the last answer, or till now where there is none."""
    _, which = np.unique(ports, return_inverse=True)
    count = int(which.max(initial=-1)) + 1
    starts, ends = np.full(count, now_ns, np.int64), np.zeros(count, np.int64)
    np.minimum.at(starts, which, columns["first_ns"][slots].astype(np.int64))
    answered = ~asks[slots]
    np.maximum.at(ends, which[answered], columns["last_ns"][slots[answered]].astype(np.int64))
    return _Waits(np.sort(starts), np.sort(np.where(ends, ends, now_ns)))
