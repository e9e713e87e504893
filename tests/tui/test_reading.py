"""A file on screen: how far it was read, and that it stays there with all its flows when it has ended."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import sys
import time
from pathlib import Path

import pytest

from flowtop.cli.sources import FileSource
from flowtop.filters.kernel import Split
from flowtop.model.record import SourceState
from flowtop.pipeline.pipeline import Pipeline
from flowtop.tui.app import FlowtopApp
from flowtop.tui.main.list import reading_text
from tests.kernel import frames as f
from tests.tui.screen import lines
from tests.unit.capture.files import writers as w
from tests.unit.cli.command_line import options

T = 1_700_000_000 * w.SECOND


def test_progress_in_words() -> None:
    assert reading_text(SourceState(False, octets_read=420, octets_total=1000)) == "READING 42 % of 1.00 kB"
    assert reading_text(SourceState(False, octets_read=5_000_000)) == "READING, 5.00 MB"
    assert reading_text(SourceState(True, ended=True, octets_read=9, octets_total=9)) == "END OF FILE"


async def show(path: Path, keys: tuple[str, ...] = ()) -> tuple[str, FlowtopApp]:
    """The screen at the end of the file."""
    source = FileSource(options("-r", str(path)))
    with source.capture(Split()) as open_capture:
        app = FlowtopApp(lambda: Pipeline(source.pipeline_config(), open_capture()))
        async with app.run_test(size=(120, 20)) as pilot:
            async with asyncio.timeout(60):
                while not any(words in "\n".join(lines(app)) for words in ("END OF FILE", "capture ended")):
                    await pilot.pause(0.05)
                await pilot.press(*keys)
                while app.main.page is None or app.main.page.query != app.main.questions.asked:
                    await pilot.pause(0.05)
            await pilot.pause()
            text = "\n".join(lines(app))
            await pilot.press("q")
            await pilot.pause()
    return text, app


async def test_flows_that_ended_long_ago_are_there_at_the_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(w.pcap([
        (T + time_s * w.SECOND, f.ethernet(f.IPV4, f.ipv4(f.udp(port, 53, bytes(32)), f.UDP)))
        for time_s, port in ((0, 1001), (5000, 1002), (9000, 1003))]))
    text, app = await show(path, ("greater_than_sign",))
    assert all(f"10.0.0.1:{port}" in text for port in (1001, 1002, 1003))
    assert "END OF FILE" in text
    assert app.error is None


async def test_the_last_packet_of_a_file_is_no_burst(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(w.pcap([
        (T + time_s * w.SECOND, f.ethernet(f.IPV4, f.ipv4(f.udp(1001, 53, bytes(32)), f.UDP))) for time_s in range(4)]))
    text, _ = await show(path)
    rates = re.findall(r"\d+ +([kMG]?)b/s", text)
    assert len(rates) >= 3 and not any(rates), "60 octets in a second, the last one of which had just begun"


async def test_a_file_that_is_cut_off_shows_what_was_read_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    frame = f.ethernet(f.IPV4, f.ipv4(f.udp(1001, 53, bytes(32)), f.UDP))
    path.write_bytes(w.pcap([(T, frame), (T, frame)])[:-3])
    text, app = await show(path)
    assert "10.0.0.1:1001" in text
    assert "is cut off in the middle of a record" in text
    assert app.error is not None


async def test_a_file_without_packets_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(w.pcap([]))
    text, _ = await show(path)
    assert "no flows in this file" in text


@pytest.mark.parametrize("redirection", ["2>{}", "2>&- && touch {}"])
def test_the_screen_is_drawn_when_standard_error_goes_elsewhere(tmp_path: Path, redirection: str) -> None:
    path, errors = tmp_path / "x.pcap", tmp_path / "errors.log"
    path.write_bytes(w.pcap([(T, f.ethernet(f.IPV4, f.ipv4(f.udp(1001, 53, bytes(32)), f.UDP)))]))
    pid, master = pty.fork()
    if not pid:
        os.environ["TERM"] = "xterm-256color"
        command = f"{sys.executable} -m flowtop -r {path} {redirection.format(errors)}"
        os.execv("/bin/sh", ["/bin/sh", "-c", command])
    output, begin, asked = b"", time.monotonic(), False
    while time.monotonic() < begin + 60:
        if select.select([master], [], [], 0.1)[0]:
            try:
                output += os.read(master, 65536)
            except OSError:  # Linux's way to say that the other side is closed
                break
        if b"END OF FILE" in output and not asked:
            os.write(master, b"q")
            asked = True
    os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert asked, output
    assert errors.read_bytes() == b""
