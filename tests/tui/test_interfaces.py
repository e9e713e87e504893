"""The interfaces panel: what agents count, from the datagram to the screen."""

from __future__ import annotations

import pytest

from flowtop.capture.collector.process import CollectingProcess
from flowtop.model.exporters import CollectingStatistics, InterfaceCounters
from flowtop.tui.keys import INTERFACE_KEYS
from flowtop.tui.panels.interfaces import EMPTY, MOST, InterfacesScreen, interface_lines
from tests.tui.fake_source import FakeSource, random_flows
from tests.tui.screen import line, lines, running
from tests.unit.capture.collector.test_sflow import NOW_S, UDP, datagram
from tests.unit.capture.collector.test_sflow_records import counters, interface, record, text


def reported() -> CollectingStatistics:
    """Two reports 10 s apart: 12.5 MB in, 125 MB out on 10 Gb/s: 10 Mb/s (0.1 %) and 100 Mb/s (1 %)."""
    process = CollectingProcess()
    for sequence, (into, out) in enumerate(((1_000, 2_000), (12_501_000, 125_002_000)), 1):
        samples = counters(interface(3, octets=(into, out), speed=10**10), record(1005, text("xe-0/0/3")))
        down = counters(interface(4, octets=(5, 6), status=1, speed=10**9), source=4)
        process.receive(datagram(samples, down, sequence=sequence, uptime_ms=sequence * 10_000), UDP, NOW_S)
    return process.statistics()


def shown(interfaces: tuple[InterfaceCounters, ...], width: int = 118) -> list[list[str]]:
    return [strip.text.split() for strip in interface_lines(interfaces, width)]


def test_rates_use_and_state_are_those_of_the_reports() -> None:
    head, up, down = shown(reported().interfaces)
    assert head[:5] == ["INTERFACE", "STATE", "SPEED", "IN", "USED"]
    assert up[:2] == ["192.0.2.5/9", "xe-0/0/3"] and down[:2] == ["192.0.2.5/9", "if4"]
    words = " ".join(up)
    assert " up 10" in words and "10.0 Mb/s 0 %" in words and "100 Mb/s 1 %" in words
    assert "down" in down


@pytest.mark.parametrize("width", [40, 80, 118, 200])
def test_lines_fit_and_unknown_counters_are_not_0(width: int) -> None:
    unknown = reported().interfaces[0]._replace(in_errors=None, in_rate_bps=None, name="x" * 300, speed_bps=0)
    strips = interface_lines((unknown,), width)
    assert all(strip.cell_length == width for strip in strips)
    assert shown((unknown._replace(name="x"),))[1][3:6] == ["-", "-", "-"]


@pytest.mark.parametrize("width", [72, 78, 90])
def test_on_a_narrow_screen_names_and_both_rates_are_whole(width: int) -> None:
    """192.0.2.5/9 xe-0/0/3: 10 Mb/s in, 100 Mb/s out; one number for 1 + 2 + 4 + 8 errors and discards."""
    one = next(one for one in reported().interfaces if one.name)
    head, line = shown((one._replace(in_errors=1, in_discards=2, out_errors=4, out_discards=8),), width)
    assert "OUT" in head and head[-1] == "FAULTS"
    assert line[:2] == ["192.0.2.5/9", "xe-0/0/3"]
    words = " ".join(line)
    assert "10.0 Mb/s 0 %" in words and words.endswith("100 Mb/s 1 % 15")


def test_names_of_strangers_are_harmless_and_their_number_is_bounded() -> None:
    hostile = reported().interfaces[0]._replace(name="\x1b[31mred\n")
    assert "\x1b" not in "".join(strip.text for strip in interface_lines((hostile,), 118))
    many = shown((hostile,) * (MOST + 5))
    assert len(many) == MOST + 2 and many[-1] == ["5", "more"]


async def test_the_panel_opens_stays_up_to_date_and_closes() -> None:
    source = FakeSource(random_flows(5))
    source.collecting = CollectingStatistics(messages=1)
    async with running(source, 120, 24) as pilot:
        await pilot.press("i")
        await pilot.pause()
        assert isinstance(pilot.app.screen, InterfacesScreen) and EMPTY[0] in "\n".join(lines(pilot.app))
        source.collecting = reported()
        source.tick()
        await pilot.pause(1.5)
        assert "xe-0/0/3" in "\n".join(lines(pilot.app))
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(pilot.app.screen, InterfacesScreen)


@pytest.mark.parametrize("name", [name for key in INTERFACE_KEYS for name in key.names if key.action == "close"])
async def test_every_closing_key_closes(name: str) -> None:
    source = FakeSource(random_flows(5))
    source.collecting = reported()
    async with running(source, 120, 24) as pilot:
        await pilot.press("i")
        await pilot.pause()
        assert "xe-0/0/3" in "\n".join(lines(pilot.app))
        await pilot.press(name)
        await pilot.pause()
        assert not isinstance(pilot.app.screen, InterfacesScreen)


async def test_without_exporters_it_is_the_view_of_interfaces() -> None:
    async with running(FakeSource(random_flows(5)), 120, 24) as pilot:
        await pilot.press("i")
        await pilot.pause()
        assert not isinstance(pilot.app.screen, InterfacesScreen)
        assert line(pilot.app, 2).split()[:3] == ["IF", "IN", "OUT"] and "eth0" in "\n".join(lines(pilot.app))
