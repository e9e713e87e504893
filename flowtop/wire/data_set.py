"""Data Records out of Data Sets: numpy arrays by Template, in bulk where all records have one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flowtop.wire.ipfix import Records
from flowtop.wire.ipfix_template import VARIABLE_LENGTH, IpfixDecodeError, Template


@dataclass(frozen=True)
class DataSet:
    """Data Records of one Set, decoded when they are asked for.

    Attributes:
        template: what describes them; Options Data when it has Scope Fields.
        octets: the records as on the wire, padding cut where they are of fixed length.
        count: how many there are.
    """

    template: Template
    octets: bytes
    count: int

    @cached_property
    def records(self) -> Records:
        """`template.dtype`, shape (count,), its own memory."""
        return _records(self.template, self.octets, 0, len(self.octets))


@dataclass(frozen=True, slots=True)
class UndecodedSet:
    """A Set whose Template is not known (yet): `decode_data_set` takes it once it is.

    Attributes:
        set_id: the Template's id.
        octets: what follows the Set Header.
    """

    set_id: int
    octets: bytes


def decode_data_set(template: Template, octets: bytes, start: int = 0, end: int | None = None) -> DataSet:
    """The Data Set between two offsets of a message, Set Header left out; or an UndecodedSet whose Template has come.

    Raises IpfixDecodeError: offsets count from the start of `octets`.
    """
    end = len(octets) if end is None else end
    shortest = template.min_octets
    if template.fixed_length:
        count = (end - start) // shortest
        return DataSet(template, octets[start:start + count * shortest], count)
    records = _records(template, octets, start, end)
    found = DataSet(template, octets[start:end], len(records))
    found.__dict__["records"] = records  # Reading lengths is decoding: once is enough.
    return found


def join(data_sets: Sequence[DataSet]) -> Records:
    """The records of several Data Sets of one Template: `template.dtype`, shape (sum of counts,)."""
    template = data_sets[0].template
    if not template.fixed_length:
        return np.concatenate([data_set.records for data_set in data_sets])
    octets = b"".join([data_set.octets for data_set in data_sets])
    return _records(template, octets, 0, len(octets))


def _records(template: Template, octets: bytes, start: int, end: int) -> Records:
    """The records of a Data Set; what is shorter than the shortest record is padding."""
    if end - start < template.min_octets:
        return template.no_records  # A template may have thousands of fields, and a message thousands of empty sets.
    if template.fixed_length:
        count = (end - start) // template.min_octets
        return _from_wire(template, np.frombuffer(octets, template.wire_dtype, count, start), {})
    fixed: list[bytes] = []
    variable: dict[str, list[bytes]] = {name: [] for name, specifier in template.named_fields
                                        if specifier.length == VARIABLE_LENGTH}
    count = 0
    while end - start >= template.min_octets:
        for name, specifier in template.named_fields:
            if specifier.length == VARIABLE_LENGTH:
                value, start = _variable_value(octets, start, end)
                variable[name].append(value)
            elif specifier.length > end - start:
                raise IpfixDecodeError(f"{name} of {specifier.length} octets is cut off", start, "value")
            else:
                fixed.append(octets[start:start + specifier.length])
                start += specifier.length
        count += 1
    if not template.wire_dtype.itemsize:
        return _from_wire(template, np.empty(count, template.wire_dtype), variable)
    return _from_wire(template, np.frombuffer(b"".join(fixed), template.wire_dtype, count), variable)


def _variable_value(octets: bytes, start: int, end: int) -> tuple[bytes, int]:
    """A variable-length value (RFC 7011 section 7) and where the next field begins."""
    header = 1
    if start < end and (length := octets[start]) == 255:
        header = 3
        length = int.from_bytes(octets[start + 1:start + 3], "big")
    if end - start < header or end - start - header < length:
        raise IpfixDecodeError("a variable-length value is longer than its set", start, "value")
    return octets[start + header:start + header + length], start + header + length


def _from_wire(template: Template, wire: Records, variable: dict[str, list[bytes]]) -> Records:
    """Records of the Template's dtype: fixed-length fields column by column, variable-length ones from lists."""
    records = np.zeros(len(wire), template.dtype)
    for name, specifier in template.named_fields:
        if specifier.length == VARIABLE_LENGTH:
            records[name] = variable[name]
        elif wire[name].ndim == 1:
            records[name] = wire[name]
        else:
            records[name] = _from_octets(wire[name], signed=specifier.format[0] == "i")
    return records


def _from_octets(octets: np.ndarray[tuple[int, int], np.dtype[np.uint8]], signed: bool) -> np.ndarray[
        tuple[int], np.dtype[np.unsignedinteger] | np.dtype[np.signedinteger]]:
    """Integers of a size numpy lacks: shape (n, length) to (n,)."""
    count, length = octets.shape
    full = np.zeros((count, 8), np.uint8)
    full[:, 8 - length:] = octets
    if signed:
        full[:, :8 - length] = np.where(octets[:, :1] & 0x80, 0xFF, 0)
    return full.view(">i8" if signed else ">u8").ravel()
