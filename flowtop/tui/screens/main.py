"""The main view: the flow screen with every group of keys."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType

from flowtop.tui.actions.arranging import Arranging
from flowtop.tui.actions.detailing import Detailing
from flowtop.tui.actions.filtering import Filtering
from flowtop.tui.actions.grouping import Grouping
from flowtop.tui.actions.handing import Handing
from flowtop.tui.actions.moving import Moving
from flowtop.tui.actions.naming import Naming
from flowtop.tui.actions.opening import Opening
from flowtop.tui.actions.ordering import Ordering
from flowtop.tui.actions.recording import Recording
from flowtop.tui.actions.scrubbing import Scrubbing
from flowtop.tui.actions.showing import Showing
from flowtop.tui.keys import APP_KEYS, KEYS, bindings


class MainScreen(Moving, Ordering, Showing, Scrubbing, Filtering, Grouping, Detailing, Naming, Arranging, Handing,
                 Recording, Opening):
    """What flowtop shows first."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(key for key in KEYS if key not in APP_KEYS)
