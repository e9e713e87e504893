"""The flow table with 1,000,000 flows: octets a flow, a tick with 100,000 active flows, top-100 by each column.

Duplicates are looked for (dedupe=mark), and every tick of the last minute had its 100,000 active flows, so that the
rate windows are full when memory is read. `known_flow_ns`: what each flow costs in a tick of a table with nothing but
these, with flowtop's own library and with numpy alone, in turn. Times are CPU time of one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flowtop.fields.registry import COLUMNS
from flowtop.metering.flows import CHUNK, TableConfig
from flowtop.metering.key_index import KeyIndex, as_words
from flowtop.metering.table import FlowTable
from flowtop.query.answer import Answerer
from flowtop.query.query import Query
from tests.bench._flows import SECOND, batch_of, keys_of
from tests.bench._native import WAYS, way

START_NS = 1_000 * SECOND
AIMS = {"octets_a_flow": 600, "tick_ms": 100, "query_ms": 20}
STEP = 50_000
WINDOW_TICKS = 60


def resident_octets() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def seconds(work: Callable[[], object]) -> float:
    """CPU time of this thread that `work` takes: it never sleeps, so what else the machine does matters less."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def fill(table: FlowTable, flows: int, rng: np.random.Generator) -> int:
    """Give the table its flows, STEP a tick; gives the time."""
    now_ns = START_NS
    for start in range(0, flows, STEP):
        now_ns += SECOND
        table.update(batch_of(np.arange(start, min(flows, start + STEP)), now_ns, rng))
    return now_ns


def tick_times(
    table: FlowTable, flows: int, active: int, ticks: int, now_ns: int, rng: np.random.Generator
) -> list[float]:
    """Seconds of each of so many ticks with `active` known flows."""
    times = []
    for _ in range(ticks):
        now_ns += SECOND
        batch = batch_of(rng.choice(flows, active, replace=False), now_ns, rng)
        times.append(seconds(lambda batch=batch: table.update(batch)))
    return times


def known_flow_times(flows: int, ticks: int, rng: np.random.Generator) -> dict[str, float]:
    """Nanoseconds a flow and tick in a table of known flows, by way: see _native."""
    tables = {}
    for name in WAYS:
        with way(name):
            tables[name] = FlowTable(TableConfig(idle_timeout_s=86_400))
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for tick in range(ticks):
        batch = batch_of(rng.permutation(flows), START_NS + tick * SECOND, rng)
        for name, table in tables.items():
            times[name].append(seconds(lambda batch=batch, table=table: table.update(batch)))
    return {name: 1e9 / flows * statistics.median(each[2:]) for name, each in times.items()}


def query_times(table: FlowTable, rounds: int) -> dict[str, float]:
    """Median ms of a top-100 query, by column and direction."""
    answerer = Answerer()
    medians = {}
    for column in COLUMNS:
        for descending in (True, False):
            query = Query(sort=column, descending=descending, limit=100)
            times = [seconds(lambda query=query: answerer.answer(query, table)) for _ in range(rounds)]
            medians[f"{column} {'↓' if descending else '↑'}"] = 1e3 * statistics.median(times)
    return medians


def index_against_dict(n: int) -> dict[str, float]:
    """Microseconds a key to insert and find n keys, of the hash index and of a dict of bytes."""
    keys = keys_of(np.arange(n))
    words, whole = as_words(keys), f"V{keys.dtype.itemsize}"
    chunks = [slice(start, start + CHUNK) for start in range(0, n, CHUNK)]
    index, slots, known = KeyIndex(np.random.default_rng()), np.arange(n), dict[bytes, int]()
    steps: dict[str, Callable[[slice], object]] = {
        "index_insert": lambda part: index.insert(index.hash(words[part]), slots[part]),
        "index_find": lambda part: index.find(words[part], index.hash(words[part]), words),
        "dict_insert": lambda part: known.update(
            zip(keys[part].view(whole).tolist(), slots[part].tolist(), strict=True)),
        "dict_find": lambda part: np.fromiter(map(known.get, keys[part].view(whole).tolist()), np.int64),
    }
    return {name: 1e6 / n * sum(seconds(lambda part=part, step=step: step(part)) for part in chunks)
            for name, step in steps.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench table", description=__doc__)
    parser.add_argument("--flows", type=int, default=1_000_000)
    parser.add_argument("--active", type=int, default=100_000, help="flows with packets in a tick")
    parser.add_argument("--rounds", type=int, default=7, help="queries of each column; the median counts")
    arguments = parser.parse_args()
    rng = np.random.default_rng(1)
    index = index_against_dict(arguments.flows)
    print("us a key: " + ", ".join(f"{name} {value:.2f}" for name, value in index.items()))
    known = known_flow_times(arguments.active, 13, rng)
    print("ns a known flow and tick: " + ", ".join(f"{name} {value:.0f}" for name, value in known.items()))
    before = resident_octets()
    table = FlowTable(TableConfig(idle_timeout_s=86_400))
    now_ns = fill(table, arguments.flows, rng)
    ticks = tick_times(table, arguments.flows, arguments.active, WINDOW_TICKS + 10, now_ns, rng)[WINDOW_TICKS:]
    resident = (resident_octets() - before) / arguments.flows
    held = table.nbytes / arguments.flows
    tick_ms = 1e3 * statistics.median(ticks)
    print(f"octets a flow: {held:.0f} in arrays, {resident:.0f} resident")
    print(f"tick with {arguments.active:,} active flows: {tick_ms:.1f} ms (worst {1e3 * max(ticks):.1f})")
    queries = query_times(table, arguments.rounds)
    for name, value in queries.items():
        print(f"  top 100 by {name:<14}{value:>6.1f} ms")
    worst = max(queries.values())
    met = max(held, resident) <= AIMS["octets_a_flow"] and tick_ms <= AIMS["tick_ms"] and worst <= AIMS["query_ms"]
    print(json.dumps({"benchmark": "table", "flows": arguments.flows, "octets_a_flow": round(held),
                      "resident_octets_a_flow": round(resident), "tick_ms": round(tick_ms, 1),
                      "tick_worst_ms": round(1e3 * max(ticks), 1), "query_worst_ms": round(worst, 1),
                      "known_flow_ns": {name: round(value) for name, value in known.items()},
                      "aims": AIMS, "met": met,
                      "index_us": {name: round(value, 2) for name, value in index.items()}}))
