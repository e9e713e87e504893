"""How much work a message is for its length, in steps: what real exporters send is little, so that it costs nothing.

A message of an Ethernet frame may have a value in each octet, hundreds of Sets, or Sets that do not follow each other.
Such a message costs a hundred times as much as one of flows, and steps beyond those that are free for each octet are
taken from a budget of the sender (budgets.py). While that is spent, such messages are refused unread.
"""

from __future__ import annotations

from collections.abc import Sequence

from flowtop.capture.collector.budgets import Limits
from flowtop.wire import ipfix, netflow9
from flowtop.wire.data_set import DataSet
from flowtop.wire.ipfix import SET_HEADER, SET_HEADER_OCTETS
from flowtop.wire.ipfix_decoder import Message
from flowtop.wire.ipfix_template import FIRST_TEMPLATE_ID, VARIABLE_LENGTH, Template
from flowtop.wire.template_store import DomainTemplates

LIMITS = Limits(50_000, 25_000, 100_000, 50_000)
"""Steps that are not free: of one address at once, and each second; and of all strangers."""
_A_SET, _AN_OPTION, _A_RECORD = 8, 6, 4
"""Steps of a Set or a Template, of a record of Options Data, and of a flow record. Each value of variable length, and
the values of fixed length between two of these, are one more."""
A_LAYOUT = 1_500
"""Steps of one more Template whose records wait for a drain."""
FEW_SETS = 4
"""So many Sets are free in any message."""
_A_PART = 32
"""Steps of the records of a Set whose lists have the same Templates."""
_OCTETS_A_STEP, _FREE = 4, 32
_SEARCHED = frozenset(("set", "length", "padding", "trailing"))
_TEMPLATE_SETS = {ipfix.VERSION: (2, 3), netflow9.VERSION: (0, 1)}
_HEADERS = {ipfix.VERSION: ipfix.HEADER_OCTETS, netflow9.VERSION: netflow9.HEADER.size}


def steps_of(template: Template) -> int:
    """Steps of one record; 0 for flow records of one length that are not short."""
    found: int | None = template.__dict__.get("_steps")
    if found is None:
        found = _AN_OPTION if template.scope_count else _A_RECORD
        if found == _A_RECORD and template.fixed_length and template.min_octets >= _A_RECORD * _OCTETS_A_STEP:
            found = 0
        fixed = False
        for specifier in template.fields if not template.fixed_length else ():
            variable = specifier.length == VARIABLE_LENGTH
            found += variable or not fixed
            fixed = not variable
        template.__dict__["_steps"] = found
    return found


def excess(message: Message, octets: int, further: bool = False) -> int:
    """Steps of a message of so many octets that are not free; 0 as a rule.

    Where the next Set was looked for, that counts for all octets.

    Args:
        further: it is not the first one of its datagram.
    """
    steps = 2 * _FREE if further else 0
    steps += _A_SET * (len(message.undecoded) + len(message.templates) + len(message.data_sets))
    for data_set in message.data_sets:
        each = data_set.template.__dict__.get("_steps")
        steps += data_set.count * (steps_of(data_set.template) if each is None else each)
    if message.skipped and not _SEARCHED.isdisjoint(part for part, _ in message.skipped):
        steps += octets
    return max(steps - octets // _OCTETS_A_STEP - _FREE, 0)


def excess_of_lists(data_set: DataSet, parts: Sequence[DataSet]) -> int:
    """The same of a Set with lists, which are these parts when their records are fields."""
    fields = len(data_set.template.fields)
    steps = sum(_A_PART + part.count * (len(part.template.fields) - fields) for part in parts)
    return max(steps - len(data_set.octets) // _OCTETS_A_STEP - _FREE, 0)


def is_dense(octets: bytes, known: DomainTemplates) -> bool:
    """Whether a message may be more work than is free for its length. It is looked at only so far as is needed.

    Args:
        known: Templates of its Observation Domain.
    """
    version, end = int.from_bytes(octets[:2], "big"), len(octets)
    if version not in _HEADERS:
        return False
    left = end // _OCTETS_A_STEP + _FREE
    offset = _HEADERS[version]
    while offset < end:
        if offset + SET_HEADER_OCTETS > end:
            return any(octets[offset:])
        set_id, length = SET_HEADER.unpack_from(octets, offset)
        following = offset + length
        if length < SET_HEADER_OCTETS or following > end:
            return True
        offset += SET_HEADER_OCTETS
        left -= _A_SET
        template = known.get(set_id) if set_id >= FIRST_TEMPLATE_ID else None
        if template is not None:
            if not template.plain:
                return True
            left -= (following - offset) // template.min_octets * steps_of(template)
        elif set_id in _TEMPLATE_SETS[version]:
            while following - offset >= SET_HEADER_OCTETS and left >= 0:
                left -= _A_SET
                offset += SET_HEADER_OCTETS * (1 + SET_HEADER.unpack_from(octets, offset)[1])
        if left < 0:
            return True
        offset = following
    return False


def domain_of(octets: bytes) -> int:
    """The Observation Domain of a message of IPFIX or NetFlow 9."""
    at = _HEADERS.get(int.from_bytes(octets[:2], "big"), 4)
    return int.from_bytes(octets[at - 4:at], "big")
