"""Handing on: what is in the clipboard and in files is the flow, and the list, on view."""

from __future__ import annotations

import asyncio
import csv
import errno
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from flowtop.errors import FlowtopError
from flowtop.fields.records import flow_names
from flowtop.filters.terms import words_as_tcpdump
from flowtop.model.kinds import EndReason
from flowtop.output import bundle
from flowtop.output.row_files import FORMATS, write_rows
from flowtop.query.query import Page, Query
from flowtop.recording.packet_file import PacketFile
from flowtop.tui.app import FlowtopApp
from flowtop.tui.keys import HAND_OFF_KEYS
from flowtop.tui.panels.handing import LONGEST, HandOffScreen
from flowtop.tui.panels.writing import WriteScreen
from tests.tui.fake_exports import FakeExports
from tests.tui.fake_packets import FakePackets
from tests.tui.fake_source import ICMP, OUT, FakeSource, flow, random_flows
from tests.tui.screen import flow_lines, line, lines, running, shown, terminal_lines

FLOWS = [
    flow(1, "198.51.100.7", "10.0.0.5", (443, 51514), rate=9e6, octets=90_000, ifindex=2),
    flow(2, "2001:db8::1", "2001:db8::2", (22, 40000), rate=8e6, octets=80_000, direction=OUT),
    flow(3, "192.0.2.33", "10.0.0.5", (0, 8 * 256), protocol=ICMP, rate=7e6, octets=70_000),
]


TCPDUMP = "tcp and src host 198.51.100.7 and src port 443 and dst host 10.0.0.5 and dst port 51514"


# ---- the clipboard

@pytest.mark.parametrize(("key", "expected"), [
    ("f", "if eth0 and dir in and not vlan and " + TCPDUMP),
    ("enter", "if eth0 and dir in and not vlan and " + TCPDUMP),
    ("t", TCPDUMP),
])
async def test_a_flow_is_copied_as_words_that_find_it_again(key: str, expected: str) -> None:
    async with running(FakeSource(FLOWS), 200, 24) as pilot:
        await pilot.press("down", "c")
        assert any(expected in text for text in lines(pilot.app)), "seen before it is copied"
        await pilot.press(key)
        assert pilot.app.clipboard == expected
        assert expected in line(pilot.app, -1)


async def test_a_flow_is_copied_as_json_with_element_names() -> None:
    async with running(FakeSource(FLOWS), 120, 24) as pilot:
        await pilot.press("down", "down", "c", "j")
        copied = json.loads(pilot.app.clipboard)
        assert (copied["sourceIPv6Address"], copied["sourceTransportPort"], copied["octetTotalCount"]) == (
            "2001:db8::1", 22, 80_000)
        assert set(copied) <= set(flow_names())


async def test_numbers_are_copied_where_names_are_shown() -> None:
    async with running(FakeSource(FLOWS), 120, 24) as pilot:
        assert isinstance(pilot.app, FlowtopApp)
        pilot.app.main.filter.look_up = lambda address: "name.example"
        await pilot.press("n", "p", "down", "c", "f")
        assert "host 198.51.100.7 and src port 443" in pilot.app.clipboard and "name" not in pilot.app.clipboard


@pytest.mark.parametrize("name", [name for key in HAND_OFF_KEYS if key.action == "close" for name in key.names])
async def test_nothing_is_copied_when_the_reader_thinks_better_of_it(name: str) -> None:
    async with running(FakeSource(FLOWS)) as pilot:
        await pilot.press("down", "c", name)
        assert not isinstance(pilot.app.screen, HandOffScreen)
        assert pilot.app.clipboard == "" and pilot.app.return_code is None


async def test_without_a_cursor_the_first_row_is_copied_and_without_rows_it_says_so() -> None:
    async with running(FakeSource(FLOWS)) as pilot:
        first = flow_lines(pilot.app)[0].split()[3].partition(":")[0]
        await pilot.press("c")
        assert isinstance(pilot.app.screen, HandOffScreen)
        await pilot.press("f")
        assert first in pilot.app.clipboard
    async with running(FakeSource()) as pilot:
        await pilot.press("c")
        assert not isinstance(pilot.app.screen, HandOffScreen)
        assert "put the cursor on one" in line(pilot.app, -1)


async def test_what_is_too_long_for_a_terminal_is_not_sent() -> None:
    async with running(FakeSource(FLOWS)) as pilot:
        assert isinstance(pilot.app, FlowtopApp)
        pilot.app.main.handoff.copy("JSON", "x" * (LONGEST + 1))
        await pilot.pause()
        assert pilot.app.clipboard == ""
        assert "too long" in line(pilot.app, -1)


# ---- files

