"""Which rows a filter of the screen's tests lets pass, by a few words read with plain Python; no code of flowtop's."""

from __future__ import annotations

import ipaddress

from flowtop.model.rows import FlowRow

PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1}


def passes(row: FlowRow, text: str) -> bool:
    """Whether a row passes: terms joined by ` and ` or ` or `, from left to right, `not` before any of them.

    Raises:
        ValueError: a word that this fake does not know.
    """
    parts = _split(text)
    verdict = _term(row, parts[0])
    for join, term in zip(parts[1::2], parts[2::2], strict=True):
        verdict = verdict and _term(row, term) if join == "and" else verdict or _term(row, term)
    return verdict


def _split(text: str) -> list[str]:
    """Terms and, between them, what joins them: at each ` and ` and ` or ` outside parentheses."""
    parts, depth, begin = [], 0, 0
    for index, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        for join in ("and", "or"):
            if not depth and text.startswith(f" {join} ", index):
                parts += [text[begin:index], join]
                begin = index + len(f" {join} ")
    return [*parts, text[begin:]]


def _term(row: FlowRow, term: str) -> bool:
    term = term.strip()
    if term.startswith("not "):
        return not _term(row, term.removeprefix("not "))
    if term.startswith("(") and term.endswith(")"):
        return passes(row, term[1:-1])
    word, _, rest = term.partition(" ")
    if word in PROTOCOLS:
        return row.protocol == PROTOCOLS[word] and (not rest or _term(row, rest))
    ends = {"src": (row.source_address, row.source_port), "dst": (row.destination_address, row.destination_port)}
    sides = list(ends)
    if word in ends:
        sides = [word]
        word, _, rest = rest.partition(" ")
    if word == "port":
        return int(rest) in {ends[side][1] for side in sides}
    if word == "portrange":
        low, _, high = rest.partition("-")
        return any(int(low) <= ends[side][1] <= int(high or low) for side in sides)
    if word == "host":
        wanted = ipaddress.ip_address(rest)
        size = len(wanted.packed)
        return row.ip_version == wanted.version and wanted.packed in {ends[side][0][:size] for side in sides}
    if word == "net":
        network = ipaddress.ip_network(rest)
        size = network.max_prefixlen // 8
        return any(ipaddress.ip_address(ends[side][0][:size]) in network for side in sides)
    if word == "if":  # a row does not say how its interface is called
        return True
    if word == "tunnel":
        return bool(row.tunnel)
    raise ValueError(f"this fake knows no {term!r}")
