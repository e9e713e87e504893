"""The README's pictures are what `screenshots/render.py` makes of the screen as it is: snapshots of every layout."""

from __future__ import annotations

import re

import pytest

from screenshots.render import FOLDER, SCENES, render
from tests.tui.screen import running
from tests.tui.test_keys import FLOWS, FakeSource


@pytest.mark.parametrize("name", SCENES)
async def test_committed_picture_is_what_the_screen_shows(name: str) -> None:
    committed, painted = FOLDER.joinpath(f"{name}.svg").read_text(), await render(SCENES[name])
    assert _texts(painted) == _texts(committed), "run python -m screenshots.render and look at it"
    assert painted == committed, "same words, other looks: run python -m screenshots.render"


def test_every_committed_picture_has_its_scene() -> None:
    assert {path.stem for path in FOLDER.glob("*.svg")} == SCENES.keys()


def test_every_screen_has_its_picture_at_three_sizes() -> None:
    sizes: dict[str, set[tuple[int, int]]] = {}
    for name, scene in SCENES.items():
        sizes.setdefault(re.sub(r"-?(narrow|middle|wide)$", "", name) or "main", set()).add((scene.width, scene.height))
    lacking = {name for name, found in sizes.items() if not found >= {(80, 24), (120, 40), (200, 60)}}
    assert lacking == {"very", "tiny", "dark", "light", "contrast", "columns-chosen"}, "looks of the main view"


async def test_two_runs_paint_the_same_picture() -> None:
    async def picture() -> str:
        async with running(FakeSource(FLOWS)) as pilot:
            return pilot.app.export_screenshot()

    assert await picture() == await picture()


def _texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)
