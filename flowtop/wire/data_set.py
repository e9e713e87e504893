"""Data Records of Data Sets as numpy arrays, decoded in bulk where all records have the same length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby
from typing import NamedTuple

import numpy as np

from flowtop.wire.ipfix import Records
from flowtop.wire.ipfix_template import VARIABLE_LENGTH, IpfixDecodeError, Template, TemplatesById

_LONG_VALUE = 255
"""In place of the length of a value of variable length: two octets with it follow."""
_ALIGNMENT = 4
"""Fewer octets than this behind the last record are padding, whatever they are."""


@dataclass
class DataSet:
    """Data Records of one Set, decoded on first access.

    Attributes:
        template: describes the records; Options Data if it has Scope Fields.
        octets: the records as on the wire, without padding if the records have a fixed length; empty for records that
            were completed (flowtop/wire/completion.py).
        count: number of records.
        templates: those of its Observation Domain, if its records have lists of others' (RFC 6313).
        cut: why octets behind the last record are no record; empty if there are none, or padding alone.
    """

    template: Template
    octets: bytes
    count: int
    cut: str = ""
    templates: TemplatesById | None = None

    @cached_property
    def records(self) -> Records:
        """The records: `template.dtype`, shape (count,); an array of its own."""
        values: _Values | None = self.__dict__.get("_values")
        if values is not None:
            return _from_wire(self.template, *values)
        return _records(self.template, self.octets)


class _Values(NamedTuple):
    """Records whose length varies, split into values.

    Attributes:
        wire: the values of fixed length, of all records in a row.
        number: of records.
        variable: the others by name.
    """

    wire: bytes
    number: int
    variable: dict[str, list[bytes]]


@dataclass(slots=True)
class UndecodedSet:
    """A Set whose Template is not known yet: pass it to `decode_data_set` when the Template has arrived.

    Attributes:
        set_id: the Template's id.
        octets: the content after the Set Header.
    """

    set_id: int
    octets: bytes


def decode_data_set(template: Template, octets: bytes, start: int = 0, end: int | None = None,
                    strict: bool = True) -> DataSet:
    """Decode the Data Set in octets[start:end], which excludes the Set Header.

    Args:
        strict: raise if a record is cut off; otherwise the records before it are decoded, see DataSet.cut.

    Raises IpfixDecodeError; its offset counts from the start of `octets`.
    """
    end = len(octets) if end is None else end
    shortest = template.min_octets
    if template.fixed_length:
        count = (end - start) // shortest
        rest = start + count * shortest
        return DataSet(template, octets[start:rest], count, _cut(octets, rest, end, shortest))
    values, rest, fault = _split(template, octets, start, end)
    if fault is not None and strict:
        raise fault
    data_set = DataSet(template, octets[start:end], values.number,
                       _cut(octets, rest, end, shortest) if fault is None else fault.reason)
    data_set.__dict__["_values"] = values  # it takes no less to find their number
    return data_set


def _cut(octets: bytes, rest: int, end: int, shortest: int) -> str:
    """Why octets behind the last record are no record; empty if they are padding."""
    if end - rest < _ALIGNMENT or not any(octets[rest:end]):
        return ""
    return f"{end - rest} octets are less than a record of {shortest}"


def join(data_sets: Sequence[DataSet]) -> Records:
    """The records of several Data Sets of one Template: `template.dtype`, shape (sum of counts,)."""
    template = data_sets[0].template
    if not template.plain:
        return np.concatenate([data_set.records for data_set in data_sets])
    if template.fixed_length:
        return _records(template, b"".join([data_set.octets for data_set in data_sets]))
    parts: list[_Values] = [each.__dict__["_values"] for each in data_sets if "_values" in each.__dict__]
    if len(parts) < len(data_sets):
        return np.concatenate([data_set.records for data_set in data_sets])
    parts = [part for part in parts if part.number] or parts[:1]
    return _from_wire(template, b"".join([part.wire for part in parts]), sum(part.number for part in parts), {
        name: list(chain.from_iterable([part.variable[name] for part in parts])) for name in parts[0].variable})


def join_as(template: Template, data_sets: Sequence[DataSet]) -> Records:
    """The same of several Templates with one length each, as records of another Template, whose fields all of them
    have: `template.dtype`, shape (sum of counts,)."""
    if all(data_set.template is template for data_set in data_sets):
        return join(data_sets)
    records = np.empty(sum(data_set.count for data_set in data_sets), template.dtype)
    start = 0
    for _, alike in groupby(data_sets, lambda data_set: id(data_set.template)):
        parts = list(alike)
        count = sum(data_set.count for data_set in parts)
        wire = np.frombuffer(b"".join([data_set.octets for data_set in parts]), parts[0].template.wire_dtype, count)
        _fill(records[start:start + count], template, wire, {})
        start += count
    return records


def _records(template: Template, octets: bytes) -> Records:
    """Records of one length."""
    return _from_wire(template, octets, len(octets) // template.min_octets, {})


def _split(template: Template, octets: bytes, start: int, end: int) -> tuple[_Values, int, IpfixDecodeError | None]:
    """Split the records of a Data Set.

    Returns the values, the offset behind the last record, and the fault of the record that the rest is cut off in, if
    it is as long as the shortest record.
    """
    if end - start < template.min_octets:
        return _Values(b"", 0, {}), start, None
    fixed: list[bytes] = []
    variable: dict[str, list[bytes]] = {}
    plan: list[tuple[Callable[[bytes], None] | None, str, int]] = []
    for name, length in _runs(template):
        if length == VARIABLE_LENGTH:
            variable[name] = []
            plan.append((variable[name].append, name, length))
        else:
            plan.append((None, name, length))
    count, cut, least = 0, None, template.min_octets
    while end - start >= least:  # a message may have a value in each octet
        complete = len(fixed)
        try:
            for append, name, length in plan:
                if append is None:
                    following = start + length
                    if following > end:
                        raise IpfixDecodeError(f"{name} of {length} octets is cut off", start, "value")
                    fixed.append(octets[start:following])
                    start = following
                elif start < end and (short := octets[start]) < _LONG_VALUE and start + short < end:
                    following = start + 1 + short
                    append(octets[start + 1:following])
                    start = following
                else:
                    value, start = _variable_value(octets, start, end)
                    append(value)
        except IpfixDecodeError as fault:
            cut = fault
            del fixed[complete:]
            variable = {name: values[:count] for name, values in variable.items()}
            break
        count += 1
    return _Values(b"".join(fixed), count, variable), start, cut


def _runs(template: Template) -> list[tuple[str, int]]:
    """Name and length of each field of variable length, and of the fields of fixed length between two of these."""
    found: list[tuple[str, int]] | None = template.__dict__.get("_runs")
    if found is None:
        found = []
        for name, specifier in template.named_fields:
            if specifier.length != VARIABLE_LENGTH and found and found[-1][1] != VARIABLE_LENGTH:
                found[-1] = found[-1][0], found[-1][1] + specifier.length
            else:
                found.append((name, specifier.length))
        template.__dict__["_runs"] = found
    return found


def _variable_value(octets: bytes, start: int, end: int) -> tuple[bytes, int]:
    """Return a variable-length value (RFC 7011 section 7) and the offset of the next field."""
    header = 1
    if start < end and (length := octets[start]) == _LONG_VALUE:
        header = 3
        length = int.from_bytes(octets[start + 1:start + 3], "big")
    if end - start < header or end - start - header < length:
        raise IpfixDecodeError("a variable-length value exceeds its set", start, "value")
    return octets[start + header:start + header + length], start + header + length


def _from_wire(template: Template, octets: bytes, count: int, variable: dict[str, list[bytes]]) -> Records:
    """Build records of the Template's dtype: fixed-length fields by column, variable-length ones from lists."""
    if not count:  # a Template may have thousands of fields, and a message thousands of empty Sets
        return template.no_records
    dtype = template.wire_dtype
    wire = np.frombuffer(octets, dtype, count) if dtype.itemsize else np.empty(count, dtype)
    records = np.zeros(count, template.dtype)
    _fill(records, template, wire, variable)
    return records


def _fill(records: Records, template: Template, wire: Records, variable: dict[str, list[bytes]]) -> None:
    with np.errstate(invalid="ignore"):  # a signalling NaN in 4 octets of a float that has 8
        for name, specifier in template.named_fields:
            if specifier.length == VARIABLE_LENGTH:
                records[name] = variable[name]
            elif wire[name].ndim == 1:
                records[name] = wire[name]
            else:
                records[name] = _from_octets(wire[name], signed=specifier.format[0] == "i")


def _from_octets(octets: np.ndarray[tuple[int, int], np.dtype[np.uint8]], signed: bool) -> np.ndarray[
        tuple[int], np.dtype[np.unsignedinteger] | np.dtype[np.signedinteger]]:
    """Integers of a size that numpy lacks: shape (n, length) to (n,)."""
    count, length = octets.shape
    full = np.zeros((count, 8), np.uint8)
    full[:, 8 - length:] = octets
    if signed:
        full[:, :8 - length] = np.where(octets[:, :1] & 0x80, 0xFF, 0)
    return full.view(">i8" if signed else ">u8").ravel()
