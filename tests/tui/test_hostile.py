"""Text from outside is painted harmless, wherever it comes from and on every screen that shows it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest
from rich.text import Text
from textual.app import App
from textual.pilot import Pilot

from flowtop.errors import FlowtopError
from flowtop.export.statistics import ExportState
from flowtop.model.exporters import Exporter, observation_point_name
from flowtop.text.names import ServiceNames
from flowtop.tui.app import CaptureFailed, FlowtopApp
from tests.kernel.frames import IPV4, UDP, ethernet, ipv4, udp
from tests.tui.fake_exports import FakeExports, statistics
from tests.tui.fake_source import FakeSource, flow
from tests.tui.screen import flow_lines, lines, running
from tests.unit.capture.files import writers
from tests.unit.capture.files.reading import read

HOSTILE = (
    "\x1b[31;1mred\x1b[0m", "\x1b]0;title\x07", "\x1b]52;c;ZXZpbA==\x07", "[bold red]up[/]", "[@click=app.quit]x[/]",
    "a\u202eb\u2067c", "zero\u200bwidth\ufeff", "x" * 300, "שלום", "漢字漢字", "line\nfeed\r\x00", "bad\udcff\udcfe",
    "\x9b2Jgone", "e\u0301\u0301\u0301", "tab\there",
)
"""Escape sequences, a title, the clipboard, markup, a link that acts, writing directions, no width, 300 characters,
right to left, two cells, control characters, invalid UTF-8, C1 controls, combining marks."""


TURNING = re.compile("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff\u0300-\u036f\u0590-\u08ff]")
"""Of no width, combining, or from right to left."""


def assert_harmless(app: App[None]) -> None:
    """Every line has its width in single cells, nothing in it acts, and nobody's markup gave it a style."""
    for strip in app.screen._compositor.render_strips():
        text = "".join(segment.text for segment in strip)
        assert not text or len(text) == strip.cell_length == app.size.width, text
        for segment in strip:
            assert all(0x20 <= ord(c) != 0x7F and not 0x80 <= ord(c) < 0xA0 for c in segment.text), repr(text)
            assert not TURNING.search(segment.text), repr(text)
            assert Text(segment.text).plain == segment.text
            assert segment.style is None or not segment.style.meta.get("@click")


def flows(count: int) -> FakeSource:
    """A flow at each of so many interfaces, numbered from 1, each to a port of its own."""
    return FakeSource([flow(number, "198.51.100.7", f"10.0.0.{number}", (1000 + number, 50_000), ifindex=number,
                            rate=1e6 - number) for number in range(1, count + 1)])


async def look_around(pilot: Pilot[None]) -> None:
    """Every screen that shows a name: the list, details, copying, groups, completion, writing, exports, columns."""
    for keys in (["down"], ["enter"], ["down", "down"], ["escape", "c"], ["escape", "slash", *"if ", "tab", "tab"],
                 ["escape", "e"], ["escape", "w"], ["escape", "C"], ["escape", "g"], ["escape", "s", "S"]):
        await pilot.press(*keys)
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        assert_harmless(pilot.app)


@pytest.mark.parametrize(("named", "width"), [
    (str, 80), (lambda name: observation_point_name(Exporter("192.0.2.9", 7, name)), 200),
], ids=["of this host", "told by an exporter"])
async def test_names_of_interfaces(named: Callable[[str], str], width: int) -> None:
    source = flows(len(HOSTILE))
    source.interfaces = dict(enumerate(map(named, HOSTILE), 1))
    source.attached = tuple(source.interfaces.values())
    async with running(source, width) as pilot:
        await look_around(pilot)
        assert len(flow_lines(pilot.app)[0].split()) >= 5, "the columns still stand where they stood"


async def test_names_of_interfaces_in_a_capture_file(tmp_path: Path) -> None:
    raw = [name.encode(errors="surrogateescape") for name in HOSTILE]
    blocks = b"".join(writers.block("<", 1, _interface(name)) for name in raw)
    path = tmp_path / "x.pcapng"
    frame = ethernet(IPV4, ipv4(udp(53, 4000, b"x"), UDP))
    path.write_bytes(writers.section() + blocks + b"".join(
        writers.enhanced(number, frame, number=number) for number in range(len(raw))))
    found = read(path)
    assert not found.fault
    source = flows(len(HOSTILE))
    source.interfaces = dict(enumerate(found.last.attached, 1))
    source.attached = found.last.attached
    assert len(source.attached) > 5, "they are told apart"
    async with running(source) as pilot:
        await look_around(pilot)


