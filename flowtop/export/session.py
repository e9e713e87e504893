"""The messages of one Transport Session and their sequence numbers (RFC 7011 section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from flowtop.export.context import ExportContext
from flowtop.export.relays import interfaces_of_exporters
from flowtop.model.exporters import exporter_of
from flowtop.model.record import RELAYED_RECORD_DTYPE, FlowRecords, chosen
from flowtop.wire import flow_templates as ft
from flowtop.wire import tunnels
from flowtop.wire.biflows import biflow_sets, biflow_templates, pairs, pairs_first
from flowtop.wire.ipfix import MAX_MESSAGE_OCTETS, RecordSet, encode_messages, encode_one_by_one, template_sets
from flowtop.wire.ipfix_template import Template
from flowtop.wire.owners import Sets, Texts, owned_sets
from flowtop.wire.relayed import RelayedTemplates, interface_sets, interface_templates, lean
from flowtop.wire.selectors import Selectors

EXPORTING_PROCESS_ID = 1
MAX_TUNNELS = 1_024
"""Limit of tunnels per session that are described by name, as senders of packets can create many."""


@dataclass(frozen=True, slots=True)
class FlowMessages:
    """Flow Records as messages.

    Attributes:
        messages: the messages, in order.
        record_counts: number of Flow Records in each.
        records: all records, in the order of the messages, shape (n,).
        data_counts: number of Data Records in each; a biflow is one of two Flow Records.
        preceding: messages that must precede them: about new tunnels, Templates of records with measurements or with
            owners, and Templates and selectors of relayed records.
        cut_owners: for which records texts of the owner were cut or left out, shape (n,); None: for none.
    """

    messages: list[bytes]
    record_counts: list[int]
    records: FlowRecords
    data_counts: list[int]
    preceding: list[bytes] = field(default_factory=list)
    cut_owners: npt.NDArray[np.bool_] | None = None


@dataclass(slots=True)
class SentCounts:
    """Totals sent to one Collecting Process, over all its Transport Sessions (IE 40-42)."""

    messages: int = 0
    flow_records: int = 0
    octets: int = 0


class TransportSession:
    """Builds the messages of one connection, socket or file, with their sequence numbers.

    Args:
        templates: Templates of the profile.
        domain: Observation Domain ID of the Flow Records.
        counts: totals of earlier sessions, to which this one adds.
        biflow: both directions of a conversation are one Data Record (RFC 5103), where they are in the same batch.
    """

    def __init__(self, templates: ft.FlowTemplates, domain: int, counts: SentCounts | None = None, *,
                 biflow: bool = False) -> None:
        self._biflow = biflow
        self._one_set = templates.profile.one_set
        self._templates = templates
        self._domain = domain
        self._options_domain = templates.profile.options_domain(domain)
        self._sequences = {domain: 0, self._options_domain: 0}
        self._interfaces: dict[int, str] | None = None
        self._tunnels: set[int] = set()
        self._relayed = RelayedTemplates()
        self._measured: dict[int, Template] = {}
        self._owned: dict[int, Template] = {}
        self._selectors = Selectors()
        self._counts = SentCounts() if counts is None else counts

    def announcement(self, context: ExportContext, max_octets: int = MAX_MESSAGE_OCTETS) -> list[bytes]:
        """Templates, Options Templates, Flow Keys, interfaces: everything that precedes the first Flow Record.

        Includes those of tunnels if there have been any.
        """
        interfaces = context.metering().lookups.interfaces
        self._interfaces = dict(interfaces)
        if self._one_set:
            return [*self._announced_one_by_one(context, max_octets, tunnelled=bool(self._tunnels)),
                    *self._announce_more(self._more_templates(), context, max_octets)]
        options = [*ft.options_announcement(self._templates), ft.flow_keys(self._templates, domain=self._domain)]
        options += self._interface_sets(context)
        messages = [*self._encode(self._templates_of_flows(), self._domain, context, max_octets),
                    *self._encode(options, self._options_domain, context, max_octets)]
        if self._tunnels:
            messages += self._announce_tunnels(context, max_octets)
        return [*messages, *self._encode(self._selectors.reports(self._domain), self._domain, context, max_octets),
                *self._announce_more(self._more_templates(), context, max_octets)]

    def _more_templates(self) -> list[Template]:
        """Templates that records have needed so far, oldest first of each kind: with measurements, relayed ones, with
        owners."""
        return [*self._measured.values(), *self._relayed.templates, *self._owned.values()]

    def _interface_sets(self, context: ExportContext) -> list[RecordSet]:
        """Names of this host's interfaces by ifindex, and of exporters' interfaces by their own numbers."""
        lookups = context.metering().lookups
        relayed = interfaces_of_exporters(lookups)
        local = {number: name for number, name in lookups.interfaces.items() if exporter_of(name) is None}
        sets = [ft.interface_table(self._templates, local)] if local else []
        return [*sets, *template_sets(interface_templates()), *interface_sets(relayed)] if relayed else sets

    def changed_interfaces(self, context: ExportContext, max_octets: int = MAX_MESSAGE_OCTETS) -> list[bytes]:
        """The interface table, if it has changed since it was sent; else nothing."""
        interfaces = context.metering().lookups.interfaces
        if not interfaces or interfaces == self._interfaces or self._one_set:
            return []
        self._interfaces = dict(interfaces)
        return self._encode(self._interface_sets(context), self._options_domain, context, max_octets)

    def _announce_more(self, templates: Sequence[Template], context: ExportContext, max_octets: int) -> list[bytes]:
        """Templates of `_more_templates`, and their Flow Keys."""
        if not templates:
            return []
        if self._one_set:
            return [message for template in templates
                    for message in self._encode(template_sets([template]), self._domain, context, max_octets)]
        keys = ft.more_keys(self._templates, templates, domain=self._domain)
        return [*self._encode(template_sets(templates), self._domain, context, max_octets),
                *self._encode([keys], self._options_domain, context, max_octets)]

    def new_tunnels(self, records: FlowRecords, context: ExportContext,
                    max_octets: int = MAX_MESSAGE_OCTETS) -> list[bytes]:
        """Messages that must precede these Flow Records because of new tunnels."""
        tunnelled = records[records["tunnel"] != 0] if records["tunnel"].any() else records[:0]
        if not len(tunnelled):
            return []
        first = not self._tunnels
        new = set(np.unique(tunnels.observation_points(tunnelled)).tolist()) - self._tunnels
        new = set(sorted(new)[:MAX_TUNNELS - len(self._tunnels)])
        if not new:
            return []
        self._tunnels |= new
        if self._one_set:
            return self._announced_one_by_one(context, max_octets, tunnelled=True) if first else []
        if first:
            return self._announce_tunnels(context, max_octets)
        return self._encode([ft.tunnel_table(self._templates, new)], self._options_domain, context, max_octets)

    def _announce_tunnels(self, context: ExportContext, max_octets: int) -> list[bytes]:
        """Templates, Flow Keys and names of flows in tunnels."""
        options = [*ft.options_announcement(self._templates, tunnelled=True),
                   ft.flow_keys(self._templates, domain=self._domain, tunnelled=True),
                   ft.tunnel_table(self._templates, self._tunnels)]
        return [*self._encode(self._templates_of_flows(tunnelled=True), self._domain, context, max_octets),
                *self._encode(options, self._options_domain, context, max_octets)]

    def options(self, sets: Sequence[RecordSet], context: ExportContext) -> list[bytes]:
        """Other Options Data, and their Templates, in the Observation Domain of options."""
        return self._encode(sets, self._options_domain, context, MAX_MESSAGE_OCTETS)

    def _templates_of_flows(self, *, tunnelled: bool = False) -> list[RecordSet]:
        sets = ft.announcement(self._templates, tunnelled=tunnelled)
        if self._biflow:
            sets += template_sets(biflow_templates(self._templates, tunnelled=tunnelled).values())
        return sets

    def _announced_one_by_one(self, context: ExportContext, max_octets: int, *, tunnelled: bool) -> list[bytes]:
        """A message for each Template."""
        templates = [*self._templates.flows.values(), *(self._templates.tunnelled.values() if tunnelled else ())]
        if self._biflow:
            templates += biflow_templates(self._templates).values()
            templates += biflow_templates(self._templates, tunnelled=True).values() if tunnelled else ()
        return [message for template in templates
                for message in self._encode(template_sets([template]), self._domain, context, max_octets)]

    def reports(self, context: ExportContext, max_octets: int = MAX_MESSAGE_OCTETS) -> list[bytes]:
        """Current statistics and reliability of metering and exporting (RFC 7011 section 4)."""
        if self._one_set:
            return []
        facts, lost = context.metering(), context.given_up()
        sets = [
            ft.metering_statistics(self._templates, domain=self._domain, messages=self._counts.messages,
                                   flow_records=self._counts.flow_records, octets=self._counts.octets),
            ft.metering_reliability(self._templates, domain=self._domain, ignored_packets=facts.ignored_packets,
                                    ignored_octets=facts.ignored_octets, first_ms=facts.first_ignored_ms,
                                    last_ms=facts.last_ignored_ms),
            ft.exporting_reliability(self._templates, exporting_process_id=EXPORTING_PROCESS_ID,
                                     not_sent_flows=lost.records, not_sent_packets=lost.packets,
                                     not_sent_octets=lost.octets, first_ms=lost.first_ms, last_ms=lost.last_ms),
        ]
        return self._encode(sets, self._options_domain, context, max_octets)

    def flows(self, records: FlowRecords, context: ExportContext, max_octets: int = MAX_MESSAGE_OCTETS) -> FlowMessages:
        """Flow Records as messages. Each must be sent, or taken back with `not_sent`."""
        preceding = self.new_tunnels(records, context, max_octets)
        records = lean(records, max_octets)
        relayed, measured, selectors = len(self._relayed), len(self._measured), len(self._selectors)
        owned = len(self._owned)
        (sets, order, sizes), cut = self._flow_sets(self._sampled(records), context.owners(), max_octets)
        preceding += self._encode(self._selectors.reports(self._domain, selectors), self._domain, context, max_octets)
        new = [*list(self._measured.values())[measured:], *self._relayed.templates[relayed:],
               *list(self._owned.values())[owned:]]
        preceding += self._announce_more(new, context, max_octets)
        encode = encode_one_by_one if self._one_set else encode_messages
        encoded = encode(sets, domain=self._domain, sequence=self._sequences[self._domain],
                         export_time_s=int(context.wall()), max_octets=max_octets)
        self._sequences[self._domain] = encoded.next_sequence
        self._counts.flow_records += len(records)
        self._count(encoded.messages)
        counts = encoded.record_counts
        if sizes is not None:
            ends = np.cumsum(np.append(0, sizes))[np.cumsum([0, *counts])]
            counts = np.diff(ends).tolist()
        if cut is not None:
            context.cut_owners(int(cut.sum()))
        return FlowMessages(encoded.messages, counts, chosen(records, order), encoded.record_counts, preceding, cut)

    def _sampled(self, records: FlowRecords) -> FlowRecords:
        """Relayed records with their counters as they were sampled, if there can be Options that say so."""
        if self._one_set or records.dtype != RELAYED_RECORD_DTYPE:
            return records
        return self._selectors.applied(records)

    def _flow_sets(self, records: FlowRecords, owners: Texts | None, max_octets: int) -> tuple[
            Sets, npt.NDArray[np.bool_] | None]:
        """As `_plain_sets`; with owners, if there are any. And for which records their texts were cut."""
        if owners is None or not records["owner"].any():
            return self._plain_sets(records), None
        found, templates, cut = owned_sets(records, owners, self._plain_sets, self._template, max_octets,
                                      pairs(records) if self._pairs(records) else None)
        for template in templates:
            self._owned.setdefault(template.id, template)
        return found, cut if cut.any() else None

    def _template(self, id_: int) -> Template:
        """A Template of Flow Records without owners."""
        for templates in (self._templates.flows, self._templates.tunnelled, self._measured):
            if id_ in templates:
                return templates[id_]
        biflows = biflow_templates(self._templates) | biflow_templates(self._templates, tunnelled=True)
        return biflows.get(id_) or next(each for each in self._relayed.templates if each.id == id_)

    def _plain_sets(self, records: FlowRecords) -> Sets:
        """Sets, the records' order in them, and the records of each Data Record; None: one of each."""
        if self._pairs(records):
            return biflow_sets(records, self._templates, self._measured)
        return (*ft.flow_sets(records, self._templates, self._relayed, self._measured), None)

    def _pairs(self, records: FlowRecords) -> bool:
        """Whether two directions share a record; not those of relayed flows, whose values are of one direction."""
        return self._biflow and records.dtype != RELAYED_RECORD_DTYPE

    def arranged(self, records: FlowRecords) -> FlowRecords:
        """The records in an order in which even parts do not split biflows."""
        return pairs_first(records) if self._pairs(records) else records

    def not_sent(self, flows: FlowMessages, sent: int, context: ExportContext) -> FlowRecords:
        """Take back all but the first `sent` messages of the last `flows`; returns the records that were not sent."""
        count, data_count = sum(flows.record_counts[sent:]), sum(flows.data_counts[sent:])
        self._sequences[self._domain] = self._sequences[self._domain] - data_count & 0xFFFF_FFFF
        self._counts.flow_records -= count
        self._counts.messages -= len(flows.messages) - sent
        self._counts.octets -= sum(map(len, flows.messages[sent:]))
        if flows.cut_owners is not None:
            context.cut_owners(-int(flows.cut_owners[len(flows.records) - count:].sum()))
        return flows.records[len(flows.records) - count:]

    def _encode(self, sets: Sequence[RecordSet], domain: int, context: ExportContext, max_octets: int) -> list[bytes]:
        encoded = encode_messages(sets, domain=domain, sequence=self._sequences[domain],
                                  export_time_s=int(context.wall()), max_octets=max_octets)
        self._sequences[domain] = encoded.next_sequence
        self._count(encoded.messages)
        return encoded.messages

    def count_more(self, octets: int) -> None:
        """Count octets that were added to the last messages."""
        self._counts.octets += octets

    def _count(self, messages: list[bytes]) -> None:
        self._counts.messages += len(messages)
        self._counts.octets += sum(map(len, messages))
