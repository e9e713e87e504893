"""The pictures of README and manual are what `screenshots/render.py` makes of the screen as it is."""

from __future__ import annotations

import re

import pytest

from screenshots.render import FOLDER, PICTURES, render
from tests.tui.screen import running
from tests.tui.test_keys import FLOWS, FakeSource


@pytest.mark.parametrize("name", PICTURES)
async def test_committed_picture_is_what_the_screen_shows(name: str) -> None:
    committed, painted = FOLDER.joinpath(f"{name}.svg").read_text(), await render(PICTURES[name])
    assert _texts(painted) == _texts(committed), "run python -m screenshots.render and look at it"
    assert painted == committed, "same words, other looks: run python -m screenshots.render"


def test_every_committed_picture_is_made_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.svg")} == PICTURES.keys()


async def test_two_runs_paint_the_same_picture() -> None:
    async def picture() -> str:
        async with running(FakeSource(FLOWS)) as pilot:
            return pilot.app.export_screenshot()

    assert await picture() == await picture()


def _texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)
