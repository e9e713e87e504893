"""The first frame needs textual alone; the rest is imported, and the capture opened, while it is on screen."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from flowtop.tui import app as app_module
from flowtop.tui.app import FlowtopApp, load_main
from flowtop.tui.splash import Splash
from tests.tui.fake_source import FakeSource, random_flows
from tests.tui.screen import line, lines

FLOWS = random_flows(200)

SCRIPT = """
import sys
import flowtop.tui.app, flowtop.tui.runtime
print(sorted({"numpy", "lark"} & sys.modules.keys()))
flowtop.tui.app.load_main()
before = set(sys.modules)
from flowtop.tui.panels import columns, details, exports, groups, handing, help, writing
from flowtop.filters import completion, terms
from flowtop.output import row_files
print(sorted(set(sys.modules) - before))
flowtop.tui.app.load_parser()
print("lark" in sys.modules)
"""


def test_what_keys_need_is_imported_with_the_main_screen_and_nothing_of_it_before() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["[]", "[]", "True"]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 60)])
async def test_the_main_screen_without_a_page_looks_like_the_splash(width: int, height: int) -> None:
    frames: list[list[str]] = []

    class Watched(FlowtopApp):
        def on_splash_painted(self) -> None:
            frames.append(lines(self))

    app = Watched(FakeSource)
    async with app.run_test(size=(width, height)) as pilot:
        while app._starting is None:
            await pilot.pause()
        await app._starting.wait()
        await pilot.pause()
        assert not isinstance(app.screen, Splash)
        assert lines(app) == frames[0]


async def test_the_capture_is_opened_while_the_main_screen_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(2, timeout=30)

    def load() -> type:
        meeting.wait()
        return load_main()

    def open_source() -> FakeSource:
        meeting.wait()
        return FakeSource(FLOWS)

    monkeypatch.setattr(app_module, "load_main", load)
    app = FlowtopApp(open_source)
    async with app.run_test(size=(80, 24)) as pilot:
        while app._starting is None:
            await pilot.pause()
        await app._starting.wait()
        assert not meeting.broken
        assert app.error is None


async def test_keys_typed_at_the_splash_are_for_the_main_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def load() -> type:
        assert gate.wait(30)
        return load_main()

    monkeypatch.setattr(app_module, "load_main", load)
    source = FakeSource(FLOWS)
    app = FlowtopApp(lambda: source)
    async with app.run_test(size=(120, 40)) as pilot:
        while app._starting is None:
            await pilot.pause()
        await pilot.press("g", "escape", "slash", *"tcp or udp or icmp or icmp6", "enter", "E")
        assert isinstance(app.screen, Splash)
        gate.set()
        await app._starting.wait()
        source.tick()
        for _ in range(50):
            await pilot.pause()
        assert "filter tcp or udp or icmp or icmp6" in line(app, 1)
        assert not app.main.questions.choice.ended


@pytest.mark.parametrize("key", ["q", "ctrl+c", "f10"])
async def test_the_splash_can_be_left_by_key(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def load() -> type:
        assert gate.wait(30)
        return load_main()

    monkeypatch.setattr(app_module, "load_main", load)
    source = FakeSource(FLOWS)
    app = FlowtopApp(lambda: source)
    async with app.run_test(size=(80, 24)) as pilot:
        while app._starting is None:
            await pilot.pause()
        await pilot.press(key)
        assert app._quitting
        gate.set()
        while not source.stopped:
            await pilot.pause()
    assert source.stopped == 1
