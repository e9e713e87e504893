"""How the screen looks to begin with, and what the reader changed on it, kept for the next run in a small TOML file.

That file is in the state directory (~/.local/state/flowtop), not in the settings. It belongs to the user: behind sudo
to the one who typed it, in that one's home directory. As root nothing is written there: a shell does it with that
user's rights, so that no link planted in the home leads anywhere root may write.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flowtop.errors import FlowtopError
from flowtop.fields.arrangement import AUTOMATIC, WIDEST, Arrangement
from flowtop.files import VIEW, recording_owner, replace_file, state_folder
from flowtop.text.toml import parse_toml
from flowtop.tui.palettes import THEMES

_NOTE = "# flowtop writes this file when columns or colours are changed on its screen. Settings go into config.toml.\n"
_LARGEST = 65_536
_PATIENCE_S = 10.0
_WRITE = 'umask 077 && mkdir -p -- "$1" && cat >"$1/.view.$$" && mv -f -- "$1/.view.$$" "$1/view.toml"'


@dataclass(frozen=True, slots=True)
class SavedView:
    """What is saved: one of THEMES, the arrangement of columns, and whether the hint of the first run was dismissed."""

    theme: str = THEMES[0]
    columns: Arrangement = AUTOMATIC
    greeted: bool = False


@dataclass(frozen=True, slots=True)
class ViewFile:
    """Where the view is saved.

    Attributes:
        folder: made when needed.
        owner: user and group it belongs to.
        other: the owner is not who this process runs as.
    """

    folder: Path
    owner: tuple[int, int]
    other: bool = False

    def read(self) -> SavedView:
        """The saved view; the default when there is none.

        Raises:
            FlowtopError: the file cannot be read or is not such a file.
        """
        try:
            # Not what a link points to, nor what blocks; and only what its owner could have written.
            descriptor = os.open(self.folder / VIEW, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return SavedView()
        except OSError as error:
            raise self._fault("read", str(error.strerror)) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != self.owner[0] or status.st_size > _LARGEST:
                raise self._fault("read", "not a regular file of its owner, or too large")
            return parse_view(os.read(descriptor, _LARGEST).decode())
        except (ValueError, OSError) as error:
            raise self._fault("read", str(error)) from error
        finally:
            os.close(descriptor)

    def write(self, view: SavedView) -> None:
        """Save a view; replaces the saved one. Takes some milliseconds.

        Raises:
            FlowtopError: it cannot be written.
        """
        if not self.other or os.geteuid() == self.owner[0]:  # that user, from the start or since it was confined
            try:
                replace_file(self.folder / VIEW, view_text(view))
            except OSError as error:
                raise self._fault("save", (error.strerror or str(error))) from error
            return
        try:
            done = subprocess.run(["/bin/sh", "-c", _WRITE, "sh", str(self.folder)], input=view_text(view).encode(),
                                  capture_output=True, timeout=_PATIENCE_S, cwd="/", check=False,
                                  user=self.owner[0], group=self.owner[1], extra_groups=[])
        except (OSError, subprocess.SubprocessError) as error:
            raise self._fault("save", str(error)) from error
        if done.returncode:
            raise self._fault("save", done.stderr.decode(errors="replace").strip().rpartition(": ")[2])

    def _fault(self, verb: str, reason: str) -> FlowtopError:
        return FlowtopError(f"cannot {verb} {self.folder}/view.toml: {reason}",
                            hint="remove it, or check the permissions of its directory")


def view_file(environment: Mapping[str, str], user: int, behind: tuple[int, int] | None) -> ViewFile | None:
    """Where the view is saved; None when no place certainly belongs to this user.

    Args:
        environment: for XDG_STATE_HOME and HOME.
        user: effective user id.
        behind: user and group who ran sudo; None: without sudo.
    """
    owner = behind or (user, os.getegid())
    folder = state_folder(environment, user, behind)
    return None if folder is None else ViewFile(folder, owner, other=behind is not None and behind[0] != user)


def view_text(view: SavedView) -> str:
    """As TOML. Names and ids are identifiers: nothing in them needs escapes."""
    columns = view.columns
    lists = (("order", columns.order), ("hidden", sorted(columns.hidden)), ("shown", sorted(columns.shown)))
    lines = [f'theme = "{view.theme}"']
    lines += ["greeted = true"] if view.greeted else []
    for name, ids in lists:
        words = ", ".join(f'"{column_id}"' for column_id in ids)
        lines.append(f"{name} = [{words}]")
    lines += ["", "[widths]", *(f"{column_id} = {cells}" for column_id, cells in columns.widths)]
    return _NOTE + "\n".join(lines) + "\n"


def parse_view(text: str) -> SavedView:
    """From TOML; entries of other versions that this one does not know are ignored.

    Raises:
        ValueError: not TOML.
    """
    entries = parse_toml(text)
    theme, widths = entries.get("theme"), entries.get("widths")
    cells = widths.items() if isinstance(widths, dict) else ()
    return SavedView(theme if theme in THEMES else THEMES[0], Arrangement(
        _ids(entries.get("order")), frozenset(_ids(entries.get("hidden"))), frozenset(_ids(entries.get("shown"))),
        tuple((name, width) for name, width in cells if isinstance(width, int) and 0 < width <= WIDEST)),
        entries.get("greeted") is True)


def _ids(value: object) -> tuple[str, ...]:
    """Ids of a list; of anything else none."""
    return tuple(word for word in value if isinstance(word, str) and word.isidentifier()) if (
        isinstance(value, list)) else ()


@dataclass(frozen=True, slots=True)
class Looks:
    """Choices that the reader can change while it runs.

    Attributes:
        hosts: host names by reverse DNS, instead of addresses.
        services: service names, instead of port numbers.
        theme: one of `palettes.THEMES`.
        columns: of the list.
        keep: saves theme and columns for the next run; blocks, raises FlowtopError. None: they are not saved.
        complaint: what is wrong with the saved view, "" when nothing is.
        greet: show what to try, as on the first run.
    """

    hosts: bool = False
    services: bool = False
    theme: str = "terminal"
    columns: Arrangement = AUTOMATIC
    keep: Callable[[SavedView], None] | None = None
    complaint: str = ""
    greet: bool = False


DEFAULT_LOOKS = Looks()


def opening_looks(environment: Mapping[str, str], user: int, *, hosts: bool, services: bool,
                  theme: str | None) -> Looks:
    """The choices of options, and for the rest the saved ones.

    Args:
        user: effective user id.
        theme: None: the saved one.
    """
    file = view_file(environment, user, recording_owner(environment, user))
    kept, complaint = SavedView(), ""
    try:
        kept = kept if file is None else file.read()
    except FlowtopError as error:
        complaint = f"{error.message}; {error.hint}"
    return Looks(hosts, services, theme or kept.theme, kept.columns, None if file is None else file.write, complaint,
                 greet=file is not None and not kept.greeted and not complaint)
