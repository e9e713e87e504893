"""The Collecting Process without sockets: takes messages, returns FlowBatch arrays, counts what it refuses.

Input is not trusted. There are limits for whatever is kept of exporters, in all and of one (sessions.py, shares.py);
for what is new and costs more than a record (budgets.py); for how much traffic is believed (credit.py); and for records
between two drains (`full`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping

import numpy as np

from flowtop.capture.collector.budgets import NEWS, Budgets
from flowtop.capture.collector.entries import CollectedEntries, MergedRows, merge_rows
from flowtop.capture.collector.interface_counters import InterfaceBook
from flowtop.capture.collector.options import Announcements
from flowtop.capture.collector.points import MAX_NEW, MAX_POINTS, ObservationPoints
from flowtop.capture.collector.rows import FlowRows, PendingSets, Rows, joinable, shape_of
from flowtop.capture.collector.sampling import NO_HEADER, Header
from flowtop.capture.collector.sequences import EXPECTED, Sequences, Verdict
from flowtop.capture.collector.sessions import MAX_AGENTS, NO_BOOT, KnownSession, Session, Sessions
from flowtop.capture.collector.sflow import SampledPackets
from flowtop.capture.collector.templates import Place, SharedTemplates, fitting
from flowtop.capture.collector.waiting import HeldSet, HeldSets, MessageTimes
from flowtop.capture.collector.work import (
    A_LAYOUT,
    FEW_SETS,
    LIMITS,
    domain_of,
    excess,
    excess_of_lists,
    is_dense,
    steps_of,
)
from flowtop.model.exporters import CollectingStatistics
from flowtop.model.reported import INTERFACE_NUMBERS, REPORTED_DTYPE, in_a_row
from flowtop.model.tunnel_ports import TunnelPorts
from flowtop.wire import ipfix, netflow9, sflow
from flowtop.wire.data_set import DataSet, UndecodedSet, decode_data_set
from flowtop.wire.datagrams import decode_export
from flowtop.wire.file_details import checksum_holds
from flowtop.wire.flow_records import COLLECTED_DTYPE, is_own
from flowtop.wire.ipfix_decoder import Message
from flowtop.wire.ipfix_template import FIRST_TEMPLATE_ID, IpfixDecodeError, Template
from flowtop.wire.structured import flattened
from flowtop.wire.template_store import TemplateStore

MAX_FIELDS = 262_144
"""Limit of Field Specifiers over all sessions, a Template counting as some; there are also limits per session."""
MAX_TEMPLATES = 4_096
"""Limit of Templates per session."""
MAX_PENDING = 400_000
"""Limit of records that wait for a drain."""
MAX_LAYOUTS, MAX_ALL_LAYOUTS = 128, 2_048
"""Limits of Templates whose records wait for a drain: per exporter, and of all. No exporter uses as many at a time."""
FREE_LAYOUTS = 64
"""So many of one exporter cost it nothing; for more there is a budget (work.py)."""
TEMPLATE_LIFE_S = 1_800.0
"""Lifetime of a Template over UDP: three times the usual interval of 10 min (RFC 7011 section 8.4)."""
CLOCK_TOLERANCE_MS = 120_000
"""An exporter's clock that differs by more than this is considered wrong, and its times are shifted to ours."""
_COUNTING_FLOWS = (5, 6, 7)
"""Versions of NetFlow whose sequence numbers count flows; 1 has none, and 8 counts flows before aggregation."""
_WITH_RECORDS = frozenset(("length", "count", "set", "record", "withdrawn"))
"""Skipped parts of messages that may have had records, so that the next sequence number is not known."""
_SWEEP_S = 60.0
_NEWS = 16
"""So many records of Options Data in one Set count as one thing that is new: tables are sent at once, and large."""
_SWEPT = 4
"""So many Templates and sessions are looked at with each message."""


