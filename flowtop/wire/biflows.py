"""Biflows (RFC 5103): the Flow Records of both directions of a conversation as one Data Record.

A biflow's Template is that of a direction plus reverse elements (PEN 29305) and biflowDirection; its id is that of the
direction's Template plus OFFSET. ICMP requests and their answers (echo, timestamp, address mask) are biflows, whose
source sent the requests, and whose type and code have a reverse element. Other ICMP, later fragments and aggregates are
always exported as single directions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import ICMP_ANSWERS, ICMP_VERSIONS, Kind
from flowtop.model.record import FLOW_KEY_DTYPE, RELAYED_RECORD_DTYPE, FlowRecords, chosen
from flowtop.wire import tcp_metrics
from flowtop.wire.flow_templates import (
    IPV4,
    IPV4_ICMP,
    IPV6,
    IPV6_ICMP,
    FlowTemplates,
    flow_columns,
    flow_sets,
    shape,
    template_id,
)
from flowtop.wire.ipfix import RecordSet, encode_columns
from flowtop.wire.ipfix_template import FieldSpecifier, Template, field

OFFSET = 256
REVERSED = ("flowStartMilliseconds", "flowEndMilliseconds", "octetDeltaCount", "packetDeltaCount", "flowDirection",
            "flowEndReason", "tcpControlBits", "ipClassOfService")
"""Elements of a direction that are no Flow Keys of the biflow: they stand in it for both directions. Identifiers like
flowId have no reverse elements (RFC 5103 section 6.1): it is that of the initiator's direction."""
INITIATOR, ARBITRARY = 1, 0
"""Values of biflowDirection: the source opened the conversation; the order is not known."""

_SHAPES = (IPV4, IPV6, IPV4_ICMP, IPV6_ICMP)
_TYPES = {IPV4_ICMP: "icmpTypeCodeIPv4", IPV6_ICMP: "icmpTypeCodeIPv6"}
"""Elements that have another value in the other direction, though they are Flow Keys."""
_REQUESTS = {(protocol, request << 8): answer << 8
             for protocol, answers in ICMP_ANSWERS.items() for request, answer in answers.items()}
"""By protocol and destination port (type and code) of ICMP requests: that of the answers."""

_KIND_BITS = len(tcp_metrics.SENT)
_WORDS = FLOW_KEY_DTYPE.itemsize // 8
Pairs = npt.NDArray[np.intp]


def reverse_element(name: str) -> str:
    """The name of the reverse element (RFC 5103 section 6.1)."""
    return f"reverse{name[0].upper()}{name[1:]}"


def biflow_templates(templates: FlowTemplates, *, tunnelled: bool = False) -> dict[int, Template]:
    """Templates of biflows by id.

    Args:
        tunnelled: of flows in tunnels instead of the others.
    """
    ways = templates.tunnelled if tunnelled else templates.flows
    return {id_ + OFFSET: Template(id_ + OFFSET, (*template.fields, *_reverse_fields(template)))
            for id_, template in ways.items() if shape(id_) in _SHAPES}


def _reverse_fields(template: Template) -> list[FieldSpecifier]:
    lengths = {name: specifier.length for name, specifier in template.named_fields}
    return [*(field(reverse_element(name), lengths[name]) for name in _reversed(template)), field("biflowDirection")]


def _reversed(template: Template) -> list[str]:
    """The elements of a direction's Template that have reverse elements."""
    return [*REVERSED, *(name for name in template.names if name in _TYPES.values())]


