"""Masks of 1,000,000 flows: every word of the filter language by its example, and filters as people type them.

Times are CPU time of one thread, medians.
"""

from __future__ import annotations

import argparse
import json
import statistics

import numpy as np

from flowtop.filters.filter import compile_filter
from flowtop.filters.words import WORDS
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.text.lookups import Lookups
from tests.bench.table import fill, seconds

AIM_MS = 30
TYPICAL = (
    "tcp and not private", "tcp port 443 or 80", "host 10.0.0.1", "src net 10/8 and rate >= 1Mbit",
    "not port 22 and (bytes > 10M or pps > 1000)", "if eth0 udp port 53", "net 2001:db8::/32",
    "host 10.0.0.1 or 10.0.0.2 or 10.0.0.3 or 10.0.0.4", "state active and age < 5s and dir in",
)
"""Filters of several words."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench filter", description=__doc__)
    parser.add_argument("--flows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    table = FlowTable(TableConfig(idle_timeout_s=86_400))
    fill(table, arguments.flows, np.random.default_rng(1))
    texts = dict.fromkeys([*TYPICAL, *(word.example for word in WORDS)])
    medians = {}
    lookups = Lookups({2: "eth0"})
    for text in texts:
        compiled = compile_filter(text)
        times = [seconds(lambda compiled=compiled: compiled.mask(table, lookups)) for _ in range(arguments.rounds)]
        medians[text] = 1e3 * statistics.median(times)
        print(f"{text:<52}{medians[text]:>7.1f} ms")
    worst = max(medians.values())
    print(json.dumps({"benchmark": "filter", "flows": arguments.flows, "worst_ms": round(worst, 1),
                      "worst": max(medians, key=lambda text: medians[text]),
                      "typical_worst_ms": round(max(medians[text] for text in TYPICAL), 1),
                      "aim_ms": AIM_MS, "met": worst <= AIM_MS}))
