"""Fields of TCP connections: round-trip time, retransmissions, congestion window, times of SYN, FIN and RST.

ICMP echoes have a round-trip time too.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from flowtop.fields import cell_terms as terms
from flowtop.fields.columns import Column, plain, unfiltered
from flowtop.fields.field import Detail, Field, FilterKey, Member
from flowtop.fields.make import where_known
from flowtop.model.kinds import ICMP_VERSIONS, Direction
from flowtop.model.rows import FlowRow, FlowValues
from flowtop.text import quantities, units

_SPAN = "a time such as 5s, 500ms, 2m, 1h"
_COUNT = "a number such as 100, 10k, 1.5M"

LONG_RTT_US, BAD_RTT_US = 100_000, 300_000
MANY_RETRANSMITS, BAD_RETRANSMITS = 0.01, 0.05
"""Parts of a flow's packets."""
FEW_SEGMENTS = 3


def _member(name: str, doc: str, value: Callable[[FlowValues], int], rank: int,
            holds: type[int | datetime] = int) -> Member:
    """A JSON member that is omitted when the value is 0, which means not known."""
    return Member(name, lambda flow, _: value(flow) or None, doc, of_packets=True, both_ways=True, rank=rank,
                  holds=holds)


def _detail(text: Callable[[FlowRow], str], rank: int) -> Detail:
    return Detail("tcp", lambda row, _: text(row), optional=True, joint=" ", rank=rank)


def _counted(number: int) -> str:
    return units.count(number) if number else ""


def _rtt_detail(row: FlowRow) -> str:
    return f"rtt {' '.join(units.span(row.rtt_us).split())}" if _of_tcp(row) else ""


def _slow(row: FlowRow) -> int:
    return 3 if row.rtt_us >= BAD_RTT_US else 2 if row.rtt_us >= LONG_RTT_US else 0


def _resent(row: FlowRow) -> int:
    """By the part of the packets that were sent again; a few segments are usual."""
    if row.retransmitted < FEW_SEGMENTS:
        return 0
    part = row.retransmitted / max(row.packet_total, 1)
    return 3 if part >= BAD_RETRANSMITS else 2 if part >= MANY_RETRANSMITS else 0


def _of_tcp(flow: FlowRow | FlowValues) -> int:
    return 0 if flow.protocol in ICMP_VERSIONS else flow.rtt_us


def _of_icmp(flow: FlowRow | FlowValues) -> int:
    return flow.rtt_us if flow.protocol in ICMP_VERSIONS else 0


_RTT_COLUMN = Column(
    "rtt", "RTT", 7,
    "Round-trip time. TCP: smoothed, for flows that a local socket sends or receives; with -r from the handshake; with "
    "-l as reported. ICMP: of the first echo.",
    lambda row, _, __: units.span(row.rtt_us) if row.rtt_us else "", (plain("rtt_us"),), 10, terms.rtt_term, "right",
    descending_first=True, severity=_slow)
_RTT = Field(
    "rtt", _RTT_COLUMN.doc, column=_RTT_COLUMN, biflow_columns=(unfiltered(_RTT_COLUMN),),
    group_column=unfiltered(_RTT_COLUMN),
    key=FilterKey("rtt", "Round-trip time of TCP and ICMP echoes, where it is known; without a unit: in ms.",
                  "rtt > 50ms", "a time such as 50ms, 500us, 2s; without a unit: ms", quantities.milliseconds,
                  lambda source: where_known(source.columns["rtt_us"]) / 1e6, unit="ms"),
    members=(_member("tcpRoundTripMicroseconds",
                     "Round-trip time: smoothed, of the local socket that sends or receives the flow; with -r from SYN "
                     "to SYN-ACK; with -l as the exporter reports it.",
                     _of_tcp, 43),
             _member("icmpRoundTripMicroseconds", "Round-trip time of the flow's first ICMP echo.", _of_icmp, 900)),
    detail=_detail(_rtt_detail, 8))

_RETRANSMITS_COLUMN = Column(
    "retransmits", "RETR", 5,
    "TCP retransmissions: of the local socket so far; with -r those in the file; with -l those reported.",
    lambda row, _, __: _counted(row.retransmitted), (plain("retransmitted"),), 10,
    terms.at_least("retransmits", lambda row: row.retransmitted), "right", descending_first=True, severity=_resent)
