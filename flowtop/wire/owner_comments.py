"""The owner of a packet as its comment in a pcapng file: `flowtop process=nginx pid=1234 user=www-data`.

A comment is written by whoever made the file. What is not exactly as flowtop writes it is no owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from flowtop.fields.owners import OWNED
from flowtop.model.owners import MARKS, PID_BITS, PROCESS_BIT, PROCESSES, TEXTS, pid_of
from flowtop.text.lookups import Lookups

MOST_OWNERS = 65_536
"""Processes in comments of a file; further ones have no owner."""
PREFIX = b"flowtop "
_LONGEST = 64
_PID = "pid"


@lru_cache(maxsize=1)
def words() -> dict[str, str]:
    """The words of a comment in their order, and the table of texts of each; "": the process id, which has none."""
    found = {}
    for made in OWNED:
        if made.id == _PID:
            found[made.id] = ""
        elif made.texts is not None and (made.column is None or not made.column.on_request):
            known = {table: {PROCESS_BIT: table} for table in TEXTS}
            found[made.id] = made.texts.names(Lookups(texts=known))[PROCESS_BIT]
    return found


def comment(owner: int, lookups: Lookups) -> str:
    """What is known of an owner, without long texts, which each packet would repeat; words are one each."""
    parts = []
    for word, table in words().items():
        text = lookups.named(table).get(owner, "") if table else str(pid_of(owner) or "")
        if text:
            parts.append(f"{word}={_joined(text)}")
    return " ".join((PREFIX.decode().strip(), *parts)) if parts else ""


def _joined(text: str) -> str:
    """Without spaces and control characters."""
    return "".join(character if character.isprintable() and not character.isspace() else "_"
                   for character in text[:_LONGEST])


class CommentOwners:
    """Owner ids for the comments of a file's packets. A number stands for the start time of a process, whose texts are
    those of its latest comment.

    Args:
        most: owners to keep; further ones are not known, and counted.

    Attributes:
        refused: how often a comment had a process that there was no room for.
    """

    def __init__(self, most: int = MOST_OWNERS) -> None:
        self._most = most
        self._known: dict[bytes, int] = {}
        self._processes: dict[tuple[str, str], int] = {}
        self._texts: dict[str, dict[int, str]] = {table: {} for table in TEXTS}
        self._texts[PROCESSES].update(MARKS)
        self._published: Mapping[str, Mapping[int, str]] = {}
        self._changed = False
        self.refused = 0

    def published(self) -> Mapping[str, Mapping[int, str]]:
        """Text by owner id, for each of model.owners.TEXTS; empty: there was no owner. It does not change any more."""
        if self._changed:
            self._published = {table: dict(texts) for table, texts in self._texts.items()}
            self._changed = False
        return self._published

    def owner(self, octets: bytes) -> int:
        """The owner that this comment names; 0: none."""
        found = self._known.get(octets)
        if found is None:
            found = self._owner(octets)
            if len(self._known) < self._most:
                self._known[octets] = found
        return found

    def _owner(self, octets: bytes) -> int:
        values = read_comment(octets)
        if values is None:
            return 0
        self._changed = True
        name, pid = values.get("process", ""), values.pop(_PID, "")
        if not pid:
            return next((mark for mark, text in MARKS.items() if values == {"process": text}), 0)
        process = pid, values.get("started", name)
        found = self._processes.get(process, 0)
        if not found:
            if len(self._processes) >= self._most:
                self.refused += 1
                return 0
            found = PROCESS_BIT | len(self._processes) + 1 << PID_BITS | int(pid)
            self._processes[process] = found
        for word, text in values.items():
            self._texts[words()[word]][found] = text
        return found


def read_comment(octets: bytes) -> dict[str, str] | None:
    """The words of a comment; None: flowtop has not written it."""
    try:
        prefix, *parts = octets.decode().split(" ")
    except UnicodeDecodeError:
        return None
    if f"{prefix} ".encode() != PREFIX or not parts:
        return None
    left, values = iter(words()), dict[str, str]()
    for part in parts:
        word, is_one, text = part.partition("=")
        if not is_one or not text or word not in left or _joined(text) != text:  # `in` goes on behind the last one
            return None
        values[word] = text
    return values if _is_pid(values.get(_PID, "1")) else None


def _is_pid(text: str) -> bool:
    return text.isascii() and text.isdecimal() and text[0] != "0" and int(text) < 1 << PID_BITS
