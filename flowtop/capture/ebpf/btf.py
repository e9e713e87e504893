"""Offsets of members of the kernel's structures, from its own type information (BTF, CONFIG_DEBUG_INFO_BTF).

The format: Documentation/bpf/btf.rst of the kernel. Only the standard library: the compiling child loads this file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
_STRUCT, _UNION = 4, 5
_MEMBER_OCTETS = 12
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
"""Octets after a type that do not depend on its number of members: INT, ARRAY, VAR, DECL_TAG."""
_EACH = {_STRUCT: _MEMBER_OCTETS, _UNION: _MEMBER_OCTETS, 6: 8, 13: 8, 15: 12, 19: 12}
"""Octets for each member: STRUCT, UNION, ENUM, FUNC_PROTO, DATASEC, ENUM64."""


def member_offsets(structure: str, members: Iterable[str], path: Path = VMLINUX) -> dict[str, int]:
    """Offset of each of the members, in octets.

    Members of unnamed structures and unions inside belong to the structure, as in C.

    Raises:
        OSError: the kernel gives no type information.
        ValueError: it is not as expected, or has no such structure or member.
    """
    types = _Types(path.read_bytes())
    found = types.members(types.find(structure))
    missing = [name for name in members if name not in found]
    if missing:
        raise ValueError(f"struct {structure} has no {', '.join(missing)}")
    return {name: found[name] for name in members}


class _Types:
    """The types of one BTF file. Raises ValueError: it is not one, or is damaged."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        try:
            magic, _, _, header, types, types_octets, strings, strings_octets = struct.unpack_from("=HBBIIIII", data)
        except struct.error as error:
            raise ValueError("too short for BTF") from error
        if magic != _MAGIC:
            raise ValueError("not BTF of this byte order")
        self._strings = data[header + strings:header + strings + strings_octets]
        self._places = [0]
        try:
            self._walk(header + types, header + types + types_octets)
        except struct.error as error:
            raise ValueError("BTF ends inside a type") from error

    def _walk(self, place: int, end: int) -> None:
        unpack, places = struct.Struct("=4xI4x").unpack_from, self._places
        while place < end:
            places.append(place)
            (information,) = unpack(self._data, place)
            kind = information >> 24 & 31
            place += 12 + _FIXED.get(kind, 0) + _EACH.get(kind, 0) * (information & 0xFFFF)

    def _name(self, offset: int) -> str:
        return self._strings[offset:self._strings.index(b"\0", offset)].decode(errors="replace")

    def find(self, structure: str) -> int:
        """Number of the type."""
        wanted = b"\0" + structure.encode() + b"\0"
        at = self._strings.find(wanted) + 1
        unpack = struct.Struct("=II").unpack_from
        for number in range(1, len(self._places) if at else 0):
            name, information = unpack(self._data, self._places[number])
            if name == at and information >> 24 & 31 == _STRUCT:
                return number
        raise ValueError(f"no struct {structure}")

    def members(self, number: int, base: int = 0) -> dict[str, int]:
        """Offsets by name, with those of unnamed members; bit fields are left out."""
        place, found = self._places[number], {}
        (information,) = struct.unpack_from("=4xI", self._data, place)
        for index in range(information & 0xFFFF):
            name, kind, offset = struct.unpack_from("=III", self._data, place + 12 + index * _MEMBER_OCTETS)
            if information >> 31:
                if offset >> 24:
                    continue
                offset &= 0xFFFFFF
            if name:
                found[self._name(name)] = base + offset // 8
            else:
                found.update(self._unnamed(kind, base + offset // 8))
        return found

    def _unnamed(self, number: int, base: int) -> dict[str, int]:
        (information,) = struct.unpack_from("=4xI", self._data, self._places[number])
        return self.members(number, base) if information >> 24 & 31 in (_STRUCT, _UNION) else {}
