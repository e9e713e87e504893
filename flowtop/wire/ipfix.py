"""Encode records as IPFIX Messages (RFC 7011). No sockets, no clock, no global state.

`encode_messages` packs Sets into messages. Sets are made by `template_sets`, `withdrawal_sets`, `encode_columns` (numpy
columns, all records at once) and `encode_records` (record by record, also with fields of variable length). Templates
are in flowtop/wire/ipfix_template.py, flowtop's own in flow_templates.py; ipfix_decoder.py decodes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.wire.ipfix_template import (
    FIRST_TEMPLATE_ID,
    OPTIONS_TEMPLATE_SET,
    TEMPLATE_SET,
    VARIABLE_LENGTH,
    FieldSpecifier,
    IpfixEncodeError,
    Template,
)

VERSION = 10
HEADER_OCTETS = 16
SET_HEADER_OCTETS = 4
MAX_MESSAGE_OCTETS = 65_535

MESSAGE_HEADER = struct.Struct(">HHIII")
"""Version, length, export time (s), sequence number, Observation Domain ID."""
SET_HEADER = struct.Struct(">HH")
"""Set ID, length."""
_MIN_TEMPLATE_OCTETS = 4  # A withdrawal.

Value = int | float | str | bytes
Records = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class RecordSet:
    """Records that `encode_messages` puts into one Set, or into several if they exceed a message.

    Attributes:
        set_id: TEMPLATE_SET, OPTIONS_TEMPLATE_SET or a Template's id.
        records: encoded records: an array of shape (n,) with one item per record, or a sequence of bytes.
        min_octets: length of the shortest possible record of the Set; padding has to be shorter.
    """

    set_id: int
    records: Records | Sequence[bytes]
    min_octets: int = 1


def begins_message(octets: bytes | memoryview) -> bool:
    """Whether the first four octets can be those of an IPFIX Message."""
    return (len(octets) >= 4 and int.from_bytes(octets[:2], "big") == VERSION
            and int.from_bytes(octets[2:4], "big") >= HEADER_OCTETS)


def template_sets(templates: Iterable[Template]) -> list[RecordSet]:
    """Sets that announce the Templates: Template Set first, then Options Template Set."""
    templates = tuple(templates)
    return [RecordSet(set_id, records, _MIN_TEMPLATE_OCTETS) for set_id in (TEMPLATE_SET, OPTIONS_TEMPLATE_SET)
            if (records := [template.octets() for template in templates if template.set_id == set_id])]


def withdrawal_sets(templates: Iterable[Template]) -> list[RecordSet]:
    """Sets that withdraw the Templates (RFC 7011 section 8.1; must not be sent over UDP)."""
    templates = tuple(templates)
    return [RecordSet(set_id, records, _MIN_TEMPLATE_OCTETS) for set_id in (TEMPLATE_SET, OPTIONS_TEMPLATE_SET)
            if (records := [struct.pack(">HH", template.id, 0) for template in templates
                            if template.set_id == set_id])]


def encode_columns(template: Template, columns: Mapping[str, npt.NDArray[np.generic]]) -> RecordSet:
    """Encode Data Records from numpy columns, all at once.

    Args:
        template: must not have variable-length fields.
        columns: by field name, shape (n,): integers, floats, or `V` and `S` of the field's length.

    Raises IpfixEncodeError: a variable-length field, a value too large for its field, or octets of a wrong length.
    """
    if not template.fixed_length:
        raise IpfixEncodeError(f"template {template.id} has fields of variable length")
    count = len(columns[template.named_fields[0][0]])
    wire = np.empty(count, template.wire_dtype)
    for name, specifier in template.named_fields:
        column, (kind, _) = columns[name], specifier.format
        if kind in "VS":
            if column.dtype.itemsize != specifier.length:
                raise IpfixEncodeError(f"{name} is {specifier.length} octets long, not {column.dtype.itemsize}")
            wire[name] = column
        elif kind == "f":
            wire[name] = column
        else:
            _encode_integers(name, specifier, column, wire[name])
    return RecordSet(template.id, wire, template.min_octets)


def _encode_integers(name: str, specifier: FieldSpecifier, column: npt.NDArray[np.generic],
                     wire: npt.NDArray[np.generic]) -> None:
    """Write a column of integers into `wire`, with the field's number of octets."""
    kind, _ = specifier.format
    length = specifier.length
    if len(column) and (column.dtype.itemsize > length or column.dtype.kind != kind):
        lowest, highest = _integer_range(kind, length)
        if int(column.min()) < lowest or int(column.max()) > highest:
            raise IpfixEncodeError(f"{name} has values that do not fit in {length} octets")
    if wire.ndim == 1:
        wire[...] = column
    else:
        octets = column.astype(f">{kind}8").view(np.uint8).reshape(-1, 8)
        wire[...] = octets[:, 8 - length:]