def pairs(records: FlowRecords) -> Pairs:
    """The records that are the two directions of a conversation at one Observation Point.

    Returns:
        Indexes of both, the initiator's first, shape (m, 2). Of several records of a direction, the first one belongs
        to the first one of the other direction, and so on.
    """
    none = np.zeros((0, 2), np.intp)
    some = np.flatnonzero(pairable(records))
    if len(some) < 2:
        return none
    words, turned = _conversations(records[some])
    order = np.lexsort((np.arange(len(some)), turned, *words.T))
    ordered, sides = words[order], turned[order]
    begins = np.concatenate(([True], (ordered[1:] != ordered[:-1]).any(axis=1)))
    of_side = np.concatenate(([True], begins[1:] | (sides[1:] != sides[:-1])))
    position = np.arange(len(order))
    rank = position - np.maximum.accumulate(np.where(of_side, position, 0))
    group = np.cumsum(begins)
    along = np.lexsort((sides, rank, group))
    first, second = along[:-1], along[1:]
    both = (group[first] == group[second]) & (rank[first] == rank[second])
    found: Pairs = some[np.stack((order[first[both]], order[second[both]]), axis=1)]
    swap = _second_opens(records, found)
    found[swap] = found[swap, ::-1]
    return found


def pairable(records: FlowRecords) -> npt.NDArray[np.bool_]:
    """Which records can be part of a biflow. Relayed ones cannot: their values are of one direction."""
    if records.dtype == RELAYED_RECORD_DTYPE:
        return np.zeros(len(records), np.bool_)
    icmp = _is_icmp(records)
    answered: npt.NDArray[np.bool_] = (records["kind"] == Kind.FLOW) & ~icmp
    if icmp.any():
        requests, answers = _icmp(records)
        answered |= (records["kind"] == Kind.FLOW) & (requests | (answers != 0))
    return answered


def _is_icmp(records: FlowRecords) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = np.isin(records["protocol"], list(ICMP_VERSIONS))
    return found


def _icmp(records: FlowRecords) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint16]]:
    """Which records are ICMP requests; and of answers the destination port of their requests, 0 for other records."""
    requests, answers = np.zeros(len(records), np.bool_), np.zeros(len(records), np.uint16)
    for (protocol, request), answer in _REQUESTS.items():
        mine = records["protocol"] == np.uint8(protocol)
        requests |= mine & (records["destination_port"] == np.uint16(request))
        answers[mine & (records["destination_port"] == np.uint16(answer))] = request
    return requests, answers


def pairs_first(records: FlowRecords) -> FlowRecords:
    """The records with those of `pairs` first, both of a pair together: an even part of them splits none."""
    found = pairs(records).ravel()
    single = np.ones(len(records), np.bool_)
    single[found] = False
    return chosen(records, np.concatenate((found, np.flatnonzero(single))))


def _conversations(records: FlowRecords) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """The Flow Keys without direction as words, the lower end first; and whether the ends were swapped for that.

    The destination port of ICMP is that of the request, and the source port says whether the higher end sent it.
    """
    keys = np.zeros(len(records), FLOW_KEY_DTYPE)
    for name in FLOW_KEY_DTYPE.names or ():
        keys[name] = records[name]
    keys["direction"] = 0
    icmp = _is_icmp(records)
    requested = _icmp(records)[1] if icmp.any() else np.zeros(len(keys), np.uint16)
    for end in ("source", "destination"):
        keys[f"{end}_port"][icmp] = 0
    ends = []
    for end in ("source", "destination"):
        octets = np.zeros((len(keys), 24), np.uint8)
        octets[:, :16] = np.frombuffer(keys[f"{end}_address"].tobytes(), np.uint8).reshape(-1, 16)
        octets[:, 16:18] = keys[f"{end}_port"].astype(">u2").view(np.uint8).reshape(-1, 2)
        ends.append(octets.view(">u8"))
    turned: npt.NDArray[np.bool_] = np.zeros(len(keys), np.bool_)
    equal: npt.NDArray[np.bool_] = np.ones(len(keys), np.bool_)
    for source, destination in zip(ends[0].T, ends[1].T, strict=True):
        turned |= equal & (source > destination)
        equal &= source == destination
    for name in ("address", "port"):
        source, destination = keys[f"source_{name}"].copy(), keys[f"destination_{name}"].copy()
        keys[f"source_{name}"] = np.where(turned, destination, source)
        keys[f"destination_{name}"] = np.where(turned, source, destination)
    keys["source_port"][icmp] = (turned ^ (requested != 0))[icmp]
    keys["destination_port"][icmp] = np.where(requested != 0, requested, records["destination_port"])[icmp]
    return keys.view(np.uint64).reshape(-1, _WORDS), turned


