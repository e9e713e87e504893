"""Which packets a filter of flows means: those of the flows that pass.

What a filter asks of the Flow Key, a packet answers by itself. The rest (rates, sums, what the first packet had) is
asked of the flow table, each time it has been brought up to date: the flows that pass then have their packets taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.filters.filter import Filter, all_of_texts
from flowtop.filters.kernel import split
from flowtop.filters.masks import record_mask
from flowtop.filters.tree import Named, Test, Within, all_of, leaves
from flowtop.model.flows import FlowSource
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.text.lookups import Lookups

Mask = npt.NDArray[np.bool_]

_OF_THE_KEY = frozenset({"if", "exporter", "domain", "icmptype"})
"""Words that fields of the Flow Key answer, beside those of one field that the kernel program can ask."""
_WHOLE_KEY = f"V{FLOW_KEY_DTYPE.itemsize}"


class PacketSelection:
    """The packets of flows that pass all of some filters. One thread asks, another may call `follow`.

    Args:
        filters: none: every flow.

    Raises FlowtopError: a filter asks for names of hosts, which are the screen's.

    Attributes:
        text: what passes, in the filter language; "" for everything.
        expression: what the kernel program may leave out (Split.expression), "" for nothing.
        by_key: the Flow Key tells, so that no packet of a flow is missed, nor its first ones.
    """

    def __init__(self, filters: Sequence[Filter]) -> None:
        if any(one.of_names for one in filters):
            raise FlowtopError("packets cannot be told by names of hosts", exit_code=EXIT_USAGE,
                               hint="filter by address, as in 'net 192.0.2.0/24'")
        whole = Filter(all_of_texts([one.text for one in filters]), all_of(*(one.tree for one in filters)))
        self.text = whole.text
        self.expression = split(whole, observation_points=True).expression if filters else ""
        self.by_key = all(_of_the_key(leaf) for leaf in leaves(whole.tree))
        self._whole = whole
        self._passing: frozenset[bytes] = frozenset()

    def follow(self, source: FlowSource, lookups: Lookups) -> None:
        """The flow table has been brought up to date.

        Args:
            source: the table, at rest.
            lookups: names of interfaces.
        """
        if self.by_key:
            return
        passing = np.flatnonzero(source.visible & self._whole.mask(source, lookups))
        keys = np.zeros(len(passing), FLOW_KEY_DTYPE)
        for name in FLOW_KEY_DTYPE.names or ():
            keys[name] = source.columns[name][passing]
        self._passing = frozenset(whole_keys(keys))

    def mask(self, keys: npt.NDArray[np.void], lookups: Lookups) -> Mask:
        """Which packets are wanted, shape (n,).

        Args:
            keys: FLOW_KEY_DTYPE, shape (n,): of each packet.
            lookups: names of interfaces.
        """
        if self.by_key:
            return record_mask(self._whole.tree, keys, lookups)
        passing = self._passing
        return np.fromiter((key in passing for key in whole_keys(keys)), np.bool_, len(keys))


def whole_keys(keys: npt.NDArray[np.void]) -> list[bytes]:
    """Flow Keys (FLOW_KEY_DTYPE, shape (n,)) as octets that can be looked up."""
    found: list[bytes] = np.ascontiguousarray(keys).view(_WHOLE_KEY).tolist()
    return found


def _of_the_key(leaf: Test) -> bool:
    if isinstance(leaf, Named):
        return False
    return isinstance(leaf, Within) or bool(leaf.key.packet) or leaf.key.word in _OF_THE_KEY
