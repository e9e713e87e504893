"""Flow Records that wait for the drain as rows: what they count, with sampling, times and Observation Points."""

from __future__ import annotations

import ipaddress
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

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
from flowtop.model.kinds import Kind
from flowtop.model.reported import OPPOSITE, REPORTED_DTYPE, Reported, plain_address, rows_of, turned
from flowtop.model.tunnel_ports import TunnelPorts
from flowtop.wire.data_set import DataSet, join_as
from flowtop.wire.flow_records import Collected, CollectedRows, is_own
from flowtop.wire.ipfix import Records
from flowtop.wire.ipfix_template import FIRST_TEMPLATE_ID, FieldSpecifier, Template, specifier_of
from flowtop.wire.owners import collect_owners, without_owners
from flowtop.wire.record_counters import OLD_EVENT
from flowtop.wire.record_names import interface_names, name_fields
from flowtop.wire.record_times import ExportTimes, counts_from_boot
from flowtop.wire.reported import Origins, collect_origins, collect_reported, has_origins, is_reported, owns_names
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


class Source(NamedTuple):
    """Where Data Sets come from, and the sampling in the header of their messages."""

    session: Session
    domain: int
    header: Header


@dataclass(slots=True)
class PendingSets:
    """Data Sets of one Template that wait for the drain, in order; or of several of one shape (`shape_of`).

    Attributes:
        sets: these.
        times: three numbers for each: MessageTimes of its message.
        sources: where they come from.
        source: index of these for each.
        latest: session, Observation Domain and header of the source that was added or looked up last, and its index.
    """

    template: Template
    sets: list[DataSet] = field(default_factory=list)
    times: array[int] = field(default_factory=lambda: array("q"))
    sources: list[Source] = field(default_factory=list)
    source: list[int] = field(default_factory=list)
    latest: tuple[Session | None, int, Header | None, int] = (None, 0, None, 0)
    _places: dict[tuple[int, int, Header], int] = field(default_factory=dict)

    def has_source(self, session: Session, domain: int, header: Header) -> bool:
        """Whether a source is among them; it is the latest then."""
        place = self._places.get((id(session), domain, header))
        if place is None:
            return False
        self.latest = session, domain, header, place
        return True

    def add_source(self, session: Session, domain: int, header: Header) -> None:
        """Add a source."""
        place = self._places[id(session), domain, header] = len(self.sources)
        self.sources.append(Source(session, domain, header))
        self.latest = session, domain, header, place

    def join(self, other: PendingSets) -> None:
        """Add what waits for the same Template elsewhere."""
        first = len(self.sources)
        self.sources += other.sources
        self.source += [first + place for place in other.source]
        self.sets += other.sets
        self.times += other.times

    def split(self, kinds: Sequence[object]) -> Iterator[PendingSets]:
        """The parts that come from sources of the same kind.

        Args:
            kinds: of each source.
        """
        for kind in dict.fromkeys(kinds):
            part = PendingSets(self.template)
            places = {}
            for place, source in enumerate(self.sources):
                if kinds[place] == kind:
                    places[place] = len(part.sources)
                    part.sources.append(source)
            for number, place in enumerate(self.source):
                if place in places:
                    part.sets.append(self.sets[number])
                    part.times += self.times[3 * number:3 * number + 3]
                    part.source.append(places[place])
            yield part


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

    def of(self, pending: PendingSets) -> Rows:
        """Rows of Data Sets whose sources have one initiator; there is one source if they are not `joinable`."""
        sources_of_sets, first = pending.sources, pending.sources[0]
        template = shape_of(without_owners(pending.template))
        records = join_as(shape_of(pending.template), pending.sets)
        counts = [data_set.count for data_set in pending.sets]
        times = np.frombuffer(pending.times, np.int64).reshape(-1, 3)
        export_ms, boot_ms, shift_ms = times.T.repeat(counts, axis=1)
        origin = np.repeat(np.array(pending.source), counts)
        if counts_from_boot(template):
            boot_ms = self._boot_times(sources_of_sets, origin, boot_ms)
        collected = collect_records(template, records, ExportTimes(export_ms, boot_ms), self.initiator(first),
                                    self._tunnel_ports)
        rows, sources = collected.rows, collected.sources
        self._count_records(collected)
        session = first.session
        naming = self._announced.names.naming(session.exporter, first.domain)
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
            domain = hash((session.exporter, first.domain)) & _HASH
            keep = self.totals.settle(rows, collected.totals, domain)
            rows, sources = rows[keep], sources[keep]
            reported = None if reported is None else rows_of(reported, np.flatnonzero(keep))
        for name in ("start_ms", "end_ms"):
            rows[name] += shift_ms[sources]
        intervals = self._intervals(template, records, sources_of_sets, origin)
        if intervals is not None and len(rows):
            intervals = self._believed_intervals(intervals)
            self._multiply(rows, intervals[sources])
            reported = _with_intervals(reported, intervals[sources])
        believed = self._believed(rows, origin[sources], [each.session.exporter for each in sources_of_sets])
        if not believed.all():
            rows, sources = rows[believed], sources[believed]
            reported = None if reported is None else rows_of(reported, np.flatnonzero(believed))
        origins = collect_origins(template, records)
        if origins is None:
            self._number(rows, origin[sources], [(each.session.exporter, each.domain) for each in sources_of_sets])
            self._name(rows, sources, records, pending)
        else:
            self._number_origins(rows, origins, sources, first)
            self._restore_samplers(reported, first)
        return rows, reported

    def initiator(self, source: Source) -> int | None:
        """The biflowDirection of records that do not have it."""
        return self._announced.initiators.find(source.session, source.domain).value

    def initiators(self, pending: PendingSets) -> list[int | None]:
        """The same of each source; [] if none has announced one."""
        return [self.initiator(source) for source in pending.sources] if self._announced.initiators else []

    def _intervals(self, template: Template, records: Records, sources: Sequence[Source],
                   origin: npt.NDArray[np.intp]) -> Intervals | None:
        """The sampling interval of each record, shape (n,); None: there is no sampling.

        Args:
            origin: index into `sources` of each record, shape (n,).
        """
        if template.id < FIRST_TEMPLATE_ID:
            sampling = sampling_of_headers([(each.header, each.session.sampling) for each in sources], origin)
            self._counts["unknown_sampling"] += sampling.unknown
            return sampling.intervals
        samplers = self._announced.samplers
        groups: dict[tuple[int, float], int] = {}  # a source that has samplers, or all others of one interval
        of_source = [groups.setdefault((place if samplers.number(source.session) else -1, source.session.sampling),
                                       len(groups)) for place, source in enumerate(sources)]
        group = np.array(of_source)[origin] if len(groups) > 1 else None
        intervals: Intervals | None = None
        for number, (place, otherwise) in enumerate(groups):
            which = slice(None) if group is None else np.flatnonzero(group == number)
            tables = samplers.tables(sources[place].session, sources[place].domain) if place >= 0 else ()
            found = sampling_of(template, records[which], tables, otherwise)
            self._counts["unknown_sampling"] += found.unknown
            self._counts["options_of_other_domain"] += found.other_domain
            self._counts["options_of_other_port"] += found.other_port
            if found.intervals is not None:
                intervals = np.ones(len(records)) if intervals is None else intervals
                intervals[which] = found.intervals
        return intervals

    def _boot_times(self, sources: Sequence[Source], origin: npt.NDArray[np.intp],
                    boot_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Boot times of records, shape (n,), with what other messages say where their own do not."""
        missing = boot_ms < 0
        if not missing.any():
            return boot_ms
        boot_ms, numbers = boot_ms.copy(), np.bincount(origin[missing], minlength=len(sources))
        for place, number in enumerate(numbers.tolist()):
            found = self._announced.boots.find(sources[place].session, sources[place].domain) if number else Found(None)
            if found.value is not None:
                self._counts["options_of_other_domain"] += number * found.other_domain
                self._counts["options_of_other_port"] += number * found.other_port
                boot_ms[missing & (origin == place)] = found.value
        return boot_ms

    def _number_origins(self, rows: Collected, origins: Origins, sources: npt.NDArray[np.intp],
                        source: Source) -> None:
        """As `_number`, for relayed records: each has the interfaces of the exporter that reported it first."""
        places = np.zeros(len(sources), [("exporter", "V16"), ("domain", "u4"), ("interface", "u4")])
        places["exporter"] = origins.exporters[sources]
        places["domain"] = source.domain if origins.domains is None else origins.domains[sources]
        for name in ("ifindex", "other_ifindex"):
            places["interface"] = rows[name]
            _, firsts, inverse = np.unique(places.view("S24"), return_index=True, return_inverse=True)
            numbers = [self._points.number(_address_text(raw) or source.session.exporter, domain, interface)
                       for raw, domain, interface in places[firsts].tolist()]
            mine = np.array(numbers, np.uint32)[inverse]
            rows[name] = mine if name == "ifindex" else np.where(rows[name] != 0, mine, 0)
        rows["other_ifindex"] |= rows["opposite"] * np.uint32(OPPOSITE)

    def _restore_samplers(self, reported: Reported | None, source: Source) -> None:
        """Replace the ids that a relay of flowtop's gave to selectors by those that their exporters reported."""
        if reported is None or not reported["sampler"].any():
            return
        ids, inverse = np.unique(reported["sampler"], return_inverse=True)
        tables = self._announced.names.tables
        names = [tables.find("sampler", source.session.exporter, source.domain, id_).name for id_ in ids.tolist()]
        own = original_samplers(ids, names)
        if own:
            reported["sampler"] = np.array([own.get(id_, id_) for id_ in ids.tolist()], np.uint32)[inverse.reshape(-1)]

    def _name(self, rows: Collected, sources: npt.NDArray[np.intp], records: Records, pending: PendingSets) -> None:
        """Use the names of interfaces in the records; a name without a number is that of the Observation Point."""
        exporter, domain = pending.sources[0].session.exporter, pending.sources[0].domain
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


def shape_of(template: Template) -> Template:
    """What Templates have in common whose records are made rows together: a Template with the fields that have a part
    in that, in the lengths of their elements. It is the Template itself unless this is `joinable`, of one length, and
    of another exporter than flowtop."""
    found: Template | None = template.__dict__.get("_shape")
    if found is None:
        found = template
        if joinable(template) and template.simple and not is_own(template):
            fields = tuple(each if each.format[0] in "SV" else specifier_of(
                each.element_id, each.format[1], each.enterprise) for each in template.fields if _has_part(each))
            if fields and not any(each.described or not each.length for each in template.fields):
                found = _shape(template.id, fields)
        template.__dict__["_shape"] = found
    return found


def _has_part(specifier: FieldSpecifier) -> bool:
    """Whether rows can depend on the field: not if it is padding, or an element that is not registered."""
    if specifier.element is None and not is_reported(specifier):
        return not specifier.enterprise and specifier.element_id == OLD_EVENT
    return specifier.name != "paddingOctets"


@lru_cache(2_048)
def _shape(number: int, fields: tuple[FieldSpecifier, ...]) -> Template:
    return Template(number, fields)


@lru_cache(4096)
def _address_text(raw: bytes) -> str:
    """An address of REPORTED_DTYPE; "" for none."""
    return str(ipaddress.ip_address(plain_address(raw)[0])) if any(raw) else ""
