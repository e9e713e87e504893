"""Where the parts of a filter run: in the kernel program, or over the flow table."""

from __future__ import annotations

from dataclasses import dataclass

from flowtop.view.filter.language import Filter


@dataclass(frozen=True, slots=True)
class Split:
    """A filter's two places.

    Attributes:
        kernel: what the kernel program asks, in the filter language; empty: nothing.
        expression: that in C, one line, over `key`, a pointer to struct flow_key (bpf/flow.h); empty: nothing.
        rest: what only the flow table can answer, in the filter language; empty: nothing.
    """

    kernel: str = ""
    expression: str = ""
    rest: str = ""


def everything_in_the_table(whole: Filter) -> Split:
    """Nothing of it in the kernel."""
    return Split(rest=whole.text)