async def write(pilot: Pilot[None], name: str) -> None:
    """Type a path into the line, and wait until it is written or refused."""
    await pilot.press("w")
    await pilot.pause()
    await pilot.press("ctrl+u", *name, "enter")
    for _ in range(200):
        if not isinstance(pilot.app.screen, WriteScreen) or not pilot.app.screen._busy:
            break
        await asyncio.sleep(0.02)
    await pilot.pause()


async def test_the_whole_list_is_written_in_its_order_not_only_what_is_in_view(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = FakeSource(random_flows(300))
    async with running(source) as pilot:
        await pilot.press("greater_than_sign", "greater_than_sign", "pagedown")
        before, asked = shown(pilot.app), source.asked[-1]
        await write(pilot, "flows.csv")
        assert "300 flows written to" in line(pilot.app, -1)
        assert source.asked[-1] == asked, "the screen asks for what is in view again"
        assert shown(pilot.app) == before
    rows = list(csv.DictReader((tmp_path / "flows.csv").read_text().splitlines()))
    sort = asked.sort
    assert sort == "rate_60s"
    expected = sorted(source.flows, key=lambda row: -row.octet_rate_60s)
    assert [int(row["flowId"]) for row in rows] == [row.flow_id for row in expected]
    assert sum(int(row["octetTotalCount"]) for row in rows) == sum(row.octet_total for row in source.flows)


@pytest.mark.parametrize("paused", [False, True])
async def test_json_says_what_the_list_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paused: bool) -> None:
    monkeypatch.chdir(tmp_path)
    async with running(FakeSource(FLOWS)) as pilot:
        await pilot.press(*["space"] * paused)
        await write(pilot, "a.json")
        await write(pilot, "b.jsonl")
    whole = json.loads((tmp_path / "a.json").read_text())
    assert (whole["sort"], whole["descending"], whole["filter"], whole["matched"]) == ("rate", True, None, 3)
    assert [row["flowId"] for row in whole["flows"]] == [1, 2, 3]
    assert [json.loads(text) for text in (tmp_path / "b.jsonl").read_text().splitlines()] == whole["flows"]


@pytest.mark.parametrize("keys", [(), ("g", *["g"] * 2, "enter")])
async def test_since_a_mark_counts_are_deltas_and_no_totals(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    source = FakeSource(FLOWS)
    async with running(source, 200, 24) as pilot:
        await pilot.press("m", *keys)
        source.tick([row._replace(octet_total=row.octet_total + 1_000 * row.flow_id,
                                  packet_total=row.packet_total + row.flow_id) for row in FLOWS])
        await pilot.pause()
        await write(pilot, "a.json")
        await write(pilot, "b.csv")
        await pilot.press("down", "c")
        assert any('"octetDeltaCount": ' in text for text in lines(pilot.app))
        assert not any("TotalCount" in text for text in lines(pilot.app))
    whole = json.loads((tmp_path / "a.json").read_text())
    rows = whole["groups" if keys else "flows"]
    cells = list(csv.DictReader((tmp_path / "b.csv").read_text().splitlines()))
    assert whole["secondsSinceMark"] == 1.0
    for written in (rows, cells):
        assert sum(int(row["octetDeltaCount"]) for row in written) == 1_000 * (1 + 2 + 3)
        assert sum(int(row["packetDeltaCount"]) for row in written) == 1 + 2 + 3
        assert not [name for row in written for name in row if "Total" in name]


async def test_enter_alone_writes_to_a_file_named_by_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with running(FakeSource(FLOWS)) as pilot:
        await pilot.press("w")
        await pilot.pause()
        assert any(str(tmp_path)[:40] in text for text in lines(pilot.app)), "says where"
        await pilot.press("tab", "enter")
        for _ in range(100):
            if list(tmp_path.iterdir()):
                break
            await asyncio.sleep(0.02)
    [path] = tmp_path.iterdir()
    assert path.name.startswith("flowtop-20") and path.suffix == ".json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("name", "words"), [
    ("there.csv", "exists already"), ("link.csv", "exists already"), ("flows.txt", "which format"),
    ("nowhere/flows.csv", "no such file or directory"), ("~nobody-of-that-name/x.csv", "home"), ("x", "which format"),
])
async def test_what_cannot_be_written_is_said_under_the_line_and_harms_nothing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "link.csv").symlink_to(tmp_path / "elsewhere")
    async with running(FakeSource(FLOWS), 120, 24) as pilot:
        await write(pilot, name)
        assert isinstance(pilot.app.screen, WriteScreen), "another try"
        assert any(words in text for text in lines(pilot.app))
        await pilot.press("escape")
        assert not isinstance(pilot.app.screen, WriteScreen)
    assert (tmp_path / "there.csv").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "there.csv"]


