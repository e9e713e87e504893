"""The structure of an export, message by message: headers, Templates and records, as text or JSON Lines."""

from __future__ import annotations

import ipaddress
import json
import struct
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np

from flowtop.capture.collector.sections import has_section, section_rows
from flowtop.capture.collector.sessions import KnownSession, Session
from flowtop.capture.collector.sflow import SampledPackets
from flowtop.capture.collector.templates import Place, SharedTemplates, fitting
from flowtop.capture.collector.waiting import HeldSet, HeldSets, MessageTimes
from flowtop.capture.files.messages import Payload
from flowtop.model.kinds import ICMP_VERSIONS, IpVersion, Kind
from flowtop.text import units
from flowtop.wire import netflow_fixed
from flowtop.wire.data_set import DataSet, decode_data_set
from flowtop.wire.datagrams import decode_export
from flowtop.wire.file_details import checksum_holds
from flowtop.wire.flow_records import Collected
from flowtop.wire.ipfix_decoder import Message
from flowtop.wire.ipfix_template import FieldSpecifier, IpfixDecodeError, Template
from flowtop.wire.sflow import MARK, Discard, SampledPacket, SflowDatagram, decode_sflow
from flowtop.wire.sflow_records import (
    COUNTER_STRUCTURES,
    DISCARD_REASONS,
    FLOW_STRUCTURES,
    RAW_HEADER,
    Record,
    ShortRecordError,
    Structures,
    record_values,
)
from flowtop.wire.structured import list_of
from flowtop.wire.template_store import TemplateStore
from flowtop.wire.values import plain_octets

_HEADERS = {1: "Ethernet", 2: "token bus", 3: "Token Ring", 4: "FDDI", 5: "Frame Relay", 6: "X.25", 7: "PPP", 8: "SMDS",
            9: "AAL5", 10: "AAL5 IP", 11: "IPv4", 12: "IPv6", 13: "MPLS", 14: "PPP over SONET", 15: "802.11",
            16: "802.11 A-MPDU", 17: "802.11 A-MSDU subframe"}
_MAC_OCTETS = 6


def sflow_record(datagram: SflowDatagram) -> dict[str, Any]:
    """The datagram as JSON members, with IANA names where they exist."""
    members: dict[str, Any] = {"agent": datagram.agent, "subAgent": datagram.sub_agent, "sequence": datagram.sequence,
                             "uptimeMilliseconds": datagram.uptime_ms, "flowSamples": datagram.samples}
    dropped = {str(source): number for source, number in datagram.dropped if number}
    if dropped:
        members["dropped"] = dropped
    members["records"] = [{"values": _values(packet), **_record_members(FLOW_STRUCTURES, packet.records)}
                          for packet in datagram.packets]
    if datagram.counters:
        members["counterSamples"] = [
            {"source": str(sample.source), **_record_members(COUNTER_STRUCTURES, sample.records)}
            for sample in datagram.counters]
    if datagram.discards:
        members["discards"] = [
            {"source": str(discard.source), "values": _discard_values(discard),
             **_record_members(FLOW_STRUCTURES, _without_header(discard.records))} for discard in datagram.discards]
    if datagram.empty:
        members["emptySamples"] = [_record_members(FLOW_STRUCTURES, records) for records in datagram.empty]
    unread = {"unknownSamples": datagram.unknown_samples, "shortRecords": datagram.short_records}
    return members | {name: number for name, number in unread.items() if number}


def sflow_lines(datagram: SflowDatagram) -> list[str]:
    """The datagram as lines of text; the first line continues the message's heading."""
    lines = [f"agent {datagram.agent}  sub-agent {datagram.sub_agent}  sequence {datagram.sequence}  "
             f"up {datagram.uptime_ms / 1000:g} s  {datagram.samples} flow samples"]
    lines += [f"  source {source} has dropped {number} packets" for source, number in datagram.dropped if number]
    for number, packet in enumerate(datagram.packets, 1):
        lines.append(f"    {number}: {_words(_values(packet))}")
        lines += _record_lines(FLOW_STRUCTURES, packet.records)
    for records in datagram.empty:
        lines.append("  a flow sample without a packet")
        lines += _record_lines(FLOW_STRUCTURES, records)
    for sample in datagram.counters:
        lines.append(f"  counters of source {sample.source}")
        lines += _record_lines(COUNTER_STRUCTURES, sample.records)
    for discard in datagram.discards:
        lines.append(f"  discarded at source {discard.source}: {_words(_discard_values(discard))}")
        lines += _record_lines(FLOW_STRUCTURES, _without_header(discard.records))
    lines += [f"  {number} {words}" for words, number in (
        ("samples of unknown types", datagram.unknown_samples),
        ("records that are too short", datagram.short_records)) if number]
    return lines


