"""The process of a flow's local socket in IPFIX: elements behind those of the same record without it.

IANA has elements for two of its properties: applicationName is the process, userName the user. The process id is ntop's
element for the end of the flow that is here: its source for what this host sends, its destination for what it receives.
All other texts of owners (flowtop/fields/owners.py) are in applicationDescription, as a JSON object with the keys of
`flowtop -o json`, the shortest first, as many as the message has room for; records that lack some are counted. There is
no applicationId: none of the engines of RFC 6759 has numbers for the programs of a host.

The Template is that of the record without its process, these elements behind it, and another id, so any record can
have a process: also biflows, records with measurements of TCP, and relayed ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from flowtop.fields.owners import OWNED
from flowtop.model.kinds import Direction, Kind
from flowtop.model.owners import MARKS, PID_BITS, PROCESS_BIT, PROCESSES, TEXTS, USERS, pid_of
from flowtop.model.record import FlowRecords, chosen
from flowtop.text.lookups import Lookups
from flowtop.wire.ipfix import HEADER_OCTETS, SET_HEADER_OCTETS, Records, RecordSet
from flowtop.wire.ipfix_template import Template, field

Texts = Mapping[str, Mapping[int, str]]
"""For each of model.owners.TEXTS: text by owner id."""
Octets = tuple[bytes, bytes, bytes]
"""Process, user and description as in a record, in UTF-8."""
Sets = tuple[list[RecordSet], npt.NDArray[np.intp], npt.NDArray[np.intp] | None]
"""Sets; the records' order in them; and how many records each Data Record has, None: one."""

ELEMENTS = ("applicationName", "userName", "applicationDescription")
_PIDS = {Direction.EGRESS: "ntopSrcProcPid", Direction.INGRESS: "ntopDstProcPid"}
_FIRST_ID = {Direction.EGRESS: 8_192, Direction.INGRESS: 16_384}
"""What is added to the id of the Template without a process, which is below."""
_BEYOND = 24_576
_FIELDS = {direction: (field(pid), *map(field, ELEMENTS)) for direction, pid in _PIDS.items()}
_COUNT = 1 + len(ELEMENTS)
_NOT_OWNED = 0
"""Kinds of records: this, or the direction + 1."""
_LONGEST_NAME, _LONGEST_TEXT, _LONGEST_DESCRIPTION = 64, 250, 1_200
_LEAST = 4 + len(ELEMENTS)
"""Octets of the process id and of empty texts."""


# ---- the fields there are


@lru_cache(maxsize=1)
def keys() -> dict[str, str]:
    """For each table of owners' texts that a field shows: its key in JSON."""
    found = {}
    for made in OWNED:
        for table in TEXTS:
            if made.texts is not None and made.texts.names(Lookups(texts={table: {PROCESS_BIT: table}})):
                found[table] = made.members[0].name
    return found


# ---- sent


def owned_sets(records: FlowRecords, texts: Texts, plain: Callable[[FlowRecords], Sets],
               template: Callable[[int], Template], max_octets: int,
               pairs: npt.NDArray[np.intp] | None = None) -> tuple[Sets, list[Template], npt.NDArray[np.bool_]]:
    """Flow Records as Sets, with the owners of those that have one; the Templates of these; and for which records texts
    of the owner were cut or left out, in the order of the Sets.

    Args:
        plain: makes Sets of records, without owners.
        template: one of theirs by id.
        max_octets: of a message: what it has no room for is left out.
        pairs: records that are the two directions of one biflow, shape (m, 2): they have one owner.
    """
    kinds, owners = _kinds(records, pairs)
    sets: list[RecordSet] = []
    orders, counts, cuts, templates = [], [], [], {}
    for kind in np.unique(kinds).tolist():
        mine = np.flatnonzero(kinds == kind)
        some, order, sizes = plain(chosen(records, mine))
        sizes = np.ones(len(order), np.intp) if sizes is None else sizes
        ids = owners[mine[order[np.cumsum(sizes) - sizes]]]
        start = 0
        for each in some:
            if kind != _NOT_OWNED and _fits(each, max_octets):
                base, direction = template(each.set_id), Direction(kind - 1)
                owned = Template(_FIRST_ID[direction] + base.id, (*base.fields, *_FIELDS[direction]))
                templates[owned.id] = owned
                made, cut = _with_owners(each, owned, ids[start:start + len(each.records)], texts, max_octets)
                sets.append(made)
            else:
                sets.append(each)
                cut = np.full(len(each.records), kind != _NOT_OWNED)
            cuts.append(np.repeat(cut, sizes[start:start + len(each.records)]))
            start += len(each.records)
        orders.append(mine[order])
        counts.append(sizes)
    return (sets, np.concatenate(orders), np.concatenate(counts)), list(templates.values()), np.concatenate(cuts)


