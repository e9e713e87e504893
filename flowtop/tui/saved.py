"""How the screen looks to begin with, and what the reader changed on it, kept for the next run in a small TOML file.

That file lies beside the settings, never in them. It belongs to the user: behind sudo to the one who typed it, in that
one's home directory. As root nothing is written there: a shell does it with that user's rights, so that no link planted
in the home leads anywhere root may write.
"""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtop.errors import FlowtopError
from flowtop.fields.arrangement import AUTOMATIC, WIDEST, Arrangement
from flowtop.files import recording_owner
from flowtop.tui.palettes import THEMES

_NOTE = "# flowtop writes this file when columns or colours are changed on its screen. Settings go into config.toml.\n"
_LARGEST = 65_536
_PATIENCE_S = 10.0
_WRITE = 'umask 077 && mkdir -p -- "$1" && cat >"$1/.view.$$" && mv -f -- "$1/.view.$$" "$1/view.toml"'


@dataclass(frozen=True, slots=True)
class SavedView:
    """What is kept: one of THEMES, and columns."""

    theme: str = THEMES[0]
    columns: Arrangement = AUTOMATIC


@dataclass(frozen=True, slots=True)
class ViewFile:
    """Where it is kept.

    Attributes:
        folder: made when needed.
        owner: user and group it belongs to.
        other: the owner is not who this process runs as.
    """

    folder: Path
    owner: tuple[int, int]
    other: bool = False

    def read(self) -> SavedView:
        """What was kept; nothing chosen when nothing was.

        Raises:
            FlowtopError: there is something that is not such a file.
        """
        try:
            # Not what a link points to, nor what blocks; and only what its owner could have written.
            descriptor = os.open(self.folder / "view.toml", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return SavedView()
        except OSError as error:
            raise self._fault("read", str(error.strerror)) from error
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != self.owner[0] or found.st_size > _LARGEST:
                raise self._fault("read", "not a small file of its owner's")
            return parse_view(os.read(descriptor, _LARGEST).decode())
        except (ValueError, OSError) as error:
            raise self._fault("read", str(error)) from error
        finally:
            os.close(descriptor)

    def write(self, view: SavedView) -> None:
        """Keep it, in the place of what was kept. Takes some milliseconds.

        Raises:
            FlowtopError: it cannot be written.
        """
        owner: dict[str, Any] = {}
        if self.other:
            owner = {"user": self.owner[0], "group": self.owner[1], "extra_groups": []}
        try:
            done = subprocess.run(["/bin/sh", "-c", _WRITE, "sh", str(self.folder)], input=view_text(view).encode(),
                                  capture_output=True, timeout=_PATIENCE_S, cwd="/", check=False, **owner)
        except (OSError, subprocess.SubprocessError) as error:
            raise self._fault("keep", str(error)) from error
        if done.returncode:
            raise self._fault("keep", done.stderr.decode(errors="replace").strip().rpartition(": ")[2])

    def _fault(self, verb: str, reason: str) -> FlowtopError:
        return FlowtopError(f"cannot {verb} {self.folder}/view.toml: {reason}", hint="remove it, or see to its folder")


def view_file(environment: Mapping[str, str], user: int, behind: tuple[int, int] | None) -> ViewFile | None:
    """Where the view is kept; None when there is no place that is surely this user's.

    Args:
        environment: for XDG_STATE_HOME and HOME.
        user: effective user id.
        behind: user and group behind sudo, None when nobody is.
    """
    try:
        if behind is not None:
            home = Path(pwd.getpwuid(behind[0]).pw_dir)
            state = home / ".local" / "state"
        else:
            home = Path(environment.get("HOME") or pwd.getpwuid(user).pw_dir)
            state = Path(environment.get("XDG_STATE_HOME") or home / ".local" / "state")
        owner = behind or (user, os.getegid())
        if home.stat().st_uid != owner[0]:
            return None  # su -m, or no home at all: as root, no place to write to
    except (KeyError, OSError):
        return None
    return ViewFile(state / "flowtop", owner, other=behind is not None and behind[0] != user)


def view_text(view: SavedView) -> str:
    """As TOML. Names and ids are plain words: nothing in them has to be escaped."""
    columns = view.columns
    lists = (("order", columns.order), ("hidden", sorted(columns.hidden)), ("shown", sorted(columns.shown)))
    lines = [f'theme = "{view.theme}"']
    for name, ids in lists:
        words = ", ".join(f'"{column_id}"' for column_id in ids)
        lines.append(f"{name} = [{words}]")
    lines += ["", "[widths]", *(f"{column_id} = {cells}" for column_id, cells in columns.widths)]
    return _NOTE + "\n".join(lines) + "\n"


def parse_view(text: str) -> SavedView:
    """From TOML; what another version wrote and this one does not know is passed over.

    Raises:
        ValueError: not TOML.
    """
    found = tomllib.loads(text)
    theme, widths = found.get("theme"), found.get("widths")
    cells = widths.items() if isinstance(widths, dict) else ()
    return SavedView(theme if theme in THEMES else THEMES[0], Arrangement(
        _words(found.get("order")), frozenset(_words(found.get("hidden"))), frozenset(_words(found.get("shown"))),
        tuple((name, width) for name, width in cells if isinstance(width, int) and 0 < width <= WIDEST)))


def _words(found: object) -> tuple[str, ...]:
    """Ids of a list; everything else is none."""
    return tuple(word for word in found if isinstance(word, str) and word.isidentifier()) if (
        isinstance(found, list)) else ()


@dataclass(frozen=True, slots=True)
class Looks:
    """Choices that the reader can change while it runs.

    Attributes:
        hosts: names of hosts by reverse DNS, in the place of addresses.
        services: names of ports, in the place of their numbers.
        theme: one of `palettes.THEMES`.
        columns: of the list.
        keep: keeps theme and columns for the next run; blocks, raises FlowtopError. None: nobody does.
        complaint: what is wrong with what was kept, in words.
    """

    hosts: bool = False
    services: bool = False
    theme: str = "terminal"
    columns: Arrangement = AUTOMATIC
    keep: Callable[[SavedView], None] | None = None
    complaint: str = ""


DEFAULT_LOOKS = Looks()


def opening_looks(environment: Mapping[str, str], user: int, *, hosts: bool, services: bool,
                  theme: str | None) -> Looks:
    """What options chose, and for the rest what was kept.

    Args:
        user: effective user id.
        theme: None: the one that was kept.
    """
    file = view_file(environment, user, recording_owner(environment, user))
    kept, complaint = SavedView(), ""
    try:
        kept = kept if file is None else file.read()
    except FlowtopError as error:
        complaint = f"{error.message}; {error.hint}"
    return Looks(hosts, services, theme or kept.theme, kept.columns, None if file is None else file.write, complaint)
