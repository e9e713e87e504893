"""Flow Records to IPFIX Messages: records/s of one thread, columns in, messages out.

The benchmark `export` reports it; alone: `python -m tests.bench._ipfix_encode`.
"""

from __future__ import annotations

import json
import statistics
import time

import numpy as np

from flowtop.model.record import FLOW_RECORD_DTYPE, FlowRecords
from flowtop.wire.flow_templates import PROFILES, flow_sets, flow_templates
from flowtop.wire.ipfix import encode_messages

AIM_RECORDS_PER_S = 1_500_000


def records_of(count: int, ipv6_share: float, rng: np.random.Generator) -> FlowRecords:
    """TCP Flow Records with every field filled, so many of them IPv6, in no order."""
    records = np.frombuffer(rng.bytes(count * FLOW_RECORD_DTYPE.itemsize), FLOW_RECORD_DTYPE).copy()
    records["kind"] = 0
    records["protocol"] = 6
    records["direction"] = rng.integers(0, 2, count)
    records["ip_version"] = np.where(rng.random(count) < ipv6_share, 6, 4)
    records["duplicate"] = False
    records["tunnel"] = records["tunnel_id"] = 0
    return records


def encode_rate(records: FlowRecords, max_octets: int, rounds: int) -> dict[str, float]:
    """Median over the rounds: records/s of CPU time, and octets a record on the wire."""
    templates = flow_templates(PROFILES["default"])
    times, octets = [], 0
    for _ in range(rounds):
        start = time.thread_time()
        sets, _ = flow_sets(records, templates)
        encoded = encode_messages(sets, domain=1, sequence=0, export_time_s=1_700_000_000, max_octets=max_octets)
        times.append(time.thread_time() - start)
        octets = sum(map(len, encoded.messages))
        assert sum(encoded.record_counts) == len(records)
    return {"records_per_s": round(len(records) / statistics.median(times)),
            "octets_a_record": round(octets / len(records), 1)}


def encode_rates(count: int = 100_000, batch: int = 10_000, rounds: int = 15) -> dict[str, dict[str, float]]:
    """By case: one call with everything, and batches of the size a tick brings, in messages of several sizes."""
    rng = np.random.default_rng(1)
    ipv4, mixed = records_of(count, 0, rng), records_of(count, 0.3, rng)
    return {
        "ipv4_1400": encode_rate(ipv4[:batch], 1_400, rounds),
        "mixed_1400": encode_rate(mixed[:batch], 1_400, rounds),
        "mixed_512": encode_rate(mixed[:batch], 512, rounds),
        "mixed_65535": encode_rate(mixed[:batch], 65_535, rounds),
        "mixed_65535_one_call": encode_rate(mixed, 65_535, rounds),
    }


if __name__ == "__main__":
    rates = encode_rates()
    for case, rate in rates.items():
        print(f"{case:<24}{rate['records_per_s']:>12,} records/s{rate['octets_a_record']:>8} octets a record")
    worst = min(rate["records_per_s"] for rate in rates.values())
    print(json.dumps({"benchmark": "ipfix_encode", "rates": rates, "aim_records_per_s": AIM_RECORDS_PER_S,
                      "met": worst >= AIM_RECORDS_PER_S}))
