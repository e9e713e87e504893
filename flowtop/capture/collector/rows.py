"""Flow Records that wait for the drain as rows: what they count, with sampling, times and Observation Points."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from flowtop.capture.collector.announced import Found
from flowtop.capture.collector.credit import Credit
from flowtop.capture.collector.intervals import Intervals
from flowtop.capture.collector.options import Announcements
from flowtop.capture.collector.points import ObservationPoints
from flowtop.capture.collector.sampling import Header, sampling_of, sampling_of_headers
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
from flowtop.wire.ipfix_template import FIRST_TEMPLATE_ID, Template
from flowtop.wire.owners import collect_owners, without_owners
from flowtop.wire.record_names import interface_names, name_fields
from flowtop.wire.record_times import ExportTimes, counts_from_boot
from flowtop.wire.reported import Origins, collect_origins, collect_reported, has_origins, owns_names
from flowtop.wire.selectors import original_samplers

_SMALL = 1 << 36
"""Traffic of a second that is not looked at by exporter."""
LARGEST_COUNT = 1 << 46
"""Records with more octets or packets than this (70 TB) are refused."""
HIGHEST_INTERVAL = 1 << 24
"""Higher sampling intervals are not believed, as nobody samples so: such a record is multiplied by nothing."""
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
        credit: how much more traffic is believed.
    """

    def __init__(self, announced: Announcements, points: ObservationPoints, counts: Counter[str],
                 tunnel_ports: TunnelPorts | None = None) -> None:
        self.totals = ReportedTotals()
        self.events: Counter[str] = Counter()
        self.highest_interval = 1.0
        self.credit = Credit()
        self._announced = announced
        self._points = points
        self._counts = counts
        self._tunnel_ports = tunnel_ports

    def of_packets(self, packets: SampledPackets, agents: Sequence[tuple[str, int]]) -> Rows:
        """Rows of the packets that sFlow agents have sampled.

        Args:
            agents: address and sub-agent by the packets' origin.
        """
        found = packets.rows(self._tunnel_ports)
        rows, intervals = found.rows, found.intervals
        self._counts["unusable_records"] += found.unusable
        self._counts["lying_lengths"] += packets.lying
        reported = reported_of(found, self._announced.names.naming("", 0).user)
        if (intervals > 1).any():
            intervals = self._believed_intervals(intervals)
            self._multiply(rows, intervals)
            reported = _with_intervals(reported, intervals)
        believed = self._believed(rows, found.origins, [agent for agent, _ in agents])
        if not believed.all():
            reported = None if reported is None else rows_of(reported, np.flatnonzero(believed))
            rows = rows[believed]
        self._number(rows, found.origins[believed], agents)
        return rows, reported

    def of(self, pending: Sequence[PendingSets]) -> Rows:
        """Rows of the Data Sets of one Template, and of several origins if the Template is `joinable`.

        Args:
            pending: with the same Template and initiator; those of exporters without samplers first.
        """
        first = pending[0]
        template = without_owners(first.template)
        records = join([data_set for each in pending for data_set in each.sets])
        counts = [data_set.count for each in pending for data_set in each.sets]
        times = np.array([time for each in pending for time in each.times], np.int64)
        export_ms, boot_ms, shift_ms = times.T.repeat(counts, axis=1)
        ends = np.cumsum([sum(data_set.count for data_set in each.sets) for each in pending])
        origin = np.repeat(np.arange(len(pending)), np.diff(ends, prepend=0))
        if counts_from_boot(template):
            boot_ms = self._boot_times(pending, origin, boot_ms)
        collected = collect_records(template, records, ExportTimes(export_ms, boot_ms), self.initiator(first),
                                    self._tunnel_ports)
        rows, sources = collected.rows, collected.sources
        self._count_records(collected)
        session = first.session
        naming = self._announced.names.naming(session.exporter, first.domain)
        reported = collect_reported(template, records, naming)
        owners = collect_owners(first.template, records, naming.owner)
        if owners is not None:
            rows["owner"] = owners[sources]
        if reported is not None:
            reported = np.concatenate((rows_of(reported, sources[:collected.forward]),
                                       turned(rows_of(reported, sources[collected.forward:]))))
            if collected.inner is not None:  # it is about the packet around it
                reported[collected.inner] = np.zeros((), reported.dtype)
        if collected.totals is not None:
            domain = hash((session.exporter, first.domain)) & _HASH
            keep = self.totals.settle(rows, collected.totals, domain)
            rows, sources = rows[keep], sources[keep]
            reported = None if reported is None else rows_of(reported, np.flatnonzero(keep))
        for name in ("start_ms", "end_ms"):
            rows[name] += shift_ms[sources]
        intervals = self._intervals(template, records, pending, ends)
        if intervals is not None and len(rows):
            intervals = self._believed_intervals(intervals)
            self._multiply(rows, intervals[sources])
            reported = _with_intervals(reported, intervals[sources])
        believed = self._believed(rows, origin[sources], [each.session.exporter for each in pending])
        if not believed.all():
            rows, sources = rows[believed], sources[believed]
            reported = None if reported is None else rows_of(reported, np.flatnonzero(believed))
        origins = collect_origins(template, records)
        if origins is None:
            self._number(rows, origin[sources], [(each.session.exporter, each.domain) for each in pending])
            self._name(rows, sources, records, first)
        else:
            self._number_origins(rows, origins, sources, first)
            self._restore_samplers(reported, first)
        return rows, reported

    def initiator(self, pending: PendingSets) -> int | None:
        """The biflowDirection of records that do not have it."""
        return self._announced.initiators.find(pending.session, pending.domain).value

    def _intervals(self, template: Template, records: Records, pending: Sequence[PendingSets],
                   ends: npt.NDArray[np.int64]) -> Intervals | None:
        """The sampling interval of each record, shape (n,); None: there is no sampling."""
        if template.id < FIRST_TEMPLATE_ID:
            sampling = sampling_of_headers([(each.header, each.session.sampling) for each in pending],
                                           np.diff(ends, prepend=0))
            self._counts["unknown_sampling"] += sampling.unknown
            return sampling.intervals
        samplers = self._announced.samplers
        parts, start, at = [], 0, 0
        while at < len(pending):
            first, beyond = pending[at], at + 1
            alone = samplers.number(first.session) > 0
            tables = samplers.tables(first.session, first.domain) if alone else ()
            while not alone and beyond < len(pending) and not samplers.number(pending[beyond].session) and (
                    pending[beyond].session.sampling == first.session.sampling):
                beyond += 1
            end = int(ends[beyond - 1])
            found = sampling_of(template, records[start:end], tables, first.session.sampling)
            self._counts["unknown_sampling"] += found.unknown
            self._counts["options_of_other_domain"] += found.other_domain
            self._counts["options_of_other_port"] += found.other_port
            parts.append((end - start, found.intervals))
            start, at = end, beyond
        if all(intervals is None for _, intervals in parts):
            return None
        return np.concatenate([np.ones(count) if intervals is None else intervals for count, intervals in parts])

    def _boot_times(self, pending: Sequence[PendingSets], origin: npt.NDArray[np.intp],
                    boot_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Boot times of records, shape (n,), with what other messages say where their own do not."""
        missing = boot_ms < 0
        if not missing.any():
            return boot_ms
        boot_ms, numbers = boot_ms.copy(), np.bincount(origin[missing], minlength=len(pending))
        for place, number in enumerate(numbers.tolist()):
            found = self._announced.boots.find(pending[place].session, pending[place].domain) if number else Found(None)
            if found.value is not None:
                self._counts["options_of_other_domain"] += number * found.other_domain
                self._counts["options_of_other_port"] += number * found.other_port
                boot_ms[missing & (origin == place)] = found.value
        return boot_ms

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

    def _number(self, rows: Collected, origin: npt.NDArray[np.intp] | npt.NDArray[np.int64],
                origins: Sequence[tuple[str, int]]) -> None:
        """Replace the exporters' interface numbers by synthetic ifindexes.

        Args:
            origin: index into `origins` of each row, shape (n,).
            origins: exporters and Observation Domains.
        """
        rows["ifindex"] = self._points.numbers(origins, origin, rows["ifindex"])
        places = np.flatnonzero(rows["other_ifindex"])
        if len(places):
            rows["other_ifindex"][places] = self._points.numbers(origins, origin[places], rows["other_ifindex"][places])
        if rows["opposite"].any():
            rows["other_ifindex"] |= rows["opposite"] * np.uint32(OPPOSITE)

    def _believed_intervals(self, intervals: Intervals) -> Intervals:
        """The sampling intervals; 1 for those that are too high, which are counted."""
        high = intervals > HIGHEST_INTERVAL
        self._counts["unknown_sampling"] += int(high.sum())
        return np.where(high, 1.0, intervals) if high.any() else intervals

    def _believed(self, rows: Collected, origin: npt.NDArray[np.integer], exporters: Sequence[str],
                  ) -> npt.NDArray[np.bool_]:
        """Which rows are not larger than can be, each and together, shape (n,); others are counted.

        Args:
            origin: index into `exporters` of each row, shape (n,).
        """
        believed: npt.NDArray[np.bool_] = (rows["octets"] < LARGEST_COUNT) & (rows["packets"] < LARGEST_COUNT)
        self._counts["unusable_records"] += int((~believed).sum())
        largest = np.where(believed, np.maximum(rows["octets"], rows["packets"]), np.uint64(0)).astype(np.float64)
        together = np.bincount(origin, largest, len(exporters))
        if together.max(initial=0) < _SMALL and self.credit.admit("", int(together.sum())):
            return believed
        refused = np.array([not self.credit.admit(exporter, int(amount))
                            for exporter, amount in zip(exporters, together.tolist(), strict=True)])
        if refused.any():
            self._counts["implausible_records"] += int((believed & refused[origin]).sum())
            believed &= ~refused[origin]
        return believed

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


def joinable(template: Template) -> bool:
    """Whether records of this Template may be made rows together, whoever sent them: nothing in them depends on it."""
    found: bool | None = template.__dict__.get("_joinable")
    if found is None:
        found = not (owns_names(template) or name_fields(template) or has_origins(template)
                     or without_owners(template) is not template or any("Total" in name for name in template.names))
        template.__dict__["_joinable"] = found
    return found


@lru_cache(4096)
def _address_text(raw: bytes) -> str:
    """An address of REPORTED_DTYPE; "" for none."""
    return str(ipaddress.ip_address(plain_address(raw)[0])) if any(raw) else ""
