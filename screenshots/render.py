"""Make the pictures of README and manual, from fixed flows and a clock that stands still:
`python -m screenshots.render`. tests/tui/test_screenshots.py makes them again and compares."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tests.tui.scenes import SCENES, showing
from tests.tui.screen import list_height

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Picture:
    """A scene on a terminal of some size."""

    scene: str
    width: int = 120
    height: int = 40


PICTURES = {
    "main": Picture("main"),
    "narrow": Picture("main", 80, 24),
    "wide": Picture("main", 200, 60),
    "hosts": Picture("hosts"),
    "trouble": Picture("trouble"),
    "compared": Picture("compared"),
    "filter": Picture("filter"),
    "filter-error": Picture("filter-error", 80, 24),
    "filter-completion": Picture("filter-completion"),
    "groups": Picture("groups", 80, 24),
    "grouped": Picture("grouped"),
    "biflows": Picture("biflows"),
    "details": Picture("details"),
    "details-narrow": Picture("details", 80, 24),
    "help": Picture("help", 80, 24),
    "columns": Picture("columns"),
    "exports": Picture("exports"),
    "scrub": Picture("scrub"),
    "mark": Picture("mark", 80, 24),
    "packets": Picture("packets"),
    "lost": Picture("lost"),
    "names": Picture("names"),
    "reading": Picture("reading"),
    "collecting": Picture("collecting"),
    "tunnels": Picture("tunnels"),
    "dark": Picture("dark"),
    "light": Picture("light", 80, 24),
    "contrast": Picture("contrast"),
}
"""Every picture by the name of its file."""


async def render(picture: Picture) -> str:
    """A picture as SVG text, the same wherever it is made."""
    async with showing(SCENES[picture.scene], picture.width, list_height(picture.height)) as pilot:
        return pilot.app.export_screenshot(title="flowtop")


def main() -> None:
    """Write every picture."""
    for name, picture in PICTURES.items():
        FOLDER.joinpath(f"{name}.svg").write_text(asyncio.run(render(picture)))


if __name__ == "__main__":
    main()
