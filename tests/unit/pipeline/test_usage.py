"""flowtop's own cost: what is on the screen is what it costs now, and telling it costs nothing for ever."""

from __future__ import annotations

import time

from flowtop.pipeline.pipeline import UsageMeter


def busy(cpu_s: float) -> None:
    until = time.process_time() + cpu_s
    while time.process_time() < until:
        pass


def test_after_the_work_the_figure_falls_once() -> None:
    now = 0.0
    meter = UsageMeter(lambda: now)
    busy(0.05)
    now = 0.1
    meter.tick()
    assert meter.usage.cpu >= 0.5, "50 ms in 100 ms"
    now = 1000.1
    assert meter.settle(), "nothing much in 1000 s: that should be told"
    assert meter.usage.cpu < 0.01
    now = 1000.2
    busy(0.005)  # telling it costs 5 % for a while
    assert not meter.settle()
    now = 2000.2
    assert not meter.settle(), "what nobody was told needs no correction"
