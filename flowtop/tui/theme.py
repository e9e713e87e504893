"""Styles and symbols: the terminal's own 16 colours, and never colour alone.

Most cells have no style at all, so that a terminal's own colours stay and few bytes are sent.
"""

from __future__ import annotations

from rich.style import Style

PLAIN = Style.null()
NAME = Style(bold=True)
LABEL = Style(dim=True)
FADED = Style(dim=True)
"""Flows that ended a while ago, and duplicates; the ST column says which in words."""
AGGREGATE = Style(color="yellow")
"""Rows that count many flows together; the column SOURCE says so. (Italics are reverse video under TERM=screen.)"""
HEADING = Style(bold=True)
SORTED = Style(bold=True, color="cyan")
"""Header of the sorted column; its arrow says it without colour."""
CURSOR = Style(reverse=True)
SELECTED = Style(underline=True)
"""What names the row that keys act on while there is no cursor: the first one, whichever it is."""
HINT = Style(color="cyan")
"""Words that Tab offers; distinct from the flows around them."""
CELL = Style(bold=True, underline=True)
"""The chosen cell of the cursor's line: a gap in its bar, which every terminal shows."""
CHIP = Style(reverse=True, bold=True)
"""Paused, order held, follow."""
ALARM = Style(bold=True, color="red")
"""Something was lost, or counters do not add up; the words say what."""
TROUBLE = Style(bold=True, color="red", reverse=True)
"""What is probably wrong, with the key that shows it."""
WARNING = Style(color="yellow")
"""Something has stopped or is paused; the words say what."""
GOOD = Style(color="green")
MAGNITUDES = (Style(dim=True), PLAIN, PLAIN, Style(color="green"), Style(bold=True, color="magenta"))
"""Of rates: none, below a thousand, thousands, millions, billions. The unit shows it in letters."""
SEVERITIES = (PLAIN, LABEL, WARNING, Style(color="red"))
"""Of values: usual, on the way out, worth a look, bad. The value says it in figures or words."""
KEY_CAP = Style(bold=True)

ELLIPSIS = "…"
SPARKS = "▁▂▃▄▅▆▇█"
CONSOLE_SPARKS = "░▒▓█"
"""For Linux's own console (TERM=linux), whose fonts have no eighths of blocks."""
THUMB = "│"
TRACK = " "