def _order(records: FlowRecords, found: Pairs) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Times of both directions that say which was first, shape (m, 2), and whether they do."""
    syn, start = records["syn_ms"][found].astype(np.int64), records["start_ms"][found].astype(np.int64)
    both_syn = (syn > 0).all(axis=1)
    times = np.where(both_syn.reshape(-1, 1), syn, start)
    icmp = _is_icmp(chosen(records, found[:, 0]))
    if icmp.any():  # the request is the initiator's, also if the answer of an earlier one was seen before it
        times[icmp] = (_icmp(records)[1] != 0)[found[icmp]]
    known: npt.NDArray[np.bool_] = times[:, 0] != times[:, 1]
    return times, known


def _second_opens(records: FlowRecords, found: Pairs) -> npt.NDArray[np.bool_]:
    """Whether the second direction is the initiator's: it was first, or if unknown, it comes from the higher port."""
    times, known = _order(records, found)
    port: npt.NDArray[np.uint16] = records["source_port"][found]
    second: npt.NDArray[np.bool_] = np.where(known, times[:, 1] < times[:, 0], port[:, 1] > port[:, 0])
    return second


def biflow_sets(records: FlowRecords, templates: FlowTemplates, measured: dict[int, Template] | None = None) -> tuple[
        list[RecordSet], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Flow Records as Sets for encode_messages: pairs as biflows, the others as they are.

    Args:
        measured: as for `flow_sets`.

    Returns the Sets; the order of the records in them as by `flow_sets`, both directions of a biflow one after the
    other; and how many records each Data Record has, 1 or 2.
    """
    found = pairs(records)
    single = np.ones(len(records), np.bool_)
    single[found.ravel()] = False
    rest = np.flatnonzero(single)
    sets, order = flow_sets(chosen(records, rest), templates, measured=measured) if len(rest) else ([], rest)
    orders, counts = [rest[order]], [np.ones(len(rest), np.intp)]
    ids = template_id(chosen(records, found[:, 0])) << _KIND_BITS
    kinds = tcp_metrics.kinds(records) if templates.profile.measured and measured is not None else None
    if kinds is not None:
        ids |= kinds[found[:, 0]] | kinds[found[:, 1]]
    for id_ in np.unique(ids).tolist():
        mine = found[ids == id_]
        way, kind = {**templates.flows, **templates.tunnelled}[id_ >> _KIND_BITS], id_ & (1 << _KIND_BITS) - 1
        sets.append(_biflow_set(records, mine, way, kind, measured))
        orders.append(mine.ravel())
        counts.append(np.full(len(mine), 2, np.intp))
    return sets, np.concatenate(orders), np.concatenate(counts)


def _biflow_set(records: FlowRecords, found: Pairs, way: Template, kind: int,
                measured: dict[int, Template] | None) -> RecordSet:
    first, second = chosen(records, found[:, 0]), chosen(records, found[:, 1])
    columns, back = flow_columns(first, way), flow_columns(second, way)
    _, known = _order(records, found)
    more: Mapping[str, npt.NDArray[np.generic]] = {reverse_element(name): back[name] for name in _reversed(way)}
    template = Template(way.id + OFFSET, (*way.fields, *_reverse_fields(way)))
    if kind and measured is not None:
        template = tcp_metrics.with_measurements(template, kind, biflow=True)
        measured.setdefault(template.id, template)
        columns |= tcp_metrics.columns(first, second)
    return encode_columns(template, {**columns, **more, "biflowDirection": np.where(
        known, np.uint8(INITIATOR), np.uint8(ARBITRARY))})
