"""What a field is: one entry describes it completely; columns, filter words and JSON keys are made from the entries."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from flowtop.fields.columns import Column, Wording
from flowtop.model.flows import Array, FlowColumns, FlowSource, Together
from flowtop.model.kinds import RecordBits
from flowtop.model.rows import FlowRow, FlowValues
from flowtop.text.lookups import Lookups, Texts
from flowtop.text.names import Names

ReadValue = Callable[[str], float]
"""Text of an operand → number to compare with. Raises ValueError, or OperandError with what is accepted."""


@dataclass(frozen=True, slots=True)
class FilterKey:
    """One word of the filter language that takes a value: `bytes > 10M`, `dir in`, `if eth0`.

    Attributes:
        word: what people type; lower case.
        doc: one line for help and README.
        example: a filter that uses it.
        expected: what the operand must be, in the user's words; after "expected".
        read: gives the operand's value. Not used for a text key.
        flows: one number for each flow. For a text key: a code, whose text is in `texts`.
        records: the same for Flow Records (FLOW_RECORD_DTYPE); None: they do not have it.
        kind: "number" compares; "bits" asks for all bits of the operand; "text" matches the text of the code;
            "address" is within a network: `flows` gives V16 as in model.reported.
        texts: for a text key, the texts of its codes.
        choices: operands to offer for completion.
        unit: that of a number without one, where people could take it for another: shown after the number.
        packet: the field of struct flow_key in bpf/flow.h that holds the number, for the kernel program; "" when it is
            not part of the Flow Key: packets of one flow may differ in it.
        of_aggregates: aggregate entries have it too.
        optional: the operand may be omitted; the word then matches any number but 0.
        positive: alone it matches numbers above 0 only: NaN, which others match, is none.
        any_case: a text matches in upper and lower case.
        rank: words of lower rank are listed first; those of equal rank are in the order of the registry.
    """

    word: str
    doc: str
    example: str
    expected: str
    read: ReadValue
    flows: Callable[[FlowSource], Array]
    records: Callable[[FlowColumns], Array] | None = None
    kind: Literal["number", "bits", "text", "address"] = "number"
    texts: Texts | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    packet: str = ""
    of_aggregates: bool = False
    optional: bool = False
    positive: bool = False
    any_case: bool = False
    rank: int = 0


def stored(name: str) -> tuple[Callable[[FlowSource], Array], Callable[[FlowColumns], Array]]:
    """`flows` and `records` for a key whose number has this name in flows and in Flow Records."""
    return (lambda source: source.columns[name]), (lambda records: records[name])


def reported(name: str, missing: RecordBits) -> tuple[Callable[[FlowSource], Array], Callable[[FlowColumns], Array]]:
    """As `stored`, for a number that exporters may not report: NaN, which no comparison matches, where `missing` is
    among the flow's RecordBits. Without such flows the column as it is."""
    def numbers(columns: FlowColumns) -> Array:
        unknown = unreported(columns, missing)
        return columns[name] if unknown is None else np.where(unknown, np.nan, columns[name])

    return (lambda source: numbers(source.columns)), numbers


def unreported(columns: FlowColumns, missing: RecordBits) -> Array | None:
    """Which flows have this bit: exporters do not report a value of them; None: no flow has."""
    bits = columns["record_bits"]
    if not bits.any():
        return None
    found: Array = bits & np.uint32(missing) != 0
    return found


def or_code(columns: FlowColumns, values: Array, missing: RecordBits, code: int) -> Array:
    """The values, of flows of which they are not reported the code."""
    unknown = unreported(columns, missing)
    return values if unknown is None else np.where(unknown, np.array(code, np.min_scalar_type(code)), values)


Key = tuple[int, ...]
"""The values of one field for one group, one from each array of `keys`."""


