from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.metering.key_index import KEY_WORDS, KeyIndex, Words, as_words
from flowtop.model.record import FLOW_KEY_DTYPE
from tests.unit.factories import key


def _index(seed: int = 0, octets: int = FLOW_KEY_DTYPE.itemsize) -> KeyIndex:
    return KeyIndex(np.random.default_rng(seed), octets)


def _keys(numbers: list[int]) -> Words:
    """A distinct key for each number."""
    words = np.zeros((len(numbers), KEY_WORDS), np.uint64)
    words[:, 0] = numbers
    return words


operations = st.lists(st.tuples(st.sampled_from(["add", "remove"]), st.lists(st.integers(0, 40), max_size=20)),
                      max_size=20)


@settings(deadline=None)
@given(operations, st.integers(0, 2**32))
def test_it_holds_what_a_dict_would_hold(operations: list[tuple[str, list[int]]], seed: int) -> None:
    index, expected = _index(seed), dict[int, int]()
    stored = _keys(list(range(41)))
    for operation, numbers in operations:
        if operation == "add":
            chosen = np.array([n for n in dict.fromkeys(numbers) if n not in expected], np.int64)
            index.insert(index.hash(stored[chosen]), chosen)
            expected.update((int(n), int(n)) for n in chosen)
        else:
            chosen = np.array([n for n in dict.fromkeys(numbers) if n in expected], np.int64)
            index.remove(stored[chosen], chosen)
            for n in chosen:
                del expected[int(n)]
        assert len(index) == len(expected)
        assert index.find(stored, index.hash(stored), stored).tolist() == [expected.get(n, -1) for n in range(41)]


def test_it_finds_all_of_many_keys_while_growing_and_after_removals() -> None:
    index, n = _index(), 50_000
    rng = np.random.default_rng(1)
    stored = rng.integers(0, 1 << 63, (n, KEY_WORDS), np.uint64)
    for start in range(0, n, 3_000):
        slots = np.arange(start, min(n, start + 3_000))
        index.insert(index.hash(stored[slots]), slots)
    gone = rng.permutation(n)[:20_000]
    index.remove(stored[gone], gone)
    expected = np.arange(n)
    expected[gone] = -1
    assert (index.find(stored, index.hash(stored), stored) == expected).all()
    index.insert(index.hash(stored[gone]), gone)
    assert (index.find(stored, index.hash(stored), stored) == np.arange(n)).all()


def test_a_key_that_comes_and_goes_costs_no_more_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow with the same ports all day: each removal left one more cell to pass, for itself and in its place."""
    index, stored = _index(), _keys(list(range(200)))
    others = np.arange(100, 200)
    index.insert(index.hash(stored[others]), others)
    probes: list[int] = []
    note = KeyIndex._note

    def counted(self: KeyIndex, longest: int, keys: int) -> None:
        probes[-1] = max(probes[-1], longest)
        note(self, longest, keys)

    monkeypatch.setattr(KeyIndex, "_note", counted)
    for _ in range(400):
        probes.append(0)
        assert index.find_or_insert(stored[:1], np.array([0]), stored).tolist() == [0]
        index.remove(stored[:1], np.array([0]))
    assert max(probes) < 40 and sum(probes[-100:]) < 40 * 100 and len(index) == 100
    assert index.find(stored[others], index.hash(stored[others]), stored).tolist() == others.tolist()


def test_churn_does_not_make_it_grow() -> None:
    index = _index()
    stored = np.random.default_rng(1).integers(0, 1 << 63, (1_000, KEY_WORDS), np.uint64)
    slots = np.arange(1_000)
    index.insert(index.hash(stored), slots)
    size = index.nbytes
    for _ in range(100):
        index.remove(stored, slots)
        index.insert(index.hash(stored), slots)
    assert index.nbytes <= 2 * size
    assert (index.find(stored, index.hash(stored), stored) == slots).all()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("stride", [1, 1 << 16, 1 << 32, (1 << 63) + 1])
def test_keys_of_even_steps_do_not_crowd(seed: int, stride: int) -> None:
    """Port after port, address after address: hashes must be as good as random, or probing takes forever."""
    index = _index(seed)
    stored = np.zeros((20_000, KEY_WORDS), np.uint64)
    stored[:, 0] = stored[:, 3] = np.arange(20_000, dtype=np.uint64) * np.uint64(stride)
    hashes = index.hash(stored)
    counts = np.bincount((hashes & np.uint64(0xFFFF)).astype(np.int64), minlength=1 << 16)
    # 20,000 balls in 65,536 bins: a bin with 10 has a probability below 1e-6.
    assert counts.max() < 10
    assert len(np.unique(hashes)) > 19_990


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 255)), min_size=1, max_size=60), st.integers(0, 2**32))
def test_find_or_insert_gives_equal_keys_one_owner(items: list[tuple[int, int]], seed: int) -> None:
    """Keys that differ only past the leading 39 octets are equal."""
    index = _index(seed, octets=39)
    stored = as_words(np.concatenate([
        key(source_port=number, direction=past & 1, ifindex=past) for number, past in items]))
    half = len(items) // 2
    owners: list[int] = []
    for slots in (np.arange(half), np.arange(half, len(items))):
        owners += index.find_or_insert(stored[slots], slots, stored).tolist()
    by_number: dict[int, set[int]] = {}
    for (number, _), owner in zip(items, owners, strict=True):
        by_number.setdefault(number, set()).add(owner)
        assert items[owner][0] == number
    assert all(len(owners) == 1 for owners in by_number.values())
    assert len(index) == len(by_number)


def test_replace_moves_a_key_to_another_slot() -> None:
    index, stored = _index(), _keys([7, 8, 7])
    index.insert(index.hash(stored[:2]), np.array([0, 1]))
    index.replace(stored[:1], np.array([0]), np.array([2]))
    assert index.find(stored, index.hash(stored), stored).tolist() == [2, 1, 2]


def test_removing_what_is_not_there_is_an_error() -> None:
    index, stored = _index(), _keys([7])
    with pytest.raises(KeyError):
        index.remove(stored, np.array([0]))


def test_another_seed_gives_other_hashes() -> None:
    stored = _keys(list(range(100)))
    assert (_index(1).hash(stored) != _index(2).hash(stored)).mean() > 0.9