def _integer_range(kind: str, length: int) -> tuple[int, int]:
    bits = 8 * length
    return (0, (1 << bits) - 1) if kind == "u" else (-(1 << bits - 1), (1 << bits - 1) - 1)


def encode_records(template: Template, rows: Iterable[Sequence[Value]]) -> RecordSet:
    """Encode Data Records one by one with encode_record: for few records or fields of variable length."""
    return RecordSet(template.id, [encode_record(template, row) for row in rows], template.min_octets)


def encode_record(template: Template, values: Sequence[Value]) -> bytes:
    """Encode one Data Record, for example of Options Data: one value per field.

    Numbers are int or float; other values are bytes of the field's length. A `str` is encoded in UTF-8 and padded with
    NULs in a field of fixed length. Raises IpfixEncodeError: a value does not fit its field.
    """
    if len(values) != len(template.fields):
        raise IpfixEncodeError(f"template {template.id} has {len(template.fields)} fields, not {len(values)}")
    return b"".join(_encode_value(name, specifier, value)
                    for name, specifier, value in zip(template.names, template.fields, values, strict=True))


def _encode_value(name: str, specifier: FieldSpecifier, value: Value) -> bytes:
    length = specifier.length
    if isinstance(value, int | float) and specifier.format[0] == "f":
        return struct.pack(">d" if length == 8 else ">f", value)
    if isinstance(value, int) and specifier.format[0] in "ui":
        lowest, highest = _integer_range(specifier.format[0], length)
        if not lowest <= value <= highest:
            raise IpfixEncodeError(f"{name} {value} does not fit in {length} octets")
        return value.to_bytes(length, "big", signed=value < 0)
    if isinstance(value, int | float):
        raise IpfixEncodeError(f"{name} takes octets, not a number")
    octets = value.encode() if isinstance(value, str) else bytes(value)
    if length == VARIABLE_LENGTH and len(octets) < 255:
        return bytes([len(octets)]) + octets
    if length == VARIABLE_LENGTH and len(octets) < 65_536:
        return b"\xff" + len(octets).to_bytes(2, "big") + octets
    if isinstance(value, str):
        octets = octets.ljust(length, b"\0")
    if len(octets) != length:
        raise IpfixEncodeError(f"{name} is {length} octets long, not {len(octets)}")
    return octets


@dataclass(frozen=True, slots=True)
class EncodedMessages:
    """Encoded messages, in sending order.

    Attributes:
        messages: each complete with its header.
        record_counts: number of Data Records in each message.
        next_sequence: sequence number of the next message, modulo 2**32.
    """

    messages: list[bytes]
    record_counts: list[int]
    next_sequence: int


def encode_messages(sets: Iterable[RecordSet], *, domain: int, sequence: int, export_time_s: int,
                    max_octets: int = MAX_MESSAGE_OCTETS) -> EncodedMessages:
    """Pack Sets into as few messages as their order allows.

    Sets are padded to 4 octets if the padding is shorter than their records (RFC 7011 section 3.3.1).

    Args:
        domain: Observation Domain ID.
        sequence: Data Records sent before in this Transport Session and Observation Domain, modulo 2**32.
        export_time_s: since 1970 UTC; reduced modulo 2**32 here.
        max_octets: maximum length of a message, such as what fits a datagram.

    Raises IpfixEncodeError: a record is too long for a message of that size.
    """
    packer = _Packer(domain, sequence & 0xFFFF_FFFF, export_time_s & 0xFFFF_FFFF, min(max_octets, MAX_MESSAGE_OCTETS))
    for record_set in sets:
        packer.add(record_set)
    packer.end_message()
    return EncodedMessages(packer.messages, packer.counts, packer.sequence)


def encode_one_by_one(sets: Iterable[RecordSet], *, domain: int, sequence: int, export_time_s: int,
                      max_octets: int = MAX_MESSAGE_OCTETS) -> EncodedMessages:
    """Like encode_messages, but a message has one Set, which is not padded."""
    messages: list[bytes] = []
    counts: list[int] = []
    for record_set in sets:
        encoded = encode_messages([record_set], domain=domain, sequence=sequence, export_time_s=export_time_s,
                                  max_octets=max_octets)
        sequence, at = encoded.next_sequence, 0
        for message, count in zip(encoded.messages, encoded.record_counts, strict=True):
            # Padding is shorter than the shortest record, but records of variable length don't say where it begins.
            octets = SET_HEADER_OCTETS + (
                count * record_set.min_octets if isinstance(record_set.records, np.ndarray)
                else sum(map(len, record_set.records[at:at + count])))
            at += count
            messages.append(b"".join((message[:2], struct.pack(">H", HEADER_OCTETS + octets), message[4:HEADER_OCTETS],
                                      SET_HEADER.pack(record_set.set_id, octets),
                                      message[HEADER_OCTETS + SET_HEADER_OCTETS:HEADER_OCTETS + octets])))
            counts.append(count)
    return EncodedMessages(messages, counts, sequence)


