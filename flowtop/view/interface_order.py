"""The order of interfaces that people expect: by name, numbers in it as numbers. Their ifindex says when they came."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from flowtop.view.columns import COLUMNS, Column
from flowtop.view.flows import Array, FlowColumns

_TABLE = 1 << 16
"""Interfaces below are looked up in an array: all there are, but exporters' and those of hosts that made very many."""


def by_name(column: Column, interfaces: Mapping[int, str]) -> Column:
    """The column of interfaces, of flows or of groups, with the order of their names; any other column as it is.

    Args:
        interfaces: name by ifindex; those without a name come after all others, by ifindex.
    """
    if column.id != COLUMNS["interface"].id or not interfaces:
        return column
    [number] = column.sort
    ordered = sorted(interfaces, key=lambda ifindex: _natural(interfaces[ifindex]))
    ranks = {ifindex: rank for rank, ifindex in enumerate(ordered)}
    small, large = [i for i in ordered if i < _TABLE], np.array(sorted(i for i in ordered if i >= _TABLE), np.int64)
    table = len(ordered) + np.arange(max(small, default=-1) + 2)
    table[small] = [ranks[ifindex] for ifindex in small]
    of_large = np.array([ranks[ifindex] for ifindex in large.tolist()], np.int64)

    def rank(columns: FlowColumns) -> Array:
        ifindex = number(columns).astype(np.uint32)
        found = table[np.minimum(ifindex, np.uint32(len(table) - 1))]
        beyond = np.flatnonzero(ifindex >= len(table) - 1)
        if len(beyond):
            others = ifindex[beyond].astype(np.int64)
            found[beyond] = len(ordered) + others
            if len(large):
                at = np.minimum(np.searchsorted(large, others), len(large) - 1)
                named = large[at] == others
                found[beyond[named]] = of_large[at[named]]
        return found

    return replace(column, sort=(rank,))


def _natural(name: str) -> list[tuple[int, str]]:
    """`eth10` after `eth2`: text and numbers in turn."""
    parts = re.split(r"([0-9]+)", name)
    return [(int(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)]
