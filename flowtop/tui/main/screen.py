"""The main view: the flow screen with every group of keys."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType

from flowtop.tui.keys import APP_KEYS, KEYS, bindings
from flowtop.tui.main.arranging import Arranging
from flowtop.tui.main.detailing import Detailing
from flowtop.tui.main.filtering import Filtering
from flowtop.tui.main.grouping import Grouping
from flowtop.tui.main.handing import Handing
from flowtop.tui.main.moving import Moving
from flowtop.tui.main.naming import Naming
from flowtop.tui.main.opening import Opening
from flowtop.tui.main.ordering import Ordering
from flowtop.tui.main.recording import Recording
from flowtop.tui.main.scrubbing import Scrubbing
from flowtop.tui.main.showing import Showing


class MainScreen(Moving, Ordering, Showing, Scrubbing, Filtering, Grouping, Detailing, Naming, Arranging, Handing,
                 Recording, Opening):
    """What flowtop shows first."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(key for key in KEYS if key not in APP_KEYS)