class _Packer:
    """The message being filled, and the complete ones."""

    def __init__(self, domain: int, sequence: int, export_time_s: int, max_octets: int) -> None:
        self.messages: list[bytes] = []
        self.counts: list[int] = []
        self.sequence = sequence
        self._domain = domain
        self._export_time_s = export_time_s
        self._limit = max_octets & ~3  # Sets end at a multiple of 4 octets, so padding never exceeds the limit.
        self._parts: list[bytes] = []
        self._octets = HEADER_OCTETS
        self._count = 0

    def add(self, record_set: RecordSet) -> None:
        """Add the records to the current message and to as many further ones as needed."""
        if isinstance(record_set.records, np.ndarray):
            self._add_array(record_set.set_id, record_set.records)
        else:
            self._add_octets(record_set.set_id, record_set.records, record_set.min_octets)

    def end_message(self) -> None:
        """Complete the current message, if it is not empty, and start another."""
        if not self._parts:
            return
        header = MESSAGE_HEADER.pack(VERSION, self._octets, self._export_time_s, self.sequence, self._domain)
        self.messages.append(b"".join((header, *self._parts)))
        self.counts.append(self._count)
        self.sequence = self.sequence + self._count & 0xFFFF_FFFF
        self._parts, self._octets, self._count = [], HEADER_OCTETS, 0

    def _add_array(self, set_id: int, records: Records) -> None:
        size = records.dtype.itemsize
        self._check(size)
        capacity = (self._limit - HEADER_OCTETS - SET_HEADER_OCTETS) // size
        start = 0
        while start < len(records):
            full = (len(records) - start) // capacity
            if not self._parts and full:
                self._add_full_messages(set_id, records[start:start + full * capacity], capacity)
                start += full * capacity
                continue
            room = (self._limit - self._octets - SET_HEADER_OCTETS) // size
            part = records[start:start + max(room, 0)]
            if len(part):
                self._add_set(set_id, part.tobytes(), len(part), size)
                start += len(part)
            if start < len(records):
                self.end_message()

    def _add_full_messages(self, set_id: int, records: Records, capacity: int) -> None:
        """Add messages that hold one Set of `capacity` records each: one array, one copy into octets."""
        octets = capacity * records.dtype.itemsize
        padding = _padding(HEADER_OCTETS + SET_HEADER_OCTETS + octets, records.dtype.itemsize)
        layout: list[tuple[str, str]] = [
            ("version", ">u2"), ("length", ">u2"), ("export_time", ">u4"), ("sequence", ">u4"), ("domain", ">u4"),
            ("set_id", ">u2"), ("set_length", ">u2"), ("records", f"V{octets}")]
        count = len(records) // capacity
        block = np.zeros(count, layout + ([("padding", f"V{padding}")] if padding else []))
        block["version"], block["length"] = VERSION, block.dtype.itemsize
        block["export_time"], block["domain"] = self._export_time_s, self._domain
        block["sequence"] = self.sequence + np.arange(count, dtype=np.uint64) * np.uint64(capacity) & 0xFFFF_FFFF
        block["set_id"], block["set_length"] = set_id, block.dtype.itemsize - HEADER_OCTETS
        block["records"] = np.ascontiguousarray(records).view(f"V{octets}")
        whole, step = block.tobytes(), block.dtype.itemsize
        self.messages += [whole[start:start + step] for start in range(0, len(whole), step)]
        self.counts += [capacity] * count
        self.sequence = self.sequence + len(records) & 0xFFFF_FFFF

    def _add_octets(self, set_id: int, records: Sequence[bytes], shortest: int) -> None:
        pending: list[bytes] = []
        size = 0
        for record in records:
            self._check(len(record))
            if self._octets + SET_HEADER_OCTETS + size + len(record) > self._limit:
                self._add_set(set_id, b"".join(pending), len(pending), shortest)
                self.end_message()
                pending, size = [], 0
            pending.append(record)
            size += len(record)
        self._add_set(set_id, b"".join(pending), len(pending), shortest)

    def _add_set(self, set_id: int, octets: bytes, count: int, shortest: int) -> None:
        if not count:
            return
        octets += bytes(_padding(self._octets + SET_HEADER_OCTETS + len(octets), shortest))
        self._parts += [SET_HEADER.pack(set_id, SET_HEADER_OCTETS + len(octets)), octets]
        self._octets += SET_HEADER_OCTETS + len(octets)
        self._count += count if set_id >= FIRST_TEMPLATE_ID else 0

    def _check(self, size: int) -> None:
        if size > self._limit - HEADER_OCTETS - SET_HEADER_OCTETS:
            raise IpfixEncodeError(f"a record of {size} octets does not fit in a message of {self._limit} octets")


def _padding(end: int, shortest_record: int) -> int:
    """Padding to the next multiple of 4 octets; 0 if a record could be that short."""
    padding = -end % 4
    return padding if padding < shortest_record else 0
