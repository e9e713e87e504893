"""NetFlow and IPFIX messages to records, and on to what a FlowBatch holds: records/s of one thread's CPU time."""

from __future__ import annotations

import json
import statistics
import time

import numpy as np

from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.model.record import FLOW_RECORD_DTYPE
from flowtop.wire.data_set import join
from flowtop.wire.datagrams import decode_export
from flowtop.wire.flow_templates import PROFILES, announcement, flow_sets, flow_templates
from flowtop.wire.ipfix import encode_messages
from flowtop.wire.template_store import TemplateStore
from tests.bench._ipfix_encode import records_of

AIM_RECORDS_PER_S = 1_000_000
RECORDS, ROUNDS = 100_000, 7
NOW_S = 1_700_000_000


def messages_of(max_octets: int) -> tuple[list[bytes], list[bytes]]:
    """Templates, and messages with RECORDS flows of IPv4 and IPv6, each at most so long."""
    records = records_of(RECORDS, 0.3, np.random.default_rng(1))
    assert records.dtype == FLOW_RECORD_DTYPE
    for name in ("octet_delta", "packet_delta"):
        records[name] %= 1_000_000
    for name in ("start_ms", "end_ms"):
        records[name] = NOW_S * 1000 - records[name] % 60_000
    records["ifindex"] %= 16
    templates = flow_templates(PROFILES["default"])
    sets, _ = flow_sets(records, templates)
    first = encode_messages(announcement(templates), domain=1, sequence=0, export_time_s=NOW_S)
    return first.messages, encode_messages(sets, domain=1, sequence=0, export_time_s=NOW_S,
                                           max_octets=max_octets).messages


def decode_rate(announced: list[bytes], messages: list[bytes]) -> float:
    """Messages to arrays of records, those of one Template together, as the Collecting Process asks for them."""
    times = []
    for _ in range(ROUNDS):
        store = TemplateStore()
        for octets in announced:
            decode_export(octets, store, session=0)
        begin = time.thread_time()
        found = [data_set for octets in messages for data_set in decode_export(octets, store, session=0).data_sets]
        by_template: dict[int, list[int]] = {}
        for place, data_set in enumerate(found):
            by_template.setdefault(data_set.template.id, []).append(place)
        count = sum(len(join([found[place] for place in places])) for places in by_template.values())
        times.append(time.thread_time() - begin)
        assert count == RECORDS
    return round(RECORDS / statistics.median(times))


def collect_rate(announced: list[bytes], messages: list[bytes]) -> float:
    """Messages to the keys and counters of a FlowBatch, every flow another: sessions, sequence, books included."""
    times = []
    for _ in range(ROUNDS):
        process, session = CollectingProcess(), Session(0, "192.0.2.1", True)
        for octets in announced:
            process.receive(octets, session, NOW_S)
        begin = time.thread_time()
        for octets in messages:
            process.receive(octets, session, NOW_S)
        keys, _, _ = process.drain()
        times.append(time.thread_time() - begin)
        assert len(keys) == RECORDS and not process.statistics().refused
    return round(RECORDS / statistics.median(times))


def main() -> None:
    """Print rates by size of message; the last line is one JSON object."""
    rates = {}
    for max_octets in (1_400, 65_535):
        announced, messages = messages_of(max_octets)
        rates[f"decode_{max_octets}"] = decode_rate(announced, messages)
        rates[f"collect_{max_octets}"] = collect_rate(announced, messages)
    for case, rate in rates.items():
        print(f"{case:<16}{rate:>12,.0f} records/s")
    met = min(rates["decode_1400"], rates["decode_65535"]) >= AIM_RECORDS_PER_S
    print(json.dumps({"benchmark": "decode", "rates": rates, "aim_records_per_s": AIM_RECORDS_PER_S, "met": met}))
