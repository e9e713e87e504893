"""Evaluates a filter's tree over columns, in numpy.

Once an `and` has left few flows, its other parts are evaluated for those alone.
"""

from __future__ import annotations

import fnmatch
import re
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.fields.field import FilterKey
from flowtop.fields.networks import networked
from flowtop.filters import words
from flowtop.filters.tree import And, Match, Named, Not, Or, Term, Test, Tree, Within
from flowtop.model.flows import Array, ColumnsAt, FlowColumns, FlowSource, with_columns
from flowtop.model.kinds import TCP_NAMED_BITS, IpVersion, Kind
from flowtop.model.names_seen import NAMES, OF_SOURCE, name_codes, name_origins
from flowtop.model.record import FlowRecords
from flowtop.model.reported import packed_address
from flowtop.text import operands
from flowtop.text.lookups import Lookups
from flowtop.text.names import name_pattern
from flowtop.text.operands import Network

_BITS = 20
_FOUR = np.uint32(0x9E3779B1)
_SIXTEEN = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
"""Odd multipliers for hashing: the upper bits of a product depend on all bits of the factor."""


def among_four(first: Array, addresses: Iterable[bytes]) -> npt.NDArray[np.bool_]:
    """Which of these IPv4 addresses are among `addresses`. Shape (n,).

    Args:
        first: u4, shape (n,): the four bytes of the wire as this machine's integers.
        addresses: of 4 bytes each.
    """
    numbers = np.frombuffer(b"".join(addresses), np.uint32)
    return _exact(_places(first, numbers, _hash_four), first, numbers)


def among_sixteen(words: Array, addresses: Iterable[bytes]) -> npt.NDArray[np.bool_]:
    """The same for IPv6 addresses.

    Args:
        words: u8, shape (n, 2), C-contiguous: the sixteen bytes.
        addresses: of 16 bytes each.
    """
    numbers = np.frombuffer(b"".join(addresses), np.uint64).reshape(-1, 2)
    # Compared as byte strings of one length: that numpy ignores trailing zeros then makes no difference.
    return _exact(_places(words, numbers, _hash_sixteen), words.view("S16")[:, 0], numbers.view("S16")[:, 0])


def _places(values: Array, members: Array, place: Callable[[Array], Array]) -> npt.NDArray[np.int64]:
    """Positions of all values that are among the members, and of a few others with the same hash."""
    table = np.zeros(1 << _BITS, np.bool_)
    table[place(members)] = True
    return np.flatnonzero(table[place(values)])


def _hash_four(numbers: Array) -> Array:
    place: Array = numbers * _FOUR >> np.uint32(32 - _BITS)
    return place


def _hash_sixteen(words: Array) -> Array:
    mixed = (words[:, 0] * _SIXTEEN[0]) ^ (words[:, 1] * _SIXTEEN[1])
    place: Array = mixed * _SIXTEEN[0] >> np.uint64(64 - _BITS)
    return place


def _exact(rows: npt.NDArray[np.int64], values: Array, members: Array) -> npt.NDArray[np.bool_]:
    mask = np.zeros(len(values), np.bool_)
    mask[rows] = np.isin(values[rows], members)
    return mask


Mask = npt.NDArray[np.bool_]

_FEW = 8
"""When fewer than one in this many flows is left, the rest of an `and` is evaluated for these flows only."""

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "=": np.equal, "!=": np.not_equal}
_NAMED_BITS = np.uint16(TCP_NAMED_BITS)
"""TCP control bits that have names."""


def flow_mask(tree: Tree, source: FlowSource, lookups: Lookups) -> Mask:
    """Which slots of the source pass."""
    return _with_aggregates(tree, _Flows(source, lookups))


def record_mask(tree: Tree, records: FlowRecords | FlowColumns, lookups: Lookups) -> Mask:
    """Which Flow Records pass, or which packets, by the columns of a Flow Key."""
    return _with_aggregates(tree, _Records(records, lookups))


