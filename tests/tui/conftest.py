"""What all tests of the screen share."""

from __future__ import annotations

import pytest

from flowtop.tui.garbage import GarbageCollection
from flowtop.tui.main import screen


@pytest.fixture(autouse=True)
def messages_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message is gone after some seconds, which a busy machine may need before the test looks at it."""
    monkeypatch.setattr(screen, "MESSAGE_S", 600.0)


@pytest.fixture(autouse=True)
def nothing_is_collected_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at all that thousands of tests have loaded, at each of a thousand starts. test_garbage.py has it."""
    async def settle(_: GarbageCollection) -> None:
        pass

    monkeypatch.setattr(GarbageCollection, "settle", settle)
