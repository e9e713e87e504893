"""What all tests of the screen share."""

from __future__ import annotations

import pytest

from flowtop.tui.main import screen


@pytest.fixture(autouse=True)
def messages_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message is gone after some seconds, which a busy machine may need before the test looks at it."""
    monkeypatch.setattr(screen, "MESSAGE_S", 600.0)
