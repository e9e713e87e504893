"""One MMDB file: which record each of many addresses has, and what flowtop reads of a record.

maxminddb opens the file and decodes records. Its look-up takes one address at a time, so the search tree is walked
here, for many addresses at once; each different record is then decoded once, by maxminddb. Always by its decoder in
Python, which costs some microseconds a record: its extension in C crashes on some damaged files.
File format: https://maxmind.github.io/MaxMind-DB/
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

import maxminddb
import numpy as np
import numpy.typing as npt
from maxminddb.decoder import Decoder

from flowtop.model.kinds import IpVersion
from flowtop.text import units

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]

MAPPED = np.uint64(0xFFFF << 32)
"""Lower half of the first IPv4-mapped address: IPv4 addresses are ::ffff:a.b.c.d here."""
_FOUR_DEPTH = 96
_WHOLE = 128
_SEPARATOR = 16
"""Octets of zeros between the tree and the records."""
LONGEST_NAME = 64


class DatabaseError(Exception):
    """The file cannot be used. The text is a reason in plain words, without the name of the file."""


class Known(NamedTuple):
    """What a record says. 0 and "": nothing."""

    asn: int = 0
    name: str = ""
    country: str = ""
    """Two letters, A to Z."""


NOTHING = Known()

Identity = tuple[int, int, int, int]
"""Device, inode, size and time of the last change of a file."""


def identity(status: os.stat_result) -> Identity:
    """Differs when the file was replaced or written to."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class Database:
    """An open database.

    The file is mapped, not read: of a file of 1 GB only the pages that are needed are in memory. Somebody who shortens
    a mapped file takes the pages away from under us (SIGBUS), so `intact` must be asked before each use; programs that
    replace a file by another one (rename, as geoipupdate does) do no harm.

    Raises:
        DatabaseError: it is missing, not readable, not an MMDB file, damaged, or changes while it is opened.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        try:
            self._open(path)
        except OSError as error:
            raise DatabaseError((error.strerror or str(error)).lower()) from error
        except (maxminddb.InvalidDatabaseError, ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
            raise DatabaseError("is not an MMDB file, or is cut off or damaged") from error

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _open(self, path: Path) -> None:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DatabaseError("is not a file")
        if not status.st_size:
            raise DatabaseError("is empty")
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with maxminddb.open_database(path, maxminddb.MODE_MMAP) as reader:
            facts = reader.metadata()
        self.identity = identity(status)
        if identity(os.fstat(self._descriptor)) != self.identity or identity(path.stat()) != self.identity:
            raise DatabaseError("is being changed")
        if facts.record_size not in (24, 28, 32) or facts.ip_version not in tuple(IpVersion) or facts.node_count < 1:
            raise DatabaseError("has a format that is not known")
        self._bits, self._count, self._six = facts.record_size, facts.node_count, facts.ip_version == IpVersion.V6
        octets = self._count * self._bits // 4
        if octets + _SEPARATOR > status.st_size:
            raise DatabaseError("is cut off")
        if any(os.pread(self._descriptor, _SEPARATOR, octets)):
            raise DatabaseError("is damaged: its tree does not end where it should")
        self.kind = units.printable(str(facts.database_type), LONGEST_NAME)
        self.built_s = facts.build_epoch
        mapped = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
        self._tree = np.frombuffer(mapped, np.uint8, octets)
        self._decoder = Decoder(mapped, octets + _SEPARATOR)
        self._known: dict[int, Known] = {}
        self.decoded = 0
        """Records that were decoded so far."""
        self.unreadable = 0
        """Records that could not be decoded."""
        self._four_root = self._descend_to_four()

    def intact(self) -> bool:
        """Whether the mapped file is as it was when it was opened. A replaced file is."""
        status = os.fstat(self._descriptor)
        return (status.st_size, status.st_mtime_ns) == self.identity[2:]

    def records(self, high: Words, low: Words, lengths: npt.NDArray[np.uint8]) -> Integers:
        """The record of each address or network; 0: none.

        Args:
            high, low: both halves of addresses as numbers, IPv4 as IPv4-mapped, shape (n,).
            lengths: how many of the 128 bits are those of a network; a network that lies in several of the database's
                networks has no record. 128: an address.
        """
        found = np.zeros(len(high), np.int64)
        four = (high == 0) & (low >> np.uint64(32) == MAPPED >> np.uint64(32))
        self._walk(found, np.flatnonzero(four), self._four_root, _FOUR_DEPTH, high, low, lengths)
        if self._six:
            self._walk(found, np.flatnonzero(~four), 0, 0, high, low, lengths)
        return found

    def known(self, record: int) -> Known:
        """What a record says that `records` has found."""
        known = self._known.get(record)
        if known is None:
            known = self._known[record] = self._decoded(record)
        return known

    def _decoded(self, record: int) -> Known:
        self.decoded += 1
        try:
            return known_of(self._decoder.decode(record - self._count + len(self._tree))[0])
        except (maxminddb.InvalidDatabaseError, ValueError, TypeError, KeyError, IndexError, RecursionError, OSError,
                MemoryError, OverflowError):
            self.unreadable += 1
            return NOTHING

    def _descend_to_four(self) -> int:
        """The node of the IPv4 addresses: ::/96 in a tree of IPv6, which is where IPv4 is stored."""
        node = 0
        if self._six:
            for _ in range(_FOUR_DEPTH):
                if node >= self._count:
                    break
                node = int(self._next(np.array([node]), np.zeros(1, np.int64))[0])
        return node

    def _walk(self, found: Integers, rows: Integers, root: int, depth: int, high: Words, low: Words,
              lengths: npt.NDArray[np.uint8]) -> None:
        """Fill `found` at these rows. Every row that is left is at a node of the tree, in `nodes`."""
        if root >= self._count:
            found[rows] = root if root > self._count else 0
            return
        nodes = np.full(len(rows), root, np.int64)
        shortened = bool((lengths[rows] < _WHOLE).any())
        for level in range(depth, _WHOLE):
            if shortened:
                inside = lengths[rows] > level
                rows, nodes = rows[inside], nodes[inside]
            if not len(rows):
                return
            words, shift = (high, 63 - level) if level < 64 else (low, 127 - level)
            nodes = self._next(nodes, (words[rows] >> np.uint64(shift) & np.uint64(1)).astype(np.int64))
            leaves = nodes >= self._count
            if leaves.any():
                values = nodes[leaves]
                found[rows[leaves]] = np.where(values > self._count, values, 0)
                rows, nodes = rows[~leaves], nodes[~leaves]

    def _next(self, nodes: Integers, bits: Integers) -> Integers:
        """The left (0) or right (1) value of each of these nodes."""
        tree = self._tree

        def number(at: Integers, octets: int) -> Integers:
            value = tree[at].astype(np.int64)
            for offset in range(1, octets):
                value = value << 8 | tree[at + offset]
            return value

        if self._bits == 24:
            return number(nodes * 6 + bits * 3, 3)
        if self._bits == 32:
            return number(nodes * 8 + bits * 4, 4)
        middle = tree[nodes * 7 + 3].astype(np.int64)  # upper four bits: those of the left value
        return np.where(bits == 0, middle >> 4, middle & 15) << 24 | number(nodes * 7 + bits * 4, 3)


def known_of(record: Any) -> Known:
    """What a record says of the AS and the country, in the schemas of GeoLite2 and GeoIP2 (also its ISP and Enterprise
    databases), DB-IP and IPinfo. Names are cleaned for the screen: they are strangers' text."""
    if not isinstance(record, dict):
        return NOTHING
    traits = record.get("traits")
    places = [record, traits] if isinstance(traits, dict) else [record]
    asn = next(filter(None, (_as_number(place.get(name)) for place in places for name in _AS_NUMBERS)), 0)
    name = next(filter(None, (_name(place.get(name)) for place in places for name in _AS_NAMES)), "")
    country = record.get("country")
    if isinstance(country, dict):
        country = country.get("iso_code")
    return Known(asn, name, _country(record.get("country_code")) or _country(country))


_AS_NUMBERS = ("autonomous_system_number", "asn", "as_number")
_AS_NAMES = ("autonomous_system_organization", "as_name", "as_organization", "as_org")


def _as_number(value: Any) -> int:
    """`64500`, `"AS64500"`, `"64500"`; 0 for anything else."""
    if isinstance(value, str):
        digits = value.strip().upper().removeprefix("AS")
        value = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 10 else 0
    return value if type(value) is int and 0 < value < 1 << 32 else 0


def _name(value: Any) -> str:
    return units.printable(value.strip(), LONGEST_NAME).strip() if isinstance(value, str) else ""


def _country(value: Any) -> str:
    """ISO 3166 alpha-2; "" for anything else, such as a country's name."""
    text = value.strip().upper() if isinstance(value, str) else ""
    return text if len(text) == 2 and text.isascii() and text.isalpha() else ""
