"""While the kernel program leaves flows out: as long as nobody wants them."""

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
    """Says when the capture filter holds: not while the list, or an export, is of flows that it would leave out.

    Safe for any thread: what one sets another reads whole.

    Args:
        split: what was compiled into the kernel program.
    """

    def __init__(self, split: Split = Split()) -> None:
        self._split = split
        self._lifted = not split.kernel
        self._pinned = False

    @property
    def text(self) -> str:
        """The capture filter that holds now, in the filter language; empty: every flow is counted."""
        return "" if self._lifted else self._split.kernel

    @property
    def lifted(self) -> bool:
        """Every flow is counted."""
        return self._lifted

    def follow(self, *asked: Filter | None, both_ways: bool = False) -> bool:
        """The list is of flows that pass all of `asked` (None: every flow does) from now on; both_ways: and of what
        answers them. Gives whether that lifts the capture filter, or lets it hold again."""
        if self._split.tree is None:
            return False
        from flowtop.view.filter.pushdown import implies, symmetric

        before = self._lifted
        self._lifted = (self._pinned or not implies([one for one in asked if one is not None], self._split.tree)
                        or (both_ways and not symmetric(self._split.tree)))
        return self._lifted != before

    def scope(self) -> Callable[[FlowRecords, Mapping[int, str]], npt.NDArray[np.bool_]] | None:
        """Which records an export is for that begins now, None for all: those of the flows that are counted now,
        whatever the list shows later. For all: from now on every flow is counted."""
        if not self._split.kernel:
            return None
        if self._lifted:
            self._pinned = True
            return None
        return compile_filter(self._split.kernel, "records").record_mask
