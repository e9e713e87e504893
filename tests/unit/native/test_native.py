"""The library and numpy leave the same octets, whatever is done; it is used only where it can be."""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.capture.packets import entries as packet_entries
from flowtop.capture.packets.internet import PARSED_IP, Packets
from flowtop.cli.main import _compiled
from flowtop.metering.flows import TableConfig, report
from flowtop.metering.key_index import KeyIndex, as_words
from flowtop.metering.store import _FIELDS, FlowStore
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import Direction, EndReason, Kind
from flowtop.model.owners import LISTED_BIT, PROCESS_BIT, latest
from flowtop.model.record import CONVERSATION_BYTES, FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, FLOW_RECORD_DTYPE, FlowRecords
from flowtop.native import library
from flowtop.native.arrays import address, compact
from flowtop.native.build import NotBuiltError, build
from flowtop.native.entries import add_entries
from flowtop.native.records import make_records
from flowtop.native.store import clear_items
from tests.unit.factories import SECOND, START_NS, batch, counters, key


@pytest.fixture(scope="module", autouse=True)
def native(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The library of this environment, if it is of these sources; else a new one."""
    return library.loaded() or library.opened(build(tmp_path_factory.mktemp("native")), library.FOLDER)


def in_both(native: ctypes.CDLL, work: Callable[[], Any]) -> tuple[Any, Any]:
    """The results of work with the library, and with numpy."""
    results = []
    for used in (native, None):
        with mock.patch.object(library, "loaded", return_value=used):
            results.append(work())
    return results[0], results[1]


class Alike:
    """A source of random numbers that gives every key the same hash."""

    def integers(self, low: int, high: int, size: int | None = None, *_: Any, **__: Any) -> Any:
        return np.zeros(size, np.uint64) if size else np.uint64(0)


def source(seed: int) -> np.random.Generator:
    """Of random numbers; 0: all hashes are the same."""
    return np.random.default_rng(seed) if seed else cast(np.random.Generator, Alike())


# ---- the index

N = 40
KEYS = as_words(np.concatenate([key(source_port=n // 2, ifindex=1 + n % 2, direction=n % 2) for n in range(N)]))
"""Each two are equal in their leading 39 octets."""
OPERATIONS = st.lists(st.tuples(st.sampled_from(["insert", "find_or_insert", "remove", "replace"]),
                                st.lists(st.integers(0, N - 1), max_size=N, unique=True)), max_size=25)


@settings(max_examples=40)
@given(OPERATIONS, st.integers(0, 5), st.sampled_from([CONVERSATION_BYTES, FLOW_KEY_DTYPE.itemsize]))
def test_an_index_gives_the_same_answers(native: ctypes.CDLL, operations: list[tuple[str, list[int]]], seed: int,
                                         octets: int) -> None:
    def answers() -> list[list[int]]:
        index, at, found = KeyIndex(source(seed), octets), dict[int, int](), []
        same = (lambda n: n // 2) if octets == CONVERSATION_BYTES else (lambda n: n)
        for operation, numbers in operations:
            slots = np.array(list(numbers), np.int64)
            if operation == "find_or_insert":
                owners = index.find_or_insert(KEYS[slots], slots, KEYS).tolist()
                at |= dict(zip(map(same, numbers), owners, strict=True))
                found.append(owners)
            once = list({same(n): n for n in numbers}.values())
            if operation == "insert":
                slots = np.array([n for n in once if same(n) not in at], np.int64)
                index.insert(index.hash(KEYS[slots]), slots)
                at |= {same(n): n for n in slots.tolist()}
            known = np.array([n for n in once if same(n) in at], np.int64)
            old = np.array([at[same(n)] for n in known.tolist()], np.int64)
            if operation == "remove":
                index.remove(KEYS[known], old)
                at = {name: slot for name, slot in at.items() if name not in set(map(same, known.tolist()))}
            if operation == "replace":
                index.replace(KEYS[known], old, known)
                at |= {same(n): n for n in known.tolist()}
            found.append(index.find(KEYS, index.hash(KEYS), KEYS).tolist())
            assert found[-1] == [at.get(same(n), -1) for n in range(N)]
            assert len(index) == len(at)
        return [*found, index.hash(KEYS).tolist()]

    fast, slow = in_both(native, answers)
    assert fast == slow


def test_many_keys_grow_the_index_to_the_same_cells(native: ctypes.CDLL) -> None:
    keys = np.random.default_rng(3).integers(0, 1 << 64, (30_000, KEYS.shape[1]), np.uint64, endpoint=False)

    def cells() -> tuple[list[int], list[int]]:
        index, slots = KeyIndex(np.random.default_rng(4)), np.arange(len(keys))
        for start in range(0, len(keys), 7_000):
            part = slots[start:start + 7_000]
            index.insert(index.hash(keys[part]), part)
        index.remove(keys[::3], slots[::3])
        return np.sort(index._cells).tolist(), index.find(keys, index.hash(keys), keys).tolist()

    fast, slow = in_both(native, cells)
    assert fast == slow
    assert fast[1] == [-1 if n % 3 == 0 else n for n in range(len(keys))]


# ---- the table

HUGE = st.sampled_from([0, 1, 2, 40, 1 << 32, (1 << 63) + 5, (1 << 64) - 1])
OWNERS = st.sampled_from([0, 7, 7 | LISTED_BIT, PROCESS_BIT | 9, PROCESS_BIT | LISTED_BIT | 11])
IDENTITIES = st.builds(
    lambda port, direction, ifindex, kind: (port, direction, ifindex, kind),
    st.integers(1, 4), st.sampled_from([*map(int, Direction), 2]), st.integers(1, 2),
    st.sampled_from([*map(int, Kind), int(Kind.FLOW)]))
ENTRIES = st.fixed_dictionaries({
    "packets": HUGE, "octets": HUGE, "first": st.integers(-3, 0), "last": st.integers(0, 2),
    "tcp_bits": st.integers(0, 0xFFF), "opening": st.booleans(), "fragments": st.sampled_from([0, 0, 3, (1 << 32) - 1]),
    "owner": OWNERS, "syn": st.integers(0, 2), "fin": st.integers(0, 2), "rst": st.integers(0, 1),
    "smoothed_rtt_us": st.sampled_from([0, 900]), "congestion_window": st.sampled_from([0, 0, 10]),
    "retransmitted": st.integers(0, 3)})
TICKS = st.lists(st.tuples(st.integers(0, 12), st.dictionaries(IDENTITIES, ENTRIES, max_size=8)), max_size=8)


def entry(values: dict[str, Any], now_ns: int) -> npt.NDArray[np.void]:
    """Its counters; times are in seconds before or after the tick's."""
    values = dict(values)
    first_ns, last_ns = (now_ns + values.pop(name) * SECOND for name in ("first", "last"))
    times = {f"{name}_ns": at and now_ns - at for name in ("syn", "fin", "rst") for at in [values.pop(name)]}
    return counters(first_ns=first_ns, last_ns=last_ns, **values, **times)


def columns(store: FlowStore) -> dict[str, bytes]:
    """Octets of each column, up to the last slot that was used."""
    return {name: getattr(store, name)[:store.top].tobytes() for name in ("keys", *_FIELDS)}


@settings(max_examples=60)
@given(TICKS, st.integers(0, 3), st.sampled_from(["mark", "drop", "off"]), st.sampled_from([3, 100]))
def test_a_table_is_the_same_octet_by_octet(native: ctypes.CDLL, ticks: list[tuple[int, dict[Any, dict[str, Any]]]],
                                            seed: int, dedupe: Any, max_flows: int) -> None:
    def outcome() -> Any:
        table, now_ns, records = FlowTable(TableConfig(dedupe=dedupe, max_flows=max_flows), source(seed)), START_NS, []
        states = []
        for pause, entries in ticks:
            now_ns += pause * SECOND // 2
            records.append(table.update(batch([
                (key(source_port=port, direction=direction, ifindex=ifindex, kind=kind), entry(values, now_ns))
                for (port, direction, ifindex, kind), values in entries.items()], now_ns)))
            states.append((columns(table._store), table.totals, len(table._flows.index), table._rates._tick.tolist(),
                           [table.history(slot) for slot in range(table._store.top)]))
        records.append(table.end_all(now_ns))
        return states, [part.tobytes() for part in cast(list[FlowRecords], records)], columns(table._store)

    # Of numbers near their limit, sums of numpy's own floats may warn; both ways have the same.
    with np.errstate(all="ignore"):
        fast, slow = in_both(native, outcome)
    assert fast == slow


def test_a_large_batch_in_any_order_gives_the_same(native: ctypes.CDLL) -> None:
    rng = np.random.default_rng(5)
    octets = rng.integers(0, 256, (25_000, FLOW_COUNTERS_DTYPE.itemsize), np.uint8)
    added = octets.view(FLOW_COUNTERS_DTYPE)[:, 0]
    for name in ("first_ns", "last_ns", "syn_ns", "fin_ns", "rst_ns"):
        added[name] = rng.integers(START_NS - SECOND, START_NS, len(added))
    keys = np.repeat(key(), len(added))
    keys["tunnel_id"], keys["kind"] = np.arange(len(keys)), rng.integers(0, 4, len(keys))
    keys["direction"] = rng.integers(0, 3, len(keys))

    def outcome() -> Any:
        table = FlowTable(TableConfig(), np.random.default_rng(6))
        for second in range(3):
            order = np.random.default_rng(second).permutation(len(keys))[:18_000]
            table.update(batch([(keys[order], added[order])], START_NS + second * SECOND))
        return columns(table._store), table.totals

    with np.errstate(all="ignore"):
        fast, slow = in_both(native, outcome)
    assert fast == slow


def test_owners_are_merged_as_numpy_merges_them(native: ctypes.CDLL) -> None:
    known = [0, 7, 7 | LISTED_BIT, PROCESS_BIT | 9, PROCESS_BIT | LISTED_BIT | 11]
    old, new = (np.array(part, np.uint64) for part in zip(*itertools.product(known, known), strict=True))
    store = FlowStore()
    slots = store.allocate(len(old))
    store.owner[slots] = kept = old & ~np.uint64(LISTED_BIT)
    added = np.repeat(counters(), len(new))
    added["owner"] = new
    add_entries(native, store, slots, added)
    assert store.owner[slots].tolist() == latest(kept, new).tolist()


def test_a_slot_that_is_used_again_has_nothing_of_the_flow_before(native: ctypes.CDLL) -> None:
    def outcome() -> dict[str, list[bool]]:
        store = FlowStore()
        slots = store.allocate(9)
        for name in _FIELDS:
            getattr(store, name).view(np.uint8)[:] = 1
        store.release(slots[2:6])
        store.allocate(3)
        return {name: getattr(store, name).view(np.uint8).reshape(store.capacity, -1)[:9].any(axis=1).tolist()
                for name in _FIELDS}

    fast, slow = in_both(native, outcome)
    used = {name: values for name, values in fast.items() if name not in ("occupied", "bucket_listed")}
    assert fast == slow
    assert used == {name: [True] * 3 + [False] * 3 + [True] * 3 for name in used}


@pytest.mark.parametrize("unix_offset_ns", [0, -7_000_000])
def test_records_of_any_books_are_the_same(native: ctypes.CDLL, unix_offset_ns: int) -> None:
    """Also before 1970, and of flows with octets but no packets."""
    def outcome() -> Any:
        rng, store = np.random.default_rng(8), FlowStore()
        slots = store.allocate(1_000)
        for name in ("packet_total", "octet_total", "packet_reported", "octet_reported", "packet_duplicate",
                     "octet_duplicate", "duplicate", "record_count", "retransmitted", "retransmitted_reported"):
            column = getattr(store, name)
            column[slots] = rng.integers(0, 3, len(slots)) & (1 if column.dtype == np.bool_ else 3)
        for name in ("first_ns", "last_ns", "syn_ns", "flow_id", "peer_name", "ttl", "owner", "rtt_us"):
            getattr(store, name)[slots] = rng.integers(0, 10_000_000, len(slots)) & 0xFF if name == "ttl" else (
                rng.integers(0, 10_000_000, len(slots)))
        store.key_words[slots] = rng.integers(0, 1 << 63, store.key_words[slots].shape)
        chosen = slots[::-3]
        made = report(store, chosen, EndReason.FORCED_END, chosen + 5, unix_offset_ns)
        return made.tobytes(), len(made), report(store, chosen, EndReason.FORCED_END, 9, 0).tobytes(), columns(store)

    fast, slow = in_both(native, outcome)
    assert fast == slow and fast[1] > 334


# ---- packets of a file

def packets_of(rng: np.random.Generator, n: int, *, ordered: bool) -> Packets:
    """Packets with anything in them, of few flows."""
    keys = np.repeat(key(), n)
    keys["source_port"], keys["protocol"] = rng.integers(0, 9, n), rng.choice([1, 6], n)
    times = rng.integers(0, 50, n) * SECOND // 8  # 0 is in 1970
    macs = rng.integers(0, 256, (2, n, 6), np.uint8).view("V6")[:, :, 0]
    return Packets(
        keys=keys, outcome=np.where(rng.random(n) < 0.1, 1, PARSED_IP).astype(np.int8), lying=np.zeros(n, np.bool_),
        octets=rng.integers(0, 70_000, n), frame_octets=np.zeros(n, np.int64),
        time_ns=np.sort(times) if ordered else times, tcp_bits=rng.integers(0, 1 << 13, n).astype(np.uint16),
        tos=rng.integers(0, 256, n).astype(np.uint8), ttl=rng.integers(0, 256, n).astype(np.uint8),
        source_mac=macs[0], destination_mac=macs[1], fragment=rng.integers(0, 3, n).astype(np.uint8),
        fragment_id=np.zeros(n, np.uint32), fragment_protocol=np.zeros(n, np.uint8),
        sequence=rng.integers(0, 1 << 32, n, np.uint32), segment_octets=rng.integers(0, 3, n),
        echo=rng.random(n) < 0.5)


@pytest.mark.parametrize("one_hash", [False, True])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("n", [1, 40, 5_000])
def test_packets_become_the_same_entries(native: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, n: int, ordered: bool,
                                         one_hash: bool) -> None:
    if one_hash:
        monkeypatch.setattr(packet_entries, "_MULTIPLIERS", np.zeros(7, np.uint64))
    rng = np.random.default_rng(n)
    packets, owners = packets_of(rng, n, ordered=ordered), rng.choice(np.array([0, 7, PROCESS_BIT | 9], np.uint64), n)
    steps = np.sort(rng.integers(0, 3, n))

    def outcome() -> Any:
        return [None if part is None else part.tobytes() for entries in (
            packet_entries.flow_entries(packets, 0, n), packet_entries.flow_entries(packets, n // 4, n, steps[n // 4:]),
            packet_entries.flow_entries(packets, 0, n // 2, None, owners)) for part in entries]

    fast, slow = in_both(native, outcome)
    assert fast == slow


# ---- what it may be given

def test_the_structures_are_those_of_the_records(native: ctypes.CDLL) -> None:
    offset, found = ctypes.c_size_t(), {}
    while (name := native.layout(len(found), ctypes.byref(offset))) is not None:
        found[name.decode()] = offset.value
    assert found == {f"{struct}.{name}": dtype.fields[name][1]
                     for struct, dtype in (("key", FLOW_KEY_DTYPE), ("counters", FLOW_COUNTERS_DTYPE))
                     for name in dtype.names or () if dtype.fields}


@pytest.mark.parametrize("array", [
    np.zeros(9, np.uint32), np.zeros(7, np.uint64), np.zeros(16, np.uint64)[::2], np.zeros(65, np.uint8)[1:].view("u8"),
], ids=["other items", "too short", "with gaps", "not aligned"])
def test_an_array_of_another_shape_is_refused(array: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError):
        address(array, 8, 8)


def test_what_lies_crookedly_is_copied(native: ctypes.CDLL) -> None:
    """As entries in a datagram do."""
    octets = np.zeros(1 + 2 * FLOW_COUNTERS_DTYPE.itemsize, np.uint8)
    crooked = octets[1:].view(FLOW_COUNTERS_DTYPE)
    crooked["packets"] = 5
    assert compact(crooked) is not crooked
    store = FlowStore()
    add_entries(native, store, store.allocate(2), crooked)
    assert store.packet_total[:3].tolist() == [5, 5, 0]


@pytest.mark.parametrize("slot", [-1, 1024])
def test_a_slot_that_is_none_changes_nothing(native: ctypes.CDLL, slot: int) -> None:
    store, slots = FlowStore(), np.array([0, slot])
    store.packet_total[0] = 7
    with pytest.raises(IndexError):
        add_entries(native, store, slots, np.concatenate((counters(), counters())))
    with pytest.raises(IndexError):
        clear_items(native, [store.packet_total], slots)
    with pytest.raises(IndexError):
        make_records(native, store, slots, np.zeros(2, FLOW_RECORD_DTYPE), ["flow_id"], EndReason.IDLE_TIMEOUT, 5, 0)
    assert store.capacity == 1024 and store.packet_total[0] == 7 and not store.record_count.any()


# ---- which is used

def chosen(monkeypatch: pytest.MonkeyPatch, folder: Path, **environment: str) -> library.Choice:
    """What a process with this library's directory and environment uses."""
    monkeypatch.setattr(library, "FOLDER", folder)
    monkeypatch.delenv(library.VARIABLE, raising=False)
    with mock.patch.dict(os.environ, environment):
        return library.choice.__wrapped__()


def sources_in(folder: Path) -> None:
    """A copy of the library's sources."""
    for path in library.sources(library.FOLDER):
        (folder / path.name).write_bytes(path.read_bytes())


def test_it_is_used_where_it_was_built_and_not_turned_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sources_in(tmp_path)
    assert chosen(monkeypatch, tmp_path) == (None, "built without a C compiler")
    build(tmp_path, tmp_path)
    assert chosen(monkeypatch, tmp_path, FLOWTOP_NATIVE="off") == (None, "FLOWTOP_NATIVE=off")
    with mock.patch("sys.byteorder", "big"):
        assert chosen(monkeypatch, tmp_path).library is None
    used = chosen(monkeypatch, tmp_path).library
    assert used is not None and used.sources() == library.checksum(tmp_path)


@pytest.mark.parametrize(("used", "words"), [
    (library.Choice(ctypes.CDLL(None), "native.so"), "in C (native.so)"),
    (library.Choice(None, "built without a C compiler"), "in numpy (built without a C compiler)"),
])
def test_check_says_which_is_used(used: library.Choice, words: str) -> None:
    with mock.patch.object(library, "choice", return_value=used):
        assert (_compiled().ok, _compiled().detail) == (True, words)


def test_one_of_other_sources_or_of_another_machine_is_not_used(monkeypatch: pytest.MonkeyPatch,
                                                               tmp_path: Path) -> None:
    sources_in(tmp_path)
    made = build(tmp_path, tmp_path)
    (tmp_path / "sums.c").write_text("// changed since\n")
    with pytest.raises(OSError, match="other sources"):
        library.opened(made, tmp_path)
    made.unlink()  # it is mapped
    made.write_bytes(b"\x7fELF of another machine")
    found = chosen(monkeypatch, tmp_path)
    assert found.library is None and "cannot be used" in found.reason


def test_a_compiler_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sources_in(tmp_path)
    (tmp_path / "sums.c").write_text("#error no\n")
    with pytest.raises(NotBuiltError, match=r"failed: sums\.c:1"):
        build(tmp_path, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(NotBuiltError, match="no C compiler"):
        build(tmp_path)