_RETRANSMITS = Field(
    "retransmits", _RETRANSMITS_COLUMN.doc, column=_RETRANSMITS_COLUMN,
    biflow_columns=(unfiltered(_RETRANSMITS_COLUMN),), group_column=unfiltered(_RETRANSMITS_COLUMN),
    key=FilterKey("retransmits", "TCP segments retransmitted; alone: any.", "retransmits > 10", _COUNT,
                  quantities.count, lambda source: source.columns["retransmitted"], optional=True),
    members=(_member("tcpRetransmittedSegments",
                     "Segments retransmitted: by the local socket that sends, so far; with -r those in the file; with "
                     "-l those that the exporter reports.",
                     lambda flow: flow.retransmitted, 44),),
    detail=_detail(lambda row: f"retr {units.count(row.retransmitted)}"
                   if row.retransmitted or (row.congestion_window and row.direction != Direction.INGRESS) else "", 10))

_OUT_OF_ORDER_COLUMN = Column(
    "outoforder", "OOO", 5, "With -r or -l: TCP segments that arrived out of order.",
    lambda row, _, __: _counted(row.out_of_order), (plain("out_of_order"),), 11,
    terms.at_least("outoforder", lambda row: row.out_of_order), "right", descending_first=True)
_OUT_OF_ORDER = Field(
    "outoforder", _OUT_OF_ORDER_COLUMN.doc, column=_OUT_OF_ORDER_COLUMN,
    biflow_columns=(unfiltered(_OUT_OF_ORDER_COLUMN),), group_column=unfiltered(_OUT_OF_ORDER_COLUMN),
    known=("file", "collector"),
    key=FilterKey("outoforder", "TCP segments that arrived out of order (-r, -l); alone: any.", "outoforder", _COUNT,
                  quantities.count, lambda source: source.columns["out_of_order"], optional=True),
    members=(_member("tcpOutOfOrderSegments", "With -r or -l: segments that arrived out of order.",
                     lambda flow: flow.out_of_order, 45),),
    detail=_detail(lambda row: f"ooo {units.count(row.out_of_order)}" if row.out_of_order else "", 11))

_CWND_DOC = ("TCP congestion window in segments, for flows that a local socket sends or receives, or that of an sFlow "
             "agent's host.")
_CWND = Field(
    "cwnd", _CWND_DOC, known=("live", "collector"),
    column=Column("cwnd", "CWND", 5, _CWND_DOC, lambda row, _, __: _counted(row.congestion_window),
                  (plain("congestion_window"),), 11, terms.cwnd_term, "right", descending_first=True),
    key=FilterKey("cwnd", "TCP congestion window in segments, where it is known.", "cwnd < 10", _COUNT,
                  quantities.count, lambda source: where_known(source.columns["congestion_window"])),
    members=(_member("tcpCongestionWindowSegments",
                     "Congestion window of the local socket that sends or receives the flow, or of that of an sFlow "
                     "agent's host.",
                     lambda flow: flow.congestion_window, 46),),
    detail=_detail(lambda row: f"cwnd {units.count(row.congestion_window)}" if row.congestion_window else "", 9))


def _first(name: str, member: str, doc: str, at_ms: Callable[[FlowRow | FlowValues], int], rank: int) -> Field:
    """The time of the first packet with a TCP control bit."""
    return Field(
        name, doc, known=("live", "file"), members=(_member(member, doc, at_ms, rank, datetime),),
        detail=Detail(name, lambda row, formatter: formatter.at(at_ms(row)) if at_ms(row) else "", optional=True,
                      rank=12))


FIELDS = (
    _RTT, _RETRANSMITS, _OUT_OF_ORDER, _CWND,
    _first("syn", "tcpSynMilliseconds", "First packet with SYN: time since 1970 UTC.", lambda flow: flow.syn_ms, 40),
    _first("fin", "tcpFinMilliseconds", "First packet with FIN.", lambda flow: flow.fin_ms, 41),
    _first("rst", "tcpRstMilliseconds", "First packet with RST.", lambda flow: flow.rst_ms, 42),
)
