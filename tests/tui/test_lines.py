"""Header and status in words: what is said, what makes room, what is rounded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.style import Style

from flowtop.model.exporters import CollectingStatistics
from flowtop.query.query import Books, Page, Query, Traffic
from flowtop.tui import theme
from flowtop.tui.line import Part, justify
from flowtop.tui.main.list import empty_text
from flowtop.tui.widgets.header import _observed, clock, shorten_interfaces, sparkline
from flowtop.tui.widgets.hints import key_hints
from flowtop.tui.widgets.status import accuracy_line
from tests.tui.fake_source import FakeSource


def page_with(**changes: object) -> Page:
    page = FakeSource().page(Query())
    books = Books(observed_packets=1_000_000, accounted_packets=999_990, ignored_packets=10, coverage=1.0)
    return replace(page, books=replace(books, **changes))  # type: ignore[arg-type]


def words(page: Page, width: int = 200) -> str:
    return accuracy_line(page, width).text


def style_of(page: Page, text: str) -> Style | None:
    return next(segment.style for segment in accuracy_line(page, 200) if text in segment.text)


# ---- accuracy

def test_balanced_books_are_exact() -> None:
    assert "exact 100.000 %" in words(page_with())
    assert style_of(page_with(), "exact") == theme.GOOD


def test_one_packet_in_a_million_million_is_not_rounded_away() -> None:
    page = page_with(observed_packets=10**12, accounted_packets=10**12 - 11, ignored_packets=10, lost_packets=1)
    assert "exact 99.999 %" in words(page)
    assert "lost 1" in words(page)
    assert style_of(page, "lost 1") == theme.ALARM


def test_what_exporters_told_is_not_called_exact_and_what_was_lost_on_the_way_is_seen() -> None:
    told = CollectingStatistics(records=1_234, exporters=2)
    page = replace(page_with(), collecting=told)
    assert "as reported" in words(page) and "exact" not in words(page)
    assert "exporters 2" in words(page) and "records 1,234" in words(page)
    troubled = replace(told, sampling_interval=1000, lost_flows=7, refused=(("length", 3),))
    page = replace(page, collecting=troubled)
    assert "estimates (sampled)" in words(page) and "sampled 1 in 1,000" in words(page)
    assert style_of(page, "flows lost 7") == style_of(page, "refused (length) 3") == theme.ALARM
    assert "flows lost 7" in words(page, 80)
    assert "counters off by +3" in words(replace(page_with(accounted_packets=999_987), collecting=told))


def test_books_that_do_not_balance_say_by_how_much() -> None:
    page = page_with(accounted_packets=999_987)
    assert "counters off by +3" in words(page)
    assert "exact" not in words(page)
    assert style_of(page, "counters off") == theme.ALARM
    assert "counters off by -2" in words(page_with(accounted_packets=999_992))
    assert "octets off by" not in words(page_with())
    page = page_with(observed_octets=page_with().books.observed_octets + 60)
    assert "octets off by +60" in words(page) and style_of(page, "octets off") == theme.ALARM


def test_what_the_capture_filter_left_out_is_told_and_balances() -> None:
    page = page_with(accounted_packets=399_990, filtered_packets=600_000)
    assert "exact 100.000 %" in words(page)
    assert "filtered 600k" in words(page)
    assert "filtered" not in words(page_with())


def test_no_packet_yet_is_exact() -> None:
    assert "exact 100.000 %" in words(page_with(observed_packets=0, accounted_packets=0, ignored_packets=0))


@pytest.mark.parametrize(("coverage", "expected", "alarm"), [
    (1.0, "100.000 %", False), (0.999999, "99.999 %", False), (0.9989, "99.890 %", True),
])
def test_coverage_is_rounded_down(
        coverage: float, expected: str, alarm: bool) -> None:
    page = page_with(coverage=coverage, interface_packets=10**12)
    assert f"coverage {expected}" in words(page)
    assert (style_of(page, expected if alarm else f"{expected}") == theme.ALARM) is alarm


def test_more_seen_than_the_interfaces_counted_is_an_alarm_and_queue_drops_are_none() -> None:
    page = page_with(coverage=1.0, interface_packets=10**9, excess_ingress_packets=12_345_678,
                     excess_egress_packets=9_876_543)
    assert "in excess 12,345,678" in words(page)
    assert style_of(page, "in excess 12,345,678") == theme.ALARM
    assert "not sent 9,876,543" in words(page)
    assert style_of(page, "9,876,543") == theme.PLAIN
    few = words(page_with(coverage=1.0, interface_packets=10**9, excess_ingress_packets=3, excess_egress_packets=3))
    assert "excess" not in few
    assert "not sent" not in few


def test_coverage_is_silent_before_the_counters_moved() -> None:
    assert "coverage" not in words(page_with(coverage=None))


def test_what_is_seen_and_not_counted_is_shown_also_where_nothing_is_counted() -> None:
    text = words(page_with(coverage=None, interface_packets=0, excess_ingress_packets=500_000,
                           excess_egress_packets=700_000))
    assert "in excess 500,000" in text and "not sent 700,000" in text


def test_rare_counters_show_only_when_they_count() -> None:
    assert not any(word in words(page_with()) for word in ("aggregated", "fragments", "length lies", "evicted"))
    page = page_with(aggregated_packets=5, unjoined_fragments=6, lying_lengths=8, evicted_flows=7)
    assert all(word in words(page) for word in ("aggregated 5", "fragments 6", "length lies 8", "evicted 7"))


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100])
def test_narrow_lines_keep_what_matters(width: int) -> None:
    page = page_with(lost_packets=10, accounted_packets=999_980, coverage=0.5, aggregated_packets=5, evicted_flows=7)
    line = accuracy_line(page, width)
    assert line.cell_length == len(line.text) == width
    assert "exact 99.999 %" in line.text
    if width >= 40:
        assert "lost 10" in line.text


def test_cost_stands_at_the_right_edge() -> None:
    assert words(page_with(), 120).endswith("cpu 1.3 %  84 MB ")


@pytest.mark.parametrize("width", [30, 80, 120])
def test_key_hints_keep_help_and_quit(width: int) -> None:
    text = key_hints(width).text
    assert len(text) == width
    assert "? help" in text
    assert "q quit" in text


@pytest.mark.parametrize("width", [30, 80, 120])
def test_other_keys_take_the_place_of_the_lists(width: int) -> None:
    text = key_hints(width, (("Enter", "keep"), ("Esc", "back"), ("Tab", "complete"), ("↑ ↓", "typed before"))).text
    assert len(text) == width and text.startswith(" Enter keep   Esc back")
    assert "quit" not in text and ("typed before" in text) == (width > 30)


# ---- header

def test_clock() -> None:
    assert clock(751.9) == "00:12:31"
    assert clock(3 * 86400 + 4 * 3600 + 5 * 60 + 6) == "3d 04:05:06"


def test_sparkline_scales_to_its_highest_value() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"


def test_sparkline_shows_a_trickle_beside_a_burst_and_the_newest_last() -> None:
    assert sparkline([5, 1, 0, 10**9], 3) == "▂▁█"


def test_sparkline_of_the_linux_console_uses_characters_its_fonts_have() -> None:
    assert sparkline([0, 1, 2, 3], 4, theme.CONSOLE_SPARKS) == "░▒▓█"


def test_sparkline_of_silence_and_of_few_ticks() -> None:
    assert sparkline([0.0, 0.0], 4) == "  ▁▁"
    assert sparkline([], 3) == "   "


@pytest.mark.parametrize(("names", "width", "expected"), [
    (["eth0", "wg0"], 28, "eth0 wg0"),
    (["eth0", "veth0a1", "veth0a2", "veth0b7"], 28, "eth0 veth×3"),
    (["eth0", "eth1", "wg0"], 10, "eth0 +2"),
    (["enp0s31f6", "lo"], 40, "enp0s31f6 lo"),
    (["averylongname0"], 5, "averylongname0"),
    ([], 28, ""),
])
def test_interfaces_are_shortened(names: list[str], width: int, expected: str) -> None:
    assert shorten_interfaces(names, width) == expected


# ---- parts

def test_the_highest_rank_makes_room_first() -> None:
    left = [Part("aaaa"), Part("bbbb", rank=2)]
    right = [Part("cccc", rank=1)]
    assert justify(left, right, 18).text == " aaaa  bbbb  cccc "
    assert justify(left, right, 17).text == " aaaa       cccc "
    assert justify(left, right, 11).text == " aaaa      "


def test_rank_zero_is_cut_rather_than_wrapped() -> None:
    assert justify([Part("aaaaaaaa")], [], 5).text == " aaaa"


def test_what_may_be_between_two_readings_is_no_alarm() -> None:
    page = page_with(coverage=0.9, interface_packets=1000)
    page = replace(page, ingress=Traffic(packet_rate=400.0), egress=Traffic(packet_rate=200.0))
    assert style_of(page, "90.000 %") != theme.ALARM, "100 packets are missing, 120 pass in 0.2 s"
    page = replace(page, egress=Traffic(packet_rate=50.0))
    assert style_of(page, "90.000 %") == theme.ALARM, "100 packets are missing, 90 pass in 0.2 s"


@pytest.mark.parametrize(("statistics", "said"), [
    (CollectingStatistics(), "as reported"), (CollectingStatistics(sampling_interval=10), "estimates (sampled)"),
    (CollectingStatistics(unknown_sampling=5), "sampled, interval unknown"),
    (CollectingStatistics(unknown_sampling=5, sampling_interval=10), "estimates (sampled)"),
    (CollectingStatistics(unknown_sampling=5), "unknown sampling 5"),
    (CollectingStatistics(unknown_sampling=5, sampling_interval=10), "unknown sampling 5"),
])
def test_sampling_with_an_unknown_interval_is_never_as_reported(statistics: CollectingStatistics, said: str) -> None:
    shown = words(replace(page_with(), collecting=statistics))
    assert said in shown and ("as reported" in shown) == (said == "as reported")


@pytest.mark.parametrize(("roomy", "urls", "said"), [
    (False, ("udp://127.0.0.1:29055",), "127.0.0.1:29055"),
    (False, ("udp://[2001:db8::1]:2055", "tcp://0.0.0.0:4739"), "[2001:db8::1]:2055 +1"),
    (True, ("tcp://0.0.0.0:4739",), "tcp://0.0.0.0:4739"), (True, (), ""),
])
def test_where_exporters_are_listened_to_is_told_with_its_port(roomy: bool, urls: tuple[str, ...], said: str) -> None:
    assert _observed(replace(page_with(), attached=urls, collecting=CollectingStatistics()), roomy) == said


@pytest.mark.parametrize(("told", "said"), [
    (CollectingStatistics(), "no exporter has sent anything yet"),
    (CollectingStatistics(messages=3, waiting_sets=1), "1 data set waits for its template"),
    (CollectingStatistics(messages=3, waiting_sets=2), "2 data sets wait for their template"),
    (CollectingStatistics(refused=(("version", 4),)), "no message so far could be decoded"),
    (CollectingStatistics(messages=3), "no flows in the messages so far"),
])
def test_why_no_exporter_has_told_of_a_flow(told: CollectingStatistics, said: str) -> None:
    assert said in empty_text(replace(page_with(), collecting=told))
