"""What each scene says, where, on terminals of three sizes: the top, the banner, the list, the accuracy line, the keys,
a panel. A scene is played once; then the terminal grows, and shrinks, as terminals do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot

from tests.tui.regions import panel, table, titles
from tests.tui.scenes import SCENES, showing
from tests.tui.screen import lines, terminal_height, terminal_lines

SIZES = ((80, 24), (120, 40), (200, 60))
SMALL = ((40, 10), (46, 12), (60, 20))


@dataclass(frozen=True, slots=True)
class Says:
    """What a scene says.

    Attributes:
        top, banner, accuracy, keys: words of that line.
        panel: words of the panel, in their order, of whatever lines; () where there is none.
        rows: cells of the first rows, by header; where a cell ends in `*`, only what is before it.
        count: rows of the list; None: as many as there are lines for them.
        wide: words anywhere that need the room of the second size.
        absent: words that are nowhere.
    """

    top: tuple[str, ...] = ("eth0 eth0.20 wg0", "1,248 flows", "1.21 Gb/s", "412 Mb/s")
    banner: tuple[str, ...] = ()
    rows: tuple[dict[str, str], ...] = ()
    count: int | None = None
    accuracy: tuple[str, ...] = ("✓ every packet counted",)
    keys: tuple[str, ...] = ("/", "s ", "? ", "q ")
    panel: tuple[str, ...] = ()
    wide: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


FASTEST = {"PROTO": "tcp", "SOURCE": "198.51.100.7:443", "DESTINATION": "10.0.0.5:51514", "RATE": "82.1 Mb/s",
           "BYTES": "1.2 GB", "ST": "EST"}
SECOND = {"PROTO": "tcp", "SOURCE": "[2001:*", "DESTINATION": "[2001:*", "RATE": "67.3 Mb/s", "BYTES": "48.2 GB"}
FOURTH = {"PROTO": "udp", "SOURCE": "203.0.113.9:51820", "DESTINATION": "10.0.0.5:51820", "RATE": "10.5 Mb/s",
          "BYTES": "602.0 MB"}
LIST = (FASTEST, SECOND, {"PROTO": "tcp"}, FOURTH)
"""Rates in bits a second of the octets a second of scenes.scene_flows."""
FILTERED = (FASTEST, {"SOURCE": "198.51.100.25:443"}, {"SOURCE": "198.51.100.60:443"})
TYPING = ("Enter", "Esc", "Tab", "Ctrl-U")

SAYS: dict[str, Says] = {
    "main": Says(rows=LIST, banner=("of 1,248",), wide=("84 MB", "what changed")),
    "dark": Says(rows=LIST, keys=()),
    "light": Says(rows=LIST, keys=()),
    "contrast": Says(rows=LIST, keys=()),
    # Three ticks later: rates are 1.1 times as high, and the flow that had ended is not listed.
    "held": Says(rows=({**FASTEST, "RATE": "90.3 Mb/s"}, {**SECOND, "RATE": "74.0 Mb/s"}),
                 banner=("PAUSED 00:00:00", "FROZEN", "FOLLOW", "1 ENDED"), accuracy=("✓ every packet counted",)),
    # 82.1 and 1.2 of 10.26 MB/s, 152.4 kB/s, and what is small beside them.
    "hosts": Says(rows=({"HOST": "198.51.100.7", "IN": "82.1 Mb/s", "OUT": "1.2 Mb/s"},
                        {"HOST": "2001:db8:40::1f", "IN": "67.3 Mb/s", "OUT": ""}), banner=("groups", "SHARE"),
                  wide=("RTT", "RETR", "BYTES IN")),
    "trouble": Says(rows=({"HOST": "198.51.100.7"}, {"HOST": "2001:db8:40::1f"}), banner=("groups", "SHARE"),
                    wide=("a trouble",)),
    # All rates of 75 ticks later are higher than those of the first.
    "compared": Says(rows=({"TREND": "grew"}, {"TREND": "grew"}), banner=("AGAINST 00:00:01", "Δ"), keys=("compared",)),
    "filter": Says(rows=FILTERED, banner=("tcp and port 443", "164 of 1,248")),
    "filter-error": Says(banner=("/ tcp and port 443 and prot", "164 of 1,248"), keys=TYPING),
    "filter-too-large": Says(banner=("or port 70000", "572 of 1,248"), keys=TYPING),
    "filter-completion": Says(banner=("/ tcp and host 198.51.100.", "of 1,248"), keys=TYPING),
    "nothing-matches": Says(banner=("tcp and port 7", "0 of 1,248")),
    "groups": Says(panel=("flow", "biflow", "source", "destination", "pair", "service", "protocol", "interface",
                          "direction", "+u subnet /16", "destination_subnet", "vlan", "tunnel", "dscp", "Enter", "Esc"),
                   rows=LIST),
    "grouped": Says(rows=({"SOURCE": "198.51.100.7", "SERVICE": "tcp 443", "RATE": "82.1 Mb/s", "FLOWS": "1"},
                          {"SOURCE": "2001:db8:40::1f", "SERVICE": "tcp 873", "RATE": "67.3 Mb/s", "FLOWS": "1"}),
                    banner=("of 970 groups",)),
    "group-open": Says(rows=(FASTEST,), count=1, banner=("198.51.100.7", "tcp 443", "1 of 1,248")),
    # 82.1 there and 1.2 back.
    "biflows": Says(rows=({"PROTO": "tcp", "CLIENT": "10.0.0.5:51514", "SERVER": "198.51.100.7:443",
                           "RATE": "83.3 Mb/s", "IN": "82.1 Mb/s", "OUT": "1.2 Mb/s"},
                          {"RATE": "67.3 Mb/s", "IN": "67.3 Mb/s", "OUT": ""}),
                    top=("eth0 eth0.20 wg0", "2,235 flows"), banner=("of 1,246 biflows",)),
    "details": Says(panel=("tcp  198.51.100.7:443 → 10.0.0.5:51514", "02:00:00:00:00:0a", "02:00:00:00:00:0b", "ttl 64",
                           "2025-12-31 23:57:29.000", "2026-01-01 00:00:00.000", "2:31", "131 Mb/s", "82.1 Mb/s",
                           "1.22 Mb/s", "73.9 Mb/s, 57.5 Mb/s", "1,210,000,000", "17,300,000", "1,344,444", "19,222",
                           "rtt 16.7 ms cwnd 12", "eth0 ←", "1,209,999 of 1,344,444", "0:12 ago", "0:48", "Esc")),
    "details-ended": Says(panel=("tcp  198.51.100.7:443 → 10.0.0.5:51514", "left the table", "lasted 2:31",
                                 "1,210,000,000", "17,300,000", "1,209,999 of 1,344,444", "0:13 ago", "export 1",
                                 "38 records"),
                          wide=("ipfix+tcp://collector.example.net:4739", "24,684 records",
                                "ipfix+tls://192.0.2.40:4740", "Esc"),
                          top=("1,247 flows",), absent=("next in",)),
    "help": Says(panel=("KEYS", "PgUp PgDn", "Home End", "q F10 Ctrl-C", "Backspace", "Esc"), top=()),
    "help-words": Says(panel=("WORDS", "VLAN", "SOURCE", "DESTINATION", "PROCESS", "FLAGS", "RATE", "10 s",
                              "Esc"),
                       wide=("60 s", "PEAK", "PPS", "BYTES", "PKTS", "AGE", "RTT")),
    "help-filters": Says(panel=("FILTERS", "Ctrl-A Ctrl-E", "host 10.0.0.1", "net 10/8", "port 80,443", "10.0.0.5:443",
                                "Esc")),
    # VLAN is always shown, and SOURCE stands before PROTO now.
    "columns": Says(panel=("IF", "always", "VLAN", "SOURCE", "PROTO", "DESTINATION", "RATE", "PKTS", "Esc"),
                    wide=(" AGE ",)),
    "columns-chosen": Says(rows=({**FASTEST, "IF": "eth0"}, SECOND), absent=(" D ",)),
    "copy": Says(panel=("f ", "src port 873", "dst host 2001:db8:40:7::22", "t ", "tcp and src host 2001:db8:40::1f",
                        "j ", '"sourceTransportPort": 873', "Esc"), rows=LIST),
    "write": Says(panel=("flows.csv", "in /", "Enter", "Tab", "Esc"), rows=LIST, keys=()),
    "leaving": Says(rows=LIST, keys=("last drain",)),
    # 2:15:24 and 1:12 before noon; the second is under the cursor.
    "exports": Says(panel=("NOT SENT", "exporting", "184,812", "waiting", "160,090", "exporting", "184,231", "619",
                           "paused", "2,930", "ipfix+tls://192.0.2.40:4740?ca=/etc/flowtop/ca.pem&reconnect=10s",
                           "11:58:48", "1:12", "160,090", "4,204", "11.5 MB", "112", "1,204", "23,480", "10:46:30",
                           "connection refused", "file:flowtop-20260101-120000.ipfix", "Esc")),
    "exports-typing": Says(panel=("exporting", "184,812", "waiting", "160,090",
                                  "ipfix+tcp://collector.example.net:4739", "09:44:36", "2:15:24", "ipfix+tcp://",
                                  "Enter", "Tab", "Esc")),
    "exports-first": Says(panel=("IPFIX", "file:flowtop-20260101-120000.ipfix", "Enter", "Tab", "Esc")),
    "exporting": Says(rows=LIST, accuracy=("✓ every packet counted", "●", "184,812", "38")),
    # 75 ticks and the first; 45 back it is the 31st, with rates 1.05 times as high; the past keeps 1,000 flows.
    "scrub": Says(rows=({**FASTEST, "RATE": "86.2 Mb/s"}, {**SECOND, "RATE": "70.6 Mb/s"}),
                  banner=("−0:45 of 1:15", "00:00:31", "1,248 flows, 1,000 kept"),
                  accuracy=("now:", "✓ every packet counted")),
    "mark": Says(rows=({"SOURCE": "198.51.100.7:443", "RATE": "82.1 Mb/s", "BYTES": "0*"},), banner=("MARK 0:00",)),
    "packets-prompt": Says(banner=("host 10.0.20.4", "3 of 1,248"), count=3, panel=("pcap", "Enter", "Tab", "Esc"),
                           rows=({"SOURCE": "10.0.20.4:5432", "ST": "EST"}, {"SOURCE": "10.0.20.4:5432", "ST": "dup"},
                                 {"PROTO": "udp", "RATE": "568.0 kb/s"}), keys=()),
    "packets": Says(rows=LIST, banner=("incident-4711.pcapng",),
                    accuracy=("✓ every packet counted", "48.2k", "212"), wide=("3.90k",)),
    "packets-full": Says(rows=LIST, banner=("FULL", "incident-4711.pcapng"),
                         accuracy=("✓ every packet counted", "48.2k", "212"), wide=("3.90k",)),
    # 1,204 of 12,347,678 packets are one in ten thousand; they were lost while the picture stood still, for 75 s.
    "lost": Says(rows=LIST, banner=("PAUSED 00:01:15", "1,000 packets"),
                 accuracy=("99.990 %", "seen 12,347,678", "lost 1,204", "58.1k"), wide=("evicted 12", "ignored 12")),
    "names": Says(rows=({"SOURCE": "edge-7*", "DESTINATION": "web1*", "RATE": "82.1 Mb/s"},
                        {"SOURCE": "backup*", "DESTINATION": "[2001*"}, {"SOURCE": "198.51.100.25:https"}), keys=()),
    "reading": Says(rows=LIST, banner=("41 %", "1.00 GB")),
    "end-of-file": Says(rows=LIST, banner=("END",), absent=("41 %",)),
    "collecting": Says(rows=({"SOURCE": "198.51.100.7:443", "RATE": "82.1 Mb/s"},), top=("127.0.0.1:2055", "1.21 Gb/s"),
                       accuracy=("seen 12,346,678", "lost 31"), wide=("1,204,411", "EXPORTER", " 192.0.2.1 ")),
    "tunnels": Says(top=("eth0 eth0.20 wg0", "10 flows"), count=10, rows=(
        {"SOURCE": "192.168.7.1:5000", "DESTINATION": "192.168.7.2:22", "RATE": "720.0 kb/s", "VNI": ""},
        {"SOURCE": "10.1.0.10:443", "VNI": "100", "RATE": "320.0 kb/s"}, {"SOURCE": "10.1.0.10:443", "VNI": "101"},
        {"SOURCE": "10.1.0.10:443", "VNI": "102"}, {"PROTO": "icmp", "SOURCE": "10.1.0.20", "VNI": "101"})),
    "vlans": Says(top=("trunk.pcap", "5 flows"), count=5, rows=tuple(
        {"VLAN": vlan, "SOURCE": "10.0.0.50:445", "DESTINATION": "10.0.0.51:50112", "RATE": rate}
        for vlan, rate in (("", "72.0 Mb/s"), ("7", "9.0 Mb/s"), ("20", "3.4 Mb/s"), ("100", "712.9 kb/s"),
                           ("4094", "17.6 kb/s")))),
    "palette": Says(panel=()),
}
"""By scene."""

NEEDED = {80: {"IF", "D", "PROTO", "SOURCE", "DESTINATION", "RATE", "BYTES", "ST"}, 120: {"10 s", "PKTS", "AGE"},
          200: {"VLAN", "FLAGS", "60 s", "PEAK", "PPS"}}
"""Headers of the list of flows that come with the width, those of lesser widths stay."""


def test_every_scene_says_something() -> None:
    assert SAYS.keys() == SCENES.keys()


@pytest.mark.parametrize("scene", SCENES)
async def test_every_region_says_what_the_scene_is_about_at_every_size(scene: str) -> None:
    says = SAYS[scene]
    async with showing(SCENES[scene], *SIZES[0]) as pilot:
        for width, height in SIZES:
            await _resized(pilot, width, height)
            screen = lines(pilot.app)
            assert len(screen) in (height, terminal_height(height)), "a panel may stand on all lines"
            assert {cell_len(text) for text in screen} == {width}, "nothing runs over the edge"
            assert not any(word in text for word in says.absent for text in screen)
            if says.panel:
                _in_order(says.panel, panel(screen))
            _check_lines(says, screen)
            if width > 80:
                assert not [words for words in says.wide if not any(words in text for text in screen)]
        for width, height in SMALL:
            await _resized(pilot, width, height)
            screen = terminal_lines(pilot.app)
            assert len(screen) == terminal_height(height)
            assert {cell_len(text) for text in screen} == {width}, "nothing runs over the edge"


async def _resized(pilot: Pilot[None], width: int, height: int) -> None:
    """The terminal has this size, and the screen has come to rest."""
    await pilot.resize_terminal(width, terminal_height(height))
    before: list[str] = []
    while before != (before := lines(pilot.app)):
        await pilot.pause(0.02)


def _in_order(words: Sequence[str], texts: Sequence[str]) -> None:
    """Each of them, whole, in or below the line of the one before."""
    at = 0
    for word in words:
        found = next((index for index in range(at, len(texts)) if word in texts[index]), None)
        assert found is not None, f"{word} is not in:\n" + "\n".join(texts[at:])
        at = found


def _check_lines(says: Says, screen: list[str]) -> None:
    """The lines of the main screen that no panel covers."""
    boxed = [index for index, text in enumerate(screen) if "╭" in text or "▔" in text]
    covered = boxed[0] if boxed else len(screen)
    for at, words in ((0, says.top), (1, says.banner)):
        if at < covered:
            _left_to_right(words, screen[at])
    if not boxed:
        _left_to_right(says.accuracy, screen[-2])
        _left_to_right(says.keys, screen[-1])
    if covered > 3 and says.rows:
        _check_list(says, screen, covered)


def _left_to_right(words: Sequence[str], text: str) -> None:
    at = 0
    for word in words:
        assert word in text[at:], f"{word} is not in {text[at:]}"
        at = text.index(word, at) + len(word)


def _check_list(says: Says, screen: list[str], covered: int) -> None:
    rows = table([*screen[:covered], "", ""] if covered < len(screen) else screen)
    for row, cells in zip(rows, says.rows, strict=False):
        for head, cell in cells.items():
            assert row[head].startswith(cell[:-1]) if cell.endswith("*") else row[head] == cell, (head, row)
    assert len(rows) == (min(covered, len(screen) - 2) - 3 if says.count is None else says.count)


@pytest.mark.parametrize(("width", "height"), SIZES)
async def test_wider_terminals_have_more_columns_and_whole_addresses(width: int, height: int) -> None:
    async with showing(SCENES["main"], width, height) as pilot:
        screen = lines(pilot.app)
        heads = {head for head, _, _ in titles(screen[2])}
        assert heads >= set().union(*(needed for least, needed in NEEDED.items() if width >= least))
        assert f"1–{height - 5} of 1,248" in screen[1]
        assert width == 80 or "00:12:31" in screen[0], "how long it has been counting"
        second = table(screen)[1]
        if width > 120:  # there VLAN takes some of the room
            assert (second["SOURCE"], second["DESTINATION"]) == ("[2001:db8:40::1f]:873", "[2001:db8:40:7::22]:40960")
        else:
            assert second["SOURCE"].endswith("]:873") and second["DESTINATION"].endswith("]:40960"), "cut in the middle"


@pytest.mark.parametrize(("width", "height", "heads"), [
    (60, 20, {"D", "PROTO", "SOURCE", "DESTINATION", "RATE"}), (24, 6, {"SOURCE", "RATE"})])
async def test_what_matters_most_is_left_on_a_terminal_with_little_room(
        width: int, height: int, heads: set[str]) -> None:
    async with showing(SCENES["main"], width, height) as pilot:
        screen = lines(pilot.app)
        assert {cell_len(text) for text in screen} == {width} and len(screen) == height
        assert {head for head, _, _ in titles(screen[2])} >= heads
        assert "1.21 Gb/s" in screen[0] and "of 1,248" in screen[1] and "✓ every" in screen[-2] and "q " in screen[-1]
        assert all(row["RATE"].endswith("b/s") for row in table(screen))


async def test_the_caret_is_under_what_is_wrong_and_the_words_are_whole() -> None:
    for scene, wrong, hint in (("filter-error", "prot", "did you mean"),
                               ("filter-too-large", "70000", "expected 0 to 65535")):
        async with showing(SCENES[scene], 80, 24) as pilot:
            for width, height in SIZES:
                await _resized(pilot, width, height)
                bar, fault = lines(pilot.app)[1:3]
                assert fault.index("^") == bar.index(wrong)
                assert len(fault.rstrip()) < width and hint in fault


async def test_the_choices_hang_under_the_word_that_is_being_typed() -> None:
    async with showing(SCENES["filter-completion"], *SIZES[0]) as pilot:
        for width, height in SIZES:  # above the second there is a chart, so the line stands lower
            await _resized(pilot, width, height)
            screen = terminal_lines(pilot.app)
            bar = next(index for index, text in enumerate(screen) if text.startswith(" / "))
            at = screen[bar].index("198.51.100.")
            below = [text[at:] for text in screen[bar + 1:]]
            words = [text.split()[0] for text in below[:8]]
            assert len(set(words)) == 8 and all(word.startswith("198.51.100.") for word in words)
            assert screen[bar][at:].split()[0] == words[2], "Tab completes what is certain, then goes through the list"
            assert "in all" in below[8]


async def test_an_empty_list_says_why_in_its_middle() -> None:
    async with showing(SCENES["nothing-matches"], 80, 24) as pilot:
        for width, height in SIZES:
            await _resized(pilot, width, height)
            [said] = [text for text in lines(pilot.app)[3:-2] if text.strip()]
            assert "match" in said and "\\" in said, "and how to see all again"


async def test_the_palette_finds_rates_and_their_keys() -> None:
    async with showing(SCENES["palette"], 80, 24) as pilot:
        for width, height in SIZES:
            await _resized(pilot, width, height)
            screen = lines(pilot.app)
            key = next(index for index, text in enumerate(screen) if text.strip() == "t")
            assert "Rates over the last tick" in screen[key - 1]
