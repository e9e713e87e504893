"""The Collecting Process without sockets: takes messages, returns FlowBatch arrays, counts what it refuses.

Input is not trusted. There are limits for sessions, Templates in total, Observation Domains per session, Observation
Points, samplers, names, Data Sets that wait for a Template, and records between two drains (`full`).
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.capture.collector.entries import CollectedEntries, MergedRows, merge_rows
from flowtop.capture.collector.interface_counters import InterfaceBook
from flowtop.capture.collector.intervals import QUANTITIES, Intervals, intervals_of
from flowtop.capture.collector.names import Names
from flowtop.capture.collector.option_names import NAME_ELEMENTS
from flowtop.capture.collector.points import ObservationPoints
from flowtop.capture.collector.sampling import (
    NO_HEADER,
    Announcement,
    Header,
    SamplerDirectory,
    sampling_of,
)
from flowtop.capture.collector.sections import collect_records
from flowtop.capture.collector.sessions import NO_BOOT, Domain, KnownSession, Session, Sessions, Verdict
from flowtop.capture.collector.sflow import SampledPackets, reported_of
from flowtop.capture.collector.templates import Place, SharedTemplates, fitting
from flowtop.capture.collector.totals import ReportedTotals
from flowtop.capture.collector.waiting import HeldSet, HeldSets, MessageTimes
from flowtop.model.exporters import CollectingStatistics
from flowtop.model.kinds import IpVersion
from flowtop.model.reported import (
    INTERFACE_NUMBERS,
    OPPOSITE,
    REPORTED_DTYPE,
    Reported,
    plain_address,
    rows_of,
    turned,
)
from flowtop.wire import ipfix, netflow9, sflow
from flowtop.wire.data_set import DataSet, UndecodedSet, decode_data_set, join
from flowtop.wire.datagrams import decode_export
from flowtop.wire.file_details import checksum_holds
from flowtop.wire.flow_records import COLLECTED_DTYPE, Collected, CollectedRows, is_own
from flowtop.wire.ipfix import Records
from flowtop.wire.ipfix_decoder import Message
from flowtop.wire.ipfix_template import FieldSpecifier, IpfixDecodeError, Template
from flowtop.wire.record_names import interface_names
from flowtop.wire.record_times import ExportTimes
from flowtop.wire.reported import Origins, collect_origins, collect_reported
from flowtop.wire.selectors import original_samplers
from flowtop.wire.structured import flattened
from flowtop.wire.template_store import TemplateStore

MAX_FIELDS = 262_144
"""Limit of Field Specifiers over all sessions; there is also a limit per session."""
MAX_PENDING = 400_000
"""Limit of records that wait for a drain."""
TEMPLATE_LIFE_S = 1_800.0
"""Lifetime of a Template over UDP: three times the usual interval of 10 min (RFC 7011 section 8.4)."""
CLOCK_TOLERANCE_MS = 120_000
"""An exporter's clock that differs by more than this is considered wrong, and its times are shifted to ours."""
LARGEST_COUNT = 1 << 46
"""Records with more octets or packets than this (70 TB) are refused."""
_COUNTING_FLOWS = (5, 6, 7)
"""Versions of NetFlow whose sequence numbers count flows; 1 has none, and 8 counts flows before aggregation."""
_WITH_RECORDS = frozenset(("length", "count", "set", "record", "withdrawn"))
"""Skipped parts of messages that may have had records, so that the next sequence number is not known."""
_SWEEP_S = 60.0
_DOMAIN = "observationDomainId"
_HASH = (1 << 64) - 1
_MAX_OPTIONS = 4_096
"""Limit of Options Data records that are read from one set."""
_MAX_CHANGES = 64
_MAX_CHANGE_COST = 65_536
"""Limits of changes of sampling between two drains that leave earlier flows as they are: their number, and the samplers
that have to be looked through again for them."""


@dataclass(slots=True)
class _Pending:
    """Data Sets of one Template that wait for the drain, with the times of their messages."""

    known: KnownSession
    domain: int
    template: Template
    header: Header
    sets: list[DataSet] = field(default_factory=list)
    times: list[MessageTimes] = field(default_factory=list)


