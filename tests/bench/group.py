"""1,000,000 flows grouped and sorted, the top 100 groups as rows: by every field there is, by several at once, and as
biflows: of one way each, by what both ways have together and by one way's columns; `again` is the same flows' second
look, as that of a key between two ticks.

Source hosts, host pairs and source networks are 1,000,000 groups, the rest few. Times are CPU time of one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics

import numpy as np

from flowtop.fields.registry import GROUPS
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.query.answer import Answerer
from flowtop.query.query import Query
from tests.bench.table import fill, seconds, tick_times

AIM_MS = 150
SORTS = ("rate", "bytes", "age")
WAY_SORTS = ("rate_in", "bytes_out", "packets_in")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench group", description=__doc__)
    parser.add_argument("--flows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5, help="queries of each kind; the median counts")
    arguments = parser.parse_args()
    rng = np.random.default_rng(1)
    table = FlowTable(TableConfig(idle_timeout_s=86_400))
    now_ns = fill(table, arguments.flows, rng)
    tick_times(table, arguments.flows, arguments.flows // 10, 3, now_ns, rng)
    answerer = Answerer(rng)
    medians: dict[str, float] = {}
    for group in (*((name,) for name in GROUPS), ("interface", "protocol"), ("source", "service")):
        times = []
        for sort in SORTS:
            query = Query(group=group, sort=sort)
            times += [seconds(lambda query=query: answerer.answer(query, table)) for _ in range(arguments.rounds)]
        medians[",".join(group)] = 1e3 * statistics.median(times)
        groups = answerer.answer(query, table).matched
        print(f"  top 100 of {groups:>9,} groups by {','.join(group):<20}{medians[','.join(group)]:>6.1f} ms")
    for name, sorts, again in (("biflow", SORTS, False), ("biflow, one way", WAY_SORTS, False),
                               ("biflow, again", SORTS + WAY_SORTS, True)):
        times = []
        for query in [Query(biflow=True, sort=sort) for sort in sorts] * arguments.rounds:
            if not again:
                answerer = Answerer(rng)
            times.append(seconds(lambda query=query, answerer=answerer: answerer.answer(query, table)))
        medians[name] = 1e3 * statistics.median(times)
        print(f"  top 100 of {answerer.answer(query, table).matched:>9,} {name:<26}{medians[name]:>6.1f} ms")
    worst = max(medians.values())
    print(json.dumps({"benchmark": "group", "flows": arguments.flows, "worst_ms": round(worst, 1), "aim_ms": AIM_MS,
                      "met": worst <= AIM_MS, "ms": {name: round(value, 1) for name, value in medians.items()}}))