def _kinds(records: FlowRecords, pairs: npt.NDArray[np.intp] | None) -> tuple[
        npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
    """The kind and the owner of each record, shape (n,)."""
    owners, direction = records["owner"].copy(), records["direction"] & np.uint8(Direction.EGRESS)
    if pairs is not None and len(pairs):
        first, second = owners[pairs[:, 0]], owners[pairs[:, 1]]
        owners[pairs[:, 0]] = owners[pairs[:, 1]] = np.where(first != 0, first, second)
        direction[pairs[:, 1]] = direction[pairs[:, 0]]
    some = (owners != 0) & (records["kind"] != np.uint8(Kind.AGGREGATE))  # that is of many flows
    return np.where(some, direction + np.uint8(1), np.uint8(_NOT_OWNED)), owners


def _octets(record_set: RecordSet) -> Sequence[bytes]:
    """The records of a Set one by one."""
    records = record_set.records
    if not isinstance(records, np.ndarray):
        return records
    whole, size = records.tobytes(), records.dtype.itemsize
    return [whole[at:at + size] for at in range(0, len(whole), size)]


def _room(octets: Iterable[int], max_octets: int) -> int:
    """Octets that a message has for the owner of the longest of these records."""
    return (max_octets & ~3) - HEADER_OCTETS - SET_HEADER_OCTETS - max(octets, default=0)


def _fits(record_set: RecordSet, max_octets: int) -> bool:
    """Whether there is room for the shortest form of an owner."""
    records = record_set.records
    longest = [records.dtype.itemsize] if isinstance(records, np.ndarray) else map(len, records)
    return _room(longest, max_octets) >= _LEAST


def _with_owners(record_set: RecordSet, template: Template, owners: npt.NDArray[np.uint64], texts: Texts,
                 max_octets: int) -> tuple[RecordSet, npt.NDArray[np.bool_]]:
    """The Set with its owners, and for which records some of the owner's texts are not in it as they are."""
    octets = _octets(record_set)
    room = _room(map(len, octets), max_octets)
    tails = {owner: _tail(owner, texts, room) for owner in np.unique(owners).tolist()}
    records = [each + tails[owner][0] for each, owner in zip(octets, owners.tolist(), strict=True)]
    return (RecordSet(template.id, records, template.min_octets),
            np.array([tails[owner][1] for owner in owners.tolist()], np.bool_))


def _tail(owner: int, texts: Texts, room: int) -> tuple[bytes, bool]:
    """The elements of an owner, in at most `room` octets; and whether texts were cut or left out."""
    room -= _LEAST
    parts, cut = [], False
    for table in (PROCESSES, USERS):
        whole = texts.get(table, {}).get(owner, "").encode("utf-8", "replace")
        text = _cut(whole, min(_LONGEST_NAME, room))
        cut |= len(text) < len(whole)
        room -= len(text)
        parts.append(bytes([len(text)]) + text)
    described, lacking = _description(owner, texts, min(room - 2, _LONGEST_DESCRIPTION))
    return pid_of(owner).to_bytes(4, "big") + b"".join(parts) + described, cut or lacking


def _description(owner: int, texts: Texts, room: int) -> tuple[bytes, bool]:
    """Further texts as a value of variable length, which has `room` octets and two for its length; and whether some
    were cut or left out."""
    values = {key: texts.get(table, {}).get(owner, "") for table, key in keys().items()
              if table not in (PROCESSES, USERS)}
    members: list[bytes] = []
    room, cut = room - 2, False
    for key, text in sorted(values.items(), key=lambda pair: len(pair[1])):
        whole = text.encode("utf-8", "replace")
        shown = _cut(whole, _LONGEST_TEXT).decode()
        cut |= len(whole) > _LONGEST_TEXT
        member = json.dumps({key: shown}, ensure_ascii=False, separators=(",", ":"))[1:-1].encode()
        if shown and len(member) <= room:
            members.append(member)
            room -= len(member) + 1
        elif shown:
            cut = True
    octets = b"{" + b",".join(members) + b"}" if members else b""
    length = bytes([len(octets)]) if len(octets) < 255 else b"\xff" + len(octets).to_bytes(2, "big")
    return length + octets, cut


def _cut(octets: bytes, most: int) -> bytes:
    """At most so many octets, of whole characters."""
    return octets[:max(most, 0)].decode("utf-8", "ignore").encode()


# ---- read


def without_owners(template: Template) -> Template:
    """The Template that was given to `with_owners`, for one that this has made; else the same Template."""
    if _direction(template) is None:
        return template
    return _base(template)


def _direction(template: Template) -> Direction | None:
    if not _FIRST_ID[Direction.EGRESS] <= template.id < _BEYOND or template.scope_count:
        return None
    direction = Direction.EGRESS if template.id < _FIRST_ID[Direction.INGRESS] else Direction.INGRESS
    return direction if template.fields[-_COUNT:] == _FIELDS[direction] else None


@lru_cache(maxsize=256)
def _base(template: Template) -> Template:
    direction = _direction(template)
    assert direction is not None
    return Template(template.id - _FIRST_ID[direction], template.fields[:-_COUNT])


Code = Callable[[int, Octets], int]
"""Gives the owner id for a process id, and the texts of a record."""


def collect_owners(template: Template, records: Records, code: Code) -> npt.NDArray[np.uint64] | None:
    """The owner ids of Data Records, shape (n,); None: the Template has no processes.

    Args:
        code: is asked once for each process.
    """
    if _direction(template) is None:
        return None
    columns = [records[name].tolist() for name in template.names[-_COUNT:]]
    known: dict[tuple[int, bytes, bytes, bytes], int] = {}
    found = []
    for row in zip(*columns, strict=True):
        owner = known.get(row)
        if owner is None:
            owner = known[row] = code(row[0], row[1:])
        found.append(owner)
    return np.array(found, np.uint64)


class OwnerCodes:
    """Owner ids for the processes in records, which have no start time: a number stands for it.

    Args:
        most: processes to keep; then the first ones are forgotten.

    Attributes:
        texts: see Texts.
        forgotten: how many processes were forgotten.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._codes: dict[tuple[str, int, Octets], int] = {}
        self._number = 0
        self.texts: dict[str, dict[int, str]] = {table: {} for table in TEXTS}
        self.texts[PROCESSES].update(MARKS)
        self.forgotten = 0

    def __len__(self) -> int:
        return self._number

    def code(self, exporter: str, pid: int, octets: Octets) -> int:
        """The owner id; 0: there is no process."""
        key = exporter, pid, octets
        found = self._codes.get(key)
        if found is not None:
            return found
        name = _plain(octets[0])
        if not pid:
            marks = [mark for mark, text in MARKS.items() if text == name]
            if marks or not name:
                return marks[0] if marks else 0
        if len(self._codes) >= self._most:
            self._forget()
        self._number += 1
        found = PROCESS_BIT | (self._number & _NUMBERS) << PID_BITS | pid & (1 << PID_BITS) - 1
        self._codes[key] = found
        for table, text in ((PROCESSES, name), (USERS, _plain(octets[1])), *described(octets[2])):
            if text:
                self.texts[table][found] = text
        return found

    def _forget(self) -> None:
        self.forgotten += 1
        owner = self._codes.pop(next(iter(self._codes)))
        for table in self.texts.values():
            table.pop(owner, None)


_NUMBERS = (1 << 62 - PID_BITS) - 1


def described(octets: bytes) -> Iterable[tuple[str, str]]:
    """The texts in a description, by table; those that there is no field for, and other values, are passed over."""
    tables = {key: table for table, key in keys().items()}
    try:
        found = json.loads(octets) if octets else {}
    except (ValueError, RecursionError):
        return
    for key, text in found.items() if isinstance(found, dict) else ():
        if key in tables and isinstance(text, str):
            yield tables[key], text[:_LONGEST_DESCRIPTION]


def _plain(octets: bytes) -> str:
    return octets.partition(b"\0")[0].decode("utf-8", "replace")[:_LONGEST_NAME]
