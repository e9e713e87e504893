"""Owners of many packets at once: as if they came one after another."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flowtop.model.owners import FORWARDED, KERNEL, NO_OWNER, latest_of_runs, owner_id

PROCESSES = (owner_id(5, 1 << 40), owner_id(6, 2 << 40))
OWNERS = st.sampled_from((NO_OWNER, KERNEL, FORWARDED, *PROCESSES))
RUNS = st.lists(st.lists(OWNERS, min_size=1, max_size=6), max_size=8)


@given(RUNS)
def test_of_each_run_the_last_process_else_the_first_mark(runs: list[list[int]]) -> None:
    expected = []
    for run in runs:
        processes = [owner for owner in run if owner in PROCESSES]
        marks = [owner for owner in run if owner in (KERNEL, FORWARDED)]
        expected.append(processes[-1] if processes else marks[0] if marks else NO_OWNER)
    stop = np.cumsum([len(run) for run in runs], dtype=np.int64)
    first = stop - np.array([len(run) for run in runs], np.int64)
    values = np.array([owner for run in runs for owner in run], np.uint64)
    assert latest_of_runs(values, first, stop).tolist() == expected
