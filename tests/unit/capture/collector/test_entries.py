"""Every key once, whatever the rows: against straightforward sums, also where all keys have one hash."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.capture.collector import entries
from flowtop.wire.flow_records import COLLECTED_DTYPE
from tests.unit.wire.patience import patient

ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1000), st.integers(0, 1000),
                          st.integers(0, 50), st.integers(0, 50), st.integers(0, 4095)), max_size=40)


@pytest.mark.parametrize("collide", [False, True])
@patient
@given(rows=ROWS)
def test_sums_are_those_of_a_loop(collide: bool, rows: list[tuple[int, ...]]) -> None:
    table = np.zeros(len(rows), COLLECTED_DTYPE)
    expected: dict[tuple[int, int], list[Any]] = {}
    for place, (port, interface, packets, octets, start, last, bits) in enumerate(rows):
        row = table[place:place + 1]
        row["source_port"], row["ifindex"], row["ttl"] = port, interface, place
        row["packets"], row["octets"], row["start_ms"], row["end_ms"] = packets, octets, start, start + last
        row["tcp_control_bits"] = bits
        sums = expected.setdefault((port, interface), [0, 0, start, 0, 0, place])
        sums[:5] = [sums[0] + packets, sums[1] + octets, min(sums[2], start), max(sums[3], start + last),
                    sums[4] | bits]
    with pytest.MonkeyPatch.context() as patch:
        if collide:
            patch.setattr(entries, "_MULTIPLIERS", np.zeros_like(entries._MULTIPLIERS))
        keys, counters, _ = entries.flow_entries(table)
    found = {(int(key["source_port"]), int(key["ifindex"])): [
        int(counter["packets"]), int(counter["octets"]), int(counter["first_ns"]) // 1_000_000,
        int(counter["last_ns"]) // 1_000_000, int(sum(1 << bit for bit in range(12) if counter["tcp_bit_seen"][bit])),
        int(counter["ttl"])] for key, counter in zip(keys, counters, strict=True)}
    assert list(found.items()) == list(expected.items()) and len(keys) == len(expected)