@dataclass(frozen=True, slots=True)
class GroupField:
    """A way to group flows.

    Attributes:
        id: the name in `--group` and Query.group.
        header: of its column on screen.
        width: minimum width of that column, in cells.
        doc: one line for help and README.
        keys: integer arrays, one value for each flow: flows with equal values are one group. The column sorts by them.
        parts: number of arrays that `keys` gives.
        text: a key -> printable text, each character one cell wide.
        term: a key -> the filter that matches this group's flows; "" when there is no such filter (aggregates).
        wider: a key -> filters that more flows match, each wider than the one before.
        values: a key -> JSON members, with IANA names where they exist.
        members: every name `values` may give.
        named: like `text`, with host and service names instead of numbers where the wording has them; None: no names.
        shorten: gives the text with these names in at most so many cells; None: the middle of the text is elided.
        alike: for a field whose only key is a code: codes with equal results are one group. None: each code is a group.
        texts: for a field whose only key is a code: groups are sorted by these texts. None: by the keys.
        of_exporters: useful only when flows come from exporters.
        of_networks: useful only with databases of networks.
        flexible: the column takes a share of the cells that are left.
        choose: the text after `:` in `--group` -> the field with that argument; None: takes none. Raises ValueError.
        argument: describes that text, for help and README.
        others: for a field of one end of a flow: as `keys`, of the other end, for flows that count for both ends
            (fields.networks.PASSING). None: a flow counts for one group.
        apart: a flow whose two ends are in one group counts there once, not as in and as out.
        inward: which flows are of IN in these groups; None: those that come from their remote end.
        facts: further numbers of each group by name, from arrays of keys: for its `columns` and `FlowRow.more`.
        every: keys that always have a group, also without flows.
        passed: of arrays of keys: for which of them it is known what all their flows have had since the start, and
            that: `octet_total` and `packet_total` of what came in and of what went out, named as in model.flows.
        columns: that only lists of groups by this field have.
        beside: id of another field, whose most frequent value stands beside each group of this field alone.
        rank: fields of lower rank are listed first; those of equal rank are in the order of the registry.
    """

    id: str
    header: str
    width: int
    doc: str
    keys: Callable[[FlowColumns], tuple[Array, ...]]
    text: Callable[[Key, Lookups], str]
    term: Callable[[Key, Lookups], str]
    values: Callable[[Key, Lookups], dict[str, Any]]
    members: tuple[str, ...]
    parts: int = 1
    wider: Callable[[Key, Lookups], tuple[str, ...]] = lambda _, __: ()
    named: Callable[[Key, Wording], str] | None = None
    shorten: Callable[[Key, Names, int], str] | None = None
    alike: Callable[[int, Lookups], Hashable] | None = None
    texts: Texts | None = None
    of_exporters: bool = False
    of_networks: bool = False
    flexible: bool = False
    choose: Callable[[str], GroupField] | None = None
    argument: str = ""
    others: Callable[[FlowColumns], tuple[Array, ...]] | None = None
    apart: bool = False
    inward: Callable[[FlowColumns], Array] | None = None
    facts: Callable[[tuple[Array, ...], Lookups], dict[str, Array]] | None = None
    every: Callable[[Lookups], tuple[Array, ...]] | None = None
    passed: Callable[[tuple[Array, ...], Lookups], tuple[Array, dict[str, Array]]] | None = None
    columns: tuple[Column, ...] = ()
    beside: str = ""
    rank: int = 9

    def column(self, position: int) -> Column:
        """The column that shows this field when it is number `position` (from 0) of the query's group fields."""
        def text(row: FlowRow, wording: Wording, lookups: Lookups) -> str:
            key = row.group[position]
            return self.named(key, wording) if self.named else self.text(key, lookups)

        return Column(self.id, self.header, self.width, self.doc, text,
                      tuple(_key_part(position, part) for part in range(self.parts)), 1,
                      lambda row, lookups: self.term(row.group[position], lookups), flexible=self.flexible,
                      texts=self.texts, shortened=self._shortened(position), longest=_LONGEST_KEY if self.texts else 0,
                      wider=lambda row, lookups: self.wider(row.group[position], lookups))

    def column_beside(self) -> Column:
        """The column that shows this field beside groups by another one: the value with the most octets, and how many
        others there are. The list is not sorted by it."""
        def text(row: FlowRow, wording: Wording, lookups: Lookups) -> str:
            found: Beside | None = row.more.get(BESIDE)
            if found is None or not any(found.key):
                return ""
            name = self.named(found.key, wording) if self.named else self.text(found.key, lookups)
            return f"{name} +{found.others}" if found.others else name

        return Column(self.id, self.header, self.width, f"{self.doc} That of the most octets; + as many others.", text,
                      (), 3, lambda _, __: "", longest=_LONGEST_KEY, rank=2)

    def _shortened(self, position: int) -> Callable[[FlowRow, Names, int], str] | None:
        shorten = self.shorten
        if shorten is None:
            return None
        return lambda row, names, width: shorten(row.group[position], names, width)


_LONGEST_KEY = 24
"""Cells of a text that groups have in common, where there is room: `systemd-resolved.service`."""


BESIDE = "beside"
"""In FlowRow.more: a Beside."""


class Beside(NamedTuple):
    """What a group has most of, of another field: the key with the most octets, and the number of other keys."""

    key: Key
    others: int


def key_name(position: int, part: int) -> str:
    """Name of the column of groups that holds part `part` of the key of the query's group field `position`."""
    return f"group {position} {part}"


def _key_part(position: int, part: int) -> Callable[[FlowColumns], Array]:
    return lambda columns: columns[key_name(position, part)]


