"""`W`: packets of what is on view are written until W, and the screen says how they fare."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot

from flowtop.errors import FlowtopError
from flowtop.model.record import SourceState
from flowtop.tui.panels.writing import WriteScreen
from tests.tui.fake_packets import FakePackets
from tests.tui.fake_source import FakeSource, flow
from tests.tui.screen import line, lines, running
from tests.tui.test_grouping import IDS

FLOWS = [flow(1, "198.51.100.7", "10.0.0.5", (443, 51514), rate=9e6, octets=90_000),
         flow(2, "198.51.100.8", "10.0.0.5", (80, 51515), rate=8e6, octets=80_000)]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def settled(pilot: Pilot[None]) -> None:
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


async def test_enter_alone_writes_packets_of_the_flows_that_match_until_the_key_comes_again() -> None:
    packets, source = FakePackets(), FakeSource(FLOWS)
    async with running(source, 140, 24, packets=packets) as pilot:
        await pilot.press("slash", *"port 443", "enter", "W")
        assert isinstance(pilot.app.screen, WriteScreen)
        assert any("write packets of flows that match port 443" in text for text in lines(pilot.app))
        await pilot.press("enter")
        await settled(pilot)
        assert packets.asked == [("flowtop-20260101-120000.pcapng", ["port 443"], True)]
        assert "PACKETS TO flowtop-20260101-120000.pcapng" in line(pilot.app, 1)
        packets.change(written=1234, dropped=7, capped=3)
        source.tick()
        await pilot.pause()
        assert all(words in line(pilot.app, -2) for words in ("written 1.23k", "dropped 7", "capped 3"))
        await pilot.press("W")
        await settled(pilot)
        assert not isinstance(pilot.app.screen, WriteScreen)
        assert "1234 packets written, 7 DROPPED, 3 beyond" in line(pilot.app, -1)
        assert "PACKETS" not in line(pilot.app, 1)
        assert "written" not in line(pilot.app, -2)


async def test_all_flows_when_there_is_no_filter_and_the_group_that_is_open_is_one() -> None:
    packets = FakePackets()
    async with running(FakeSource(FLOWS), 140, 24, packets=packets) as pilot:
        await pilot.press("W")
        assert any("write packets of all flows" in text for text in lines(pilot.app))
        for key in ("escape", *["g"] * (3 + IDS.index("source")), "enter", "down", "enter", "W", "enter"):
            await pilot.press(key)
            await pilot.pause()
        await settled(pilot)
        [(_, filters, _)] = packets.asked
        assert filters == ["src host 198.51.100.7"]


async def test_the_banner_says_of_which_flows_once_others_are_listed() -> None:
    packets = FakePackets()
    async with running(FakeSource(FLOWS), 120, 24, packets=packets) as pilot:
        await pilot.press("slash", *"port 443", "enter", "W", "enter")
        await settled(pilot)
        assert "PACKETS TO flowtop-20260101-120000.pcapng" in line(pilot.app, 1)
        assert " OF port" not in line(pilot.app, 1), "the filter stands beside it"
        await pilot.press("backslash")
        assert " PACKETS TO flowtop-20260101-120000.pcapng   OF port 443 " in line(pilot.app, 1)
        await pilot.press("slash", *"port 80", "enter")
        assert "   OF port 443 " in line(pilot.app, 1) and "filter port 80" in line(pilot.app, 1)
        packets.change(filter="")
        await pilot.press("r")
        assert "   OF ALL FLOWS " in line(pilot.app, 1)
        await pilot.press("backslash")
        assert " OF " not in line(pilot.app, 1)


async def test_where_there_is_no_room_the_banner_names_the_file_alone() -> None:
    packets = FakePackets()
    async with running(FakeSource(FLOWS), 80, 24, packets=packets) as pilot:
        await pilot.press("slash", *"port 443", "enter", "W", "enter")
        await settled(pilot)
        await pilot.press("backslash", "slash", *"host 10.0.0.5 or host 198.51.100.7", "enter")
        assert "PACKETS TO flowtop-20260101-120000.pcapng" in line(pilot.app, 1)
        assert " OF " not in line(pilot.app, 1)
        shown = line(pilot.app, 1).split("filter ")[1]
        assert "host 10.0.0.5 or host 198.51.100.7".startswith(shown.split("…")[0]) and "…" in shown, shown


@pytest.mark.parametrize("width", [80, 120])
async def test_at_the_end_of_a_file_nothing_is_asked_as_no_packet_comes(width: int) -> None:
    packets, source = FakePackets(), FakeSource(FLOWS)
    source.source = SourceState(False, octets_read=5, octets_total=9)
    async with running(source, width, 24, packets=packets) as pilot:
        await pilot.press("W")
        assert isinstance(pilot.app.screen, WriteScreen), "it is being read"
        await pilot.press("escape")
        source.source = SourceState(False, ended=True, octets_read=9, octets_total=9)
        source.tick()
        await pilot.press("W")
        assert not isinstance(pilot.app.screen, WriteScreen)
        assert "the whole file has been read: start again with -r FILE -w OTHER.pcapng" in line(pilot.app, -1)
        assert not packets.asked


async def test_what_cannot_be_is_told_where_the_name_is_typed() -> None:
    packets = FakePackets()
    packets.refuse = FlowtopError("x.pcapng exists already", hint="use another name")
    async with running(FakeSource(FLOWS), 120, 24, packets=packets) as pilot:
        await pilot.press("W", "enter")
        await settled(pilot)
        assert any("x.pcapng exists already; use another name" in text for text in lines(pilot.app))
        await pilot.press("enter")
        await settled(pilot)
        assert packets.running


@pytest.mark.parametrize(("state", "words"), [("full", "PACKETS: FILE FULL"), ("failed", "PACKETS: CANNOT WRITE")])
async def test_a_recording_that_ends_by_itself_says_so_until_the_next(state: str, words: str) -> None:
    packets = FakePackets()
    async with running(FakeSource(FLOWS), 120, 24, packets=packets) as pilot:
        await pilot.press("W", "enter")
        await settled(pilot)
        packets.change(state=state)
        await pilot.press("r")
        assert words in line(pilot.app, 1)
        await pilot.press("W")
        assert isinstance(pilot.app.screen, WriteScreen), "the next one can begin"


async def test_a_run_without_packets_says_so() -> None:
    async with running(FakeSource(FLOWS), 120, 24) as pilot:
        await pilot.press("W")
        assert "packets cannot be written here" in line(pilot.app, -1)


async def until(pilot: Pilot[None], words: str) -> None:
    for _ in range(1_500):
        if any(words in text for text in lines(pilot.app)):
            return
        await pilot.pause(0.02)
    raise AssertionError(lines(pilot.app))


async def test_while_packets_are_begun_the_name_stays_as_it_is_and_it_says_so() -> None:
    packets = FakePackets()
    packets.ready.clear()
    async with running(FakeSource(FLOWS), 140, 24, packets=packets) as pilot:
        await pilot.press("W", "enter")
        await until(pilot, "starting …")
        await pilot.press(*"xyz", "backspace", "left", "enter")
        assert any("to flowtop-20260101-120000.pcapng" in text for text in lines(pilot.app)), "nothing is typed"
        packets.ready.set()
        await settled(pilot)
        assert not isinstance(pilot.app.screen, WriteScreen)
        assert [path for path, *_ in packets.asked] == ["flowtop-20260101-120000.pcapng"]
        assert "writing packets to" in line(pilot.app, -1)


@pytest.mark.parametrize("key", ["q", "f10"])
async def test_quitting_while_packets_are_begun_quits(key: str) -> None:
    packets, source = FakePackets(), FakeSource(FLOWS)
    packets.ready.clear()
    async with running(source, 140, 24, packets=packets) as pilot:
        await pilot.press("W", "enter")
        await until(pilot, "starting …")
        await pilot.press(key)
        packets.ready.set()
        await pilot.app.workers.wait_for_complete()
        assert source.stopped == 1 and pilot.app.return_code == 0


@pytest.mark.parametrize("refused", [False, True])
async def test_one_can_go_back_to_the_flows_meanwhile_and_hears_what_came_of_it(refused: bool) -> None:
    packets = FakePackets()
    packets.ready.clear()
    packets.refuse = FlowtopError("no room", hint="make some") if refused else None
    async with running(FakeSource(FLOWS), 140, 24, packets=packets) as pilot:
        await pilot.press("W", "enter")
        await until(pilot, "starting …")
        await pilot.press("escape")
        assert not isinstance(pilot.app.screen, WriteScreen)
        await pilot.press("W")
        assert not isinstance(pilot.app.screen, WriteScreen), "one file at a time"
        assert "starting …" in line(pilot.app, -1)
        packets.ready.set()
        await until(pilot, "no room; make some" if refused else "writing packets to")