async def test_a_flow_table_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flowtop.tui.main.handoff.PATIENCE_S", 0.05)
    source = FakeSource(FLOWS)
    async with running(source, 120, 24) as pilot:
        source.silent = True
        await write(pilot, "x.csv")
        assert any("does not answer" in text for text in lines(pilot.app))
    assert list(tmp_path.iterdir()) == []


def test_half_a_list_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = FakeSource(random_flows(2_000)).page(Query(limit=None))
    whole = FORMATS[".csv"]

    def half(page: Page) -> Iterator[str]:
        yield next(iter(whole(page)))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setitem(FORMATS, ".csv", half)
    with pytest.raises(FlowtopError, match="no space left"):
        write_rows(tmp_path / "x.csv", page)
    assert list(tmp_path.iterdir()) == []


def test_behind_sudo_the_file_belongs_to_who_typed_it(directory_of_nobody: Path) -> None:
    page = FakeSource(FLOWS).page(Query(limit=None))
    write_rows(directory_of_nobody / "x.csv", page, (65534, 65533))
    found = (directory_of_nobody / "x.csv").stat()
    assert (found.st_uid, found.st_gid) == (65534, 65533)


# ---- exactly this: packets, an export, a bundle

async def settle(pilot: Pilot[None]) -> None:
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


@pytest.mark.parametrize(("keys", "expected"), [
    (("x",), "tcp and 198.51.100.7:443 and 10.0.0.5:51514"),
    (("B", "x"), "tcp and 198.51.100.7:443 and 10.0.0.5:51514"),
    (("3", "x"), "tcp and port 443"),
    (("slash", *"net 198.51.100.0/24", "enter", "3", "x"), "(net 198.51.100.0/24) and (tcp and port 443)"),
    (("5", "x"), "if eth0"),
])
async def test_packets_and_exports_are_of_exactly_the_row(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...], expected: str) -> None:
    monkeypatch.chdir(tmp_path)
    packets, exports = FakePackets(), FakeExports()
    async with running(FakeSource(FLOWS), packets=packets, exports=exports) as pilot:
        await pilot.press(*keys, "p", "enter")
        await settle(pilot)
        assert [filters for _, filters, _ in packets.asked] == [[expected]]
        await pilot.press("x", "e", "enter")
        await settle(pilot)
        [(what, (url, text))] = exports.asked
        assert (what, text) == ("add", expected) and url.startswith("file:flowtop-")
        assert any(expected in line for line in lines(pilot.app)), "the panel shows what it is of"


async def test_a_filter_of_an_export_that_is_none_is_said_in_one_line() -> None:
    exports = FakeExports()
    async with running(FakeSource(FLOWS), exports=exports) as pilot:
        await pilot.press("e", "down", *"port ninety", "enter")
        await settle(pilot)
        assert not exports.asked
        assert sum("filter: " in text for text in lines(pilot.app)) == 1
        await pilot.press("ctrl+u", *"port 90", "up", *"csv:x.csv", "enter")
        await settle(pilot)
        assert exports.asked == [("add", ("csv:x.csv", "port 90"))]


@pytest.mark.parametrize(("view", "expected"), [("2", "host 10.0.0.5"), ("3", "tcp and port 443"), ("5", "")])
async def test_groups_have_a_tcpdump_expression_where_there_is_one(view: str, expected: str) -> None:
    async with running(FakeSource(FLOWS)) as pilot:
        await pilot.press(view, "x", "t")
        assert pilot.app.clipboard == expected


def test_expressions_of_groups_are_those_of_tcpdump() -> None:
    for text in ("host 2001:db8::1", "tcp and port 443", "src net 2001:db8::/32 and icmp6", "net 2001:db8::/32"):
        assert words_as_tcpdump(text) == text
        subprocess.run(["tcpdump", "-d", text], check=True, capture_output=True)
    assert not words_as_tcpdump("process nginx and port 80")
    assert not words_as_tcpdump("port 80 or port 81")


