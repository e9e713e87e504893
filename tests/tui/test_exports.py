"""The exports panel, the exports' share of the accuracy line, and leaving while they flush."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from textual.events import Key, Paste
from textual.keys import _character_to_key
from textual.pilot import Pilot

from flowtop.errors import FlowtopError
from flowtop.export.statistics import ExportState
from flowtop.export.url import parse_export_url
from flowtop.tui.app import FlowtopApp
from flowtop.tui.keys import EXPORT_KEYS
from flowtop.tui.panels.exports import SCHEMES, ExportsScreen
from flowtop.tui.state.exports import STATES
from tests.tui.fake_exports import FakeExports, Now, statistics
from tests.tui.fake_source import FakeSource, random_flows
from tests.tui.screen import flow_lines, line, lines, running, terminal_lines

RECORDING = "file:flowtop-20260101-120000.ipfix"
"""What is offered at 2026-01-01 12:00:00."""
COLLECTOR = "ipfix+tcp://collector:4739"


@asynccontextmanager
async def panel(exports: FakeExports, width: int = 80, height: int = 24, now: Now | None = None,
                ) -> AsyncIterator[Pilot[None]]:
    async with running(FakeSource(random_flows(50)), width, height, exports=exports, now=now) as pilot:
        await pilot.press("e")
        await pilot.pause()
        yield pilot


def text(pilot: Pilot[None]) -> str:
    return "\n".join(lines(pilot.app))


async def until(condition: Callable[[], bool], pilot: Pilot[None]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await pilot.pause(0.01)
    raise AssertionError(text(pilot))


def reversed_lines(pilot: Pilot[None]) -> list[str]:
    return ["".join(segment.text for segment in strip) for strip in pilot.app.screen._compositor.render_strips()
            if any(segment.style is not None and segment.style.reverse for segment in strip)]


def typed(character: str) -> Key:
    return Key("enter" if character == "\r" else _character_to_key(character), character)


def two() -> FakeExports:
    return FakeExports([statistics(COLLECTOR), statistics("file:/tmp/b.ipfix", file_octets=5_000)])


# ---- adding

async def test_e_and_enter_record_to_a_new_file() -> None:
    exports = FakeExports()
    async with panel(exports) as pilot:
        assert RECORDING in text(pilot), "it is said before it is done"
        await pilot.press("enter")
        await until(lambda: len(exports.exports) == 1, pilot)
        await until(lambda: "exporting" in line(pilot.app, 2), pilot)
        assert exports.asked == [("add", RECORDING)]


async def test_keys_typed_ahead_of_the_panel_record_too() -> None:
    exports = FakeExports()
    async with running(FakeSource(random_flows(5)), exports=exports) as pilot:
        app = pilot.app
        await app.run_action("exports", app.main)  # type: ignore[attr-defined]
        app.screen.action_enter()  # type: ignore[attr-defined]
        await until(lambda: exports.asked == [("add", RECORDING)], pilot)


@pytest.mark.parametrize("pauses", [(), (1,), (3, 9), (4, 5, 6)], ids=str)
async def test_a_url_typed_ahead_of_the_panel_is_not_lost(pauses: tuple[int, ...]) -> None:
    exports, url = FakeExports(), "ipfix+tls://127.0.0.1:4740/?=p,e:q"
    async with running(FakeSource(random_flows(5)), exports=exports) as pilot:
        for place, character in enumerate(f"e{url}\r"):
            if place in pauses:
                await asyncio.sleep(0)  # the panel is half open when the rest comes
            pilot.app.post_message(typed(character))
        await until(lambda: bool(exports.asked), pilot)
        assert exports.asked == [("add", url)]


async def test_a_burst_of_keys_and_pastes_is_a_line_in_their_order() -> None:
    exports = two()
    async with panel(exports) as pilot:
        burst = [*map(typed, "acsv:never"), Key("ctrl+u", None), *map(typed, "cav:b"), Key("home", None),
                 Key("right", None), Key("delete", None), typed("s"), Key("end", None), Paste("-middle"), typed("!"),
                 Key("ctrl+w", None), *map(typed, "x"), Key("enter", None)]
        for event in burst:
            pilot.app.post_message(event)
        await until(lambda: bool(exports.asked), pilot)
        assert exports.asked == [("add", "csv:b-x")]


async def test_a_paste_waits_for_the_line_that_a_key_before_it_opens() -> None:
    exports = two()
    async with running(FakeSource(random_flows(5)), exports=exports) as pilot:
        for event in (typed("e"), typed("a"), Paste("csv:x"), Key("enter", None)):
            pilot.app.post_message(event)
        await until(lambda: bool(exports.asked), pilot)
        assert exports.asked == [("add", "csv:x")]


async def test_keys_typed_at_once_are_done_in_their_order() -> None:
    async with running(FakeSource(random_flows(5)), exports=FakeExports()) as pilot:
        for character in "?q/tcp\r":
            pilot.app.post_message(typed(character))
        await until(lambda: pilot.app.main.questions.filter is not None, pilot)  # type: ignore[attr-defined]
        assert pilot.app.main.questions.filter.text == "tcp"  # type: ignore[attr-defined]


async def test_enter_records_nothing_more_while_something_is_exported() -> None:
    exports = two()
    async with panel(exports) as pilot:
        await pilot.press("enter")
        assert exports.asked == []
        await pilot.press("enter")
        await until(lambda: exports.asked == [("add", RECORDING)], pilot)


async def test_a_url_that_is_typed_is_added_and_chosen() -> None:
    exports = two()
    async with panel(exports) as pilot:
        await pilot.press("a", *"csv:e-p x.q")
        await pilot.press("enter")
        await until(lambda: "csv:e-p x.q" in "".join(reversed_lines(pilot)), pilot)
        assert exports.asked == [("add", "csv:e-p x.q")]
        await pilot.press("a", "up")
        assert "add csv:e-p x.q" in text(pilot), "what was typed before"
        await pilot.press("down", "x")
        assert "add x " in text(pilot)


async def test_what_is_wrong_with_a_url_is_said_with_a_hint_and_can_be_mended() -> None:
    exports = FakeExports()
    exports.refuse = FlowtopError("unknown scheme 'ipfxi'", hint="did you mean ipfix?")
    async with panel(exports) as pilot:
        await pilot.press(*"ipfxi://c", "enter")
        await until(lambda: "unknown scheme 'ipfxi'" in text(pilot), pilot)
        assert "hint: did you mean ipfix?" in text(pilot)
        assert "add ipfxi://c" in text(pilot)
        await pilot.press("home", "delete")
        assert "unknown scheme" not in text(pilot)


async def test_the_panel_answers_while_an_export_is_opened() -> None:
    exports = FakeExports()
    exports.slow = threading.Event()
    async with panel(exports) as pilot:
        await pilot.press("enter", "enter", "enter")
        await until(lambda: f"opening {RECORDING}" in text(pilot), pilot)
        await pilot.press("escape")
        assert len(flow_lines(pilot.app)) == 19
        exports.refuse = FlowtopError("cannot write there")
        exports.slow.set()
        await until(lambda: "export not started: cannot write there" in line(pilot.app, 1), pilot)
        assert exports.asked == [("add", RECORDING)], "one at a time"


@pytest.mark.parametrize(("typed", "tabs", "expected"), [
    ("", 1, RECORDING),
    ("", 2, SCHEMES[0]),
    ("ipfix+t", 1, "ipfix+tcp://"),
    ("ipfix+t", 2, "ipfix+tls://"),
    ("ipfix+t", 3, "ipfix+tcp://"),
    ("nothing", 1, "nothing"),
])
async def test_tab_completes(typed: str, tabs: int, expected: str) -> None:
    async with panel(FakeExports()) as pilot:
        await pilot.press(*typed, *["tab"] * tabs)
        assert f"add {expected} " in text(pilot)


def test_every_scheme_is_offered_and_exists() -> None:
    with pytest.raises(FlowtopError) as caught:
        parse_export_url("nothing:x")
    known = caught.value.hint.split("known: ")[1].split(", ")
    assert {scheme.partition(":")[0] for scheme in SCHEMES} == set(known)
    for scheme in SCHEMES:
        parse_export_url(scheme + "x")


# ---- keys

Check = Callable[["Pilot[None]", FakeExports, str], Awaitable[None]]


async def check_add(pilot: Pilot[None], exports: FakeExports, key: str) -> None:
    await pilot.press(key, *"csv:a", "enter")
    await until(lambda: exports.asked == [("add", "csv:a")], pilot)


async def check_pause(pilot: Pilot[None], exports: FakeExports, key: str) -> None:
    await pilot.press("down", key)
    assert "‖ paused" in reversed_lines(pilot)[0]
    await pilot.press(key)
    assert exports.asked == [("pause", 2), ("resume", 2)]
    assert "● exporting" in reversed_lines(pilot)[0]


async def check_stop(pilot: Pilot[None], exports: FakeExports, key: str) -> None:
    exports.change(1, queued_records=12)
    await pilot.press(key)
    assert exports.asked == []
    assert "Stop export 1? 12 queued records are sent first" in text(pilot)
    await pilot.press("p")
    assert exports.asked == [], "the key that says no does nothing else"
    assert "export 1 continues" in text(pilot)
    await pilot.press(key, key)
    assert exports.asked == [("end", 1)]
    assert "■ stopped" in text(pilot)
    await pilot.press(key, key, "p")
    assert exports.asked == [("end", 1)]
    assert "has stopped" in text(pilot)


async def check_up(pilot: Pilot[None], _: FakeExports, key: str) -> None:
    await pilot.press("down", key, key)
    assert reversed_lines(pilot)[0].lstrip("│ ").startswith("1 ")


async def check_down(pilot: Pilot[None], _: FakeExports, key: str) -> None:
    await pilot.press(key, key)
    assert reversed_lines(pilot)[0].lstrip("│ ").startswith("2 ")


async def check_close(pilot: Pilot[None], _: FakeExports, key: str) -> None:
    await pilot.press(key)
    assert not isinstance(pilot.app.screen, ExportsScreen)
    assert pilot.app.return_code is None, "closes the panel, not flowtop"
    assert len(flow_lines(pilot.app)) == 19


CHECKS: dict[str, Check] = {
    "add": check_add, "enter": check_add, "pause": check_pause, "stop": check_stop, "move(-1)": check_up,
    "move(1)": check_down, "close": check_close,
}


@pytest.mark.parametrize(("name", "action"), [(name, key.action) for key in EXPORT_KEYS for name in key.names])
async def test_key_does_what_its_entry_says(name: str, action: str) -> None:
    exports = two()
    async with panel(exports) as pilot:
        await CHECKS[action](pilot, exports, name)


async def test_letters_that_are_typed_are_no_keys() -> None:
    exports = two()
    async with panel(exports) as pilot:
        await pilot.press("a", *"xxpqe k")
        assert "add xxpqe k" in text(pilot)
        assert exports.asked == []
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, ExportsScreen), "first out of the line, then out of the panel"
        await pilot.press("escape")
        assert not isinstance(pilot.app.screen, ExportsScreen)


async def test_ctrl_c_leaves_from_within_the_panel() -> None:
    source = FakeSource(random_flows(5))
    async with running(source, exports=FakeExports()) as pilot:
        await pilot.press("e")
        await pilot.press("ctrl+c")
        await pilot.app.workers.wait_for_complete()
        assert (source.stopped, pilot.app.return_code) == (1, 0)


async def test_keys_on_an_empty_list_say_what_to_do() -> None:
    exports = FakeExports()
    async with panel(exports) as pilot:
        pilot.app.screen._stop_typing()  # type: ignore[attr-defined]
        await pilot.press("p")
        assert "a adds one" in text(pilot)
        await pilot.press("x", "x")
        assert exports.asked == []


async def test_a_click_chooses_an_export() -> None:
    async with panel(two()) as pilot:
        await pilot.click(offset=(20, 3))
        assert "file:/tmp/b.ipfix" in reversed_lines(pilot)[0]


async def test_the_chosen_export_is_in_view_however_many_there_are() -> None:
    exports = FakeExports([statistics(f"file:{number}.ipfix") for number in range(1, 31)])
    async with panel(exports) as pilot:
        rows = sum(re.match(r"│ +\d+ .*file:\d+", line) is not None for line in lines(pilot.app))
        assert f"TO  ↓ {30 - rows} more " in text(pilot)
        await pilot.press(*["down"] * 29)
        assert "file:30.ipfix" in reversed_lines(pilot)[0]
        assert f"TO  ↑ {30 - rows} more " in text(pilot)
        await pilot.press(*["up"] * 29)
        assert "file:1.ipfix" in reversed_lines(pilot)[0]


# ---- what is said

async def test_everything_known_of_an_export_is_said() -> None:
    now = Now()
    exports = FakeExports([statistics(
        COLLECTOR, ExportState.WAITING, sent_records=4_812, sent_messages=99, sent_octets=346_464, repeated_records=7,
        queued_records=1_001, spooled_records=20_002, not_sent_records=3, not_sent_packets=44, not_sent_octets=5_555,
        last_error="connection refused", last_template_unix_s=now.clock.wall() - 75)])
    async with panel(exports, now=now) as pilot:
        for words in ("○ waiting since 11:59:00, 1:00 ago", "4,812 records; 99 messages, 346 kB",
                      "7 records may have",
                      "1,001 records in memory, 20,002 in the spool", "3 records discarded: 44 packets, 5.55 kB",
                      "sent at 11:58:45, 1:15 ago", "connection refused", COLLECTOR):
            assert words in text(pilot)


async def test_refused_datagrams_and_aggregates_are_counted() -> None:
    exports = FakeExports([statistics(
        "ipfix://192.0.2.9", ExportState.BLOCKED, refused_messages=1_234, refusal="port unreachable",
        unmarked_records=56, cut_owners=7_890, last_error="port unreachable")])
    async with panel(exports) as pilot:
        assert "1,234 datagrams: port unreachable" in text(pilot)
        assert "56 aggregates" in text(pilot)
        assert "7,890 lack texts about their process" in " ".join(text(pilot).split())


async def test_a_recordings_file_is_seen_to_grow() -> None:
    now = Now()
    exports = FakeExports([statistics("file:a.ipfix", file_octets=1_000, sent_records=0)])
    async with running(FakeSource(random_flows(5)), 120, 24, exports=exports, now=now) as pilot:
        now.passed_s += 5
        exports.change(1, file_octets=11_000, sent_records=150)
        await pilot.press("e")
        await pilot.pause()
        assert "11.0 kB, growing 2.00 kB/s" in text(pilot)
        assert "150 records, 30.0/s" in text(pilot)
        assert re.search(r"exporting +file:a.ipfix +150 +30.0/s +0 +0 +0 +11.0 kB", line(pilot.app, 2))
        now.passed_s += 20
        await until(lambda: "11.0 kB, not growing now" in text(pilot), pilot)


async def test_untrusted_text_is_shown_harmless() -> None:
    evil = "\x1b[31mred\x1b]0;title\x07[b]bold[/b]\u202egnol" + "/long" * 60
    exports = FakeExports([statistics(f"file:{evil}", ExportState.WAITING, last_error=evil)])
    exports.refuse = FlowtopError(f"no {evil}", hint=evil)
    for size in ((80, 24), (200, 60)):
        async with panel(exports, *size) as pilot:
            await pilot.press("a", *"x", "enter")
            await until(lambda pilot=pilot: "no red" in text(pilot), pilot)  # type: ignore[misc]
            shown = text(pilot)
            assert "[b]bold[/b]gnol/long" in shown
            assert not set(shown) & {"\x1b", "\x07", "\u202e"}
            assert all(len(each) == size[0] for each in lines(pilot.app))
        exports.refuse = FlowtopError(f"no {evil}", hint=evil)


async def test_pasted_text_loses_what_a_terminal_would_obey() -> None:
    exports = FakeExports()
    async with panel(exports) as pilot:
        pilot.app.screen.post_message(Paste("file:\x1b[2Ja\x07b\u202ec.ipfix\nrm"))
        await pilot.pause()
        await pilot.press("enter")
        await until(lambda: exports.asked == [("add", "file:abc.ipfix")], pilot)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60), (40, 12), (20, 6), (1, 1)])
async def test_every_size_paints_whole_lines(size: tuple[int, int]) -> None:
    async with panel(two(), *size) as pilot:
        assert {len(each) for each in terminal_lines(pilot.app)} == {size[0]}
        await pilot.press("a", *"csv:")


# ---- the accuracy line

def test_every_state_has_its_own_words() -> None:
    assert set(STATES) == set(ExportState)
    assert len({words.word for words in STATES.values()}) == len(STATES)


async def status(exports: FakeExports, width: int = 160) -> str:
    async with running(FakeSource(random_flows(5)), width, exports=exports) as pilot:
        return line(pilot.app, -2)


async def test_no_export_takes_no_room() -> None:
    assert "export" not in await status(FakeExports())


async def test_exports_are_summed_and_each_state_is_shown_the_worst_in_a_word() -> None:
    exports = FakeExports([
        statistics("a", sent_records=4_000, queued_records=3), statistics("b", ExportState.PAUSED, queued_records=9),
        statistics("c", ExportState.WAITING, sent_records=812, spooled_records=70_001),
        statistics("d", ExportState.STOPPED, sent_records=1)])
    text = await status(exports, 200)
    assert "export ●‖○ waiting  sent 4,813  queued 12  spooled 70.0k  not sent 0" in text


async def test_one_that_runs_well_is_told_in_few_words() -> None:
    assert "export ●  sent 4,812  queued 0  spooled 0  not sent 0" in await status(
        FakeExports([statistics("a", sent_records=4_812)]), 200)


@pytest.mark.parametrize("width", [80, 100, 120])
async def test_trouble_stays_on_narrow_screens(width: int) -> None:
    exports = FakeExports([statistics("a", ExportState.WAITING, sent_records=10**6, queued_records=10**6,
                                      spooled_records=10**7, not_sent_records=1_234)])
    text = await status(exports, width)
    assert "✓ every packet counted" in text
    assert "export ○ waiting" in text
    assert "not sent 1,234" in text


async def test_many_exports_do_not_push_the_books_away() -> None:
    states = [ExportState.EXPORTING] * 20 + [ExportState.WAITING]
    text = await status(FakeExports([statistics(str(index), state) for index, state in enumerate(states)]), 80)
    assert "✓ every packet counted" in text
    assert "export ○●●●●●●● waiting" in text


async def test_alarm_colours_mean_trouble() -> None:
    async def red(exports: FakeExports) -> str:
        async with running(FakeSource(random_flows(5)), 160, exports=exports) as pilot:
            strip = pilot.app.screen._compositor.render_strips()[-2]
            return "".join(segment.text for segment in strip if segment.style is not None
                           and segment.style.color is not None and segment.style.color.name == "red")

    assert await red(FakeExports([statistics("a"), statistics("b", ExportState.CONNECTING)])) == ""
    assert await red(FakeExports([statistics("a", ExportState.WAITING)])) == "○ waiting"
    assert await red(FakeExports([statistics("a", not_sent_records=5)])) == "not sent 5"


# ---- leaving

async def left(pilot: Pilot[None]) -> None:
    await until(lambda: pilot.app.return_code is not None, pilot)


async def test_leaving_flushes_exports_after_the_last_drain_and_says_how_much_is_left() -> None:
    exports = FakeExports([statistics("a", queued_records=1_200, spooled_records=34)])
    exports.slow = threading.Event()
    source = FakeSource(random_flows(5))
    async with running(source, exports=exports) as pilot:
        await pilot.press("q")
        await until(lambda: "flushing exports … 1,234 records left, up to " in line(pilot.app, -1), pilot)
        assert source.stopped == 1
        exports.change(1, queued_records=6)
        await until(lambda: "flushing exports … 40 records left" in line(pilot.app, -1), pilot)
        assert pilot.app.return_code is None
        exports.slow.set()
        await left(pilot)
        assert exports.asked == [("stop", None)]


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_quit_again_waits_no_longer(key: str) -> None:
    exports = FakeExports([statistics("a", queued_records=5)])
    exports.slow = threading.Event()
    async with running(FakeSource(random_flows(5)), exports=exports) as pilot:
        await pilot.press("q")
        await until(lambda: "q quits now" in line(pilot.app, -1), pilot)
        await pilot.press(key)
        await left(pilot)
        assert exports.asked == [("stop", None), ("hurry", None)]


async def test_a_slow_flush_is_seen_over_the_panel() -> None:
    exports = FakeExports([statistics("a", queued_records=5)])
    exports.slow = threading.Event()
    async with running(FakeSource(random_flows(5)), exports=exports) as pilot:
        await pilot.press("e")
        assert isinstance(pilot.app, FlowtopApp)
        pilot.app.request_quit()
        await until(lambda: "flushing exports" in line(pilot.app, -1), pilot)
        exports.slow.set()
        await asyncio.wait_for(left(pilot), 60)


async def test_a_run_that_exports_nothing_does_not_flush() -> None:
    exports = FakeExports()
    async with running(FakeSource(random_flows(5)), exports=exports) as pilot:
        await pilot.press("q")
        await left(pilot)
        assert exports.asked == []
