"""AS and country of a flow's ends, from databases on this host; of AS numbers, what the exporter reports comes first.

The databases are asked only for what is shown, filtered, sorted, grouped or exported: `networked` columns look up
addresses when one of these fields is used, and only those of the flows that they hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from flowtop.fields import make
from flowtop.fields.field import Detail, DetailFormatter, Field, GroupField
from flowtop.fields.reported import of_records
from flowtop.model.flows import Array, ColumnsAt, FlowColumns, FlowSource, address_words
from flowtop.model.kinds import (
    DESTINATION_LENGTH_SHIFT,
    HAVE_PORTS,
    PORT_PROTOCOLS,
    SOURCE_LENGTH_SHIFT,
    IpVersion,
    Kind,
    RecordBits,
)
from flowtop.model.rows import FlowRow
from flowtop.text.lookups import Here, Networks, Texts

_PRIORITIES = {"country": 5, "as_name": 7, "asn": 9}
"""Of the columns: a country needs little room; a name says more than a number."""
_MAPPED = np.uint64(0xFFFF << 32)
_PART = "network "
"""Prefix of the columns of NetworkColumns: no field can have such an id."""
_SIDES = ("source", "destination")
_PREFIX = {"source": (RecordBits.SOURCE_PREFIX, SOURCE_LENGTH_SHIFT),
           "destination": (RecordBits.DESTINATION_PREFIX, DESTINATION_LENGTH_SHIFT)}
_WHOLE, _FOUR = 128, 96
"""Bits of an address, and those before an IPv4 address in an IPv4-mapped one."""

REMOTE_RULE = ("The remote end: of a flow of this host, the end that is no address of this host; else the end that is "
               "not private; else the end with the lower port; else the destination.")
REMOTE_IS_SOURCE = f"{_PART}remote is source"
"""Column of NetworkColumns: the flow comes from its remote end, so that it is one of IN; others are of OUT."""
PASSING = f"{_PART}passing"
"""Column of NetworkColumns: no end is an address of this host, or reaches all hosts of a link."""

_OFTEN = "kind"

Words = tuple[Array, Array]


class NetworkColumns:
    """Columns of flows and, computed on first use, the AS and country of both ends and of the remote end.

    Args:
        networks: databases; None: only what exporters report is known.
        here: addresses of this host; None: the flows are not its own.
        known: gives REMOTE_IS_SOURCE and PASSING, where they need not be computed.
    """

    def __init__(self, columns: FlowColumns, networks: Networks | None, here: Here | None = None,
                 known: Callable[[str], Array] | None = None) -> None:
        self._known = known
        self.networks = networks
        self.here = here
        self.ends: RemoteEnds | None = None
        self._columns = columns
        self._made: dict[str, Array] = {}
        self._ends_of: dict[str, tuple[Words, Array]] = {}
        self._local_ends: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        if not name.startswith(_PART):
            if name != _OFTEN:
                return self._columns[name]
            if name not in self._made:  # keys are far apart in memory: read once, it is asked for again and again
                self._made[name] = np.ascontiguousarray(self._columns[name])
            return self._made[name]
        if name not in self._made:
            field_id = name.removeprefix(_PART)
            if name in (REMOTE_IS_SOURCE, PASSING):
                if self._known is not None:
                    self._made[name] = self._known(name)
                else:
                    self._made[name] = self._remote_is_source() if name == REMOTE_IS_SOURCE else self._passing()
                return self._made[name]
            side = next((side for side in _SIDES if field_id.startswith(f"{side}_")), "")
            self._made |= self._of_side(side) if side else self._of_remote_end()
        return self._made[name]

    def take(self, columns: dict[str, Array], ends: RemoteEnds) -> None:
        """Columns that are known already."""
        self._made |= columns
        self.ends = ends

    def _of_side(self, side: str) -> dict[str, Array]:
        (high, low), lengths = self._ends(side)
        reported = of_records(f"{side}_as")(self._columns)
        if self.networks is None:
            asn, name, country = reported, np.zeros(len(high), np.uint32), np.zeros(len(high), np.uint16)
        else:
            asn, name, country = self.networks.origins(high, low, lengths)
            other = np.flatnonzero((reported != 0) & (reported != asn))
            if len(other):  # the database's name is that of its own number
                asn[other], name[other] = reported[other], self.networks.names_of(reported[other])
        return {f"{_PART}{side}_asn": asn, f"{_PART}{side}_as_name": name, f"{_PART}{side}_country": country}

    def _of_remote_end(self) -> dict[str, Array]:
        at_source = self[REMOTE_IS_SOURCE]
        return {f"{_PART}{name}": np.where(at_source, self[f"{_PART}source_{name}"], self[f"{_PART}destination_{name}"])
                for name in ("asn", "as_name", "country")}

    def _ends(self, side: str) -> tuple[Words, Array]:
        """Addresses as Networks takes them, and how many of their bits count: 0 where there is no address."""
        if side not in self._ends_of:
            self._ends_of[side] = self._made_ends(side)
        return self._ends_of[side]

    def _made_ends(self, side: str) -> tuple[Words, Array]:
        columns = self._columns
        version = columns["ip_version"]
        high, low = address_words(columns, f"{side}_address")
        four = version == np.uint8(IpVersion.V4)
        low = np.where(four, _MAPPED | high >> np.uint64(32), low)
        high = np.where(four, np.uint64(0), high)
        known = (version != 0) & (columns["kind"] != np.uint8(Kind.AGGREGATE))
        lengths = np.where(known, np.uint8(_WHOLE), np.uint8(0))
        bits = columns["record_bits"]
        if bits.any():
            prefix, shift = _PREFIX[side]
            rows = np.flatnonzero(known & (bits & np.uint32(prefix) != 0))
            given = (bits[rows] >> np.uint32(shift) & np.uint32(255)).astype(np.int64)  # length + 1, 0: unknown
            of_four = np.where(four[rows], _FOUR, 0)
            lengths[rows] = np.where(given > 0, np.minimum(given - 1 + of_four, _WHOLE), 0)
        return (high, low), lengths

    def _remote_is_source(self) -> Array:
        """See REMOTE_RULE."""
        columns = self._columns
        (source, _), (destination, _) = self._ends("source"), self._ends("destination")
        ports = np.isin(columns["protocol"], list(PORT_PROTOCOLS)) & np.isin(columns["kind"], HAVE_PORTS)
        found: Array = ports & (columns["source_port"] < columns["destination_port"])
        near = [(_private(source), _private(destination))]
        if self.here is not None:
            near += [(np.zeros(len(found), np.bool_), self._to_all(destination)),  # from others it is for this host too
                     (self._local("source"), self._local("destination"))]
        for at_source, at_destination in near:  # the last one decides
            found = np.where(at_source == at_destination, found, at_destination)
        return found

    def _passing(self) -> Array:
        """Which flows have no end here: those that are forwarded; of files and exporters all."""
        known: Array = self._columns["kind"] != np.uint8(Kind.AGGREGATE)
        if self.here is None:
            return known
        (destination, _) = self._ends("destination")
        passing: Array = known & ~(self._local("source") | self._local("destination") | self._to_all(destination))
        return passing

    def _local(self, side: str) -> Array:
        if side not in self._local_ends:
            (words, _) = self._ends(side)
            self._local_ends[side] = self.here.local(*words) if self.here else np.zeros(len(words[0]), np.bool_)
        return self._local_ends[side]

    def _to_all(self, words: Words) -> Array:
        """Which addresses are of multicast, or reach all hosts of a link."""
        high, low = words
        four = (high == 0) & (low >> np.uint64(32) == np.uint64(0xFFFF))
        many: Array = np.where(four, low >> np.uint64(28) & np.uint64(0xF) == np.uint64(0xE),
                        high >> np.uint64(56) == np.uint64(0xFF))
        return many if self.here is None else many | self.here.broadcast(high, low)


class RemoteEnds:
    """Which end of each flow of a table is the remote one. Kept by slot, as it is asked for with every page: it stays
    the same as long as the addresses of this host do."""

    def __init__(self) -> None:
        self._flow_ids = np.empty(0, np.uint64)
        self._columns = {name: np.empty(0, np.bool_) for name in (REMOTE_IS_SOURCE, PASSING)}
        self._of: tuple[Here | None, int] = None, 0

    def fill(self, columns: NetworkColumns) -> NetworkColumns:
        """Give the columns what is known, and learn the rest from them."""
        if columns.ends is self:
            return columns
        flow_ids, here = columns["flow_id"], columns.here
        of = here, 0 if here is None else here.edition
        known = len(self._flow_ids) if of == self._of else 0
        if known < len(flow_ids):  # the table has grown, or is another one
            self._flow_ids = np.concatenate((self._flow_ids[:known], ~flow_ids[known:]))
            self._columns = {name: np.concatenate((column[:known], np.zeros(len(flow_ids) - known, np.bool_)))
                             for name, column in self._columns.items()}
            self._of = of
        count = len(flow_ids)
        new = np.flatnonzero(self._flow_ids[:count] != flow_ids)
        if len(new):
            of_new = NetworkColumns(ColumnsAt(columns, new), None, here)
            for name, column in self._columns.items():
                column[new] = of_new[name]
            self._flow_ids[new] = flow_ids[new]
        columns.take({name: column[:count] for name, column in self._columns.items()}, self)
        return columns


_LEADS = 1 << 16


def _private_leads() -> Array:
    """For each first two octets of an address, IPv6 after IPv4, whether addresses that begin so are private. These are
    the networks of the filter word `private`, but for 0.0.0.0, 255.255.255.255, :: and ::1, which are single addresses.
    """
    found = np.zeros(2 * _LEADS, np.bool_)
    for first, bits in ((0x0A00, 8), (0xAC10, 12), (0xC0A8, 16), (0x6440, 10), (0xA9FE, 16), (0x7F00, 8), (0xE000, 4),
                        (_LEADS + 0xFC00, 7), (_LEADS + 0xFE80, 10), (_LEADS + 0xFF00, 8)):
        found[first:first + (1 << 16 - bits)] = True
    return found


_PRIVATE = _private_leads()
_SINGLE = np.array([0, 1, _MAPPED, _MAPPED | np.uint64(0xFFFF_FFFF)], np.uint64)
"""Lower halves of single private addresses; their upper halves are 0."""


def _private(words: Words) -> Array:
    high, low = words
    four = (high == 0) & (low >> np.uint64(32) == np.uint64(0xFFFF))
    leads = np.where(four, low >> np.uint64(16) & np.uint64(0xFFFF), (high >> np.uint64(48)) + np.uint64(_LEADS))
    found: Array = _PRIVATE[leads.astype(np.int64)]
    rows = np.flatnonzero(high == 0)
    found[rows] |= np.isin(low[rows], _SINGLE)
    return found


def networked(columns: FlowColumns, networks: Networks | None, here: Here | None = None,
              known: Callable[[str], Array] | None = None) -> NetworkColumns:
    """The columns, with those of AS and country, and which end is the remote one. `known` is as in NetworkColumns."""
    if isinstance(columns, NetworkColumns) and columns.networks is networks and columns.here is here:
        return columns
    return NetworkColumns(columns, networks, here, known)


def remote_is_source(columns: FlowColumns) -> Array:
    """Which flows come from their remote end; of columns that know no addresses of this host, as if it had none."""
    try:
        return columns[REMOTE_IS_SOURCE]
    except (KeyError, ValueError, AttributeError):
        return NetworkColumns(columns, None)[REMOTE_IS_SOURCE]


def _column(columns: FlowColumns, field_id: str) -> Array:
    """A column of NetworkColumns; 0 where the columns are none, such as those of groups."""
    try:
        return columns[_PART + field_id]
    except (KeyError, ValueError):
        return np.zeros(np.shape(columns["ip_version"]), np.uint32)


def _read_asn(text: str) -> float:
    digits = text.upper().removeprefix("AS")
    if not (digits.isascii() and digits.isdecimal() and int(digits[:11]) < 1 << 32):
        raise ValueError("not an AS number")
    return int(digits)


def _of_networks(made: Field, side: str, longest: int = 0) -> Field:
    """The field as one of databases: shown and measured only when there are some. Its value belongs to the address, so
    that biflows have it from theirs ("formula"), and groups have none."""
    assert made.column and made.measure and made.group
    column = replace(made.column, of_reports=not side, on_request=bool(side), longest=longest,
                     of_networks=True)
    return made.but(
        column=column, biflow_columns=(column,), group_column=None,
        group=replace(made.group, keys=lambda columns: (_column(columns, made.id),), of_networks=True,
                      flexible=longest > 0),
        members=tuple(replace(member, of_networks=True, of_groups=False, both_ways=False, of_packets=True)
                      for member in made.members),
        measure=replace(made.measure, of_networks=True, together="formula"))


_WORDS: dict[str, tuple[str, str]] = {"": ("remote", "Remote end"), "source": ("source", "Source"),
                                      "destination": ("destination", "Destination")}
_WAYS = {"source": "src", "destination": "dst"}
_HEADERS: dict[str, str] = {"": "", "source": "SRC ", "destination": "DST "}


def _with_unknown(group: GroupField, word: str) -> GroupField:
    """The group field of a text, with a filter for flows that have none."""
    return replace(group, term=lambda key, lookups: group.term(key, lookups) or f"not {word} ?*")


def _id(side: str, what: str) -> str:
    return f"{side}_{what}" if side else what


def _detail(side: str, text: str) -> Detail | None:
    """A part of the line of that end; the remote end is one of the two."""
    if not side:
        return None
    field_id = f"{side}_{text}"

    def shown(row: FlowRow, formatter: DetailFormatter) -> str:
        value = row.more.get(field_id, 0)
        return {"asn": f"AS{value}" if value else "", "as_name": AS_NAMES.text(value, formatter.lookups),
                "country": COUNTRIES.text(value, formatter.lookups)}[text]

    return Detail(f"{_WAYS[side]} network", shown, of_way=False, optional=True, rank=8)


def _asn(side: Literal["", "source", "destination"]) -> Field:
    json, end = _WORDS[side]
    name = _id(side, "asn")

    def values(source: FlowSource) -> Array:
        return _column(source.columns, name)

    made = make.numeric(
        name, f"{_HEADERS[side]}ASN", f"{end}'s AS number: reported by the exporter, else looked up.",
        json=f"{json}AsNumber", values=values, records=lambda records: _column(records, name), text=str, width=6,
        priority=_PRIORITIES["asn"], word=name, read=_read_asn, expected="an AS number, such as 64500 or AS64500",
        example=f"{name} 64500", group=True, zero_unknown=True)
    assert made.column
    column = replace(made.column,
                     term=lambda row, _: f"{name} {row.more[name]}" if row.more.get(name) else f"not {name} >= 0")
    return _of_networks(made.but(column=column, detail=_detail(side, "asn")), side)


def _text(side: Literal["", "source", "destination"], what: str, header: str, doc: str, json: str, texts: Texts,
          width: int, longest: int, expected: str, example: str) -> Field:
    name = _id(side, what)
    made = make.text(
        name, f"{_HEADERS[side]}{header}", doc, json=json, texts=texts,
        codes=lambda source: _column(source.columns, name), records=lambda records: _column(records, name), width=width,
        priority=_PRIORITIES[what], word=name, expected=expected, example=f"{name} {example}")
    assert made.group and made.key and made.column
    return _of_networks(made.but(key=replace(made.key, any_case=True), group=_with_unknown(made.group, name),
                                 detail=_detail(side, what)), side, longest)


LONGEST_AS_NAME = 32
"""Cells of an AS's name, where there is room."""
AS_NAMES = Texts(lambda lookups: {} if lookups.networks is None else lookups.networks.names, lambda _: "")
COUNTRIES = Texts(lambda lookups: {} if lookups.networks is None else lookups.networks.countries, lambda _: "")


def _of_end(side: Literal["", "source", "destination"]) -> tuple[Field, ...]:
    json, end = _WORDS[side]
    return (
        _asn(side),
        _text(side, "as_name", "AS NAME", f"{end}'s AS by name, looked up.", f"{json}AsName", AS_NAMES, 10,
              LONGEST_AS_NAME, "an AS's name, such as *cloud*", "*cloud*"),
        _text(side, "country", "CC", f"{end}'s country, looked up: two letters (ISO 3166).", f"{json}Country",
              COUNTRIES, 2, 0, "a country's two letters, such as DE", "DE"),
    )


FIELDS = (*_of_end(""), *_of_end("source"), *_of_end("destination"))
