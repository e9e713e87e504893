"""Flow Records that wait for the drain as rows: what they count, with sampling, times and Observation Points."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from flowtop.capture.collector.announced import Found
from flowtop.capture.collector.intervals import Intervals
from flowtop.capture.collector.options import Announcements
from flowtop.capture.collector.points import ObservationPoints
from flowtop.capture.collector.sampling import Header, sampling_of
from flowtop.capture.collector.sections import collect_records
from flowtop.capture.collector.sessions import Session
from flowtop.capture.collector.sflow import SampledPackets, reported_of
from flowtop.capture.collector.totals import ReportedTotals
from flowtop.capture.collector.waiting import MessageTimes
from flowtop.model.kinds import Kind
from flowtop.model.reported import OPPOSITE, REPORTED_DTYPE, Reported, plain_address, rows_of, turned
from flowtop.model.tunnel_ports import TunnelPorts
from flowtop.wire.data_set import DataSet, join
from flowtop.wire.flow_records import Collected, CollectedRows
from flowtop.wire.ipfix import Records
from flowtop.wire.ipfix_template import Template
from flowtop.wire.owners import collect_owners, without_owners
from flowtop.wire.record_names import interface_names
from flowtop.wire.record_times import ExportTimes, counts_from_boot
from flowtop.wire.reported import Origins, collect_origins, collect_reported
from flowtop.wire.selectors import original_samplers

LARGEST_COUNT = 1 << 46
"""Records with more octets or packets than this (70 TB) are refused."""
_MOST_NAMES = 4_096
"""Limit of names of interfaces that are read from the records of one Template at once."""
_HASH = (1 << 64) - 1

Rows = tuple[Collected, Reported | None]
"""Rows and their reported values, shape (n,); None: there are none."""


@dataclass(slots=True)
class PendingSets:
    """Data Sets of one Template that wait for the drain, with the times of their messages."""

    session: Session
    domain: int
    template: Template
    header: Header
    sets: list[DataSet] = field(default_factory=list)
    times: list[MessageTimes] = field(default_factory=list)


class FlowRows:
    """Makes rows of Flow Records and of sampled packets.

    Args:
        announced: what exporters have announced in Options Data.
        points: get the interfaces.
        counts: counters of CollectingStatistics, which are added to.
        tunnel_ports: take sampled packets out of tunnels, which have these UDP ports beside the standard ones; None:
            leave them there.

    Attributes:
        totals: flows whose records have totals.
        events: number of events without traffic, by kind.
        highest_interval: the highest sampling interval that was applied.
    """

    def __init__(self, announced: Announcements, points: ObservationPoints, counts: Counter[str],
                 tunnel_ports: TunnelPorts | None = None) -> None:
        self.totals = ReportedTotals()
        self.events: Counter[str] = Counter()
        self.highest_interval = 1.0
        self._announced = announced
        self._points = points
        self._counts = counts
        self._tunnel_ports = tunnel_ports

    def of_packets(self, packets: SampledPackets, agent: str, sub_agent: int) -> Rows:
        """Rows of the packets that an sFlow agent has sampled."""
        found = packets.rows(self._tunnel_ports)
        rows, intervals = found.rows, found.intervals
        self._counts["unusable_records"] += found.unusable
        self._counts["lying_lengths"] += packets.lying
        reported = reported_of(found, self._announced.names.naming(agent, sub_agent).user)
        if (intervals > 1).any():
            self._multiply(rows, intervals)
            reported = _with_intervals(reported, intervals)
        self._number(rows, agent, sub_agent)
        return rows, reported

    def of(self, pending: PendingSets) -> Rows:
        """Rows of the Data Sets of one Template."""
        records, template = join(pending.sets), without_owners(pending.template)
        counts = [data_set.count for data_set in pending.sets]
        export_ms, boot_ms, shift_ms = np.array(pending.times, np.int64).T.repeat(counts, axis=1)
        session = pending.session
        if counts_from_boot(template):
            boot_ms = self._boot_times(session, pending.domain, boot_ms)
        initiator = self._announced.initiators.find(session, pending.domain).value
        collected = collect_records(template, records, ExportTimes(export_ms, boot_ms), initiator,
                                    self._tunnel_ports)
        rows, sources = collected.rows, collected.sources
        self._count_records(collected)
        naming = self._announced.names.naming(session.exporter, pending.domain)
        reported = collect_reported(template, records, naming)
        owners = collect_owners(pending.template, records, naming.owner)
        if owners is not None:
            rows["owner"] = owners[sources]
        if reported is not None:
            reported = np.concatenate((rows_of(reported, sources[:collected.forward]),
                                       turned(rows_of(reported, sources[collected.forward:]))))
            if collected.inner is not None:  # it is about the packet around it
                reported[collected.inner] = np.zeros((), reported.dtype)
        if collected.totals is not None:
            domain = hash((session.exporter, pending.domain)) & _HASH
            keep = self.totals.settle(rows, collected.totals, domain)
            rows, sources = rows[keep], sources[keep]
            reported = None if reported is None else rows_of(reported, np.flatnonzero(keep))
        for name in ("start_ms", "end_ms"):
            rows[name] += shift_ms[sources]
        sampling = sampling_of(template, records, pending.header,
                               self._announced.samplers.tables(session, pending.domain), session.sampling)
        self._counts["unknown_sampling"] += sampling.unknown
        self._counts["options_of_other_domain"] += sampling.other_domain
        self._counts["options_of_other_port"] += sampling.other_port
        if sampling.intervals is not None and len(rows):
            self._multiply(rows, sampling.intervals[sources])
            reported = _with_intervals(reported, sampling.intervals[sources])
        believed = (rows["octets"] < LARGEST_COUNT) & (rows["packets"] < LARGEST_COUNT)
        self._counts["unusable_records"] += int((~believed).sum())
        if not believed.all():
            rows, sources = rows[believed], sources[believed]
            reported = None if reported is None else rows_of(reported, np.flatnonzero(believed))
        origins = collect_origins(template, records)
        if origins is None:
            self._number(rows, session.exporter, pending.domain)
            self._name(rows, sources, records, pending)
        else:
            self._number_origins(rows, origins, sources, pending)
            self._restore_samplers(reported, pending)
        return rows, reported

    def _boot_times(self, session: Session, domain: int, boot_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Boot times of records, shape (n,), with what other messages say where their own do not."""
        missing = boot_ms < 0
        found = self._announced.boots.find(session, domain) if missing.any() else Found(None)
        if found.value is None:
            return boot_ms
        self._counts["options_of_other_domain"] += int(missing.sum()) * found.other_domain
        self._counts["options_of_other_port"] += int(missing.sum()) * found.other_port
        return np.where(missing, found.value, boot_ms)

    def _number_origins(self, rows: Collected, origins: Origins, sources: npt.NDArray[np.intp],
                        pending: PendingSets) -> None:
        """As `_number`, for relayed records: each has the interfaces of the exporter that reported it first."""
        places = np.zeros(len(sources), [("exporter", "V16"), ("domain", "u4"), ("interface", "u4")])
        places["exporter"] = origins.exporters[sources]
        places["domain"] = pending.domain if origins.domains is None else origins.domains[sources]
        for name in ("ifindex", "other_ifindex"):
            places["interface"] = rows[name]
            _, firsts, inverse = np.unique(places.view("S24"), return_index=True, return_inverse=True)
            numbers = [self._points.number(_address_text(raw) or pending.session.exporter, domain, interface)
                       for raw, domain, interface in places[firsts].tolist()]
            mine = np.array(numbers, np.uint32)[inverse]
            rows[name] = mine if name == "ifindex" else np.where(rows[name] != 0, mine, 0)
        rows["other_ifindex"] |= rows["opposite"] * np.uint32(OPPOSITE)

    def _restore_samplers(self, reported: Reported | None, pending: PendingSets) -> None:
        """Replace the ids that a relay of flowtop's gave to selectors by those that their exporters reported."""
        if reported is None or not reported["sampler"].any():
            return
        ids, inverse = np.unique(reported["sampler"], return_inverse=True)
        tables = self._announced.names.tables
        names = [tables.find("sampler", pending.session.exporter, pending.domain, id_).name for id_ in ids.tolist()]
        own = original_samplers(ids, names)
        if own:
            reported["sampler"] = np.array([own.get(id_, id_) for id_ in ids.tolist()], np.uint32)[inverse.reshape(-1)]

    def _name(self, rows: Collected, sources: npt.NDArray[np.intp], records: Records, pending: PendingSets) -> None:
        """Use the names of interfaces in the records; a name without a number is that of the Observation Point."""
        exporter, domain = pending.session.exporter, pending.domain
        for numbers, names, which in interface_names(pending.template, records):
            if numbers is None:
                unnumbered = rows["other_ifindex"] & ~np.uint32(OPPOSITE) == 0
                rows["ifindex"] = np.where(unnumbered, self._points.numbers_of(exporter, domain, names)[which[sources]],
                                           rows["ifindex"])
                continue
            pairs = np.unique(np.stack((numbers, which.astype(np.uint64)), axis=1), axis=0)
            for number, place in pairs[:_MOST_NAMES].tolist():
                if number and names[place]:
                    self._announced.names.tables.store("interface", exporter, domain, number, names[place])

    def _count_records(self, collected: CollectedRows) -> None:
        """Count the records that are events, that have no IP octets, or nothing at all."""
        self._counts["unusable_records"] += collected.unusable
        self._counts["transport_records"] += collected.transport_records
        self._counts["layer2_records"] += collected.layer2_records
        self.events.update(dict(collected.events))

    def _number(self, rows: Collected, exporter: str, domain: int) -> None:
        """Replace the exporter's interface numbers by synthetic ifindexes."""
        rows["ifindex"] = self._points.numbers(exporter, domain, rows["ifindex"])
        places = np.flatnonzero(rows["other_ifindex"])
        if len(places):
            rows["other_ifindex"][places] = self._points.numbers(exporter, domain, rows["other_ifindex"][places])
        if rows["opposite"].any():
            rows["other_ifindex"] |= rows["opposite"] * np.uint32(OPPOSITE)

    def _multiply(self, rows: Collected, intervals: Intervals) -> None:
        """Multiply the counters of sampled traffic by the sampling interval."""
        sampled = intervals > 1
        self.highest_interval = max(self.highest_interval, float(intervals.max()))
        self._counts["sampled_packets"] += int(rows["packets"][sampled & (rows["kind"] != np.uint8(Kind.PARENT))].sum())
        for name in ("packets", "octets"):
            product = np.minimum(np.round(rows[name] * intervals), 2.0**62).astype(np.uint64)
            rows[name] = np.where(sampled, product, rows[name])


def _with_intervals(reported: Reported | None, intervals: npt.NDArray[np.float64]) -> Reported | None:
    """The reported values with the sampling intervals that the counters were multiplied by."""
    sampled = intervals > 1
    if reported is None:
        reported = np.zeros(len(intervals), REPORTED_DTYPE)
    reported["sampling_interval"] = np.where(sampled, np.minimum(np.round(intervals), 0xFFFF_FFFF), 0)
    return reported


@lru_cache(4096)
def _address_text(raw: bytes) -> str:
    """An address of REPORTED_DTYPE; "" for none."""
    return str(ipaddress.ip_address(plain_address(raw)[0])) if any(raw) else ""