class _Subject:
    """Flows, or some of them, with one number a flow for each key. Keeps the arrays that it has made."""

    def __init__(self, columns: FlowColumns, lookups: Lookups) -> None:
        self.columns = networked(columns, lookups.networks, lookups.here)
        self.lookups = lookups
        self.lenient = False
        """Tests of what is not known of aggregates pass."""
        self._kept: dict[object, Array] = {}

    @property
    def size(self) -> int:
        """Number of flows."""
        return len(self.columns["ip_version"])

    def numbers(self, key: FilterKey) -> Array:
        """The key's number of each flow."""
        found = self._kept.get(key.word)
        if found is None:
            found = self._kept[key.word] = self._numbers(key)
        return found

    def distinct(self, key: FilterKey) -> list[int]:
        """The different ones of these numbers. All texts of a process have one column, so it is looked through once."""
        numbers = self.numbers(key)
        if not numbers.any():
            return [0] * bool(len(numbers))
        place = numbers.__array_interface__["data"], numbers.dtype.str, numbers.strides
        found = self._kept.get(place)
        if found is None:
            found = self._kept[place] = np.unique(numbers)
        return found.tolist()  # type: ignore[no-any-return]

    def words(self, side: str, dtype: str) -> Array:
        """Addresses of that side in network byte order, as words: for "u2" and "u4" the first word, shape (n,); for
        "u8" both, shape (n, 2)."""
        found = self._kept.get((side, dtype))
        if found is None:
            raw = self.columns[f"{side}_address"]
            if dtype != "u8":
                first = np.dtype({"names": ["first"], "formats": [dtype], "offsets": [0], "itemsize": 16})
                found = np.ascontiguousarray(raw.view(first)["first"])
            else:
                found = np.ascontiguousarray(raw).view("u8").reshape(-1, 2)
            self._kept[side, dtype] = found
        return found

    def few(self, rows: npt.NDArray[np.int64]) -> _Subject:
        """The flows at these positions."""
        raise NotImplementedError

    def _numbers(self, key: FilterKey) -> Array:
        raise NotImplementedError


class _Flows(_Subject):
    """Flows of a table."""

    def __init__(self, source: FlowSource, lookups: Lookups) -> None:
        super().__init__(source.columns, lookups)
        self._source = with_columns(source, self.columns, source.visible)

    def few(self, rows: npt.NDArray[np.int64]) -> _Subject:
        """See _Subject."""
        source = with_columns(self._source, ColumnsAt(self.columns, rows), self._source.visible[rows])
        chosen = _Flows(source, self.lookups)
        chosen.lenient = self.lenient
        return chosen

    def _numbers(self, key: FilterKey) -> Array:
        return key.flows(self._source)


class _Records(_Subject):
    """Flow Records."""

    def few(self, rows: npt.NDArray[np.int64]) -> _Subject:
        """See _Subject."""
        chosen = _Records(ColumnsAt(self.columns, rows), self.lookups)
        chosen.lenient = self.lenient
        return chosen

    def _numbers(self, key: FilterKey) -> Array:
        if key.records is None:
            raise ValueError(f"{key.word} is not of Flow Records: compile the filter for them")
        return key.records(self.columns)


def _with_aggregates(tree: Tree, subject: _Subject) -> Mask:
    """The mask. Aggregates pass unless something that is known of them fails."""
    found = _mask(tree, subject, False)
    aggregates = np.flatnonzero(subject.columns["kind"] == Kind.AGGREGATE)
    if len(aggregates):
        rest = subject.few(aggregates)
        rest.lenient = True
        found[aggregates] = _mask(tree, rest, False)
    return found


