"""Full garbage collections wait for a moment in which nobody presses a key."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from textual import events

from flowtop.tui import app as app_module
from flowtop.tui import garbage
from flowtop.tui.garbage import GarbageCollection
from tests.tui.fake_source import FakeSource, random_flows
from tests.tui.screen import running


@pytest.fixture(autouse=True)
def nothing_is_collected_at_the_start() -> None:
    """Here it is: this takes the place of the fixture of all other tests of the screen."""


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@contextmanager
def full_collections() -> Iterator[list[int]]:
    """Counts them."""
    seen: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            seen.append(1)

    gc.callbacks.append(note)
    try:
        yield seen
    finally:
        gc.callbacks.remove(note)


async def settled() -> None:
    while not gc.get_freeze_count():
        await asyncio.sleep(0.01)


async def test_keys_find_no_full_collection_and_all_is_as_before_when_the_screen_has_gone(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "PARSER_AFTER_S", 0.0)
    before = gc.get_threshold()
    async with running(FakeSource(random_flows(50))) as pilot:
        await settled()
        with full_collections() as seen:
            kept = []
            for _ in range(20):
                kept.append([Cycle() for _ in range(10_000)])  # of themselves these make several
                await pilot.press("j")
        assert not seen
    assert gc.get_threshold() == before and not gc.get_freeze_count()


async def test_keys_and_wheel_put_collections_off(monkeypatch: pytest.MonkeyPatch) -> None:
    pressed: list[int] = []
    monkeypatch.setattr(GarbageCollection, "pressed", lambda _: pressed.append(1))
    async with running(FakeSource(random_flows(50))) as pilot:
        for key in "jk":
            before = len(pressed)
            await pilot.press(key)
            assert len(pressed) > before
        before = len(pressed)
        pilot.app.post_message(events.MouseScrollDown(None, 5, 5, 0, 0, 0, False, False, False))  # as drivers do
        await pilot.pause()
        assert len(pressed) > before


async def test_garbage_is_bounded_in_amount_whoever_presses_keys() -> None:
    collection = GarbageCollection(lambda: 0.0)  # no time passes
    task = asyncio.create_task(collection.settle())
    try:
        await settled()
        with full_collections() as seen:
            kept = [Cycle() for _ in range(1_500_000)]
        assert seen and kept
    finally:
        task.cancel()
        collection.restore()


async def test_what_is_left_over_is_collected_when_nobody_presses_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "IDLE_S", 0.02)
    monkeypatch.setattr(garbage, "EVERY_S", 0.0)
    collection = GarbageCollection()
    task = asyncio.create_task(collection.settle())
    try:
        await settled()
        gone = weakref.ref(Cycle())
        while gone() is not None:
            await asyncio.sleep(0.01)
    finally:
        task.cancel()
        collection.restore()


@pytest.mark.parametrize("at_least_s", [0.2, 3600.0])
async def test_somebody_who_never_stops_pressing_keys_puts_it_off_but_not_for_ever(
        monkeypatch: pytest.MonkeyPatch, at_least_s: float) -> None:
    monkeypatch.setattr(garbage, "IDLE_S", 0.05)
    monkeypatch.setattr(garbage, "EVERY_S", 0.0)
    monkeypatch.setattr(garbage, "AT_LEAST_EVERY_S", at_least_s)
    now = [0.0]
    collection = GarbageCollection(lambda: now[0])
    task = asyncio.create_task(collection.settle())
    try:
        await settled()
        gone = weakref.ref(Cycle())
        for _ in range(10):  # half a second of its clock
            now[0] += 0.05
            collection.pressed()
            await asyncio.sleep(0.06)
        assert (gone() is None) == (at_least_s < 1)
    finally:
        task.cancel()
        collection.restore()
