"""Round-trip times of ICMP echoes: from the first request of a flow to the reply with its identifier and number.

Flows know these of their first packet only. So there is one round-trip time for a pair of flows: if the first request
was lost, or packets of another ping came first, there is none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.metering.key_index import KeyIndex, Slots, as_words
from flowtop.metering.store import I8, FlowStore
from flowtop.metering.tcp import LARGEST_US, turned
from flowtop.model.kinds import ICMP_ECHO, Direction

_REQUEST_OF = {(protocol, reply << 8): request << 8 for protocol, (request, reply) in ICMP_ECHO.items()}
"""Destination port (type and code) of the request, by protocol and destination port of the reply."""


def note_echoes(store: FlowStore, slots: Slots, counters: npt.NDArray[np.void]) -> None:
    """Store the times of echoes that are the first packets of new flows.

    Args:
        slots: slots of the flows, each once.
        counters: FLOW_COUNTERS_DTYPE, one per slot.
    """
    some = np.flatnonzero(counters["echo"])
    if len(some):
        store.echo_ns[slots[some]] = counters["first_ns"][some].astype(np.int64) + counters["echo_after_ns"][some]


def replies(store: FlowStore, slots: Slots) -> tuple[Slots, npt.NDArray[np.void]]:
    """The flows among these that began with an echo reply, and the keys of their requests, in the same direction."""
    some = slots[store.echo_ns[slots] != 0]
    if not len(some):
        return some, store.keys[some]
    own = store.keys[some]
    back = turned(own)
    back["source_port"] = 0
    keys = zip(own["protocol"].tolist(), own["destination_port"].tolist(), strict=True)
    requests = np.array([_REQUEST_OF.get(key, -1) for key in keys])
    found = np.flatnonzero(requests >= 0)
    back["destination_port"][found] = requests[found]
    return some[found], back[found]


def round_trips(store: FlowStore, answering: Slots, asking: Slots) -> I8:
    """Round-trip times in us, at least 1; 0: these are not a request and its reply."""
    taken_ns = store.echo_ns[answering] - store.echo_ns[asking]
    same = (store.echo_ns[asking] != 0) & (taken_ns >= 0)
    for name in ("echo_identifier", "echo_sequence"):
        values = getattr(store, name)
        same &= values[answering] == values[asking]
    return np.where(same, (taken_ns // 1000).clip(1, LARGEST_US), 0)


def answer_echoes(store: FlowStore, index: KeyIndex, born: Slots) -> None:
    """Set the round-trip times of new flows that began with a reply, and of the flows with their requests."""
    answering, back = replies(store, born)
    if not len(answering):
        return
    same = _find(store, index, back)
    back["direction"] = np.where(back["direction"] == Direction.INGRESS, Direction.EGRESS, Direction.INGRESS)
    asking = np.where(same >= 0, same, _find(store, index, back))
    known = np.flatnonzero(asking >= 0)
    answering, asking = answering[known], asking[known]
    trips_us = round_trips(store, answering, asking)
    some = np.flatnonzero(trips_us)
    store.rtt_us[answering[some]] = store.rtt_us[asking[some]] = trips_us[some]


def _find(store: FlowStore, index: KeyIndex, keys: npt.NDArray[np.void]) -> Slots:
    words = as_words(keys)
    return index.find(words, index.hash(words), store.key_words)