@dataclass(frozen=True, slots=True)
class Member:
    """One key of a flow in JSON, and one column of CSV.

    Attributes:
        name: of an Information Element, where the IANA registry has one.
        value: of a flow, from a row or a Flow Record; None: the flow has no value, and the key is omitted.
        doc: one sentence; "": the doc of the Information Element.
        of_packets: a property of single flows: aggregate entries, which count many flows together, do not have it.
        of_groups: groups have it too.
        both_ways: a biflow has it a second time, for the reverse direction (RFC 5103).
        of_reports: only flows of exporters have it: it is not looked at as long as Lookups.texts is empty.
        of_networks: comes from databases of networks: it is not looked at without Lookups.networks.
        rank: position among the columns of CSV.
        holds: type of its values; None: that of the Information Element, or text.
    """

    name: str
    value: Callable[[FlowValues, Lookups], str | int | float | None]
    doc: str = ""
    of_packets: bool = False
    of_reports: bool = False
    of_networks: bool = False
    of_groups: bool = False
    both_ways: bool = False
    rank: int = 900
    holds: type[str | int | bool | datetime] | None = None


class DetailFormatter(Protocol):
    """Formats values for a flow's details."""

    @property
    def wording(self) -> Wording:
        """How cells are formatted."""

    @property
    def lookups(self) -> Lookups:
        """Names by number."""

    def rate(self, octets_per_s: float) -> str:
        """A rate with its unit: `82.1 Mb/s`."""

    def at(self, unix_ms: int) -> str:
        """Local date and time."""


@dataclass(frozen=True, slots=True)
class Detail:
    """How a flow's details show a field. Fields with the same `line` share that line.

    Attributes:
        line: label of the line.
        text: of a row; "": nothing to show.
        of_way: the line has two columns, one for each direction of the conversation. False: one, for the flow.
        optional: the line is omitted when all its texts are empty.
        joint: separator between the texts of one line; that of the line's first field is used.
        at_end: the line comes after all others: it may be below the end of the screen.
        rank: fields of lower rank come first.
    """

    line: str
    text: Callable[[FlowRow, DetailFormatter], str]
    of_way: bool = True
    optional: bool = False
    joint: str = "  "
    at_end: bool = False
    rank: int = 5


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of each flow that rows carry in addition to the attributes of FlowRow: in `FlowRow.more`, by field id.

    Attributes:
        values: one number for each flow.
        together: how the numbers of several flows combine in groups and biflows: see Together.
        records: one number for each Flow Record (FLOW_RECORD_DTYPE); None: they do not have it.
        reported: an exporter reports it (model/reported.py): rows of other flows do not carry it.
        of_networks: comes from databases of networks: without Lookups.networks rows do not carry it.
    """

    values: Callable[[FlowSource], Array]
    together: Together = "none"
    records: Callable[[FlowColumns], Array] | None = None
    reported: bool = False
    of_networks: bool = False


Known = Literal["live", "file", "collector"]
"""Where flows come from: interfaces of this host, a capture file, exporters."""
EVERYWHERE: tuple[Known, ...] = ("live", "file", "collector")


@dataclass(frozen=True, slots=True)
class Field:
    """The complete description of one field. A part that is left out is one that the field does not have.

    Attributes:
        id: an identifier, lower case. The field's column and group have this id too.
        doc: one sentence.
        column: in the list of flows.
        biflow_columns: in the list of biflows: for both directions together, and for each direction.
        group_column: in the list of groups: the combined value, such as a sum.
        group_ways: likewise, of what came in and of what went out.
        key: its word in the filter language.
        group: how to group flows by it.
        members: keys in JSON, columns in CSV.
        detail: in a flow's details.
        measure: needed when the value is not an attribute of FlowRow.
        texts: for a text field: the texts of its codes.
        code: for a text field: the code of a row.
        known: the sources that provide it.
    """

    id: str
    doc: str
    column: Column | None = None
    biflow_columns: tuple[Column, ...] = ()
    group_column: Column | None = None
    group_ways: tuple[Column, ...] = ()
    key: FilterKey | None = None
    group: GroupField | None = None
    members: tuple[Member, ...] = ()
    detail: Detail | None = None
    measure: Measure | None = None
    texts: Texts | None = None
    code: Callable[[FlowRow], int] | None = None
    known: tuple[Known, ...] = EVERYWHERE

    @property
    def where(self) -> str:
        """The sources that provide it, for the manual: `everywhere`, `interfaces, -r`, `-l`."""
        names: dict[Known, str] = {"live": "interfaces", "file": "-r", "collector": "-l"}
        return "everywhere" if set(self.known) == set(EVERYWHERE) else ", ".join(names[place] for place in self.known)

    def but(self, **changes: Any) -> Field:
        """A copy of the field with some attributes replaced."""
        return replace(self, **changes)