class CollectingProcess:
    """Takes messages one by one. Not thread-safe.

    Args:
        correct_clocks: shift the times of exporters whose clock is wrong; False for files, whose times are in the past.

    Attributes:
        points, names: of the exporters.
        foreign: there were Flow Records of Templates that are not flowtop's own.
    """

    def __init__(self, correct_clocks: bool = True) -> None:
        self.points = ObservationPoints()
        self.names = Names()
        self.foreign = False
        self._correct_clocks = correct_clocks
        self._store = TemplateStore()
        self._sessions = Sessions()
        self._held = HeldSets()
        self._templates = SharedTemplates(self._store)
        self._samplers = SamplerDirectory()
        self._changes = self._change_cost = 0
        self._pending: dict[Hashable, dict[tuple[Hashable, int, int, Header], _Pending]] = {}
        self._pending_records = 0
        self._sampled: dict[tuple[Hashable, str, int], SampledPackets] = {}
        self._extra: list[tuple[Collected, Reported | None]] = []
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._events: Counter[str] = Counter()
        self._totals = ReportedTotals()
        self._skipped: Counter[str] = Counter()
        self._interval = 1.0
        self._swept_s: float | None = None
        self._interfaces = InterfaceBook()

    @property
    def full(self) -> bool:
        """Whether so many records wait that a drain is due."""
        return self._pending_records >= MAX_PENDING

    def count(self, what: str, number: int = 1) -> None:
        """Add to a counter of CollectingStatistics that is maintained by the owner of the sockets."""
        self._counts[what] += number

    def refuse(self, fault: str) -> None:
        """Count a message that could not be decoded, by kind of fault."""
        self._refused[fault] += 1

    def receive(self, octets: bytes, session: Session, now_s: float) -> bool:
        """Take one message.

        Args:
            octets: the complete message.
            session: the Transport Session it was received in.
            now_s: since 1970 UTC.

        Returns:
            False if it was refused (and counted). A TCP session has to end then (RFC 7011 section 10.2.5).
        """
        known = self._sessions.touch(session, now_s)
        if self._sessions.over_limit:
            self._evict()
        if octets[:4] == sflow.MARK and session.datagram:
            return self._receive_sflow(octets, known, now_s)
        try:
            message = self._decode(octets, session)
        except IpfixDecodeError as refusal:
            self.refuse(refusal.fault)
            return False
        whole = octets[:len(octets) - len(message.rest)] if message.rest else octets
        self._counts["wrong_checksums"] += checksum_holds(whole, message) is False
        self._take_message(message, known, now_s)
        while message.rest:  # More messages in the same datagram.
            try:
                message = self._decode(message.rest, session)
            except IpfixDecodeError:
                self._skipped["trailing"] += 1
                break
            self._take_message(message, known, now_s)
        if self._swept_s is None or now_s - self._swept_s > _SWEEP_S:
            self._sweep(now_s)
        return True

    def _decode(self, octets: bytes, session: Session) -> Message:
        return decode_export(octets, self._store, session=session.key, datagram=session.datagram, strict=False)

    def _take_message(self, message: Message, known: KnownSession, now_s: float) -> None:
        """Take a decoded message."""
        self._counts["messages"] += 1
        if message.skipped:
            self._skipped.update(dict(message.skipped))
        domain = self._sessions.domain(known, message.domain)
        for data_set in message.data_sets:  # first, as they may have the boot time
            if data_set.template.scope_count:
                self._take_options(known, message.domain, data_set)
        times = self._times(message, domain, round(now_s * 1000))
        header = NO_HEADER
        if message.sampling_interval or message.sampling_mode:
            header = Header(message.sampling_interval, message.sampling_mode > 0)
        for data_set in message.data_sets:
            if not data_set.template.scope_count:
                self._take(known, message.domain, data_set, times, header)
        for template_id in message.stale:
            self._held.drop(known.session.key, message.domain, template_id)
        if message.templates:
            self._learn(known, message, now_s)
        records = message.record_count
        complete = not message.skipped or _WITH_RECORDS.isdisjoint(part for part, _ in message.skipped)
        for waiting in message.undecoded:
            count = self._take_without_template(known, message, waiting, times, now_s)
            records, complete = records + (count or 0), complete and count is not None
        self._follow(message, domain, records, complete)

    def _receive_sflow(self, octets: bytes, known: KnownSession, now_s: float) -> bool:
        """Take one sFlow datagram. The exporter is the agent it names, even if a proxy forwarded it."""
        try:
            datagram = sflow.decode_sflow(octets)
        except IpfixDecodeError as refusal:
            self.refuse(refusal.fault)
            return False
        now_ms = round(now_s * 1000)
        domain = self._sessions.domain(known, datagram.sub_agent)
        self._judge(domain.sequence.see(datagram.sequence, 1, now_ms // 1000, now_ms - datagram.uptime_ms),
                    "lost_messages")
        for source, dropped in datagram.dropped:
            self._counts["dropped_by_exporter"] += domain.newly_dropped(source, dropped)
        self._counts["messages"] += 1
        self._counts["records"] += len(datagram.packets) + len(datagram.empty)
        self._counts["unusable_records"] += len(datagram.empty)
        self._counts["unknown_samples"] += datagram.unknown_samples
        self._counts["discarded_packets"] += len(datagram.discards)
        self._counts["counter_samples"] += len(datagram.counters)
        self._counts["short_records"] += datagram.short_records + self._interfaces.note(datagram, self.points)
        key = known.session.key, datagram.agent, datagram.sub_agent
        self._sampled.setdefault(key, SampledPackets()).add(datagram.packets, now_ms)
        self._pending_records += len(datagram.packets)
        return True

    def end(self, session: Session) -> None:
        """Remove a Transport Session that has ended, and its Templates."""
        self._forget(session)

    def drain(self) -> CollectedEntries:
        """Return the entries since the last call, see flow_entries, and add them to the points' totals."""
        merged = self.drain_all()
        return merged.keys, merged.counters, merged.other_ifindexes

    def drain_all(self) -> MergedRows:
        """The same with what else the records say."""
        rows, reported = self.take_rows()
        if len(rows):
            self.points.book(rows["ifindex"], rows["direction"], rows["packets"], rows["octets"])
        return merge_rows(rows, reported)

    def take_rows(self) -> tuple[Collected, Reported | None]:
        """Rows since the last call and their reported values, shape (n,); None: no exporter has reported any.

        They are as reported and not in the totals yet; for callers that pass them on in parts.
        """
        self._flush()
        parts, self._extra, self._pending_records = self._extra, [], 0
        rows = np.concatenate([rows for rows, _ in parts]) if parts else np.zeros(0, COLLECTED_DTYPE)
        if all(reported is None for _, reported in parts):
            return rows, None
        return rows, np.concatenate([np.zeros(len(rows), REPORTED_DTYPE) if reported is None else reported
                                     for rows, reported in parts])

    def texts(self) -> Mapping[str, Mapping[int, str]]:
        """Texts of codes: FlowBatch.texts. The content does not change: later there is a new mapping."""
        return {**self.names.texts(), INTERFACE_NUMBERS: self.points.interface_numbers()}

    def statistics(self) -> CollectingStatistics:
        """The current counters."""
        return CollectingStatistics(
            **self._counts, refused=tuple(sorted(self._refused.items())), waiting_sets=len(self._held),
            dropped_sets=self._held.dropped, exporters=len(self._sessions), sampling_interval=round(self._interval),
            names_of_other_domain=self.points.named_elsewhere, events=tuple(sorted(self._events.items())),
            unchanged_totals=self._totals.unchanged, forgotten_totals=self._totals.forgotten,
            skipped=tuple(sorted((+self._skipped).items())), interfaces=self._interfaces.rows(),
            unnamed_values=self.names.beyond)

    # ---- sessions

    def _evict(self) -> None:
        """Remove the least recently used session."""
        self._forget(self._sessions.oldest())
        self._counts["evicted_sessions"] += 1

    def _forget(self, session: Session) -> None:
        known = self._sessions.get(session.key)
        if known is not None:
            for version, domain, id_ in list(known.announced):
                self._templates.forget(known, version, domain, id_)
            if self._samplers.has(session):
                self._settle(known)
                self._samplers.forget(session)
        self._sessions.forget(session)
        self._store.forget(session.key)
        self._held.forget(session.key)

    def _sweep(self, now_s: float) -> None:
        """Remove expired Templates and Data Sets."""
        self._swept_s = now_s
        self._held.expire(now_s)
        for known in self._sessions:
            if not known.session.datagram:
                continue
            for (version, domain, id_), announced_s in list(known.announced.items()):
                if now_s - announced_s > TEMPLATE_LIFE_S:
                    self._templates.forget(known, version, domain, id_)
                    self._store.expire(known.session.key, domain, id_)

    # ---- messages

    def _follow(self, message: Message, domain: Domain, records: int, complete: bool) -> None:
        """Check the sequence number for gaps.

        Args:
            records: number of Data Records in the message.
            complete: False if there may be more, in Data Sets that wait or could not be read.
        """
        if message.version == ipfix.VERSION:
            units, name = (records if complete else None), "lost_records"
        elif message.version == netflow9.VERSION:
            units, name = 1, "lost_messages"
        else:
            complete &= message.version in _COUNTING_FLOWS
            units, name = (records if complete else None), "lost_flows"
        self._judge(domain.sequence.see(message.sequence, units, message.export_time_s, message.boot_ms), name)

    def _judge(self, verdict: Verdict, name: str) -> None:
        """Add the result of a sequence check to the counters."""
        self._counts[name] += verdict.lost
        self._counts["late_messages"] += verdict.late
        self._counts["sequence_resets"] += verdict.reset

    def _times(self, message: Message, domain: Domain, now_ms: int) -> MessageTimes:
        """Export and boot time of a message, and the correction of its exporter's clock."""
        export_ms = message.export_time_s * 1000
        boot_ms = domain.boot_ms if message.boot_ms is None else message.boot_ms
        shift_ms = now_ms - export_ms if self._correct_clocks else 0
        if abs(shift_ms) <= CLOCK_TOLERANCE_MS:
            shift_ms = 0
        self._counts["corrected_clocks"] += shift_ms != 0
        return MessageTimes(export_ms, boot_ms if boot_ms >= 0 else NO_BOOT, shift_ms)

    def _learn(self, known: KnownSession, message: Message, now_s: float) -> None:
        """Decode the Data Sets that waited for new Templates."""
        key = known.session.key
        for template in message.templates:
            for held in self._held.take((key, message.domain, template.id)):
                self._take_late(known, message.domain, template, held.octets, held.times)
            if known.session.datagram:
                self._release(self._templates.announced(known, message.version, message.domain, template.id, now_s),
                              now_s)
        self._bound_templates()

    def _bound_templates(self) -> None:
        """Remove the least recently used sessions while there are too many Field Specifiers over all."""
        while self._store.fields > MAX_FIELDS and len(self._sessions) > 1:
            self._evict()

    def _take_late(self, known: KnownSession, domain: int, template: Template, octets: bytes,
                   times: MessageTimes) -> None:
        """Take a Data Set whose Template has arrived in a later message."""
        data_set = decode_data_set(template, octets, strict=False)
        parts, unknown = self._store.complete(known.session.key, domain, data_set)
        self._skipped["record"] += bool(data_set.cut)
        self._skipped["properties"] += unknown
        for part in parts:
            self._take(known, domain, part, times, NO_HEADER)

    def _release(self, place: Place, now_s: float) -> None:
        """Decode the Data Sets of other source ports that wait for a Template that is known now."""
        template = self._templates.find(place, now_s)
        if template is None:
            return
        for key, held in self._held.take_at(place):
            known, data_set = self._sessions.get(key[0]), fitting(template, held.octets)
            if known is None or data_set is None:
                self._held.hold(key, held._replace(place=None))
                continue
            self._counts["templates_of_other_port"] += 1
            self._take(known, key[1], data_set, held.times, NO_HEADER)

    def _take_without_template(self, known: KnownSession, message: Message, waiting: UndecodedSet, times: MessageTimes,
                               now_s: float) -> int | None:
        """Take a Data Set without a Template: another port may have announced one; else it waits.

        Returns:
            The number of records; None if it waits.
        """
        key = known.session.key, message.domain, waiting.set_id
        place = template = None
        if known.session.datagram:
            place = known.session.exporter, message.version, message.domain, waiting.set_id
            template = self._templates.find(place, now_s)
        if template is not None:
            data_set, place = fitting(template, waiting.octets), None
            if data_set is not None:
                self._counts["templates_of_other_port"] += 1
                self._take(known, message.domain, data_set, times, NO_HEADER)
                return data_set.count
        self._held.hold(key, HeldSet(waiting.octets, times, now_s, place))
        return None

    def _take(self, known: KnownSession, domain: int, data_set: DataSet, times: MessageTimes, header: Header) -> None:
        """Take Data Records: Options Data are read at once, flows wait for the drain."""
        if data_set.template.scope_count:
            self._take_options(known, domain, data_set)
            return
        self._counts["records"] += data_set.count
        for part in (data_set,) if data_set.template.plain else flattened(data_set):
            self._keep(known, domain, part, times, header)

    def _keep(self, known: KnownSession, domain: int, data_set: DataSet, times: MessageTimes, header: Header) -> None:
        """Keep Flow Records for the drain."""
        group = self._pending.get(known.group)
        if group is None:
            group = self._pending[known.group] = {}
        key = known.session.key, domain, id(data_set.template), header
        pending = group.get(key)
        if pending is None:
            self.foreign = self.foreign or not is_own(data_set.template)
            pending = group[key] = _Pending(known, domain, data_set.template, header)
        pending.sets.append(data_set)
        pending.times.append(times)
        self._pending_records += data_set.count

    def _take_options(self, known: KnownSession, domain: int, data_set: DataSet) -> None:
        self._counts["options_records"] += data_set.count
        self._use_options(known, domain, data_set)
        if not data_set.template.plain:
            self._bound_templates()

    def _use_options(self, known: KnownSession, domain: int, data_set: DataSet) -> None:
        """Read sampling intervals, tables of names and the exporter's boot time."""
        place, template = self._sessions.domain(known, domain), data_set.template
        records = data_set.records[:_MAX_OPTIONS]
        self._counts["dropped_options"] += data_set.count - len(records)
        intervals = intervals_of(records)
        quantities, named = (not elements.isdisjoint(template.names) for elements in (QUANTITIES, NAME_ELEMENTS))
        samplers = intervals is not None or "selectionSequenceId" in template.names
        for number, row in enumerate(records.tolist()):
            values = {name: _number_or_octets(value, specifier)
                      for (name, specifier), value in zip(template.named_fields, row, strict=True)}
            about = values.get(_DOMAIN) if _DOMAIN in template.names[:template.scope_count] else 0
            about = about if isinstance(about, int) and about else domain
            if samplers:
                interval = None if intervals is None else float(intervals[number])
                self._announce(known, about, values, interval if interval or quantities else None)
            booted = values.get("systemInitTimeMilliseconds")
            direction = values.get("biflowDirection")
            if isinstance(direction, int):
                place.biflow_direction = direction
            if isinstance(booted, int):
                place.boot_ms = booted & 0x7FFF_FFFF_FFFF
            if named and not self.points.names.learn(*_original(values, known.session.exporter, about), values):
                self._counts["dropped_options"] += 1
        self.names.announce(known.session.exporter, domain, data_set)

    def _announce(self, known: KnownSession, domain: int, values: dict[str, Any], interval: float | None) -> None:
        """Store a sampler. Flows that were received before a change keep the interval that they were sampled with."""
        def before_change() -> None:
            self._changes += 1
            self._change_cost += self._samplers.number(known.session)
            if self._changes <= _MAX_CHANGES and self._change_cost <= _MAX_CHANGE_COST:
                self._settle(known)

        result = self._samplers.announce(known.session, domain, values, interval, before_change)
        self._counts["dropped_options"] += result is Announcement.REFUSED

    # ---- records

    def _flush(self) -> None:
        """Convert waiting Data Sets to rows, including those of sessions that have ended."""
        pending, self._pending = self._pending, {}
        self._changes = self._change_cost = 0
        self._extra += [self._rows(part) for group in pending.values() for part in group.values()]
        sampled, self._sampled = self._sampled, {}
        for (_, agent, sub_agent), packets in sampled.items():
            found = packets.rows()
            rows, intervals = found.rows, found.intervals
            self._counts["unusable_records"] += found.unusable
            self._counts["lying_lengths"] += packets.lying
            reported = reported_of(found, self.names.naming(agent, sub_agent).user)
            if (intervals > 1).any():
                self._multiply(rows, intervals)
                reported = _with_intervals(reported, intervals)
            self._number(rows, agent, sub_agent)
            self._extra.append((rows, reported))

    def _settle(self, known: KnownSession) -> None:
        """Convert waiting Data Sets of an exporter to rows, before its samplers change."""
        self._extra += [self._rows(part) for part in self._pending.pop(known.group, {}).values()]

    def _rows(self, pending: _Pending) -> tuple[Collected, Reported | None]:
        records = join(pending.sets)
        counts = [data_set.count for data_set in pending.sets]
        export_ms, boot_ms, shift_ms = np.array(pending.times, np.int64).T.repeat(counts, axis=1)
        place = self._sessions.domain(pending.known, pending.domain)
        collected = collect_records(pending.template, records, ExportTimes(export_ms, boot_ms), place.biflow_direction)
        rows, sources = collected.rows, collected.sources
        session = pending.known.session
        self._count_records(collected)
        reported = collect_reported(pending.template, records, self.names.naming(session.exporter, pending.domain))
        if reported is not None:
            reported = np.concatenate((rows_of(reported, sources[:collected.forward]),
                                       turned(rows_of(reported, sources[collected.forward:]))))
        if collected.totals is not None:
            domain = hash((session.exporter, pending.domain)) & _HASH
            keep = self._totals.settle(rows, collected.totals, domain)
            rows, sources = rows[keep], sources[keep]
            reported = None if reported is None else rows_of(reported, np.flatnonzero(keep))
        for name in ("start_ms", "end_ms"):
            rows[name] += shift_ms[sources]
        sampling = sampling_of(pending.template, records, pending.header,
                               self._samplers.tables(session, pending.domain), session.sampling)
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
        origins = collect_origins(pending.template, records)
        if origins is None:
            self._number(rows, session.exporter, pending.domain)
            self._name(rows, sources, records, pending)
        else:
            self._number_origins(rows, origins, sources, pending)
            self._restore_samplers(reported, pending)
        return rows, reported

    def _number_origins(self, rows: Collected, origins: Origins, sources: npt.NDArray[np.intp],
                        pending: _Pending) -> None:
        """As `_number`, for relayed records: each has the interfaces of the exporter that reported it first."""
        places = np.zeros(len(sources), [("exporter", "V16"), ("domain", "u4"), ("interface", "u4")])
        places["exporter"] = origins.exporters[sources]
        places["domain"] = pending.domain if origins.domains is None else origins.domains[sources]
        for name in ("ifindex", "other_ifindex"):
            places["interface"] = rows[name]
            _, firsts, inverse = np.unique(places.view("S24"), return_index=True, return_inverse=True)
            numbers = [self.points.number(_address_text(raw) or pending.known.session.exporter, domain, interface)
                       for raw, domain, interface in places[firsts].tolist()]
            mine = np.array(numbers, np.uint32)[inverse]
            rows[name] = mine if name == "ifindex" else np.where(rows[name] != 0, mine, 0)
        rows["other_ifindex"] |= rows["opposite"] * np.uint32(OPPOSITE)

    def _restore_samplers(self, reported: Reported | None, pending: _Pending) -> None:
        """Replace the ids that a relay of flowtop's gave to selectors by those that their exporters reported."""
        if reported is None or not reported["sampler"].any():
            return
        ids, inverse = np.unique(reported["sampler"], return_inverse=True)
        names = [self.points.names.find("sampler", pending.known.session.exporter, pending.domain, id_).name
                 for id_ in ids.tolist()]
        own = original_samplers(ids, names)
        if own:
            reported["sampler"] = np.array([own.get(id_, id_) for id_ in ids.tolist()], np.uint32)[inverse.reshape(-1)]

    def _name(self, rows: Collected, sources: npt.NDArray[np.intp], records: Records, pending: _Pending) -> None:
        """Use the names of interfaces in the records; a name without a number is that of the Observation Point."""
        exporter, domain = pending.known.session.exporter, pending.domain
        for numbers, names, which in interface_names(pending.template, records):
            if numbers is None:
                unnumbered = rows["other_ifindex"] & ~np.uint32(OPPOSITE) == 0
                rows["ifindex"] = np.where(unnumbered, self.points.numbers_of(exporter, domain, names)[which[sources]],
                                           rows["ifindex"])
                continue
            pairs = np.unique(np.stack((numbers, which.astype(np.uint64)), axis=1), axis=0)
            for number, place in pairs[:_MAX_OPTIONS].tolist():
                if number and names[place]:
                    self.points.names.store("interface", exporter, domain, number, names[place])

    def _count_records(self, collected: CollectedRows) -> None:
        """Count the records that are events, that have no IP octets, or nothing at all."""
        self._counts["unusable_records"] += collected.unusable
        self._counts["transport_records"] += collected.transport_records
        self._counts["layer2_records"] += collected.layer2_records
        self._events.update(dict(collected.events))

    def _number(self, rows: Collected, exporter: str, domain: int) -> None:
        """Replace the exporter's interface numbers by synthetic ifindexes."""
        rows["ifindex"] = self.points.numbers(exporter, domain, rows["ifindex"])
        places = np.flatnonzero(rows["other_ifindex"])
        if len(places):
            rows["other_ifindex"][places] = self.points.numbers(exporter, domain, rows["other_ifindex"][places])
        if rows["opposite"].any():
            rows["other_ifindex"] |= rows["opposite"] * np.uint32(OPPOSITE)

    def _multiply(self, rows: Collected, intervals: Intervals) -> None:
        """Multiply the counters of sampled traffic by the sampling interval."""
        sampled = intervals > 1
        self._interval = max(self._interval, float(intervals.max()))
        self._counts["sampled_packets"] += int(rows["packets"][sampled].sum())
        for name in ("packets", "octets"):
            product = np.minimum(np.round(rows[name] * intervals), 2.0**62).astype(np.uint64)
            rows[name] = np.where(sampled, product, rows[name])


def _number_or_octets(value: Any, specifier: FieldSpecifier) -> Any:
    """A value of Options Data; integers as int, even if the length differs from the type's (samplerId of 2 octets)."""
    if isinstance(value, bytes) and specifier.format[0] == "V" and specifier.length <= 8:
        return int.from_bytes(value, "big")
    return value


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


def _original(values: Mapping[str, Any], exporter: str, domain: int) -> tuple[str, int]:
    """Exporter and Observation Domain that a record of Options Data from a mediator is about (RFC 7119)."""
    for version in IpVersion:
        address, number = values.get(f"originalExporterIPv{version}Address"), values.get("originalObservationDomainId")
        if isinstance(address, int) and address < 1 << 32:  # Options Data have addresses of 4 octets as integers.
            address = address.to_bytes(4, "big")
        if isinstance(address, bytes) and len(address) in (4, 16) and any(address) and isinstance(number, int):
            return str(ipaddress.ip_address(address)), number
    return exporter, domain
