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
from flowtop.capture.collector.names import Names
from flowtop.capture.collector.points import ObservationPoints
from flowtop.capture.collector.sessions import NO_BOOT, Domain, KnownSession, Session, Sessions, Verdict
from flowtop.capture.collector.sflow import SampledPackets
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
from flowtop.wire import ipfix, netflow5, sflow
from flowtop.wire.data_set import DataSet, decode_data_set, join
from flowtop.wire.datagrams import decode_export
from flowtop.wire.flow_records import COLLECTED_DTYPE, Collected, ExportTimes, collect_rows, is_own
from flowtop.wire.ipfix_decoder import Message
from flowtop.wire.ipfix_template import FieldSpecifier, IpfixDecodeError, Template
from flowtop.wire.reported import Origins, collect_origins, collect_reported
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
_SWEEP_S = 60.0
_MAX_OPTIONS = 4_096
"""Limit of Options Data records that are read from one set."""


@dataclass(slots=True)
class _Pending:
    """Data Sets of one Template that wait for the drain, with the times of their messages."""

    known: KnownSession
    domain: int
    template: Template
    header_interval: int
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
        self._pending: dict[tuple[Hashable, int, int, int], _Pending] = {}
        self._pending_records = 0
        self._sampled: dict[tuple[Hashable, str, int], SampledPackets] = {}
        self._extra: list[tuple[Collected, Reported | None]] = []
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._interval = 1.0
        self._swept_s: float | None = None

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
        known = self._sessions.touch(session)
        if self._sessions.over_limit:
            self._evict()
        if octets[:4] == sflow.MARK and session.datagram:
            return self._receive_sflow(octets, known, now_s)
        try:
            message = decode_export(octets, self._store, session=session.key, datagram=session.datagram)
        except IpfixDecodeError as refusal:
            self.refuse(refusal.fault)
            return False
        self._counts["messages"] += 1
        domain = self._sessions.domain(known, message.domain)
        self._follow(message, domain)
        times = self._times(message, domain, round(now_s * 1000))
        for data_set in message.data_sets:
            self._take(known, message.domain, data_set, times, message.sampling_interval)
        if message.templates:
            self._learn(known, message, now_s)
        for waiting in message.undecoded:
            self._held.hold((session.key, message.domain, waiting.set_id),
                            HeldSet(waiting.octets, times, now_s))
        if self._swept_s is None or now_s - self._swept_s > _SWEEP_S:
            self._sweep(now_s)
        return True

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
        self._counts["records"] += len(datagram.packets)
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
        """The same with the reported values of each entry."""
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
            unnamed_values=self.names.beyond)

    # ---- sessions

    def _evict(self) -> None:
        """Remove the least recently used session."""
        self._forget(self._sessions.oldest())
        self._counts["evicted_sessions"] += 1

    def _forget(self, session: Session) -> None:
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
            for (domain, id_), announced_s in list(known.announced.items()):
                if now_s - announced_s > TEMPLATE_LIFE_S:
                    del known.announced[domain, id_]
                    self._store.expire(known.session.key, domain, id_)

    # ---- messages

    def _follow(self, message: Message, domain: Domain) -> None:
        """Check the sequence number for gaps."""
        if message.version == ipfix.VERSION:
            units, name = (None if message.undecoded else message.record_count), "lost_records"
        elif message.version == netflow5.VERSION:
            units, name = message.record_count, "lost_flows"
        else:
            units, name = 1, "lost_messages"
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
            if known.session.datagram:
                known.announced[message.domain, template.id] = now_s
            for held in self._held.take((key, message.domain, template.id)):
                try:
                    data_set = decode_data_set(template, held.octets)
                except IpfixDecodeError as refusal:
                    self.refuse(refusal.fault)
                    continue
                self._take(known, message.domain, data_set, held.times, 0)
        while self._store.fields > MAX_FIELDS and len(self._sessions) > 1:
            self._evict()

    def _take(self, known: KnownSession, domain: int, data_set: DataSet, times: MessageTimes,
              header_interval: int) -> None:
        """Take Data Records: Options Data are read at once, flows wait for the drain."""
        if data_set.template.scope_count:
            self._counts["options_records"] += data_set.count
            self._use_options(known, domain, data_set)
            return
        self._counts["records"] += data_set.count
        key = known.session.key, domain, id(data_set.template), header_interval
        pending = self._pending.get(key)
        if pending is None:
            self.foreign = self.foreign or not is_own(data_set.template)
            pending = self._pending[key] = _Pending(known, domain, data_set.template, header_interval)
        pending.sets.append(data_set)
        pending.times.append(times)
        self._pending_records += data_set.count

    def _use_options(self, known: KnownSession, domain: int, data_set: DataSet) -> None:
        """Read sampling intervals, interface names and the exporter's boot time."""
        place = self._sessions.domain(known, domain)
        names = data_set.template.names
        for row in data_set.records[:_MAX_OPTIONS].tolist():
            values = {name: _number_or_octets(value, specifier)
                      for (name, specifier), value in zip(data_set.template.named_fields, row, strict=True)}
            place.samplers.announce(values)
            booted = values.get("systemInitTimeMilliseconds")
            if isinstance(booted, int):
                place.boot_ms = booted & 0x7FFF_FFFF_FFFF
            if "interfaceName" in names or "interfaceDescription" in names:
                self._name_interface(*_original(values, known.session.exporter, domain), values)
        self.names.announce(known.session.exporter, domain, data_set)

    def _name_interface(self, exporter: str, domain: int, values: dict[str, object]) -> None:
        for number_name in ("ingressInterface", "egressInterface", "ingressPhysicalInterface"):
            number = values.get(number_name)
            text = values.get("interfaceName") or values.get("interfaceDescription")
            if isinstance(number, int) and isinstance(text, bytes):
                name = text.rstrip(b"\0").decode("utf-8", "replace").strip()[:64]
                if name:
                    self.points.name(exporter, domain, number, name)
                return

    # ---- records

    def _flush(self) -> None:
        """Convert waiting Data Sets to rows, including those of sessions that have ended."""
        pending, self._pending = self._pending, {}
        self._extra += [self._rows(part) for part in pending.values()]
        sampled, self._sampled = self._sampled, {}
        for (_, agent, sub_agent), packets in sampled.items():
            rows, intervals, unusable = packets.rows()
            self._counts["unusable_records"] += unusable
            if len(rows):
                self._multiply(rows, intervals)
            self._number(rows, agent, sub_agent)
            self._extra.append((rows, _with_intervals(None, intervals) if len(rows) else None))

    def _rows(self, pending: _Pending) -> tuple[Collected, Reported | None]:
        records = join(pending.sets)
        counts = [data_set.count for data_set in pending.sets]
        export_ms, boot_ms, shift_ms = np.array(pending.times, np.int64).T.repeat(counts, axis=1)
        collected = collect_rows(pending.template, records, ExportTimes(export_ms, boot_ms))
        rows, sources = collected.rows, collected.sources
        naming = self.names.naming(pending.known.session.exporter, pending.domain)
        reported = collect_reported(pending.template, records, naming)
        if reported is not None:
            reported = np.concatenate((rows_of(reported, sources[:collected.forward]),
                                       turned(rows_of(reported, sources[collected.forward:]))))
        for name in ("start_ms", "end_ms"):
            rows[name] += shift_ms[sources]
        samplers = self._sessions.domain(pending.known, pending.domain).samplers
        intervals = samplers.intervals(records, pending.header_interval)
        if intervals is not None and len(rows):
            self._multiply(rows, intervals[sources])
            reported = _with_intervals(reported, intervals[sources])
        believed = (rows["octets"] < LARGEST_COUNT) & (rows["packets"] < LARGEST_COUNT)
        self._counts["unusable_records"] += collected.unusable + int((~believed).sum())
        if not believed.all():
            rows, sources = rows[believed], sources[believed]
            reported = None if reported is None else rows_of(reported, np.flatnonzero(believed))
        origins = collect_origins(pending.template, records)
        if origins is None:
            self._number(rows, pending.known.session.exporter, pending.domain)
        else:
            self._number_origins(rows, origins, sources, pending)
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

    def _number(self, rows: Collected, exporter: str, domain: int) -> None:
        """Replace the exporter's interface numbers by synthetic ifindexes."""
        rows["ifindex"] = self.points.numbers(exporter, domain, rows["ifindex"])
        places = np.flatnonzero(rows["other_ifindex"])
        if len(places):
            rows["other_ifindex"][places] = self.points.numbers(exporter, domain, rows["other_ifindex"][places])
        if rows["opposite"].any():
            rows["other_ifindex"] |= rows["opposite"] * np.uint32(OPPOSITE)

    def _multiply(self, rows: Collected, intervals: npt.NDArray[np.float64]) -> None:
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
