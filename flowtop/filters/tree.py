"""A filter as a tree: and, or, not, and tests as leaves.

Immutable, without numpy. Masks, the kernel program's C, and text are made from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from flowtop.fields.field import FilterKey
from flowtop.text.operands import Network

Side = Literal["source", "destination"]
Operator = Literal["<", "<=", ">", ">=", "=", "!=", "~", "!~"]

DEEPEST = 100
"""Maximum of levels, so that functions may recurse."""


@dataclass(frozen=True, slots=True)
class Compare:
    """Compares the key's number of a flow with `value`; for a key of kind "bits", `=` asks for all bits of `value`."""

    key: FilterKey
    operator: Operator
    value: float


@dataclass(frozen=True, slots=True)
class Match:
    """Matches the text of a text key: a glob for `=` and `!=`, a part of the text in any case for `~` and `!~`. For a
    key of kind "address" the pattern is a network."""

    key: FilterKey
    operator: Operator
    pattern: str


@dataclass(frozen=True, slots=True)
class Within:
    """The address of that side is in one of the networks."""

    side: Side
    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """Matches the host name of that side, if known, in any case: `whole` as a glob, else as a part of the name.

    Attributes:
        among_others: names are one place of several where the pattern is looked for.
    """

    side: Side
    pattern: str
    whole: bool
    among_others: bool = False


@dataclass(frozen=True, slots=True)
class Term:
    """A part of the filter as text, and its meaning."""

    text: str
    meaning: Tree


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: Tree


@dataclass(frozen=True, slots=True)
class And:
    """All of them; without parts: every flow."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of them; without parts: no flow."""

    parts: tuple[Tree, ...]


Test: TypeAlias = Compare | Match | Within | Named
Tree: TypeAlias = Test | Term | Not | And | Or
EVERYTHING = And(())


def all_of(*parts: Tree) -> Tree:
    """And, flat."""
    return _flat(And, parts)


def any_of(*parts: Tree) -> Tree:
    """Or, flat."""
    return _flat(Or, parts)


def _flat(join: type[And] | type[Or], parts: tuple[Tree, ...]) -> Tree:
    if len(parts) == 1:
        return parts[0]
    flat: list[Tree] = []
    for part in parts:
        if isinstance(part, join):
            flat.extend(part.parts)
        else:
            flat.append(part)
    return join(tuple(flat))


def depth(tree: Tree) -> int:
    """Levels of the tree, found without recursion."""
    deepest, waiting = 0, [(tree, 1)]
    while waiting:
        node, level = waiting.pop()
        deepest = max(deepest, level)
        waiting.extend((child, level + 1) for child in children(node))
    return deepest


def children(tree: Tree) -> tuple[Tree, ...]:
    """Child nodes."""
    if isinstance(tree, And | Or):
        return tree.parts
    if isinstance(tree, Not):
        return (tree.part,)
    return (tree.meaning,) if isinstance(tree, Term) else ()


def leaves(tree: Tree) -> Iterator[Test]:
    """Every test in the tree."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Compare | Match | Within | Named):
            yield node
        waiting.extend(children(node))


def conjuncts(tree: Tree) -> tuple[Tree, ...]:
    """The conditions that must all be met, without Terms, so that they compare by meaning."""
    bare = _bare(tree)
    return bare.parts if isinstance(bare, And) else (bare,)


def _bare(tree: Tree) -> Tree:
    if isinstance(tree, Term):
        return _bare(tree.meaning)
    if isinstance(tree, Not):
        return Not(_bare(tree.part))
    if isinstance(tree, And | Or):
        return (all_of if isinstance(tree, And) else any_of)(*map(_bare, tree.parts))
    return tree


def tested_keys(tree: Tree) -> list[FilterKey]:
    """The keys that the tree tests, without those that a text is looked for in among others."""
    keys: list[FilterKey] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Compare | Match):
            keys.append(node.key)
        elif isinstance(node, Or) and any(isinstance(part, Named) and part.among_others for part in node.parts):
            continue
        waiting.extend(children(node))
    return keys


def as_text(tree: Tree) -> str:
    """The tree in the filter language, in its shortest unambiguous form. Only of trees whose leaves are in Terms."""
    if isinstance(tree, Term):
        return tree.text
    if isinstance(tree, Not):
        return f"not {_inside(tree.part)}"
    if isinstance(tree, And | Or):
        return (" and " if isinstance(tree, And) else " or ").join(map(_inside, tree.parts))
    raise TypeError(f"no Term around {type(tree).__name__}")


def _inside(tree: Tree) -> str:
    text = as_text(tree)
    return f"({text})" if isinstance(tree, And | Or) else text
