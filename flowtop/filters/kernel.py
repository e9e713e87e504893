"""Which part of a filter runs in the kernel program, as a C expression over the Flow Key, and until when."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowtop.filters.filter import Filter, compile_filter
from flowtop.filters.tree import (
    And,
    Compare,
    Match,
    Named,
    Not,
    Or,
    Term,
    Tree,
    Within,
    all_of,
    any_of,
    as_text,
    conjuncts,
    leaves,
)
from flowtop.text.operands import Network

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from flowtop.model.record import FlowRecords
    from flowtop.text.lookups import Lookups


MOST_TESTS = 64
"""Maximum of tests in the kernel program: more cost every packet more than the flows they save, and the verifier of an
old kernel may give up."""

_OF_THE_CONVERSATION = frozenset({"protocol", "ip_version", "kind", "source_port", "destination_port"})
_OF_THE_TUNNEL = frozenset({"tunnel", "tunnel_id"})
_OF_THE_KEY = _OF_THE_CONVERSATION | _OF_THE_TUNNEL | {"direction", "vlan_id", "customer_vlan_id"}
_EITHER_WAY = (_OF_THE_CONVERSATION, _OF_THE_CONVERSATION | _OF_THE_TUNNEL, _OF_THE_KEY)
_SIGNS = {"=": "==", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def split(whole: Filter, *, observation_points: bool, both_ways: bool = False, decap: bool = False) -> Split:
    """Which part of a filter runs where.

    Args:
        whole: the filter.
        observation_points: direction and VLAN may be tested in the kernel too. False while duplicates are looked for at
            several Observation Points: packets that do not pass are then needed to decide which one counts.
        both_ways: both directions are needed: only tests that have the same result for both run in the kernel.
        decap: packets are taken out of tunnels, and tunnels are tested like the Observation Point.
    """
    without = _OF_THE_CONVERSATION if decap else _OF_THE_CONVERSATION | _OF_THE_TUNNEL
    fields = _OF_THE_KEY if observation_points else without
    known, weaker, rest = _of_the_key(whole.tree, fields)
    if both_ways and not symmetric(all_of(*known, *weaker)):
        rest += [part for part in known if not symmetric(part)]
        known, weaker = ([part for part in parts if symmetric(part)] for parts in (known, weaker))
    kernel = all_of(*known, *weaker)
    if isinstance(kernel, And) and not kernel.parts:
        return everything_in_the_table(whole)
    if sum(len(leaf.networks) if isinstance(leaf, Within) else 1 for leaf in leaves(kernel)) > MOST_TESTS:
        return everything_in_the_table(whole)
    return Split(as_text(kernel), to_c(kernel), as_text(all_of(*rest)) if rest else "", kernel)


def implies(asked: Iterable[Filter], kernel: Tree) -> bool:
    """Whether flows that pass all of these filters certainly pass `kernel` too, judged by the filters alone."""
    known = [part for one in asked for fields in _EITHER_WAY
             for parts in _of_the_key(one.tree, fields)[:2] for part in conjuncts(all_of(*parts))]
    return all(part in known for part in conjuncts(kernel))


def symmetric(tree: Tree) -> bool:
    """Whether the answer to a packet that passes certainly passes too."""
    return _in_any_order(tree, turned=False) == _in_any_order(tree, turned=True)


_OTHER_WAY = {"source": "destination", "destination": "source", "source_port": "destination_port",
              "destination_port": "source_port"}


def _in_any_order(tree: Tree, *, turned: bool) -> tuple[object, ...]:
    """The tree without order and Terms, for comparison. `turned`: source and destination exchanged, and the opposite
    direction. An ICMP answer has another type than its request, so a test of types is not symmetric."""
    if isinstance(tree, Term):
        return _in_any_order(tree.meaning, turned=turned)
    if isinstance(tree, Not):
        return "not", _in_any_order(tree.part, turned=turned)
    if isinstance(tree, And | Or):
        return type(tree).__name__, frozenset(_in_any_order(part, turned=turned) for part in tree.parts)
    if isinstance(tree, Within):
        return "within", _OTHER_WAY[tree.side] if turned else tree.side, tree.networks
    if isinstance(tree, Compare):
        value = 1 - tree.value if turned and tree.key.packet == "direction" else tree.value
        field = tree.key.packet
        return "compare", _OTHER_WAY.get(field, field) if turned else field, tree.operator, value
    return "other", tree


def _of_the_key(tree: Tree, fields: frozenset[str]) -> tuple[list[Tree], list[Tree], list[Tree]]:
    """The parts of `tree` that the Flow Key decides; conditions on the Flow Key that the rest implies; the rest."""
    known: list[Tree] = []
    rest: list[Tree] = []
    for part in tree.parts if isinstance(tree, And) else (tree,):
        (known if _knows(part, fields) else rest).append(part)
    weaker = [part for part in (_weakened(part, fields, negated=False) for part in rest) if part is not None]
    return known, weaker, rest


def _knows(tree: Tree, fields: frozenset[str]) -> bool:
    """Whether the Flow Key decides all of it."""
    return all(isinstance(leaf, Within) or (isinstance(leaf, Compare) and leaf.key.packet in fields)
               for leaf in leaves(tree))


def _weakened(tree: Tree, fields: frozenset[str], *, negated: bool) -> Tree | None:
    """A condition on the Flow Key that `tree` (or its opposite) implies; None: there is none."""
    if isinstance(tree, Not):
        return _weakened(tree.part, fields, negated=not negated)
    if isinstance(tree, And | Or):
        parts = [_weakened(part, fields, negated=negated) for part in tree.parts]
        needed = [part for part in parts if part is not None]
        if isinstance(tree, And) != negated:
            return all_of(*needed) if needed else None
        return any_of(*needed) if len(needed) == len(parts) else None
    if not _knows(tree, fields):
        return None
    return Not(tree) if negated else tree


def to_c(tree: Tree) -> str:
    """The tree as a C expression over `key`."""
    if isinstance(tree, Term):
        return to_c(tree.meaning)
    if isinstance(tree, Not):
        return f"!{to_c(tree.part)}"
    if isinstance(tree, And):
        return f"({' && '.join(map(to_c, tree.parts))})" if tree.parts else "1"
    if isinstance(tree, Or):
        return f"({' || '.join(map(to_c, tree.parts))})" if tree.parts else "0"
    if isinstance(tree, Within):
        return f"({' || '.join(_network(tree.side, network) for network in tree.networks)})"
    if isinstance(tree, Named | Match) or not tree.key.packet:
        raise TypeError("not of the Flow Key")
    return f"((key)->{tree.key.packet} {_SIGNS[tree.operator]} {int(tree.value)})"


def _network(side: str, network: Network) -> str:
    """Compares words of network byte order with constants that are read in this machine's byte order."""
    tests = [f"(key)->ip_version == {network.version}"]
    for start in range(0, len(network.packed), 4):
        value, mask = (int.from_bytes(octets[start:start + 4], sys.byteorder)
                       for octets in (network.packed, network.mask))
        if mask:
            word = f"((flow_word *)(key)->{side}_address)[{start // 4}]"
            tests.append(f"({word} & {mask:#x}u) == {value:#x}u")
    return f"({' && '.join(tests)})"


