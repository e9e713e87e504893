"""What all tests of the screen share."""

from __future__ import annotations

from typing import Any

import pytest
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet

from flowtop.tui.garbage import GarbageCollection
from flowtop.tui.main import screen


@pytest.fixture(autouse=True)
def messages_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message is gone after some seconds, which a busy machine may need before the test looks at it."""
    monkeypatch.setattr(screen, "MESSAGE_S", 600.0)


@pytest.fixture(autouse=True)
def nothing_is_collected_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at all that thousands of tests have loaded, at each of a thousand starts. test_garbage.py has it."""
    async def settle(_: GarbageCollection) -> None:
        pass

    monkeypatch.setattr(GarbageCollection, "settle", settle)


_parse = Stylesheet._parse_rules
_parsed: dict[object, list[RuleSet]] = {}


def _parse_once(sheet: Stylesheet, css: str, *where: Any, **options: Any) -> list[RuleSet]:
    key = css, where, *options.items(), *sheet._variables.items()
    if key not in _parsed:
        _parsed[key] = _parse(sheet, css, *where, **options)
    return _parsed[key]


@pytest.fixture(autouse=True)
def style_sheets_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every start parses Textual's, a tenth of what the tests of the screen cost."""
    monkeypatch.setattr(Stylesheet, "_parse_rules", _parse_once)
