"""Every key once, whatever the rows: against straightforward sums, also where all keys have one hash."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.capture.collector import entries
from flowtop.model.reported import REPORTED_DTYPE
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


def test_rows_with_a_key_each_give_what_they_give_beside_a_key_that_comes_twice() -> None:
    rng = np.random.default_rng(3)
    rows = np.frombuffer(rng.bytes(300 * COLLECTED_DTYPE.itemsize), COLLECTED_DTYPE).copy()
    rows["opposite"] = False
    for name in ("packets", "octets", "start_ms", "end_ms"):
        rows[name] = rng.integers(0, 1 << 40, len(rows))
    rows["record_bits"][:50], rows["tcp_control_bits"][50:80] = 0, 2
    reported = np.frombuffer(rng.bytes(300 * REPORTED_DTYPE.itemsize), REPORTED_DTYPE).copy()
    alone, beside = (entries.merge_rows(table, more) for table, more in (
        (rows, reported), (np.append(rows, rows[-1:]), np.append(reported, reported[-1:]))))
    assert len(alone.keys) == len(beside.keys) == 300
    for one, other in zip(alone, beside, strict=True):
        assert one is not None and other is not None and one.dtype == other.dtype
        assert one[:-1].tobytes() == other[:-1].tobytes()
