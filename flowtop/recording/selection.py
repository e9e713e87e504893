"""Select packets by a filter for flows: the packets of flows that pass.

Conditions on the Flow Key are checked per packet. For other conditions (rates, sums, fields of the first packet), the
flow table is queried after each update, and packets of the flows that pass are selected.
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
from flowtop.model.flows import Array, FlowSource
from flowtop.model.record import DESCRIBED_DTYPE, FLOW_KEY_DTYPE
from flowtop.text.lookups import Lookups

Mask = npt.NDArray[np.bool_]

_OF_THE_KEY = frozenset({"if", "exporter", "domain", "icmptype"})
"""Words of the filter language that depend on the Flow Key, besides those the kernel program can check."""
_WHOLE_KEY = f"V{FLOW_KEY_DTYPE.itemsize}"


class PacketSelection:
    """Selects packets of flows that pass all filters. One thread calls `mask`, another may call `follow`.

    Args:
        filters: if empty, every flow passes.

    Raises FlowtopError: a filter uses names of hosts, which only the screen has.

    Attributes:
        text: the filter in the filter language; "" for all flows.
        expression: filter for the kernel program (Split.expression), "" for none.
        by_key: whether only the Flow Key matters, so that no packet of a flow is missed, not even the first ones.
    """

    def __init__(self, filters: Sequence[Filter]) -> None:
        if any(one.of_names for one in filters):
            raise FlowtopError("packets cannot be selected by names of hosts", exit_code=EXIT_USAGE,
                               hint="filter by address, as in 'net 192.0.2.0/24'")
        whole = Filter(all_of_texts([one.text for one in filters]), all_of(*(one.tree for one in filters)))
        self.text = whole.text
        self.expression = split(whole, observation_points=True).expression if filters else ""
        self.by_key = all(_of_the_key(leaf) for leaf in leaves(whole.tree))
        self._whole = whole
        self._passing: frozenset[bytes] = frozenset()

    def follow(self, source: FlowSource, lookups: Lookups) -> None:
        """Update the flows that pass, after the flow table was updated.

        Args:
            source: the table, not changing.
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
        """The mask of selected packets, shape (n,).

        Args:
            keys: FLOW_KEY_DTYPE, shape (n,): of each packet.
            lookups: names of interfaces.
        """
        if self.by_key:
            return record_mask(self._whole.tree, _KeyColumns(keys), lookups)
        passing = self._passing
        return np.fromiter((key in passing for key in whole_keys(keys)), np.bool_, len(keys))


class _KeyColumns:
    """Flow Keys of packets, FLOW_KEY_DTYPE, as the columns of flows of which all of the key is known."""

    def __init__(self, keys: npt.NDArray[np.void]) -> None:
        self._keys = keys

    def __getitem__(self, name: str) -> Array:
        return np.zeros(len(self._keys), DESCRIBED_DTYPE[name]) if name == "record_bits" else self._keys[name]


def whole_keys(keys: npt.NDArray[np.void]) -> list[bytes]:
    """Flow Keys (FLOW_KEY_DTYPE, shape (n,)) as hashable octets."""
    octets: list[bytes] = np.ascontiguousarray(keys).view(_WHOLE_KEY).tolist()
    return octets


def _of_the_key(leaf: Test) -> bool:
    if isinstance(leaf, Named):
        return False
    return isinstance(leaf, Within) or bool(leaf.key.packet) or leaf.key.word in _OF_THE_KEY