def _mask(tree: Tree, subject: _Subject, negated: bool) -> Mask:
    """Which flows pass `tree`, or its opposite. A new array."""
    if isinstance(tree, Term):
        return _mask(tree.meaning, subject, negated)
    if isinstance(tree, Not):
        return _mask(tree.part, subject, not negated)
    if isinstance(tree, And | Or):
        joined = _every if isinstance(tree, And) != negated else _any
        return joined(tree.parts, subject, negated)
    if subject.lenient and not _known_of_aggregates(tree):
        return np.ones(subject.size, np.bool_)
    found = _test(tree, subject)
    return np.logical_not(found, out=found) if negated else found


def _every(parts: tuple[Tree, ...], subject: _Subject, negated: bool) -> Mask:
    if not parts:
        return np.ones(subject.size, np.bool_)
    found = _mask(parts[0], subject, negated)
    for position, part in enumerate(parts[1:], 1):
        if np.count_nonzero(found) * _FEW < len(found):
            rows = np.flatnonzero(found)
            found[rows] = _every(parts[position:], subject.few(rows), negated) if len(rows) else False
            return found
        found &= _mask(part, subject, negated)
    return found


def _any(parts: tuple[Tree, ...], subject: _Subject, negated: bool) -> Mask:
    found = np.zeros(subject.size, np.bool_)
    for part in parts:
        found |= _mask(part, subject, negated)
    return found


def _known_of_aggregates(test: Test) -> bool:
    return not isinstance(test, Within | Named) and test.key.of_aggregates


def _test(test: Test, subject: _Subject) -> Mask:
    if isinstance(test, Within):
        return _within(test, subject)
    if isinstance(test, Named):
        return _named(test, subject)
    numbers = subject.numbers(test.key)
    found: Mask
    if isinstance(test, Match) and test.key.kind == "address":
        found = _in_network(numbers, operands.network(test.pattern))
    elif isinstance(test, Match):
        codes = matching_codes(test, subject.distinct(test.key), subject.lookups)
        found = np.isin(numbers, np.array(codes, numbers.dtype))
    elif test.key.kind == "bits":
        found = _has_bits(numbers, int(test.value))
    else:
        # A plain int takes the column's dtype; an enum member would make int64 of both.
        value = int(test.value) if isinstance(test.value, int) else test.value
        found = _COMPARISONS[test.operator](numbers, value)
    return found


def _in_network(addresses: Array, network: Network) -> Mask:
    """Which addresses, V16 as in model.reported, are in the network."""
    mask = b"\xff" * (16 - len(network.mask)) + network.mask
    halves = np.ascontiguousarray(addresses).view(np.uint64).reshape(-1, 2)
    value = packed_address(network.packed)
    found = np.ones(len(halves), np.bool_)
    for half, start in zip(halves.T, (0, 8), strict=True):
        found &= half & np.uint64(_integer(mask[start:start + 8])) == np.uint64(_integer(value[start:start + 8]))
    return found & halves.any(axis=1)


def _has_bits(numbers: Array, bits: int) -> Mask:
    mask: Mask = numbers & np.uint16(bits or _NAMED_BITS) == bits
    return mask


def matching_codes(test: Match, codes: list[int], lookups: Lookups) -> list[int]:
    """The codes whose text matches the pattern; a code without a name has the name that the screen shows."""
    of = test.key.texts
    texts = [] if of is None else [(code, of.text(code, lookups)) for code in codes]
    if test.operator == "~":
        part = test.pattern.casefold()
        return [code for code, text in texts if part in text.casefold()]
    glob = re.compile(fnmatch.translate(test.pattern), re.IGNORECASE if test.key.any_case else re.NOFLAG)
    return [code for code, text in texts if glob.match(text)]


def _named(test: Named, subject: _Subject) -> Mask:
    found = _called(test, subject)
    addresses = subject.lookups.hosts.matching(test.pattern, whole=test.whole)
    four, sixteen = ([address for address in addresses if len(address) == size] for size in (4, 16))
    if four:
        found |= _of_version(among_four(subject.words(test.side, "u4"), four), IpVersion.V4, subject)
    if sixteen:
        found |= _of_version(among_sixteen(subject.words(test.side, "u8"), sixteen), IpVersion.V6, subject)
    return found


