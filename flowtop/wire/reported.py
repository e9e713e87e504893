"""What exporters report of a flow beside key and counters, from Data Records of any Template (model/reported.py).

Elements are looked up by number, not by name: those of firewalls (Cisco ASA, PAN-OS) have numbers of their vendors.
All is decided per Template: one without these elements costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.model.elements import IXIA, NTOP
from flowtop.model.reported import MEASURED_DTYPE, REPORTED_DTYPE, Reported, mapped, words_of
from flowtop.wire.ipfix import Records
from flowtop.wire.ipfix_template import FieldSpecifier, Template
from flowtop.wire.owners import Code
from flowtop.wire.relayed import applied_intervals
from flowtop.wire.tcp_metrics import NETOBSERV, fill_measured
from flowtop.wire.tcp_metrics import NUMBERS as MEASURED
from flowtop.wire.tcp_metrics import number as measured_number

CISCO, PALO_ALTO = 9, 25461
"""Private enterprise numbers."""
_ELEMENT_BITS = 0x7FFF

_NUMBERS: dict[str, tuple[int, ...]] = {
    "source_as": (16,), "destination_as": (17,), "source_mask": (9, 29), "destination_mask": (13, 30),
    "sampler": (48, 302), "nat_event": (230,), "firewall_event": (233, 40005), "firewall_extended_event": (33002,),
    "post_nat_source_port": (227, 40003), "post_nat_destination_port": (228, 40004),
}
"""By member: elements that are its value as they are, the first that is not 0. From 33002 on: Cisco ASA (NSEL)."""
_ADDRESSES: dict[str, tuple[int, ...]] = {
    "next_hop": (15, 62), "bgp_next_hop": (18, 63), "post_nat_source": (225, 281, 40001),
    "post_nat_destination": (226, 282, 40002),
}
_MPLS_TOP_LABEL = 70
_VRFS = {"ingress_vrf": 234, "egress_vrf": 235}
_VRF_NAME = 236
_APPLICATION_ID, _APPLICATION_NAMES = 95, (96, 56701)
_USERS = (371, 40000, 56702)
_SELECTOR_NAME = 335
_OF_CISCO = (33002,)
_MEASURING = (IXIA, NTOP, NETOBSERV)
_SECOND_VRF_NAME = "VRFname#2"
"""Of the egress VRF, in relayed records."""

Place = tuple[bytes, bytes]
"""A VRF or application in a record: its id as octets in network order and its name; b"": not reported."""


@dataclass(frozen=True, slots=True)
class Naming:
    """Gives codes to what has no number of its own; see capture/collector/names.py.

    Attributes:
        application, vrf: codes of several (id, name).
        user: codes of several names.
        owner: the owner id of one process, see wire.owners.Code.
    """

    application: Callable[[Iterable[Place]], list[int]]
    vrf: Callable[[Iterable[Place]], list[int]]
    user: Callable[[Iterable[bytes]], list[int]]
    owner: Code


@lru_cache(maxsize=1024)
def _numbered(template: Template) -> dict[int, str]:
    """Column of records by number of the element, for the elements that are read here; the first if there are two."""
    found: dict[int, str] = {}
    for name, specifier in template.named_fields:
        number = _number(specifier.enterprise, specifier.element_id)
        if number in _EVERY and number not in found:
            found[number] = name
    return found


def is_reported(specifier: FieldSpecifier) -> bool:
    """Whether a field is one of those that are read here, by their numbers: not all of them are registered."""
    return _number(specifier.enterprise, specifier.element_id) in _EVERY


def _number(enterprise: int, element_id: int) -> int:
    """The number as in NetFlow 9, which has no enterprises: PAN-OS sends its own as 56701 there, ASA as 33002."""
    if not enterprise:
        return element_id
    if enterprise in _MEASURING:
        return measured_number(enterprise, element_id)
    if enterprise == CISCO and element_id | _ELEMENT_BITS + 1 not in _OF_CISCO:
        return -1
    return element_id | _ELEMENT_BITS + 1 if enterprise in (CISCO, PALO_ALTO) else -1


_EVERY = frozenset((*(number for numbers in (*_NUMBERS.values(), *_ADDRESSES.values()) for number in numbers),
                    _MPLS_TOP_LABEL, *_VRFS.values(), _VRF_NAME, _APPLICATION_ID, *_APPLICATION_NAMES, *_USERS,
                    _SELECTOR_NAME, *MEASURED))

_NAMED = frozenset((*_VRFS.values(), _VRF_NAME, _APPLICATION_ID, *_APPLICATION_NAMES, *_USERS))


def collect_reported(template: Template, records: Records, naming: Naming) -> Reported | None:
    """The reported values of Flow Records of one Template, shape (n,); None if there are none.

    Args:
        naming: gives codes to applications, VRFs and users of this exporter.
    """
    columns = _numbered(template)
    if not columns or not len(records):
        return None
    measured = not MEASURED.isdisjoint(columns)
    found = np.zeros(len(records), MEASURED_DTYPE if measured else REPORTED_DTYPE)
    for member, numbers in _NUMBERS.items():
        for values in _integers(records, columns, numbers):
            limit = np.iinfo(REPORTED_DTYPE[member]).max
            found[member] = np.where(found[member] != 0, found[member], np.minimum(values, limit))
    for member, numbers in _ADDRESSES.items():
        for number in numbers:
            octets = _address(records, columns.get(number))
            if octets is not None:
                found[member] = np.where(found[member] != np.zeros((), "V16"), found[member], octets)
    for values in _integers(records, columns, (_MPLS_TOP_LABEL,)):
        # Three octets: label, three bits of class and the bottom of the stack. With a fourth: the TTL.
        section = values >> np.uint64(8) if records[columns[_MPLS_TOP_LABEL]].dtype.itemsize == 4 else values
        found["mpls_top_label"] = section & np.uint64(0xFF_FFFF)
    if _SELECTOR_NAME in columns:  # of a relay that has multiplied the counters already
        found["sampling_interval"] = applied_intervals(records[columns[_SELECTOR_NAME]].tolist())
    _name(found, records, columns, naming)
    if measured:
        fill_measured(found, lambda number: next(iter(_integers(records, columns, (number,))), None))
    return found if words_of(found).any() else None


def _name(found: Reported, records: Records, columns: dict[int, str], naming: Naming) -> None:
    """Fill in the codes."""
    second = _SECOND_VRF_NAME if _SECOND_VRF_NAME in (records.dtype.names or ()) else None
    for (member, number), name in zip(_VRFS.items(), (columns.get(_VRF_NAME), second), strict=True):
        if number in columns or name is not None:
            found[member] = _codes(records, (columns.get(number), name), naming.vrf)
    names = [columns[number] for number in _APPLICATION_NAMES if number in columns]
    if _APPLICATION_ID in columns or names:
        found["application"] = _codes(records, (columns.get(_APPLICATION_ID), names[0] if names else None),
                                      naming.application)
    for number in _USERS:
        if number in columns:
            users = _codes(records, (columns[number],), lambda rows: naming.user(name for name, in rows))
            found["user"] = np.where(found["user"] != 0, found["user"], users)


def _integers(records: Records, columns: dict[int, str], numbers: Sequence[int]) -> Iterable[npt.NDArray[np.uint64]]:
    """The columns of these elements that can be read as unsigned integers, as u8."""
    for number in numbers:
        name = columns.get(number)
        if name is None:
            continue
        column = records[name]
        if column.dtype.kind == "u":
            yield column.astype(np.uint64)
        elif column.dtype.kind == "V" and column.dtype.itemsize <= 8:
            yield _big_endian(column)


def _big_endian(column: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """Octets in network order, up to 8 each, as integers."""
    length = column.dtype.itemsize
    full = np.zeros((len(column), 8), np.uint8)
    full[:, 8 - length:] = np.frombuffer(column.tobytes(), np.uint8).reshape(-1, length)
    return full.view(">u8").ravel().astype(np.uint64)


def _address(records: Records, name: str | None) -> npt.NDArray[np.void] | None:
    """A column of addresses as V16; IPv4 mapped."""
    if name is None:
        return None
    column = records[name]
    if column.dtype == np.dtype("V4"):
        return mapped(column)
    return column if column.dtype == np.dtype("V16") else None


def _codes(records: Records, names: Sequence[str | None],
           code: Callable[[Iterable[Any]], list[int]]) -> npt.NDArray[np.uint32]:
    """Codes of the octets in some columns (None: empty octets), u4, shape (n,). `code` sees each combination once."""
    parts = [None if name is None else records[name] for name in names]
    [first, *more] = [part for part in parts if part is not None]
    if not more and first.dtype.kind != "O":
        length = first.dtype.itemsize
        whole = np.ascontiguousarray(first)
        alike = whole.view(f"u{length}") if length in (1, 2, 4, 8) else whole.view(f"S{length}")
        _, places, inverse = np.unique(alike, return_index=True, return_inverse=True)
        parts = [None if part is None else part[places] for part in parts]
        rows = _combined(parts, len(places))
    else:
        place: dict[tuple[bytes, ...], int] = {}
        inverse = np.array([place.setdefault(row, len(place)) for row in _combined(parts, len(records))], np.intp)
        rows = list(place)
    return np.array(code(rows), np.uint32)[inverse]


def _combined(parts: Sequence[npt.NDArray[Any] | None], count: int) -> list[tuple[bytes, ...]]:
    return list(zip(*([b""] * count if part is None else _octets(part) for part in parts), strict=True))


def _octets(column: npt.NDArray[Any]) -> list[bytes]:
    """Values as octets: of strings without the zeros that fill them up, of integers in network order."""
    if column.dtype.kind in "ui":
        length = column.dtype.itemsize
        return [value.to_bytes(length, "big") for value in column.tolist()]
    return [bytes(value) for value in column.tolist()]


_EXPORTERS = (403, 404, 130, 131)
"""originalExporterIPv4Address, originalExporterIPv6Address (RFC 7119), exporterIPv4Address, exporterIPv6Address."""
_ORIGINAL_DOMAIN = 405


@dataclass(frozen=True, slots=True)
class Origins:
    """The exporters that reported relayed Flow Records first, as a mediator (RFC 7119) or a proxy names them.

    Attributes:
        exporters: V16 as in REPORTED_DTYPE, shape (n,); 0: not named.
        domains: Observation Domain IDs, u4, shape (n,); None: not named.
    """

    exporters: npt.NDArray[np.void]
    domains: npt.NDArray[np.uint32] | None


def collect_origins(template: Template, records: Records) -> Origins | None:
    """The original exporters of Flow Records of one Template; None if it does not name them."""
    columns = _origin_columns(template)
    if not columns:
        return None
    exporters = np.zeros(len(records), "V16")
    for number in _EXPORTERS:
        octets = _address(records, columns.get(number))
        if octets is not None:
            exporters = np.where(exporters != np.zeros((), "V16"), exporters, octets)
    domains = next(iter(_integers(records, columns, (_ORIGINAL_DOMAIN,))), None)
    return Origins(exporters, None if domains is None else domains.astype(np.uint32))


def has_origins(template: Template) -> bool:
    """Whether records name their original exporters."""
    return bool(_origin_columns(template))


def owns_names(template: Template) -> bool:
    """Whether records have what only a Naming of their exporter gives codes to."""
    return not _NAMED.isdisjoint(_numbered(template)) or _SECOND_VRF_NAME in template.names


@lru_cache(maxsize=1024)
def _origin_columns(template: Template) -> dict[int, str]:
    found: dict[int, str] = {}
    for name, specifier in template.named_fields:
        if not specifier.enterprise and specifier.element_id in (*_EXPORTERS, _ORIGINAL_DOMAIN):
            found.setdefault(specifier.element_id, name)
    return found
