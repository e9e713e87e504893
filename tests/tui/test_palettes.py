"""Themes: every cell gets their colours, all text stays legible, and NO_COLOR is obeyed."""

from __future__ import annotations

import pytest
from rich.color import Color
from rich.style import Style
from rich.terminal_theme import DEFAULT_TERMINAL_THEME

from flowtop.tui import theme
from flowtop.tui.app import FlowtopApp
from flowtop.tui.palettes import PALETTES, TERMINAL, Palette, PaletteFilter
from flowtop.tui.saved import Looks
from tests.tui.fake_source import FakeSource, flow, random_flows
from tests.tui.screen import background, flow_lines, line, screen_strips

STYLES = [style for style in vars(theme).values() if isinstance(style, Style)] + list(theme.MAGNITUDES)
every_palette = pytest.mark.parametrize("name", PALETTES)


def luminance(color: Color) -> float:
    """Relative luminance as WCAG 2.1 defines it."""
    def linear(octet: int) -> float:
        share = octet / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(octet) for octet in color.get_truecolor(DEFAULT_TERMINAL_THEME))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(palette: Palette, style: Style) -> float:
    """Of text in this style, as the palette paints it: 1 to 21."""
    painted = PaletteFilter(palette)._make(style)
    assert painted.color is not None and painted.bgcolor is not None
    light, dark = sorted((luminance(painted.color), luminance(painted.bgcolor)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@every_palette
@pytest.mark.parametrize("style", STYLES, ids=str)
def test_all_text_is_legible(name: str, style: Style) -> None:
    assert contrast(PALETTES[name], style) >= (7.0 if name == "contrast" else 4.5)


def test_high_contrast_dims_nothing() -> None:
    painted = PaletteFilter(PALETTES["contrast"])._make(theme.FADED)
    assert not painted.dim and painted.color == Color.from_ansi(231)


@every_palette
def test_what_differs_in_the_terminals_colours_differs_in_a_themes(name: str) -> None:
    painted = {str(PaletteFilter(PALETTES[name])._make(style)) for style in STYLES}
    same = 1 if name == "contrast" else 0  # dim is plain there
    assert len(painted) >= len({str(style) for style in STYLES}) - same


@every_palette
@pytest.mark.parametrize("keys", [(), ("question_mark",), ("colon",)])
async def test_every_cell_of_every_screen_gets_the_themes_background(name: str, keys: tuple[str, ...]) -> None:
    source = FakeSource(random_flows(30))
    app = FlowtopApp(lambda: source, looks=Looks(theme=name))
    async with app.run_test(size=(80, 24)) as pilot:
        while app._starting is None:
            await pilot.pause()
        await app._starting.wait()
        source.tick()
        await pilot.pause()
        assert app.palette == name
        assert background(app) == f"color({PALETTES[name].background})"
        await pilot.press(*keys)
        await pilot.pause(0.3)
        assert all(segment.style and segment.style.bgcolor and not segment.style.bgcolor.is_default
                   for strip in app.screen._compositor.render_strips() for segment in strip)


async def test_no_color_means_no_theme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    source = FakeSource([flow(1, "10.0.0.1", "10.0.0.2", (1, 2), rate=9e9)])
    app = FlowtopApp(lambda: source, looks=Looks(theme="dark"))
    async with app.run_test(size=(80, 24)) as pilot:
        while app._starting is None:
            await pilot.pause()
        await app._starting.wait()
        source.tick()
        await pilot.pause()
        await pilot.press("T")
        assert app.palette == TERMINAL
        assert "NO_COLOR" in line(app, -1)
        for strip in app.screen._compositor.render_strips():
            for segment in strip:
                assert segment.style is None or segment.style.color is None or segment.style.color.is_default


async def test_rates_have_the_colour_of_their_magnitude_and_ended_flows_none() -> None:
    rates = {1: 0.0, 2: 50.0, 3: 50e3, 4: 50e6, 5: 50e9, 6: 40e9}
    flows = [flow(number, f"10.0.0.{number}", "10.0.1.1", (1, 2), rate=rate, end_reason=3 * (number == 6), ended_s=9.0)
             for number, rate in rates.items()]
    source = FakeSource(flows)
    app = FlowtopApp(lambda: source)
    async with app.run_test(size=(80, 24)) as pilot:
        while app._starting is None:
            await pilot.pause()
        await app._starting.wait()
        source.tick()
        await pilot.pause()
        found = {}
        for strip in screen_strips(app)[3:-2]:
            text = "".join(segment.text for segment in strip)
            for segment in strip:
                if "b/s" in segment.text and segment.style is not None:
                    found[text.split(":")[0].split()[-1]] = segment.style
        assert found["10.0.0.5"].bold and found["10.0.0.5"].color is not None
        assert found["10.0.0.4"].color is not None and found["10.0.0.4"].color != found["10.0.0.5"].color
        assert found["10.0.0.3"].color is None or found["10.0.0.3"].color.is_default
        assert found["10.0.0.1"].dim
        assert found["10.0.0.6"].dim and not found["10.0.0.6"].bold
        points = {text.index("/s") for text in flow_lines(app)[:6]}
        assert len(points) == 1, "units stand in one column"