def _called(test: Named, subject: _Subject) -> Mask:
    """Flows with that end's name in packets (fields/names.py)."""
    peer_names = np.asarray(subject.columns["peer_name"])
    if not peer_names.any():
        return np.zeros(subject.size, np.bool_)
    codes, of = np.unique(name_codes(peer_names), return_inverse=True)
    passes = name_pattern(test.pattern, whole=test.whole)
    texts = subject.lookups.named(NAMES)
    good = np.array([code in texts and passes(texts[code]) for code in codes.tolist()])
    of_source = name_origins(peer_names) & np.uint32(OF_SOURCE) != 0
    found: Mask = good[of] & (of_source if test.side == "source" else ~of_source)
    return found


def _within(test: Within, subject: _Subject) -> Mask:
    if len(test.networks) == 1:
        return _within_one(test.networks[0], test.side, subject)
    leads = subject.words(test.side, "u2").astype(np.uint32)
    leads += np.where(subject.numbers(words.VERSION) == np.uint8(IpVersion.V6), np.uint32(_LEADS), np.uint32(0))
    verdicts = _verdicts(test.networks)[leads]
    found: Mask = verdicts == _ALL_IN
    rows = np.flatnonzero(verdicts == _SOME_IN)
    if len(rows):
        rest = subject.few(rows)
        for network in test.networks:
            found[rows] |= _within_one(network, test.side, rest)
    return found


_LEADS = 1 << 16
_ALL_IN, _SOME_IN = 2, 1


@lru_cache(maxsize=16)
def _verdicts(networks: tuple[Network, ...]) -> npt.NDArray[np.uint8]:
    """For each first two octets of an address, read in this machine's byte order, IPv6 after IPv4: whether all, some or
    none of the addresses that begin so are in the networks. Shape (2 * 65,536,)."""
    table = np.zeros((2, _LEADS), np.uint8)
    for network in networks:
        half = table[int(network.version == IpVersion.V6)]
        first = int.from_bytes(network.packed[:2], "big")
        span = half[first:first + (1 << max(0, 16 - network.prefix))]
        span[:] = np.maximum(span, _ALL_IN if network.prefix <= 16 else _SOME_IN)
    as_read = np.arange(_LEADS, dtype=np.uint16).astype(">u2").view(np.uint16)
    turned = np.zeros_like(table)
    turned[:, as_read] = table
    return turned.ravel()


def _within_one(network: Network, side: str, subject: _Subject) -> Mask:
    """Octets are compared as this machine's integers, with constants read the same way."""
    octets = 4 if network.version == IpVersion.V4 else 8
    starts = range(0, len(network.packed), octets)
    values, masks = ([_integer(packed[start:start + octets]) for start in starts]
                     for packed in (network.packed, network.mask))
    words = subject.words(side, f"u{octets}").reshape(subject.size, len(values))
    found = np.ones(subject.size, np.bool_)
    for word, value, mask in zip(words.T, values, masks, strict=True):
        if mask:
            full = mask == (1 << 8 * octets) - 1
            found &= (word if full else word & word.dtype.type(mask)) == word.dtype.type(value)
    return _of_version(found, network.version, subject)


def _of_version(found: Mask, version: int, subject: _Subject) -> Mask:
    """The flows of `found` with this IP version; if they are few, only those are tested."""
    if np.count_nonzero(found) * _FEW < len(found):
        rows = np.flatnonzero(found)
        found[rows] = subject.columns["ip_version"][rows] == np.uint8(version)
    else:
        found &= subject.numbers(words.VERSION) == np.uint8(version)
    return found


def _integer(octets: bytes) -> int:
    return int.from_bytes(octets, sys.byteorder)
