"""What a field is: one entry says all that flowtop knows of it; every list, word and key is made from the entries."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from flowtop.fields.columns import Column, Wording
from flowtop.model.flows import Array, FlowColumns, FlowSource, Together
from flowtop.model.rows import FlowRow, FlowValues
from flowtop.text.lookups import Lookups, Texts

ReadValue = Callable[[str], float]
"""Text of an operand → number to compare with. Raises ValueError, or OperandError to say what would do."""


@dataclass(frozen=True, slots=True)
class FilterKey:
    """One word of the filter language that takes a value: `bytes > 10M`, `dir in`, `if eth0`.

    Attributes:
        word: what people type; lower case.
        doc: one line for help and README.
        example: a filter that uses it.
        expected: what the operand must be, in the user's words; after "expected".
        read: the operand's value. Of a text key it is not asked.
        flows: one number a flow. Of a text key: a code, whose text is in `texts`.
        records: the same of Flow Records (FLOW_RECORD_DTYPE); None: makes no sense there.
        kind: "number" compares; "bits" asks for all bits of the operand; "text" matches the text of the code.
        texts: of a text key, the texts of its codes.
        choices: operands worth offering.
        packet: the field of struct flow_key in bpf/flow.h that holds the number, for the kernel program; "" when it is
            no part of the Flow Key, so that two packets of one flow may differ in it.
        of_aggregates: aggregate entries have it too.
        optional: may stand without an operand, and then asks for any number but 0.
        rank: words of lower rank are explained before others, those of equal rank in the order of the registry.
    """

    word: str
    doc: str
    example: str
    expected: str
    read: ReadValue
    flows: Callable[[FlowSource], Array]
    records: Callable[[FlowColumns], Array] | None = None
    kind: Literal["number", "bits", "text"] = "number"
    texts: Texts | None = None
    choices: tuple[str, ...] = ()
    packet: str = ""
    of_aggregates: bool = False
    optional: bool = False
    rank: int = 0


def stored(name: str) -> tuple[Callable[[FlowSource], Array], Callable[[FlowColumns], Array]]:
    """`flows` and `records` of a key whose number is a field of that name in both."""
    return (lambda source: source.columns[name]), (lambda records: records[name])


Key = tuple[int, ...]
"""One field's values of one group, as its `keys` gave them."""


@dataclass(frozen=True, slots=True)
class GroupField:
    """Something flows have in common.

    Attributes:
        id: what `--group` and Query.group say.
        header: of its column on screen.
        width: least cells of that column.
        doc: one line for help and README.
        keys: integer arrays, one value a flow: flows are together when all are equal. Their order is the column's.
        parts: how many arrays `keys` gives.
        text: a key -> text of printable single cells.
        term: a key -> the filter that passes this group's flows; "" when there is no such filter (aggregates).
        values: a key -> JSON members, IANA names where there are any.
        members: every name `values` may give.
        named: as `text`, with names in the place of numbers where the wording has them; None: there are none.
        alike: the only key is a code; codes of which this says the same are one group. None: no code is like another.
        texts: the only key is a code, and the order of groups is that of these texts. None: it is that of the keys.
        of_exporters: means something only where flows come from exporters.
        flexible: the column takes a share of the cells that are left.
        choose: the text after `:` in `--group` -> the field as chosen; None: takes none. Raises ValueError.
        argument: what that text is, for help and README.
        rank: fields of lower rank are offered before others, those of equal rank in the order of the registry.
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
    named: Callable[[Key, Wording], str] | None = None
    alike: Callable[[int, Lookups], Hashable] | None = None
    texts: Texts | None = None
    of_exporters: bool = False
    flexible: bool = False
    choose: Callable[[str], GroupField] | None = None
    argument: str = ""
    rank: int = 9

    def column(self, position: int) -> Column:
        """The column that shows this field where it is the query's group field number `position`."""
        def text(row: FlowRow, wording: Wording, lookups: Lookups) -> str:
            key = row.group[position]
            return self.named(key, wording) if self.named else self.text(key, lookups)

        return Column(self.id, self.header, self.width, self.doc, text,
                      tuple(_key_part(position, part) for part in range(self.parts)), 1,
                      lambda row, lookups: self.term(row.group[position], lookups), flexible=self.flexible,
                      texts=self.texts)


