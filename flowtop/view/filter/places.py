"""Where the parts of a filter run: in the kernel program, or over the flow table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowtop.view.filter.language import Filter

if TYPE_CHECKING:
    from flowtop.view.filter.tree import Tree


@dataclass(frozen=True, slots=True)
class Split:
    """A filter's two places.

    Attributes:
        kernel: what the kernel program asks, in the filter language; empty: nothing.
        expression: that in C, one line, over `key`, a pointer to struct flow_key (bpf/flow.h); empty: nothing.
        rest: what only the flow table can answer, in the filter language; empty: nothing.
        tree: `kernel` as a tree; None: nothing.
    """

    kernel: str = ""
    expression: str = ""
    rest: str = ""
    tree: Tree | None = None


def everything_in_the_table(whole: Filter) -> Split:
    """Nothing of it in the kernel."""
    return Split(rest=whole.text)


def places(whole: Filter | None, *, in_kernel: bool, observation_points: bool, both_ways: bool = False,
           decap: bool = False) -> Split:
    """Where the parts of a filter run.

    Args:
        whole: the filter, if any.
        in_kernel: there is a kernel program, and nobody needs the flows that do not pass.
        observation_points, both_ways, decap: see pushdown.split.
    """
    if whole is None:
        return Split()
    if not in_kernel:
        return everything_in_the_table(whole)
    from flowtop.view.filter.pushdown import split

    return split(whole, observation_points=observation_points, both_ways=both_ways, decap=decap)
