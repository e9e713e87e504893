"""Random keys, clicks and sizes over a running pipeline and an export: nothing crashes, every packet is exported."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest

from flowtop.export.exports import Exports
from flowtop.metering.flows import TableConfig
from flowtop.model.record import FlowBatch
from flowtop.output import bundle
from flowtop.pipeline.drive import PipelineConfig
from flowtop.pipeline.pipeline import Pipeline
from flowtop.query.trouble import DEFAULTS
from flowtop.recording.recorder import Recorder
from flowtop.tui.app import FlowtopApp
from flowtop.tui.keys import KEYS
from flowtop.tui.widgets.line_input import TakesTyping
from tests.unit.pipeline.test_pipeline import ScriptedCapture

SIZES = ((40, 10), (80, 24), (120, 40), (200, 60), (61, 17))
LEAVE = {"app.quit", "app.suspend_process"}
PANELS = ("x", "e", "g", "s", "C", "slash", "question_mark", "enter", "i", "colon", "w", "W")
TEXT = (*"abctp:.0149 =<>()!", "tab", "backspace", "enter", "escape", "up", "down", "left", "right", "space")


class Changing(ScriptedCapture):
    """Other flows in each drain, some of which come back; their addresses are of eight hosts."""

    delivered = 0

    def _batch(self) -> FlowBatch:
        batch = super()._batch()
        keys = batch.keys
        keys["source_port"] += 5 * (self.drains % 40)
        keys["destination_port"] = 53
        for name, host in (("source_address", 1), ("destination_address", 2)):
            keys[name] = [bytes((192, 0, 2, host + int(port) % 4)) for port in keys["source_port"]]
        self.delivered += int(batch.counters["packets"].sum())
        return replace(batch, keys=keys)


class Kept(Exports):
    """The first export cannot be paused or ended by a key; others can."""

    def pause(self, number: int) -> None:
        if number > 1:
            super().pause(number)

    def end(self, number: int, timeout_s: float | None = None) -> None:
        if number > 1:
            super().end(number, timeout_s)


def random_keys(rng: random.Random) -> Iterator[str]:
    """Mostly keys of the list, often those that open something; then keys of texts too."""
    keys = [name for key in KEYS if key.action not in LEAVE for name in key.names]
    while True:
        pool = rng.choices((keys, PANELS, TEXT), (5, 2, 3))[0]
        yield rng.choice(pool)


async def press(count: int, seed: int, directory: Path) -> tuple[int, int]:
    """Packets that the capture has delivered, and packets of the records in the exported file."""
    rng = random.Random(seed)
    capture, exports, recorder = Changing(flows=40), Kept(directory), Recorder()
    recorder.connect(capture)
    config = PipelineConfig(delay_s=0.1, first_delay_s=0.01, past_s=300, by_remote_end=True, trouble=DEFAULTS,
                            table=TableConfig(idle_timeout_s=3.0, active_timeout_s=5.0, linger_s=2.0))
    exports.add(f"jsonl:{directory}/records.jsonl")
    app = FlowtopApp(lambda: Pipeline(config, capture, [exports], watcher=recorder), exports=exports, packets=recorder)
    async with app.run_test(size=SIZES[1]) as pilot:
        while app._starting is None:
            await pilot.pause()
        await app._starting.wait()
        keys = random_keys(rng)
        for number in range(count):
            key = next(keys)
            if isinstance(app.screen, TakesTyping) and key in ("slash", "home", "ctrl+u"):
                continue  # no files but in this directory
            await pilot.press(key)
            assert app.return_code is None, f"key {number} of seed {seed}: {key}"
            if not rng.randrange(20):
                await pilot.resize_terminal(*rng.choice(SIZES))
            if not rng.randrange(15):
                await pilot.click(offset=(rng.randrange(app.size.width), rng.randrange(app.size.height)))
        while app.screen is not app.main:
            app.pop_screen()
        await app.action_quit()
        await pilot.pause()
        await app.workers.wait_for_complete()
    assert app.error is None
    exported = 0
    for line in (directory / "records.jsonl").read_text().splitlines():
        exported += json.loads(line)["packetDeltaCount"]
    return capture.delivered, exported


@pytest.mark.parametrize("seed", [int(os.environ.get("FLOWTOP_TEST_SEED", "1"))])
async def test_random_keys_break_nothing_and_lose_no_record(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(bundle, "check_text", lambda: "")
    count = int(os.environ.get("FLOWTOP_TEST_KEYS", "80"))
    with chdir(tmp_path):
        delivered, exported = await press(count, seed, tmp_path)
    assert delivered == exported > 0
