"""How the screen looks to begin with: what options, settings and the last run chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowtop.errors import FlowtopError
from flowtop.view.arrangement import AUTOMATIC, Arrangement

if TYPE_CHECKING:
    from flowtop.tui.saved import SavedView


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


def opening_looks(environment: Mapping[str, str], user: int, *, hosts: bool, services: bool,
                  theme: str | None) -> Looks:
    """What options chose, and for the rest what was kept.

    Args:
        user: effective user id.
        theme: None: the one that was kept.
    """
    from flowtop.ownership import recording_owner
    from flowtop.tui.saved import SavedView, view_file

    file = view_file(environment, user, recording_owner(environment, user))
    kept, complaint = SavedView(), ""
    try:
        kept = kept if file is None else file.read()
    except FlowtopError as error:
        complaint = f"{error.message}; {error.hint}"
    return Looks(hosts, services, theme or kept.theme, kept.columns, None if file is None else file.write, complaint)