def _words(values: dict[str, Any]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in values.items())


def _quoted(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"))
    return json.dumps(value) if isinstance(value, str) and not _plain(value) else value


def _record_members(structures: Structures, records: Iterable[Record]) -> dict[str, list[dict[str, Any]]]:
    """Records as JSON, by name: several of one sample may have the same."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        name, values = _decoded(structures, record)
        found.setdefault(name, []).append(values)
    return {"extended": [{name: values} for name, several in found.items() for values in several]} if found else {}


def _record_lines(structures: Structures, records: Iterable[Record]) -> list[str]:
    decoded = (_decoded(structures, record) for record in records)
    return [f"        {name}: {_words(values)}" for name, values in decoded]


def _decoded(structures: Structures, record: Record) -> tuple[str, dict[str, Any]]:
    """Name and values of a record; one that is too short has its length."""
    try:
        name, values = record_values(structures, record)
    except ShortRecordError:
        return structures[record[0]].name, {"tooShort": len(record[1])}
    return name, {key: value for key, value in values.items() if value is not None}


def _discard_values(discard: Discard) -> dict[str, Any]:
    """Interfaces, reason and the header of a packet that was not forwarded."""
    values: dict[str, Any] = {"ingressInterface": discard.ingress, "egressInterface": discard.egress,
                              "reason": DISCARD_REASONS.get(discard.reason, discard.reason)}
    for format_, octets in discard.records:
        if format_ == RAW_HEADER and len(octets) >= _RAW_OCTETS:
            protocol, frame_octets, _, length = _RAW.unpack_from(octets)
            packet = SampledPacket(protocol, octets[_RAW_OCTETS:_RAW_OCTETS + length], frame_octets, 1, 0, 0, None)
            return values | {name: value for name, value in _values(packet).items() if name not in (
                "samplingInterval", "ingressInterface", "egressInterface")}
    return values


_RAW = struct.Struct(">IIII")
_RAW_OCTETS = _RAW.size


def _without_header(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record[0] != RAW_HEADER]


def _values(packet: SampledPacket) -> dict[str, Any]:
    values: dict[str, Any] = {
        "samplingInterval": packet.interval, "ingressInterface": packet.ingress, "egressInterface": packet.egress}
    if packet.described:
        values["octets"] = packet.frame_octets
    else:
        values |= {"headerProtocol": _HEADERS.get(packet.protocol, packet.protocol), "frameOctets": packet.frame_octets,
                   "headerOctets": len(packet.header)}
    waiting = SampledPackets()
    waiting.add((packet,), 0)
    rows = waiting.rows().rows
    if len(rows) and rows[0]["kind"] != np.uint8(Kind.AGGREGATE):
        values |= _of_ip(rows)
    if packet.described:
        values.pop("ipTTL", None)  # the agent did not send it
    return values


def _of_ip(rows: Collected) -> dict[str, Any]:
    """Fields of the sampled header of an IP packet."""
    row = rows[0]
    version = int(row["ip_version"])
    values: dict[str, Any] = {}
    for end in ("source", "destination"):
        address = bytes(row[f"{end}_address"])[:4 if version == IpVersion.V4 else 16]
        values[f"{end}IPv{version}Address"] = str(ipaddress.ip_address(address))
    values["protocolIdentifier"] = int(row["protocol"])
    if row["source_port"] or row["protocol"] not in ICMP_VERSIONS:
        values |= {"sourceTransportPort": int(row["source_port"]),
                  "destinationTransportPort": int(row["destination_port"])}
    else:
        values[f"icmpTypeCodeIPv{ICMP_VERSIONS[int(row['protocol'])]}"] = int(row["destination_port"])
    for name, column in (("vlanId", "vlan_id"), ("tcpControlBits", "tcp_control_bits")):
        if row[column]:
            values[name] = int(row[column])
    values |= {"ipClassOfService": int(row["tos"]), "ipTTL": int(row["ttl"]), "ipTotalLength": int(row["octets"])}
    for name, column in (("sourceMacAddress", "source_mac"), ("destinationMacAddress", "destination_mac")):
        if row[column] != np.void(bytes(_MAC_OCTETS)):
            values[name] = bytes(row[column]).hex(":")
    return values


Format = Literal["text", "json"]
_PROTOCOLS = {version: f"NetFlow {version}" for version in (*netflow_fixed.VERSIONS, 9)} | {10: "IPFIX"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NTP_EPOCH = datetime(1900, 1, 1, tzinfo=UTC)
_NO_TIMES = MessageTimes(0, 0, 0)
_HARMLESS = frozenset(("count", "padding"))
"""Faults by which nothing is lost."""
_MAX_FIELDS = 262_144
"""Limit of Field Specifiers over all sessions; when it is exceeded, all Templates are dropped."""


@dataclass
class Entry:
    """One message of the dump.

    Attributes:
        number: from 1.
        payload: the octets, with sender and receiver.
        message: the decoded message; None if it was refused or is sFlow.
        sflow: the decoded sFlow datagram, if it is one.
        late: Data Sets of earlier messages whose Template is in this one.
        joined: its Data Sets that were decoded with a Template that the exporter sent from another source port.
        refusals: why parts could not be decoded, one text each.
    """

    number: int
    payload: Payload
    message: Message | None = None
    sflow: SflowDatagram | None = None
    late: list[DataSet] = field(default_factory=list)
    joined: list[DataSet] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    @property
    def damaged(self) -> bool:
        """Whether part of the message could not be read; padding and a wrong number of records cost nothing."""
        return bool(self.refusals or (self.message and {part for part, _ in self.message.skipped} - _HARMLESS))


def entries(payloads: Iterable[Payload]) -> Iterator[Entry]:
    """Decode messages in order; Data Sets that waited are in the entry of the message that has their Template."""
    store, held = TemplateStore(), HeldSets()
    ports = _Ports(store, held)
    number = 0
    for payload in payloads:
        entry: Entry | None = None
        while entry is None or (entry.message is not None and entry.message.rest):
            if entry is not None and entry.message is not None:  # Another message in the same datagram.
                payload = payload._replace(octets=entry.message.rest, damage="")
            number += 1
            entry = Entry(number, payload)
            _decode(entry, store, held, ports)
            if store.weight > _MAX_FIELDS:
                store = TemplateStore()
                ports = _Ports(store, held)
            yield entry


def _decode(entry: Entry, store: TemplateStore, held: HeldSets, ports: _Ports) -> None:
    """Decode the entry's payload into it."""
    payload = entry.payload
    session = payload.session
    if payload.damage:
        entry.refusals.append(payload.damage)
    try:
        if payload.datagram and payload.octets[:4] == MARK:
            entry.sflow = decode_sflow(payload.octets)
            return
        message = entry.message = decode_export(payload.octets, store, session=session, datagram=payload.datagram,
                                                strict=False)
    except IpfixDecodeError as refusal:
        entry.refusals.append(str(refusal))
        return
    whole = payload.octets[:len(payload.octets) - len(message.rest)]
    if checksum_holds(whole, message) is False:
        entry.refusals.append("the checksum in this message is not its own")
    dropped = held.dropped
    for template_id in message.stale:
        held.drop(session, message.domain, template_id)
    if held.dropped > dropped:
        entry.refusals.append(f"{units.things(held.dropped - dropped, 'set')} dropped: the template is gone")
    for template in message.templates:
        for waiting in held.take((session, message.domain, template.id)):
            late = decode_data_set(template, waiting.octets, strict=False)
            if late.cut:
                entry.refusals.append(f"set {template.id} received before its template: {late.cut}")
            parts, unknown = store.complete(session, message.domain, late)
            if unknown:
                entry.refusals.append(f"set {template.id} received before its template: {unknown} common properties "
                                      "are not known")
            entry.late += parts
    ports.take(entry, message)


class _Ports:
    """Keeps Data Sets without a Template, unless the exporter has sent one from another source port.

    Args:
        store: Templates of all sessions.
        held: Data Sets that wait.
    """

    def __init__(self, store: TemplateStore, held: HeldSets) -> None:
        self._held = held
        self._templates = SharedTemplates(store)
        self._known: dict[Hashable, KnownSession] = {}

    def take(self, entry: Entry, message: Message) -> None:
        """Take the Templates, and the Data Sets without one, of an entry's message."""
        payload, now = entry.payload, float(entry.number)  # ports are silent by messages, not by seconds
        session, exporter = payload.session, payload.sender.rpartition(":")[0]
        shared = payload.datagram and bool(exporter)
        if shared and (message.templates or session in self._known):
            known = self._known.setdefault(session, KnownSession(Session(session, exporter, True)))
            known.heard_s = now
            for announced in message.templates:
                place = self._templates.announced(known, message.version, message.domain, announced.id, now)
                self._release(entry, place, now)
        rest = []
        for undecoded in message.undecoded:
            place = exporter, message.version, message.domain, undecoded.set_id
            template = self._templates.find(place, now) if shared else None
            data_set = fitting(template, undecoded.octets) if template else None
            if data_set is not None:
                entry.joined.append(data_set)
                continue
            rest.append(undecoded)
            self._held.hold((session, message.domain, undecoded.set_id),
                            HeldSet(undecoded.octets, _NO_TIMES, now, place if shared and not template else None))
        entry.message = replace(message, undecoded=tuple(rest))

    def _release(self, entry: Entry, place: Place, now: float) -> None:
        """Decode the Data Sets of other source ports that wait for a Template that is known now."""
        template = self._templates.find(place, now)
        if template is None:
            return
        for key, waiting in self._held.take_at(place):
            data_set = fitting(template, waiting.octets)
            if data_set is None:
                self._held.hold(key, waiting._replace(place=None))
            else:
                entry.late.append(data_set)


def entry_text(entry: Entry, form: Format) -> str:
    """One message as text or JSON, with complete lines."""
    return json.dumps(_record(entry), separators=(",", ":")) + "\n" if form == "json" else _text(entry)


# ---- values

def value_of(value: Any, specifier: FieldSpecifier) -> str | int | float:
    """A field's value for people: addresses, times in ISO 8601, strings; octets of unknown meaning in hex."""
    type_ = specifier.element.type if specifier.element else ""
    if isinstance(value, bytes):
        found = plain_octets(value, specifier)
        return f"0x{found.hex()}" if isinstance(found, bytes) else found
    if type_ in ("dateTimeSeconds", "dateTimeMilliseconds"):
        return _time(_EPOCH, value * (1_000_000 if type_ == "dateTimeSeconds" else 1000), value)
    if type_ in ("dateTimeMicroseconds", "dateTimeNanoseconds"):
        return _time(_NTP_EPOCH, (value >> 32) * 1_000_000 + ((value & 0xFFFF_FFFF) * 1_000_000 >> 32), value)
    return value if isinstance(value, int | float) else str(value)


def _time(epoch: datetime, microseconds: int, value: int) -> str | int:
    try:
        return (epoch + timedelta(microseconds=microseconds)).isoformat().replace("+00:00", "Z")
    except OverflowError:  # after the year 9999
        return value


def _rows(data_set: DataSet) -> Iterator[dict[str, Any]]:
    fields = data_set.template.named_fields
    packets = _packets(data_set)
    for number, row in enumerate(data_set.records.tolist()):
        values: dict[str, Any] = {}
        for (name, specifier), value in zip(fields, row, strict=True):
            structured = list_of(value, specifier, data_set.templates, value_of) if data_set.templates else None
            values[name] = value_of(value, specifier) if structured is None else structured
        if number in packets:
            values["packet"] = packets[number]
        yield values


def _packets(data_set: DataSet) -> dict[int, dict[str, Any]]:
    """The packets whose first octets are in records, by the record's number."""
    if not has_section(data_set.template):
        return {}
    rows, records = section_rows(data_set.records)
    return {number: _of_ip(rows[place:place + 1]) for place, number in enumerate(records.tolist())}


# ---- JSON

def _record(entry: Entry) -> dict[str, Any]:
    message, payload = entry.message, entry.payload
    members: dict[str, Any] = {"message": entry.number, "length": len(payload.octets)}
    if payload.sender:
        members |= {"sender": payload.sender, "receiver": payload.receiver}
    if entry.sflow is not None:
        return members | {"protocol": "sFlow 5"} | sflow_record(entry.sflow) | {"refused": entry.refusals}
    if message is None:
        return members | {"refused": entry.refusals}
    members |= {"protocol": _PROTOCOLS[message.version], "version": message.version,
              "exportTime": _time(_EPOCH, message.export_time_s * 1_000_000, 0),
              "sequence": message.sequence, "observationDomainId": message.domain}
    if message.boot_ms is not None:
        members["systemInitTimeMilliseconds"] = _time(_EPOCH, message.boot_ms * 1000, message.boot_ms)
    if message.sampling_interval:
        members["samplingInterval"] = message.sampling_interval
    members |= {"templates": [_template(template) for template in message.templates],
              "withdrawn": list(message.withdrawn),
              "records": [*(_data(late, values) | {"cameBeforeItsTemplate": True}
                            for late in entry.late for values in _rows(late)),
                          *(_data(joined, values) | {"templateOfOtherPort": True}
                            for joined in entry.joined for values in _rows(joined)),
                          *(_data(data_set, values) for data_set in message.data_sets for values in _rows(data_set))],
              "withoutTemplate": [{"set": waiting.set_id, "octets": len(waiting.octets)}
                                  for waiting in message.undecoded],
              "remarks": list(message.remarks), "skipped": dict(message.skipped), "refused": entry.refusals}
    return members


def _template(template: Template) -> dict[str, Any]:
    fields = [{"name": name, "element": specifier.element_id, "enterprise": specifier.enterprise,
               "length": specifier.length} for name, specifier in zip(template.names, template.fields, strict=True)]
    return {"id": template.id, "scopeFieldCount": template.scope_count, "fields": fields}


def _data(data_set: DataSet, values: dict[str, Any]) -> dict[str, Any]:
    return {"template": data_set.template.id, "options": bool(data_set.template.scope_count), "values": values}


# ---- text

def _text(entry: Entry) -> str:
    message, payload = entry.message, entry.payload
    where = f"  {payload.sender} > {payload.receiver}" if payload.sender else ""
    if entry.sflow is not None:
        first, *rest = sflow_lines(entry.sflow)
        lines = [f"message {entry.number}  sFlow 5{where}  {len(payload.octets)} octets  {first}", *rest]
        return "\n".join(lines) + "\n" + _refusals(entry)
    if message is None:
        return f"message {entry.number}{where}  {len(payload.octets)} octets\n" + _refusals(entry)
    lines = [f"message {entry.number}  {_PROTOCOLS[message.version]}{where}  {len(payload.octets)} octets  "
             f"exported {_time(_EPOCH, message.export_time_s * 1_000_000, 0)}  sequence {message.sequence}  "
             f"domain {message.domain}"]
    if message.boot_ms is not None:
        lines.append(f"  exporter booted {_time(_EPOCH, message.boot_ms * 1000, message.boot_ms)}")
    if message.sampling_interval:
        lines.append(f"  sampled 1 in {message.sampling_interval}")
    for template in message.templates:
        lines += _template_lines(template)
    lines += [f"  template {id_} withdrawn" for id_ in message.withdrawn]
    for data_set in entry.late:
        lines += _data_lines(data_set, ", received before its template")
    for data_set in entry.joined:
        lines += _data_lines(data_set, " of another port")
    for data_set in message.data_sets:
        lines += _data_lines(data_set, "")
    lines += [f"  set {waiting.set_id}: {len(waiting.octets)} octets, no template yet" for waiting in message.undecoded]
    lines += [f"  remark: {remark}" for remark in message.remarks]
    if message.skipped:
        lines.append("  skipped: " + ", ".join(f"{part} {count}" for part, count in message.skipped))
    return "\n".join(lines) + "\n" + _refusals(entry)


def _refusals(entry: Entry) -> str:
    return "".join(f"  refused: {refusal}\n" for refusal in entry.refusals)


def _template_lines(template: Template) -> list[str]:
    kind = f"options template {template.id}: {template.scope_count} scope fields of" if template.scope_count else (
        f"template {template.id}:")
    lines = [f"  {kind} {len(template.fields)} fields"]
    for name, specifier in zip(template.names, template.fields, strict=True):
        number = f"{specifier.enterprise}.{specifier.element_id}" if specifier.enterprise else f"{specifier.element_id}"
        length = "variable" if specifier.length == 65_535 else f"{specifier.length} octets"
        lines.append(f"    {name} ({number}), {length}")
    return lines


def _data_lines(data_set: DataSet, remark: str) -> list[str]:
    kind = "options data" if data_set.template.scope_count else "data"
    lines = [f"  {kind} of template {data_set.template.id}{remark}: {units.things(data_set.count, 'record')}"]
    for number, values in enumerate(_rows(data_set), 1):
        packet = values.pop("packet", None)
        lines.append(f"    {number}: {_words(values)}")
        if packet:
            lines.append(f"        packet: {_words(packet)}")
    return lines


def _plain(text: str) -> bool:
    """Whether a value needs no quotes: no space, quote, backslash, `=` or unprintable character."""
    return bool(text) and text.isascii() and text.isprintable() and not set(text) & set(" \"'\\=")
