"""Groups and a flow's details in a real terminal, over real traffic."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.kernel.netns import Lab, Namespace
from tests.kernel.test_command import assert_nothing_attached, in_a_terminal
from tests.kernel.test_exports_panel import pinging, user

LOOKING_S = 2.0
"""Somebody looks at what a key did before pressing the next: several ticks of 0.3 s."""


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with Lab() as lab:
        yield lab.pair(offload=False)


def test_into_a_group_to_a_flow_and_back_over_real_traffic(pair: tuple[Namespace, Namespace]) -> None:
    near, _ = pair

    def look(terminal: int) -> None:
        for keys in (b"\x1b[B\r", b"\x1b[B\r", b"\x1b", b"\x7f", b"ggg\r", b"q"):
            os.write(terminal, keys)
            time.sleep(LOOKING_S)

    with pinging(near):
        status, painted = in_a_terminal(near, "-i", "veth0", "-d", "0.3", "-g", "pair", "icmp", act=user(look))
    screen = painted.decode(errors="replace")
    assert status == 0 and "Traceback" not in screen, screen[-2000:]
    assert "10.77.0.1 ↔ 10.77.0.2" in screen
    assert "all › 10.77.0.1 ↔ 10.77.0.2" in screen
    assert "icmp  10.77.0." in screen and "the way back" in screen, "details: an echo is answered"
    assert_nothing_attached(near)