def key_name(position: int, part: int) -> str:
    """Name of the column (of groups) that holds a part of the key of the query's group field `position`."""
    return f"group {position} {part}"


def _key_part(position: int, part: int) -> Callable[[FlowColumns], Array]:
    return lambda columns: columns[key_name(position, part)]


@dataclass(frozen=True, slots=True)
class Member:
    """One key of a flow in JSON, and one column of CSV.

    Attributes:
        name: of an Information Element, where the IANA registry has one.
        value: of a flow, that of a row or of a Flow Record; None: the flow has none, and the key is left out.
        doc: one sentence; "": the Information Element's own.
        of_packets: what packets have in common: an aggregate entry, which stands for many flows, has none.
        of_groups: groups have it too.
        both_ways: a biflow has it a second time, of the way back (RFC 5103).
        rank: place among the columns of CSV.
    """

    name: str
    value: Callable[[FlowValues, Lookups], str | int | float | None]
    doc: str = ""
    of_packets: bool = False
    of_groups: bool = False
    both_ways: bool = False
    rank: int = 900


class Teller(Protocol):
    """How details are put into words."""

    @property
    def wording(self) -> Wording:
        """Of cells."""

    @property
    def lookups(self) -> Lookups:
        """Names."""

    def rate(self, octets_per_s: float) -> str:
        """`82.1 Mb/s`."""

    def at(self, unix_ms: int) -> str:
        """A time of day with its date, local."""


@dataclass(frozen=True, slots=True)
class Detail:
    """What the details of a flow say of a field. Fields that name the same line stand beside one another on it.

    Attributes:
        line: label of the line.
        text: of a row; "": nothing.
        of_way: the line has two columns, one for each way of the conversation. Else it is of the flow alone.
        optional: the line is left out where no field has anything to say on it.
        joint: between the texts of one line; that of the line's first field counts.
        rank: lines of lower rank come first.
    """

    line: str
    text: Callable[[FlowRow, Teller], str]
    of_way: bool = True
    optional: bool = False
    joint: str = "  "
    rank: int = 5


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of each flow that rows carry beside what every row has: in `FlowRow.more`, by the field's id.

    Attributes:
        values: one number a flow.
        together: what groups and biflows have of it: see Together.
        records: the number of Flow Records (FLOW_RECORD_DTYPE); None: they have none.
    """

    values: Callable[[FlowSource], Array]
    together: Together = "none"
    records: Callable[[FlowColumns], Array] | None = None


Known = Literal["live", "file", "collector"]
"""Where flows come from: interfaces of this host, a capture file, exporters."""
EVERYWHERE: tuple[Known, ...] = ("live", "file", "collector")


@dataclass(frozen=True, slots=True)
class Field:
    """All that flowtop knows of one field. What is left out, the field does not have.

    Attributes:
        id: an identifier, lower case. A field's column and group have this id too.
        doc: one sentence.
        column: in the list of flows.
        biflow_columns: in the list of biflows: for both ways together, and for each.
        group_column: in the list of groups, as a sum or the like.
        key: its word in the filter language.
        group: how flows are put together by it.
        members: in JSON and CSV.
        detail: in a flow's details.
        measure: where rows do not have the value anyway.
        texts: of a text field, the texts of its codes; `code` gives the code of a row.
        code: of a text field.
        known: where it can be told at all.
    """

    id: str
    doc: str
    column: Column | None = None
    biflow_columns: tuple[Column, ...] = ()
    group_column: Column | None = None
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
        """Where it is known, for the manual: `everywhere`, `interfaces, -r`, `-l`."""
        names: dict[Known, str] = {"live": "interfaces", "file": "-r", "collector": "-l"}
        return "everywhere" if set(self.known) == set(EVERYWHERE) else ", ".join(names[place] for place in self.known)

    def but(self, **changes: Any) -> Field:
        """The same field with some facets replaced."""
        return replace(self, **changes)