class CollectingProcess:
    """Takes messages one by one. Not thread-safe.

    Args:
        correct_clocks: shift the times of exporters whose clock is wrong; False for files, whose times are in the past.
        tunnel_ports: take sampled packets out of tunnels, which have these UDP ports beside the standard ones; None:
            leave them there.

    Attributes:
        points, names: of the exporters.
        foreign: there were Flow Records of Templates that are not flowtop's own.
    """

    def __init__(self, correct_clocks: bool = True, tunnel_ports: TunnelPorts | None = None) -> None:
        self._counts: Counter[str] = Counter()
        self._announced = Announcements(self._counts)
        self.names = self._announced.names
        self.points = ObservationPoints(self.names.tables, MAX_NEW if correct_clocks else MAX_POINTS)
        self._records = FlowRows(self._announced, self.points, self._counts, tunnel_ports)
        self.foreign = False
        self._correct_clocks = correct_clocks
        self._store = TemplateStore(max_templates=MAX_TEMPLATES)
        self._sessions = Sessions()
        self._sequences = Sequences()
        self._held = HeldSets()
        self._templates = SharedTemplates(self._store)
        self._pending: dict[Hashable, dict[Hashable, PendingSets]] = {}
        self._pending_records = 0
        self._sampled = SampledPackets()
        self._agents: dict[tuple[str, int], int] = {}
        self._layouts: dict[Hashable, set[int]] = {}
        self._layout_count = 0
        self._extra: list[Rows] = []
        self._refused: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._sweep_s = -math.inf
        self._due: list[Hashable] = []
        self._budgets = Budgets(NEWS)
        self._work = Budgets(LIMITS)
        self._now_s: float | None = None
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
        new = self._sessions.get(session.key) is None
        if self._correct_clocks:  # not a file
            self._now_s = now_s
            spent = bool(self._budgets.low) and session.datagram and self._budgets.is_spent(
                session.exporter, self._sessions.is_stranger(session.exporter), now_s)
            if spent and (new or _announces(octets)):
                self.refuse("bound")
                return False
            if self._work.low and session.datagram and self._is_too_much(octets, session, now_s):
                self.refuse("bound")
                return False
            self._store.closed = self._sequences.closed = spent
            if new:
                self._spend(session, 1)
        known = self._sessions.touch(session, now_s)
        if new and (surplus := self._sessions.surplus(known)) is not None:
            self._forget(surplus)
            self._counts["evicted_sessions"] += 1
        if octets[:4] == sflow.MARK and session.datagram:
            return self._receive_sflow(octets, known, now_s)
        try:
            message = decode_export(octets, self._store, session=session.key, datagram=session.datagram, strict=False)
        except IpfixDecodeError as refusal:
            self.refuse(refusal.fault)
            return False
        if self._take_message(message, known, now_s, len(octets) - len(message.rest)):
            whole = octets[:len(octets) - len(message.rest)] if message.rest else octets
            self._counts["wrong_checksums"] += checksum_holds(whole, message) is False
        while rest := message.rest:  # More messages in the same datagram.
            try:
                message = decode_export(rest, self._store, session=session.key, datagram=session.datagram,
                                        strict=False)
            except IpfixDecodeError:
                self._skipped["trailing"] += 1
                break
            self._take_message(message, known, now_s, len(rest) - len(message.rest), further=True)
        if self._due or now_s >= self._sweep_s:
            self._sweep(now_s)
        return True

    def _spend(self, session: Session, number: int) -> None:
        """Count so much that is new against what a sender may bring about."""
        if number and self._now_s is not None and session.datagram:
            self._budgets.spend(session.exporter, self._sessions.is_stranger(session.exporter), self._now_s, number)

    def _is_too_much(self, octets: bytes, session: Session, now_s: float) -> bool:
        """Whether a message is more work than its sender may bring about now."""
        return self._work.is_spent(session.exporter, self._sessions.is_stranger(session.exporter), now_s) and is_dense(
            octets, self._store.domain(session.key, domain_of(octets)))

    def _spend_work(self, session: Session, steps: int) -> None:
        """Count the work of a message that is not free."""
        if steps and self._now_s is not None and session.datagram:
            self._work.spend(session.exporter, self._sessions.is_stranger(session.exporter), self._now_s, steps)

    def _take_message(self, message: Message, known: KnownSession, now_s: float, octets: int, further: bool = False,
                      ) -> bool:
        """Take a decoded message of so many octets; returns whether there are Options Data in it.

        Args:
            further: it is not the first one of its datagram.
        """
        self._counts["messages"] += 1
        if message.skipped:
            self._skipped.update(dict(message.skipped))
        records, options = 0, False
        much = further or len(message.data_sets) > FEW_SETS or message.skipped or message.undecoded or message.templates
        for data_set in message.data_sets:  # first, as they may have the boot time
            records += data_set.count
            template = data_set.template
            if template.scope_count:
                options = True
                self._take_options(known, message.domain, data_set)
            elif steps_of(template):
                much = True
        if much or options:
            self._spend_work(known.session, excess(message, octets, further))
        times = self._times(message, known.session, round(now_s * 1000))
        header = NO_HEADER
        if message.sampling_interval or message.sampling_mode:
            header = Header(message.sampling_interval, message.sampling_mode > 0)
        for data_set in message.data_sets:
            if not data_set.template.scope_count:
                if data_set.template.plain:
                    self._keep(known, message.domain, data_set, times, header)
                else:
                    self._take_flows(known, message.domain, data_set, times, header)
        for template_id in message.stale:
            self._held.drop(known.session.key, message.domain, template_id)
        if message.templates:
            self._learn(known, message, times.boot_ms, now_s)
        complete = not message.skipped or _WITH_RECORDS.isdisjoint(part for part, _ in message.skipped)
        for waiting in message.undecoded:
            count = self._take_without_template(known, message, waiting, times, now_s)
            records, complete = records + (count or 0), complete and count is not None
        self._follow(message, known.session, records, complete)
        return options

    def _receive_sflow(self, octets: bytes, known: KnownSession, now_s: float) -> bool:
        """Take one sFlow datagram. The exporter is the agent it names, even if a proxy forwarded it."""
        named = octets[:sflow.agent_octets(octets)]
        if named not in known.agent_names:
            if self._store.closed:
                self.refuse("bound")
                return False
            self._spend(known.session, 1)
            if len(known.agent_names) >= MAX_AGENTS:
                known.agent_names.clear()
            known.agent_names.add(named)
        try:
            datagram = sflow.decode_sflow(octets)
        except IpfixDecodeError as refusal:
            self.refuse(refusal.fault)
            return False
        now_ms = round(now_s * 1000)
        place = datagram.agent, datagram.sub_agent  # a proxy has the agents of others in one session
        agent = self._sessions.agent(known, *place)
        self._judge(self._sequences.see(known.session, sflow.VERSION, place, datagram.sequence, 1, now_ms // 1000,
                                        now_ms - datagram.uptime_ms), "lost_messages", known.session)
        for source, dropped in datagram.dropped:
            self._counts["dropped_by_exporter"] += agent.newly_dropped(source, dropped)
        self._counts["messages"] += 1
        self._counts["records"] += len(datagram.packets) + len(datagram.empty)
        self._counts["unusable_records"] += len(datagram.empty)
        self._counts["unknown_samples"] += datagram.unknown_samples
        self._counts["discarded_packets"] += len(datagram.discards)
        self._counts["counter_samples"] += len(datagram.counters)
        self._counts["short_records"] += datagram.short_records + self._interfaces.note(datagram, self.points)
        if datagram.packets:
            self._sampled.add(datagram.packets, now_ms, self._agents.setdefault(place, len(self._agents)))
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
            self.points.book(rows)
        return merge_rows(rows, reported)

    def take_rows(self) -> Rows:
        """Rows since the last call and their reported values, shape (n,); None: no exporter has reported any.

        They are as reported and not in the totals yet; for callers that pass them on in parts.
        """
        self._flush()
        parts, self._extra, self._pending_records = self._extra, [], 0
        rows = np.concatenate([rows for rows, _ in parts]) if parts else np.zeros(0, COLLECTED_DTYPE)
        if all(reported is None for _, reported in parts):
            return rows, None
        return rows, in_a_row([np.zeros(len(rows), REPORTED_DTYPE) if reported is None else reported
                               for rows, reported in parts])

    def texts(self) -> Mapping[str, Mapping[int, str]]:
        """Texts of codes: FlowBatch.texts. The content does not change: later there is a new mapping."""
        return {**self.names.texts(), INTERFACE_NUMBERS: self.points.interface_numbers()}

    def statistics(self) -> CollectingStatistics:
        """The current counters."""
        return CollectingStatistics(
            **self._counts, refused=tuple(sorted(self._refused.items())), waiting_sets=len(self._held),
            dropped_sets=self._held.dropped, exporters=len(self._sessions), evicted_state=self._evicted_state(),
            sampling_interval=round(self._records.highest_interval),
            names_of_other_domain=self.points.named_elsewhere, events=tuple(sorted(self._records.events.items())),
            unchanged_totals=self._records.totals.unchanged, forgotten_totals=self._records.totals.forgotten,
            skipped=tuple(sorted((+self._skipped).items())), interfaces=self._interfaces.rows())

    def _evicted_state(self) -> int:
        return (self._sessions.evicted_agents + self._sequences.shares.evicted + self._announced.evicted
                + self.points.shares.evicted + self._interfaces.shares.evicted)

    # ---- sessions

    def _forget(self, session: Session) -> None:
        known = self._sessions.get(session.key)
        if known is not None:
            for domain, id_, version in list(known.announced):
                self._templates.forget(known, version, domain, id_)
            if self._announced.has(session):
                self._settle(known)
                self._announced.forget(session)
        self._sessions.forget(session)
        self._sequences.forget(session)
        self._store.forget(session.key)
        self._held.forget(session.key)

    def _sweep(self, now_s: float) -> None:
        """Remove what has expired, a part at each message, as all at once would take long."""
        if not self._due:
            self._sweep_s = now_s + _SWEEP_S
            self._due = [known.session.key for known in self._sessions if known.session.datagram]
            self._held.expire(now_s)
        for _ in range(_SWEPT):
            known = self._sessions.get(self._due[-1]) if self._due else None
            place = next(iter(known.announced), None) if known is not None else None
            if known is None or place is None or now_s - known.announced[place] <= TEMPLATE_LIFE_S:
                if self._due:
                    self._due.pop()
                continue
            domain, id_, version = place
            self._templates.forget(known, version, domain, id_)
            self._store.expire(known.session.key, domain, id_)
            self._sessions.weigh(known, self._store.weight_of(known.session.key))

    # ---- messages

    def _follow(self, message: Message, session: Session, records: int, complete: bool) -> None:
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
        self._judge(self._sequences.see(session, message.version, message.domain, message.sequence, units,
                                        message.export_time_s, message.boot_ms), name, session)

    def _judge(self, verdict: Verdict, name: str, session: Session) -> None:
        """Add the result of a sequence check to the counters."""
        if verdict is EXPECTED:
            return
        if self._sequences.added:
            self._spend(session, self._sequences.added)
            self._sequences.added = 0
        if verdict.lost or verdict.late or verdict.reset:
            self._counts[name] += verdict.lost
            self._counts["late_messages"] += verdict.late
            self._counts["sequence_resets"] += verdict.reset

    def _times(self, message: Message, session: Session, now_ms: int) -> MessageTimes:
        """Export and boot time of a message, and the correction of its exporter's clock."""
        export_ms = message.export_time_s * 1000
        boot_ms = message.boot_ms
        if boot_ms is None and self._announced.boots:
            boot_ms = self._announced.boots.own(session, message.domain)
        shift_ms = now_ms - export_ms if self._correct_clocks else 0
        if -CLOCK_TOLERANCE_MS <= shift_ms <= CLOCK_TOLERANCE_MS:
            shift_ms = 0
        else:
            self._counts["corrected_clocks"] += 1
        return MessageTimes(export_ms, NO_BOOT if boot_ms is None or boot_ms < 0 else boot_ms, shift_ms)

    def _learn(self, known: KnownSession, message: Message, boot_ms: int, now_s: float) -> None:
        """Decode the Data Sets that waited for new Templates."""
        self._spend(known.session, self._store.changed)
        self._store.changed = 0
        key = known.session.key
        for template in message.templates:
            for held in self._held.take((key, message.domain, template.id), boot_ms) if self._held else ():
                self._take_late(known, message.domain, template, held.octets, held.times)
            if known.session.datagram:
                place = self._templates.announced(known, message.version, message.domain, template.id, now_s)
                if self._held and self._held.wait_at(place):
                    self._release(place, boot_ms, now_s)
        self._bound_templates(known)

    def _bound_templates(self, known: KnownSession) -> None:
        """Remove Templates while there are too many of a session, or of all: then of who has most."""
        self._forget_evicted()
        self._sessions.weigh(known, self._store.weight_of(known.session.key))
        while (heavy := self._sessions.heaviest(known, MAX_FIELDS)) is not None:
            key = heavy.session.key
            if heavy is not known or not self._store.evict(key):
                self._forget(heavy.session)
                self._counts["evicted_sessions"] += 1
                continue
            self._forget_evicted()
            self._sessions.weigh(known, self._store.weight_of(key))

    def _forget_evicted(self) -> None:
        """What is to be done about Templates that were removed because there were too many."""
        for key, domain, id_ in self._store.evicted:
            self._counts["evicted_templates"] += 1
            known = self._sessions.get(key)
            if known is not None:
                for version in (ipfix.VERSION, netflow9.VERSION):
                    self._templates.forget(known, version, domain, id_)
        self._store.evicted.clear()

    def _take_late(self, known: KnownSession, domain: int, template: Template, octets: bytes,
                   times: MessageTimes) -> None:
        """Take a Data Set whose Template has arrived in a later message."""
        data_set = decode_data_set(template, octets, strict=False)
        parts, unknown = self._store.complete(known.session.key, domain, data_set)
        self._skipped["record"] += bool(data_set.cut)
        self._skipped["properties"] += unknown
        for part in parts:
            self._take(known, domain, part, times, NO_HEADER)

    def _release(self, place: Place, boot_ms: int, now_s: float) -> None:
        """Decode the Data Sets of other source ports that wait for a Template that is known now."""
        template = self._templates.find(place, now_s)
        if template is None:
            return
        for key, held in self._held.take_at(place, boot_ms):
            known, data_set = self._sessions.get(key[0]), fitting(template, held.octets)
            if known is None or data_set is None:
                self._held.hold(key, held._replace(place=None), place[0])
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
        self._held.hold(key, HeldSet(waiting.octets, times, now_s, place), known.session.exporter)
        return None

    def _take(self, known: KnownSession, domain: int, data_set: DataSet, times: MessageTimes, header: Header) -> None:
        """Take Data Records: Options Data are read at once, flows wait for the drain."""
        if data_set.template.scope_count:
            self._take_options(known, domain, data_set)
        else:
            self._take_flows(known, domain, data_set, times, header)

    def _take_flows(self, known: KnownSession, domain: int, data_set: DataSet, times: MessageTimes, header: Header,
                    ) -> None:
        if data_set.template.plain:
            self._keep(known, domain, data_set, times, header)
            return
        parts, unread = flattened(data_set)
        self._skipped["list"] += unread
        self._spend_work(known.session, excess_of_lists(data_set, parts))
        for part in parts:
            self._keep(known, domain, part, times, header)

    def _keep(self, known: KnownSession, domain: int, data_set: DataSet, times: MessageTimes, header: Header) -> None:
        """Keep Flow Records for the drain."""
        self._counts["records"] += data_set.count
        group = self._pending.get(known.group)
        if group is None:
            group = self._pending[known.group] = {}
        template, session = data_set.template, known.session
        pending = group.get(id(template))
        if pending is None:
            key = id(template) if joinable(template) else (id(template), id(session), domain)
            pending = group.get(key)
            if pending is None:
                if not self._has_room(known, template):
                    self._counts["dropped_records"] += data_set.count
                    return
                self.foreign = self.foreign or not is_own(template)
                pending = group[key] = PendingSets(template)
        latest = pending.latest
        if latest[0] is not session or latest[1] != domain or latest[2] is not header:
            if not pending.has_source(session, domain, header):
                pending.add_source(session, domain, header)
                if template.id >= FIRST_TEMPLATE_ID:
                    self._store.use(session.key, domain, template.id)
            latest = pending.latest
        pending.sets.append(data_set)
        pending.times.extend(times)
        pending.source.append(latest[3])
        self._pending_records += data_set.count

    def _has_room(self, known: KnownSession, template: Template) -> bool:
        """Whether records of one more Template may wait for the drain, where each costs time of its own."""
        layouts = self._layouts.setdefault(known.group, set())
        number = id(shape_of(template)) if joinable(template) else -len(layouts) - 1
        if number in layouts:
            return True
        if len(layouts) >= MAX_LAYOUTS or self._layout_count >= MAX_ALL_LAYOUTS:
            return False
        if len(layouts) >= FREE_LAYOUTS and self._now_s is not None and known.session.datagram:
            exporter = known.session.exporter
            if self._work.is_spent(exporter, self._sessions.is_stranger(exporter), self._now_s):
                return False
            self._spend_work(known.session, A_LAYOUT)
        layouts.add(number)
        self._layout_count += 1
        return True

    def _take_options(self, known: KnownSession, domain: int, data_set: DataSet) -> None:
        if self._store.closed:
            self._counts["dropped_options"] += data_set.count
            return
        self._announced.read(known.session, domain, data_set, lambda: self._settle(known))
        if self._announced.news:
            self._spend(known.session, 1 + self._announced.news // _NEWS)
            self._announced.news = 0
        self._store.use(known.session.key, domain, data_set.template.id)
        if not data_set.template.plain:
            self._bound_templates(known)

    # ---- records

    def _flush(self) -> None:
        """Convert waiting Data Sets to rows, including those of sessions that have ended."""
        pending, self._pending = self._pending, {}
        self._announced.begin()
        self.points.refill(self._now_s)
        self._convert([part for group in pending.values() for part in group.values()])
        self._layouts, self._layout_count = {}, 0
        if len(self._sampled):
            sampled, self._sampled = self._sampled, SampledPackets()
            agents, self._agents = list(self._agents), {}
            self._extra.append(self._records.of_packets(sampled, agents))

    def _settle(self, known: KnownSession) -> None:
        """Convert waiting Data Sets of an exporter to rows, before its samplers change."""
        self._convert(list(self._pending.pop(known.group, {}).values()))

    def _convert(self, pending: list[PendingSets]) -> None:
        """Convert Data Sets to rows; those of one Template together, whoever sent them, as each time costs as much as
        thousands of records."""
        self._records.credit.now_s = self._now_s
        together: dict[int, PendingSets] = {}
        for part in pending:
            if not joinable(part.template):
                self._extra.append(self._records.of(part))
            elif (first := together.setdefault(id(shape_of(part.template)), part)) is not part:
                first.join(part)
        for part in together.values():
            initiators = self._records.initiators(part)
            for alike in part.split(initiators) if len(set(initiators)) > 1 else (part,):
                self._extra.append(self._records.of(alike))


def _announces(octets: bytes) -> bool:
    """Whether a message begins with Templates."""
    version = octets[:2]
    at = ipfix.HEADER_OCTETS if version == b"\0\x0a" else netflow9.HEADER.size if version == b"\0\x09" else 0
    return at > 0 and octets[at:at + 1] == b"\0"
