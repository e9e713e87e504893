"""`compile_filter`: text → `Filter`. Nothing heavy is imported before a filter is used."""

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
    """Says which flows pass. Immutable: made in one thread, used in any. Filters of the same text are equal.

    Aggregate rows stand for flows whose details are not known: what a filter asks of those details is taken as met.

    Attributes:
        text: as it was written.
        tree: what it means.
    """

    text: str
    tree: Tree = field(compare=False, repr=False)

    @property
    def of_names(self) -> bool:
        """It asks for names of hosts."""
        from flowtop.filters.tree import Named, leaves

        return any(isinstance(test, Named) for test in leaves(self.tree))

    def mask(self, source: FlowSource, lookups: Lookups) -> npt.NDArray[np.bool_]:
        """One truth value a slot of `source.columns`.

        Args:
            source: the flows.
            lookups: names of interfaces, hosts and the like; a host without a name has none that fits.
        """
        from flowtop.filters.masks import flow_mask

        return flow_mask(self.tree, source, lookups)

    def record_mask(self, records: FlowRecords, lookups: Lookups) -> npt.NDArray[np.bool_]:
        """One truth value a Flow Record (FLOW_RECORD_DTYPE); for filters compiled for records."""
        from flowtop.filters.masks import record_mask

        return record_mask(self.tree, records, lookups)


def compile_filter(text: str, use: Literal["flows", "records"] = "flows") -> Filter:
    """The filter that `text` means, for flows of a table or for exported Flow Records.

    Raises:
        FilterError: it means nothing, or speaks of what a Flow Record does not have.
    """
    from flowtop.filters.build import build

    return Filter(text, build(text, use))


def all_of_texts(texts: Sequence[str]) -> str:
    """The text of the filter that passes what all of these pass; of none: "", which is no filter."""
    return " and ".join(f"({text})" for text in texts) if len(texts) > 1 else "".join(texts)
