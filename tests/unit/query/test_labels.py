"""Things with equal keys have one label, whatever the keys are: few small numbers, or addresses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.query.labels import KnownLabels, label

KINDS = ("b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")


def numbers(kind: str) -> st.SearchStrategy[int]:
    """Values of this dtype: near its least, near its greatest, or a few."""
    if kind == "b1":
        return st.integers(0, 1)
    limits = np.iinfo(kind)
    least, most = int(limits.min), int(limits.max)
    return st.one_of(st.integers(least, most), st.integers(least, least + 3), st.integers(most - 3, most),
                     st.integers(0, 5))


@st.composite
def keys(draw: st.DrawFn) -> list[np.ndarray]:
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    count = draw(st.integers(0, 40))
    return [np.array(draw(st.lists(numbers(kind), min_size=count, max_size=count)), np.dtype(kind)) for kind in kinds]


@given(keys())
def test_things_with_equal_keys_have_one_label(keys: list[np.ndarray]) -> None:
    labels = label(keys, seed=7)
    of_key: dict[tuple[int, ...], set[int]] = {}
    for group, key in zip(labels.of.tolist(), zip(*(key.tolist() for key in keys), strict=True), strict=True):
        of_key.setdefault(key, set()).add(group)
    assert sorted(group for (group,) in of_key.values()) == list(range(labels.count))
    assert labels.of[labels.one].tolist() == list(range(labels.count))
    assert labels.one.tolist() == sorted(labels.one.tolist())
    assert len(labels.ids) == labels.count


@pytest.mark.parametrize("others", [(), (1 << 40,)])
def test_an_id_depends_on_its_key_and_on_the_seed_alone(others: tuple[int, ...]) -> None:
    """Also when a key far from the others makes their numbers too large for a table."""
    few = label([np.array([3, 9], np.uint64)], seed=7)
    more = label([np.array([5, *others, 9, 3], np.uint64)], seed=7)
    assert few.ids[few.of].tolist() == [more.ids[more.of[-1]], more.ids[more.of[-2]]]
    assert not set(few.ids.tolist()) & set(label([np.array([3, 9], np.uint64)], seed=8).ids.tolist())


def test_what_is_known_of_keys_holds_as_long_as_they_are_the_same() -> None:
    """Columns of the table change in place: what was labelled then is not what is there now."""
    label_by, rng = KnownLabels(), np.random.default_rng(3)
    keys = [rng.integers(0, 2**60, 5_000).astype(np.uint64) for _ in range(2)]
    keys[0][:2_000], keys[1][:2_000] = 7, np.arange(2_000) % 50
    first = label_by(keys, 1)
    assert label_by(keys, 1) is first
    other = label_by(keys, 2)
    assert label_by(keys, 1) is first
    assert np.array_equal(other.of, first.of) and not np.array_equal(other.ids, first.ids)
    keys[1][0] = 2**61
    changed = label_by(keys, 1)
    expected = label(keys, 1)
    assert changed.count == first.count + 1
    assert all(np.array_equal(getattr(changed, name), getattr(expected, name)) for name in ("of", "one", "ids"))
    assert label_by(keys[:1], 1).count == 3_001
