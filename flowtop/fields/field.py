"""What makes a value of flows filterable: one `FilterKey`, held by a column or listed in `filters/words.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from flowtop.model.flows import Array, FlowColumns, FlowSource


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
        flows: one number a flow. Of a text key: a code that the names of the evaluation map to text.
        records: the same of Flow Records (FLOW_RECORD_DTYPE); None: makes no sense there.
        kind: "number" compares; "bits" asks for all bits of the operand; "text" matches the text of the code.
        choices: operands worth offering.
        packet: the field of struct flow_key in bpf/flow.h that holds the number, for the kernel program; "" when it is
            no part of the Flow Key, so that two packets of one flow may differ in it.
        of_aggregates: aggregate entries have it too.
        part: of a text key, the part of the code's name that is matched.
        optional: may stand without an operand, and then asks for any number but 0.
    """

    word: str
    doc: str
    example: str
    expected: str
    read: ReadValue
    flows: Callable[[FlowSource], Array]
    records: Callable[[FlowColumns], Array] | None = None
    kind: Literal["number", "bits", "text"] = "number"
    choices: tuple[str, ...] = ()
    packet: str = ""
    of_aggregates: bool = False
    optional: bool = False
    part: Callable[[str], str] = str


def stored(name: str) -> tuple[Callable[[FlowSource], Array], Callable[[FlowColumns], Array]]:
    """`flows` and `records` of a key whose number is a field of that name in both."""
    return (lambda source: source.columns[name]), (lambda records: records[name])
