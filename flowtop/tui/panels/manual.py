"""The manual on the screen: a list of its pages, then a page. `flowtop help` shows the same pages."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Static

from flowtop.text import manual
from flowtop.text.markdown import rendered
from flowtop.tui import theme
from flowtop.tui.keys import MANUAL_KEYS, bindings

_STRIDE = 10
"""Lines of the list that PgUp and PgDn move the cursor by."""


class ManualScreen(ModalScreen[None]):
    """A list of pages with a cursor, or one page."""

    AUTO_FOCUS = "VerticalScroll"

    CSS = """
    ManualScreen { align: center middle; background: ansi_default; }
    ManualScreen > VerticalScroll {
        width: 100%; max-width: 114; height: 100%; padding: 0 1; border: round ansi_default;
        background: ansi_default; scrollbar-size-vertical: 1;
        scrollbar-color: ansi_default; scrollbar-background: ansi_default;
    }
    ManualScreen Static { height: auto; background: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = bindings(MANUAL_KEYS, first=True)

    def __init__(self) -> None:
        super().__init__()
        self._topics = manual.topics()
        self._cursor = 0
        self._page: str | None = None

    def compose(self) -> ComposeResult:
        """One scrolling text."""
        with VerticalScroll():
            yield Static()

    def on_mount(self) -> None:
        """The list first."""
        self._show()

    def on_resize(self, _: Resize) -> None:
        """Lay a page out for the width there is now."""
        if self._page is not None:
            self._show()

    def action_move(self, lines: int) -> None:
        """The cursor, or the page."""
        if self._page is None:
            self._cursor = min(max(self._cursor + lines, 0), len(self._topics) - 1)
            self._show()
        else:
            for scroll in self.query(VerticalScroll):
                scroll.scroll_relative(y=lines, animate=False)

    def action_page(self, screens: int) -> None:
        """The cursor by some lines, or the page by screens."""
        for scroll in self.query(VerticalScroll):
            self.action_move(screens * (_STRIDE if self._page is None else scroll.scrollable_content_region.height))

    def action_top(self) -> None:
        """First line."""
        self.action_move(-len(self._topics))
        for scroll in self.query(VerticalScroll):
            scroll.scroll_home(animate=False)

    def action_bottom(self) -> None:
        """Last line."""
        self.action_move(len(self._topics))
        for scroll in self.query(VerticalScroll):
            scroll.scroll_end(animate=False)

    def action_open(self) -> None:
        """The cursor's page."""
        if self._page is None:
            self._page = self._topics[self._cursor]
            self._show_from_top()

    def action_close(self) -> None:
        """From a page to the list; from the list to where it was opened."""
        if self._page is not None:
            self._page = None
            self._show_from_top()
        elif self.is_current:
            self.dismiss()

    def _show_from_top(self) -> None:
        self._show()
        for scroll in self.query(VerticalScroll):
            scroll.scroll_home(animate=False)

    def _show(self) -> None:
        for scroll in self.query(VerticalScroll):
            scroll.border_title = f"flowtop manual: {self._page or 'pages'}"
            scroll.border_subtitle = ("↑ ↓ PgUp PgDn scroll · Esc list of pages" if self._page else
                                      "↑ ↓ choose · Enter show · Esc back")
            width = max(scroll.scrollable_content_region.width - 1, 20)
            for text in scroll.query(Static):
                text.update(self._list() if self._page is None else
                            Text.from_ansi(rendered(manual.page(self._page), width)))
            if self._page is None:
                scroll.scroll_to(y=self._cursor - scroll.size.height // 2, animate=False)

    def _list(self) -> Text:
        width = max(map(len, self._topics))
        lines = [Text.assemble((f" {topic.ljust(width)}  ", theme.KEY_CAP), manual.title(topic), " ",
                               style=theme.CURSOR if at == self._cursor else theme.PLAIN)
                 for at, topic in enumerate(self._topics)]
        return Text("\n", no_wrap=True).join(lines)
