"""How long the kernel program leaves flows out: until somebody wants them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from flowtop.view.filter.language import Filter, compile_filter
from flowtop.view.filter.places import Split

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from flowtop.record import FlowRecords


class Narrowing:
    """Says how long the capture filter holds: until the list is of flows that it would leave out.

    Safe for any thread: what one sets another reads whole.

    Args:
        split: what was compiled into the kernel program.
    """

    def __init__(self, split: Split = Split()) -> None:
        self._split = split
        self._lifted = not split.kernel

    @property
    def text(self) -> str:
        """The capture filter that holds now, in the filter language; empty: every flow is counted."""
        return "" if self._lifted else self._split.kernel

    @property
    def lifted(self) -> bool:
        """Every flow is counted."""
        return self._lifted

    def follow(self, *asked: Filter | None) -> bool:
        """The list is of flows that pass all of `asked` (None: every flow does) from now on. Gives whether that
        lifts the capture filter.

        It is not set again: of flows that were counted and then left out for a while, rates, sums and ends would lie.
        """
        if self._lifted or self._split.tree is None:
            return False
        from flowtop.view.filter.pushdown import implies

        self._lifted = not implies([one for one in asked if one is not None], self._split.tree)
        return self._lifted

    def scope(self) -> Callable[[FlowRecords, Mapping[int, str]], npt.NDArray[np.bool_]] | None:
        """Which records an export is for that begins now, None for all: those of the flows that are counted now,
        whatever the list shows later."""
        if self._lifted:
            return None
        return compile_filter(self._split.kernel, "records").record_mask