def _interface(name: bytes) -> bytes:
    """An Interface Description Block's body: Ethernet, no snap length, if_name."""
    padded = name + bytes(-len(name) % 4)
    return b"\1\0\0\0\0\0\0\0" + b"\2\0" + len(name).to_bytes(2, "little") + padded + bytes(4)


async def test_names_of_hosts() -> None:
    source = FakeSource([flow(number, f"198.51.100.{number}", "10.0.0.1", (443, 50_000), rate=1e6 - number)
                         for number in range(1, len(HOSTILE) + 1)])
    async with running(source, 120) as pilot:
        assert isinstance(pilot.app, FlowtopApp)
        pilot.app.main.filter.look_up = lambda address: (
            HOSTILE[int(address.rsplit(".", 1)[1]) - 1] if address.startswith("198.") else "last.example")
        await pilot.press("n")
        for _ in range(200):
            if all("198.51.100." not in text for text in flow_lines(pilot.app)[:4]):
                break
            await asyncio.sleep(0.02)
        assert "last.example" in flow_lines(pilot.app)[0]
        await look_around(pilot)


async def test_names_of_services() -> None:
    words = [f"{name.split()[0] if name.split() else 'x'}" for name in HOSTILE]
    text = "\n".join(f"{word} {1000 + number}/tcp" for number, word in enumerate(words, 1))
    async with running(flows(len(HOSTILE)), 120) as pilot:
        assert isinstance(pilot.app, FlowtopApp)
        pilot.app.main.filter._services = ServiceNames(text)
        await pilot.press("p")
        assert "198.51.100.7:[bold" in "".join(lines(pilot.app)), "as it is, not as markup"
        await look_around(pilot)


async def test_names_of_exports() -> None:
    exports = FakeExports([statistics(f"file:{name}", ExportState.WAITING, last_error=f"{name}: gone")
                           for name in HOSTILE[:6]])
    async with running(flows(4), 120, exports=exports) as pilot:
        await look_around(pilot)


@pytest.mark.parametrize("name", HOSTILE)
async def test_names_of_files_and_what_errors_say_of_them(tmp_path: Path, name: str) -> None:
    exports = FakeExports()
    async with running(flows(4), 120, exports=exports) as pilot:
        assert isinstance(pilot.app, FlowtopApp)
        folder = tmp_path / name.replace("\0", "").replace("/", "")[:200]
        folder.mkdir()
        with chdir(folder):
            await pilot.press("w")
            await pilot.pause()
            assert_harmless(pilot.app)
        await pilot.press("escape")
        pilot.app.main.say(f"written to {name}")
        assert_harmless(pilot.app)
        exports.refuse = FlowtopError(f"cannot begin export {name}", hint=name)
        await pilot.press("e", "ctrl+u", *"file:x", "enter")
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        assert exports.refuse is None, "it was asked for, and refused"
        assert_harmless(pilot.app)
        await pilot.press("escape", "escape")
        pilot.app.post_message(CaptureFailed(FlowtopError(f"{name} is damaged")))
        await pilot.pause()
        assert_harmless(pilot.app)


@pytest.mark.parametrize("name", HOSTILE[:6])
async def test_what_is_waited_for_and_what_the_kernel_filters(name: str) -> None:
    source = flows(2)
    source.silent = True
    source.capture_filter = f"if {name}"
    async with running(source, tick=False) as pilot:
        assert isinstance(pilot.app, FlowtopApp)
        pilot.app.main.show_progress(f"opening {name}")
        await pilot.pause()
        assert_harmless(pilot.app)
        source.silent = False
        source.tick()
        await pilot.pause()
        assert_harmless(pilot.app)
        pilot.app.main.show_notice(f"last drain of {name}")
        await pilot.pause()
        assert_harmless(pilot.app)