async def test_a_bundle_is_one_directory_with_packets_flows_screen_and_check(
        directory_of_nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory_of_nobody)
    monkeypatch.setattr(bundle, "check_text", lambda: "ok    kernel\n")
    monkeypatch.setattr("flowtop.tui.main.bundle.PACKETS_S", 0.2)
    monkeypatch.setenv("SUDO_UID", "65534")
    monkeypatch.setenv("SUDO_GID", "65533")
    packets = FakePackets()
    async with running(FakeSource(FLOWS), 120, 24, packets=packets) as pilot:
        before = "\n".join(terminal_lines(pilot.app))
        await pilot.press("x", "b", "enter")
        await settle(pilot)
        [made] = directory_of_nobody.iterdir()
        assert f"bundle in {made.name}: 1 flow, no packets (none came in 0 s), screen, check" in line(pilot.app, -1)
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        [(path, filters, new)] = packets.asked
        assert (Path(path), filters, new) == (made / "packets.pcapng", ["tcp and 198.51.100.7:443 and 10.0.0.5:51514"],
                                              True)
        assert packets.directory == str(made), "not found by its name, which may lead elsewhere by then"
        assert not packets.running, "it ends by itself"
        assert (made / "check.txt").read_text() == "ok    kernel\n"
        screen = (made / "screen.txt").read_text()
        assert screen.splitlines()[3:8] == [text.rstrip() for text in before.splitlines()[3:8]]
        assert "hand off this flow" not in screen
        [row] = csv.DictReader((made / "flows.csv").read_text().splitlines())
        assert row["sourceTransportPort"] == "443"
        assert {stat.S_IMODE(file.stat().st_mode) for file in made.iterdir()} == {0o600}
        assert {(file.stat().st_uid, file.stat().st_gid) for file in (made, *made.iterdir())} == {(65_534, 65_533)}


def test_a_bundle_whose_directory_is_swapped_is_written_to_the_one_it_made(directory_of_nobody: Path) -> None:
    """Who may write in the directory above may rename it, and put a link to any place there."""
    page, place = FakeSource(FLOWS).page(Query(limit=None)), directory_of_nobody
    (place / "etc").mkdir()
    made = bundle.BundleDirectory(place / "b", (65_534, 65_533))
    (place / "b").rename(place / "moved")
    (place / "b").symlink_to(place / "etc")
    made.write_text("screen.txt", "x")
    made.write_rows("flows.csv", page)
    PacketFile(str(place / "b" / "packets.pcapng"), 100, directory=made.descriptor).close()
    with pytest.raises(FlowtopError, match=f"cannot write {place}/b/screen.txt: file exists"):
        made.write_text("screen.txt", "x")
    with pytest.raises(FlowtopError, match=f"^{place}/b/flows.csv exists already$"):
        made.write_rows("flows.csv", page)
    made.close()
    assert not [*(place / "etc").iterdir()]
    assert {file.name for file in (place / "moved").iterdir()} == {"screen.txt", "flows.csv", "packets.pcapng"}
    assert ((place / "moved").stat().st_uid, (place / "moved").stat().st_gid) == (65_534, 65_533)
    assert (place / "etc").stat().st_uid == 0


async def test_a_bundle_says_why_it_has_no_packets_and_never_writes_into_what_is_there(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundle, "check_text", lambda: "")
    (tmp_path / "there").mkdir()
    async with running(FakeSource(FLOWS), 120, 24) as pilot:
        await pilot.press("x", "b", "ctrl+u", *"there", "enter")
        await settle(pilot)
        assert any("exists already" in text for text in lines(pilot.app)) and not [*(tmp_path / "there").iterdir()]
        await pilot.press(*"2", "enter")
        await settle(pilot)
        assert "no packets (none come here)" in line(pilot.app, -1)
        assert {file.name for file in (tmp_path / "there2").iterdir()} == {
            "screen.txt", "flows.csv", "check.txt", "no-packets.txt"}


@pytest.mark.parametrize(("keys", "expected"), [
    (("x",), {"sourceTransportPort": "443", "octetTotalCount": "90000"}),
    (("B", "x"), {"sourceTransportPort": "443", "octetTotalCount": "90000"}),
    (("3", "x"), {"octetTotalCount": "90000"}),
])
async def test_a_bundle_of_what_leaves_meanwhile_has_it_as_it_was_and_says_why_there_are_no_packets(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...], expected: dict[str, str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundle, "check_text", lambda: "")
    monkeypatch.setattr("flowtop.tui.main.bundle.PACKETS_S", 0.0)
    source = FakeSource([FLOWS[0]._replace(end_reason=int(EndReason.END_OF_FLOW))])
    async with running(source, 120, 24, packets=FakePackets()) as pilot:
        await pilot.press(*keys)
        source.flows = []
        source.tick()
        await pilot.press("b", "enter")
        await settle(pilot)
        [made] = tmp_path.iterdir()
        [row] = csv.DictReader((made / "flows.csv").read_text().splitlines())
        assert {name: row[name] for name in expected} == expected
        assert (made / "no-packets.txt").read_text() == "no packets (none came in 0 s: it had ended)\n"
        assert "1 " in line(pilot.app, -1) and "none came in 0 s: it had ended" in line(pilot.app, -1)


def test_the_check_of_a_bundle_is_what_the_command_prints() -> None:
    assert re.search(r"(?m)^(ok  |MISS)  kernel", bundle.check_text())
