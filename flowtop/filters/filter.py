"""`compile_filter` makes a `Filter` of a text. numpy and lark are imported only when one is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from flowtop.filters.tree import Tree
    from flowtop.model.flows import FlowSource
    from flowtop.model.record import FlowRecords
    from flowtop.text.lookups import Lookups


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on flows. Immutable, for any thread. Filters of the same text are equal.

    An aggregate row holds flows whose details are not known: tests of those details pass.

    Attributes:
        text: as it was written.
        tree: what it means.
    """

    text: str
    tree: Tree = field(compare=False, repr=False)

    @property
    def of_names(self) -> bool:
        """Whether it tests names of hosts."""
        from flowtop.filters.tree import Named, leaves

        return any(isinstance(test, Named) for test in leaves(self.tree))

    @property
    def needs_names(self) -> bool:
        """Whether it tests host names and cannot match without them."""
        from flowtop.filters.tree import Named, leaves

        return any(isinstance(test, Named) and not test.among_others for test in leaves(self.tree))

    def mask(self, source: FlowSource, lookups: Lookups) -> npt.NDArray[np.bool_]:
        """One truth value a slot of `source.columns`.

        Args:
            source: the flows.
            lookups: names of interfaces, hosts and the like; a host without a name matches no name.
        """
        from flowtop.filters.masks import flow_mask

        return flow_mask(self.tree, source, lookups)

    def record_mask(self, records: FlowRecords, lookups: Lookups) -> npt.NDArray[np.bool_]:
        """One truth value a Flow Record (FLOW_RECORD_DTYPE); for filters compiled for records."""
        from flowtop.filters.masks import record_mask

        return record_mask(self.tree, records, lookups)


def compile_filter(text: str, use: Literal["flows", "records"] = "flows") -> Filter:
    """The filter of a text, for flows of a table or for exported Flow Records.

    Raises:
        FilterError: the text is not a filter, or tests what a Flow Record does not have.
    """
    from flowtop.filters.build import build

    return Filter(text, build(text, use))


def all_of_texts(texts: Sequence[str]) -> str:
    """The text of a filter that passes what all of these pass; "" for none."""
    return " and ".join(f"({text})" for text in texts) if len(texts) > 1 else "".join(texts)
