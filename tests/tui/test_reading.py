"""A file on screen: how far it was read, and that it stays there with all its flows when it has ended."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from flowtop.cli.sources import Reading
from flowtop.metering.flows import TableConfig
from flowtop.model.record import SourceState
from flowtop.pipeline.drive import PipelineConfig
from flowtop.pipeline.pipeline import Pipeline
from flowtop.tui.app import FlowtopApp
from flowtop.tui.main.flow_screen import reading
from tests.kernel import frames as f
from tests.tui.screen import lines
from tests.unit.capture.files import writers as w

T = 1_700_000_000 * w.SECOND


def test_progress_in_words() -> None:
    assert reading(SourceState(False, octets_read=420, octets_total=1000)) == "READING 42 % of 1.00 kB"
    assert reading(SourceState(False, octets_read=5_000_000)) == "READING, 5.00 MB"
    assert reading(SourceState(True, ended=True, octets_read=9, octets_total=9)) == "END OF FILE"


async def show(path: Path, keys: tuple[str, ...] = ()) -> tuple[str, FlowtopApp]:
    """The screen at the end of the file."""
    source = Reading(str(path), screen=True, tick_s=1.0, speed=None)
    config = source.pipeline_config(PipelineConfig(table=TableConfig()))
    app = FlowtopApp(lambda: Pipeline(config, source.capture()))
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
    text, app = await show(path, ("s",))
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
