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
from flowtop.model.kinds import ICMP_VERSIONS
from flowtop.model.record import FlowRecords
from flowtop.model.reported import Reported
from flowtop.wire.ipfix_template import Template, field

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


# ---- sent

SENT = {"ixiaConnectionAverageRoundTripTimeUs": "rtt_us", "ntopRetransmittedInPkts": "retransmitted_delta",
        "ntopOoorderInPkts": "out_of_order_delta"}
"""Members of FLOW_RECORD_DTYPE by the element that records have where they are not 0."""
BACK = {"ntopRetransmittedInPkts": "ntopRetransmittedOutPkts", "ntopOoorderInPkts": "ntopOoorderOutPkts"}
"""Elements for the other direction of a biflow. The round-trip time is that of both."""
ELEMENTS = frozenset((*SENT, *BACK.values()))
FIRST_ID = 2_048
"""First id of Templates of flowtop's own flows with measurements: those of the flows without them, and elements."""
_OWN_IDS = 512
"""Ids of Templates without measurements; each combination of measurements has as many."""
_FIRST_OWN_ID = 256


def kinds(records: FlowRecords) -> npt.NDArray[np.intp] | None:
    """Which measurements each record has: bit i for the i-th of SENT, shape (n,); None: no record has any.

    The round-trip time of an ICMP echo is none of a connection.
    """
    found = None
    for bit, member in enumerate(SENT.values()):
        some = records[member] != 0
        if some.any():
            some &= ~np.isin(records["protocol"], list(ICMP_VERSIONS))
            found = np.zeros(len(records), np.intp) if found is None else found
            found |= some.astype(np.intp) << bit
    return found if found is not None and found.any() else None


def with_measurements(base: Template, kind: int, *, biflow: bool = False) -> Template:
    """The Template of records with these measurements.

    Args:
        base: the one of records without them.
        kind: of `kinds`, not 0.
        biflow: with the elements of both directions.
    """
    names = [name for bit, name in enumerate(SENT) if kind >> bit & 1]
    if biflow:
        names += [BACK[name] for name in names if name in BACK]
    return Template(FIRST_ID + _OWN_IDS * (kind - 1) + base.id - _FIRST_OWN_ID, (*base.fields, *map(field, names)))


def without_measurements(template: Template) -> Template:
    """The Template that was given to `with_measurements`, for one that this may have made; else the same Template."""
    if template.id < FIRST_ID or template.scope_count or template.fields[-1].enterprise not in (IXIA, NTOP):
        return template
    fields = list(template.fields)
    while fields and fields[-1].name in ELEMENTS:
        fields.pop()
    return Template(_FIRST_OWN_ID + (template.id - FIRST_ID) % _OWN_IDS, tuple(fields))


def columns(records: FlowRecords, back: FlowRecords | None = None) -> dict[str, npt.NDArray[np.generic]]:
    """All elements of measurements, each of shape (n,).

    Args:
        back: the records of the other direction, for biflows.
    """
    found: dict[str, npt.NDArray[np.generic]] = {name: records[member] for name, member in SENT.items()}
    if back is not None:
        found |= {other: back[SENT[name]] for name, other in BACK.items()}
        for name in SENT.keys() - BACK.keys():  # that of the flow itself, if there is one
            found[name] = np.where(records[SENT[name]] != 0, records[SENT[name]], back[SENT[name]])
    return found
