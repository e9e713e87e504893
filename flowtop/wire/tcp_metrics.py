"""Measurements of TCP in Flow Records: what exporters send, and what flowtop sends.

Read are:

- ntop (nProbe; in NetFlow 9 as 57472 + n): segments of the record that were retransmitted or out of order, by direction
  (IN is the direction of the flow, as for IN_PKTS), and "Network RTT/2" in ms between client and probe, and between
  probe and server: the round-trip time is twice their sum;
- Ixia: the connection's average round-trip time in us, and its retransmitted segments;
- NetObserv: timeFlowRttNs, in the enterprise that its documentation has, as it has none of its own.

Sent are Ixia's round-trip time, as it says the whole time in us, where it is not known how it is divided between client
and server; and ntop's counts. Each is only in records that have a value: 0 would say that it was measured. There is no
element for a congestion window.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from flowtop.model.elements import IXIA, NTOP
from flowtop.model.record import FlowRecords
from flowtop.model.reported import Reported

NETOBSERV = 2
_NTOP_IN_NETFLOW9 = 57_472
_RETRANSMITTED_IN, _RETRANSMITTED_OUT, _OUT_OF_ORDER_IN, _OUT_OF_ORDER_OUT, _CLIENT_MS, _SERVER_MS = (
    _NTOP_IN_NETFLOW9 + number for number in (109, 110, 111, 112, 123, 124))
_IXIA_RETRANSMITTED, _IXIA_RTT_US, _NETOBSERV_RTT_NS = (
    enterprise << 16 | number for enterprise, number in ((IXIA, 282), (IXIA, 283), (NETOBSERV, 7740)))
NUMBERS = frozenset((_RETRANSMITTED_IN, _RETRANSMITTED_OUT, _OUT_OF_ORDER_IN, _OUT_OF_ORDER_OUT, _CLIENT_MS, _SERVER_MS,
                     _IXIA_RETRANSMITTED, _IXIA_RTT_US, _NETOBSERV_RTT_NS))
"""Elements that are read, see `number`."""
_LARGEST = 0xFFFF_FFFF
_COUNTS = {"retransmitted_delta": _RETRANSMITTED_IN, "retransmitted_back": _RETRANSMITTED_OUT,
           "out_of_order_delta": _OUT_OF_ORDER_IN, "out_of_order_back": _OUT_OF_ORDER_OUT,
           "retransmitted": _IXIA_RETRANSMITTED}

U8 = npt.NDArray[np.uint64]


def number(enterprise: int, element_id: int) -> int:
    """One number for an element of these enterprises, which is the same for both forms of ntop's."""
    return element_id + _NTOP_IN_NETFLOW9 if enterprise == NTOP else enterprise << 16 | element_id


def fill_measured(found: Reported, values: Callable[[int], U8 | None]) -> None:
    """Fill in measurements of records.

    Args:
        found: MEASURED_DTYPE, shape (n,).
        values: the column of the element with a number of NUMBERS; None: it is not in the Template.
    """
    client, server = values(_CLIENT_MS), values(_SERVER_MS)
    halves = None if client is None or server is None else (client + server) * np.uint64(2_000)
    ns = values(_NETOBSERV_RTT_NS)
    for us in (halves, None if ns is None else np.where(ns > 0, np.maximum(ns // np.uint64(1_000), 1), 0),
               values(_IXIA_RTT_US)):
        if us is not None:
            found["rtt_us"] = np.where(us > 0, np.minimum(us, _LARGEST), found["rtt_us"])
    for member, element in _COUNTS.items():
        counts = values(element)
        if counts is not None:
            found[member] = np.minimum(counts, _LARGEST)


SENT = {"ixiaConnectionAverageRoundTripTimeUs": "rtt_us", "ntopRetransmittedInPkts": "retransmitted_delta",
        "ntopOoorderInPkts": "out_of_order_delta"}
"""Members of FLOW_RECORD_DTYPE by the element that records have where they are not 0."""