@dataclass(frozen=True, slots=True)
class Split:
    """The two parts of a filter.

    Attributes:
        kernel: what the kernel program tests, in the filter language; empty: nothing.
        expression: the same in C, one line, over `key`, a pointer to struct flow_key (bpf/flow.h); empty: nothing.
        rest: what only the flow table can test, in the filter language; empty: nothing.
        tree: `kernel` as a tree; None: nothing.
    """

    kernel: str = ""
    expression: str = ""
    rest: str = ""
    tree: Tree | None = None


def everything_in_the_table(whole: Filter) -> Split:
    """The whole filter is tested in the flow table."""
    return Split(rest=whole.text)


def places(whole: Filter | None, *, in_kernel: bool, observation_points: bool, both_ways: bool = False,
           decap: bool = False) -> Split:
    """Which part of a filter runs where.

    Args:
        whole: the filter, if any.
        in_kernel: there is a kernel program, and flows that do not pass are not needed.
        observation_points, both_ways, decap: see `split`.
    """
    if whole is None:
        return Split()
    if not in_kernel:
        return everything_in_the_table(whole)

    return split(whole, observation_points=observation_points, both_ways=both_ways, decap=decap)


class Narrowing:
    """The capture filter, in force until flows are listed that it would leave out. Thread-safe.

    Args:
        split: what was compiled into the kernel program.
    """

    def __init__(self, split: Split = Split()) -> None:
        self._split = split
        self._lifted = not split.kernel

    @property
    def text(self) -> str:
        """The capture filter that is in force, in the filter language; empty: every flow is counted."""
        return "" if self._lifted else self._split.kernel

    @property
    def lifted(self) -> bool:
        """Every flow is counted."""
        return self._lifted

    def follow(self, *asked: Filter | None) -> bool:
        """From now on flows are listed that pass all of `asked` (None passes every flow). Returns whether that lifts
        the capture filter.

        It is not set again: rates, sums and ends of flows that were left out for a while would be wrong.
        """
        if self._lifted or self._split.tree is None:
            return False

        self._lifted = not implies([one for one in asked if one is not None], self._split.tree)
        return self._lifted

    def scope(self) -> Callable[[FlowRecords, Lookups], npt.NDArray[np.bool_]] | None:
        """Mask of the records for an export that begins now: flows that are counted now, whatever the list shows
        later. None: all."""
        if self._lifted:
            return None
        return compile_filter(self._split.kernel, "records").record_mask
