"""Exporters that name more than there is room for: bounded, counted, and nobody else's loss."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest

from flowtop.capture.collector import process as process_module
from flowtop.capture.collector.budgets import NEWS, Budgets
from flowtop.capture.collector.capture import collected_batch
from flowtop.capture.collector.credit import A_SECOND, ALL_BURST, BURST, MOST, Credit
from flowtop.capture.collector.points import MAX_NEW, NEW_A_SECOND, OTHERS
from flowtop.capture.collector.process import TEMPLATE_LIFE_S, CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.capture.collector.shares import Shares
from flowtop.capture.collector.work import excess
from flowtop.model.exporters import CollectingStatistics, collecting_record, faults
from flowtop.wire.ipfix_decoder import decode_message
from flowtop.wire.template_store import TemplateStore
from tests.bench import hostile
from tests.bench.hostile import Datagram
from tests.unit.capture.collector.exports import FLOW, NOW_S, flow, ipfix, set_of, template

VICTIM = Session(("udp", "198.51.100.1", 4000), "198.51.100.1", True)
NAMED = template(300, ((10, 4), (82, 8)), scope=1) + set_of(300, struct.pack(">I8s", 3, b"uplink"))
SAMPLED = template(301, ((302, 4), (34, 4)), scope=1) + set_of(301, struct.pack(">II", 1, 10))

BUDGET = 100


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small budget."""
    monkeypatch.setattr("flowtop.capture.collector.process.NEWS", NEWS._replace(burst=BUDGET))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that some hundred datagrams reach."""
    for name, limit in (("sessions.MAX_SESSIONS", 40), ("sessions.MAX_OF_EXPORTER", 20), ("sessions.MAX_AGENTS", 20),
                        ("sessions.MAX_ALL_AGENTS", 40), ("sequences.MAX_STREAMS", 20),
                        ("sequences.MAX_ALL_STREAMS", 40), ("process.MAX_FIELDS", 2_000), ("process.MAX_TEMPLATES", 50),
                        ("process.MAX_LAYOUTS", 20), ("points.MAX_POINTS", 30), ("names.MAX_ALL_NAMES", 30),
                        ("names.MAX_NAMES", 20), ("sampling.MAX_SAMPLERS", 20), ("sampling.MAX_ALL_SAMPLERS", 30),
                        ("waiting.MAX_SETS", 40)):
        monkeypatch.setattr(f"flowtop.capture.collector.{name}", limit)


def hit(process: CollectingProcess, attack: Iterator[Datagram], between: Callable[[int, float], None]) -> None:
    """Send an attack; `between` is called after each ten datagrams, with its number and the time."""
    now_s = NOW_S + 100
    for number, datagram in enumerate(attack):
        now_s += datagram.later_s + 0.2
        process.receive(datagram.octets, Session(("udp", datagram.source, datagram.port), datagram.source, True), now_s)
        if number % 10 == 9:
            between(number // 10, now_s)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("name", "counter"), [
    ("templates_2000", "evicted_templates"), ("redefinitions", ""), ("layouts", "dropped_records"),
    ("engines", "evicted_state"), ("domains", "evicted_templates"), ("agents", "evicted_state"),
    ("ports", "evicted_sessions"), ("addresses", "evicted_sessions"), ("interfaces", "evicted_state"),
    ("samplers", "evicted_state"), ("changing_sampler", ""), ("held", "dropped_sets"), ("many_fields", "skipped"),
    ("sampled", "unknown_sampling")])
def test_a_hostile_exporter_takes_nothing_from_another(name: str, counter: str) -> None:
    attack, _ = hostile.ATTACKS[name]
    process, sent, found = CollectingProcess(), 0, 0

    def victim_sends(number: int, now_s: float) -> None:
        nonlocal sent, found
        if number % 5 == 0:  # once in 10 s
            again = number % 100 == 0  # its Templates, names and samplers come every 200 s
            process.receive(ipfix(*([template(256, (*FLOW, (302, 4)))] if again else ()),
                                  set_of(256, flow(sent) + struct.pack(">I", 1)), *([NAMED, SAMPLED] if again else ()),
                                  sequence=sent), VICTIM, now_s)
            sent += 1
            batch = collected_batch(process, int(now_s * 1e9))
            mine = [(name, int(packets)) for name, packets in zip(
                map(batch.interfaces.get, batch.keys["ifindex"].tolist()), batch.counters["packets"], strict=True)
                if name and name.startswith("198.51.100.1/7")]
            found += mine == [("198.51.100.1/7 uplink", 20)]  # named, and multiplied by its sampler

    for number in range(0, 40, 5):
        victim_sends(number, NOW_S + 2 * number)
    hit(process, islice(attack(12_000), 600), victim_sends)
    assert sent == 20 and found == sent
    statistics = process.statistics()
    if counter:
        value = getattr(statistics, counter)
        assert dict(value)["bound"] if counter == "skipped" else value > 0
    assert statistics.exporters <= 40 and process._store.weight <= 2_000 + 27
    assert len(process._sequences) <= 40 and len(process.points.shares) <= 30 and statistics.waiting_sets <= 40
    assert len(process.points.names) <= 30 and len(process._announced.samplers.shares) <= 30


def test_every_kind_of_loss_is_shown() -> None:
    """On the screen and in JSON: each counter of what is refused, dropped or forgotten."""
    losses = ("refused_connections", "refused_sources", "evicted_sessions", "evicted_templates", "evicted_state",
              "dropped_records", "dropped_sets", "implausible_records", "unknown_sampling")
    counters: dict[str, Any] = {name: number for number, name in enumerate(losses, 1)}
    statistics = CollectingStatistics(**counters)
    assert sorted(count for _, count in faults(statistics)) == list(range(1, len(losses) + 1))
    record = collecting_record(statistics)
    assert [record[name.split("_")[0] + "".join(part.title() for part in name.split("_")[1:])]
            for name in losses] == list(range(1, len(losses) + 1))


def test_templates_expire_a_few_with_each_message() -> None:
    process = CollectingProcess()
    session = Session(1, "192.0.2.1", True)
    for number in range(500):
        process.receive(ipfix(template(256 + number, FLOW)), session, NOW_S)
    left = [process._store.fields]
    later_s = NOW_S + TEMPLATE_LIFE_S + 1
    while left[-1]:
        process.receive(ipfix(sequence=0), session, later_s)
        left.append(process._store.fields)
        assert len(left) < 500
    steps = [before - after for before, after in pairwise(left)]
    assert sum(steps) == 500 * len(FLOW) and max(steps) <= process_module._SWEPT * len(FLOW)


@pytest.mark.parametrize(("fields", "known"), [(1_024, True), (1_025, False), (16_000, False)])
def test_a_template_has_so_many_fields_at_most(fields: int, known: bool) -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(256, [(1_000 + place, 1) for place in range(fields)])), VICTIM, NOW_S)
    assert (process._store.get(VICTIM.key, 7, 256) is not None) == known
    assert dict(process.statistics().skipped).get("bound", 0) == (not known)


def test_the_template_used_least_recently_goes() -> None:
    store = TemplateStore(max_templates=3)
    def announce(*numbers: int) -> None:
        decode_message(ipfix(*(template(number, FLOW) for number in numbers)), store, session=1, datagram=True,
                       strict=False)

    announce(256, 257, 258)
    store.use(1, 7, 256)
    announce(259)
    assert [store.get(1, 7, number) is not None for number in range(256, 260)] == [True, False, True, True]
    announce(258, 260)
    assert [store.get(1, 7, number) is not None for number in range(256, 261)] == [False, False, True, True, True]
    assert store.evicted == [(1, 7, 257), (1, 7, 256)]


def test_sampling_that_nobody_uses_is_counted_and_not_applied() -> None:
    for interval, packets, unknown in ((16_777_216, 2 * 16_777_216, 0), (0xFFFF_FFFF, 2, 1)):
        process = CollectingProcess()
        process.receive(ipfix(template(300, ((302, 4), (34, 4)), scope=1),
                              set_of(300, struct.pack(">II", 1, interval)), template(256, FLOW),
                              set_of(256, flow(1))), VICTIM, NOW_S)
        assert process.drain()[1]["packets"].tolist() == [packets]
        assert process.statistics().unknown_sampling == unknown


def test_no_sum_of_what_is_believed_wraps() -> None:
    process, total = CollectingProcess(), 0
    process.receive(ipfix(template(256, FLOW)), VICTIM, NOW_S)
    for number in range(400):  # each message almost 2**49 octets of one flow, twenty in a second: 2**57 in all
        process.receive(ipfix(set_of(256, flow(1, octets=(1 << 46) - 1) * 8), sequence=number), VICTIM,
                        NOW_S + number / 20)
        total += sum(process.drain()[1]["octets"].tolist())
    assert 0 < total <= BURST + 20 * A_SECOND
    assert int(process.points.observations()["octets"].sum()) == total
    assert process.statistics().implausible_records > 0


def test_credit_grows_with_time_and_has_an_end() -> None:
    credit = Credit()
    credit.now_s = 0.0
    assert credit.admit("a", BURST) and not credit.admit("a", A_SECOND) and credit.admit("b", BURST)
    credit.now_s = 2.0
    assert credit.admit("a", A_SECOND) and credit.admit("a", A_SECOND) and not credit.admit("a", A_SECOND)
    invented = sum(credit.admit(f"x{number}", BURST) for number in range(2 * ALL_BURST // BURST))
    assert invented <= ALL_BURST // BURST and credit.admit("a", 1_000_000)
    of_files = Credit()
    assert of_files.admit("a", MOST) and not of_files.admit("b", 1)


class Kept:
    def __init__(self, **limits: Any) -> None:
        self.shares: Shares[str] = Shares(**limits)
        self.gone: list[str | None] = []

    def add(self, *keys: str) -> None:
        self.gone += [self.shares.add(key, key[0]) for key in keys]


def test_who_has_more_than_a_fair_share_loses_the_least_recently_used() -> None:
    kept = Kept(most=6)
    kept.add("a1", "b1", "a2", "a3", "a4", "a5")
    kept.shares.use("a1")
    kept.add("a6")
    assert kept.gone[-1] == "a2"
    kept.add("c1")  # c has no more than a fair share: the least recently used of all
    assert kept.gone[-1] == "b1"
    kept.add("c2")
    assert kept.gone[-1] == "a3" and len(kept.shares) == 6 and kept.shares.evicted == 3


def test_one_source_has_its_limit() -> None:
    kept = Kept(most=10, each=2)
    kept.add("a1", "a2", "b1", "a3")
    assert kept.gone == [None, None, None, "a1"]
    kept.shares.remove("a2")
    kept.shares.remove("a2")
    kept.add("a4")
    assert kept.gone[-1] is None and len(kept.shares) == 3


@pytest.mark.usefixtures("scarce")
def test_what_is_new_has_a_budget_and_what_is_repeated_is_free() -> None:
    process, session = CollectingProcess(), Session(1, "192.0.2.66", True)
    for _ in range(2 * BUDGET):
        process.receive(ipfix(template(256, FLOW), set_of(256, flow(1))), session, NOW_S)
    assert process.statistics().records == 2 * BUDGET and not process.statistics().refused
    for number in range(BUDGET + 10):
        process.receive(ipfix(template(257, (*FLOW, (210, 1 + number % 2)))), session, NOW_S)
    assert 0 < dict(process.statistics().refused)["bound"] < 20
    refused = process.statistics().refused
    process.receive(ipfix(set_of(256, flow(2)), template(258, FLOW)), session, NOW_S)  # its flows still count
    assert process.statistics().records == 2 * BUDGET + 1 and dict(process.statistics().skipped) == {"bound": 1}
    process.receive(ipfix(template(256, FLOW)), VICTIM, NOW_S)  # another address is not concerned
    process.receive(ipfix(template(259, FLOW)), session, NOW_S + 1)
    assert process.statistics().refused == refused
    assert process._store.get(1, 7, 259) is not None and process._store.get(VICTIM.key, 7, 256) is not None


def test_a_large_table_of_names_at_once_is_within_the_budget() -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(300, ((10, 4), (82, 8)), scope=1)), VICTIM, NOW_S)
    for start in range(0, 6_000, 40):
        process.receive(ipfix(set_of(300, b"".join(struct.pack(">I8s", number, b"if")
                                                   for number in range(start, start + 40)))), VICTIM, NOW_S)
    assert len(process.points.names) == 6_000 and not process.statistics().dropped_options


@pytest.mark.usefixtures("scarce")
def test_names_and_agents_beyond_the_budget_are_counted() -> None:
    process = CollectingProcess()
    options = template(300, ((10, 4), (82, 8)), scope=1)
    process.receive(ipfix(options), VICTIM, NOW_S)
    for number in range(BUDGET + 5):
        process.receive(ipfix(set_of(300, struct.pack(">I8s", number, b"if"))), VICTIM, NOW_S)
    assert process.statistics().dropped_options >= 5
    proxy = Session(2, "192.0.2.9", True)
    for number in range(BUDGET + 5):
        process.receive(hostile._sflow(number, number), proxy, NOW_S)
    assert process.statistics().counter_samples == 0 and dict(process.statistics().refused)["bound"] >= 5
    before = process.statistics().records
    process.receive(hostile._sflow(1, 9_999), proxy, NOW_S)  # a known agent goes on
    assert process.statistics().records == before + 1


def test_strangers_share_a_budget_and_known_exporters_do_not() -> None:
    budgets = Budgets()
    for number in range(NEWS.strangers_burst):
        assert not budgets.is_spent(f"10.0.{number}", stranger=True, now_s=0.0)
        budgets.spend(f"10.0.{number}", stranger=True, now_s=0.0)
    assert budgets.is_spent("10.9.9.9", stranger=True, now_s=0.0)
    assert not budgets.is_spent("10.9.9.9", stranger=False, now_s=0.0)
    assert not budgets.is_spent("10.9.9.9", stranger=True, now_s=1.0)


@pytest.mark.usefixtures("scarce")
def test_files_have_no_budget() -> None:
    process = CollectingProcess(correct_clocks=False)
    for number in range(2 * BUDGET):
        process.receive(ipfix(template(256, (*FLOW, (210, 1 + number % 2)))), VICTIM, NOW_S)
    assert not process.statistics().refused and not process.statistics().skipped


VALUES = template(400, tuple((1_000 + number % 7, 65_535) for number in range(300)))
DENSE = {
    "empty values": (VALUES, ipfix(set_of(400, bytes(1_400)))),
    "sets": (b"", ipfix(*(set_of(256, b"") for _ in range(340)))),
    "sets without Template": (b"", ipfix(*(set_of(999, b"x") for _ in range(270)))),
    "short records": (template(401, ((4, 1),)), ipfix(set_of(401, bytes(1_400)))),
    "short options": (template(402, ((302, 1), (34, 1)), scope=1), ipfix(set_of(402, b"\1\5" * 690))),
    "one-field Templates": (b"", ipfix(*(template(500 + number, ((8, 4),)) for number in range(110)))),
    "messages": (b"", ipfix() * 80),
    "a length that leads nowhere": (b"", ipfix(set_of(256, flow(1)), struct.pack(">HH", 256, 2_000) + bytes(1_300))),
}
"""What announces it, and an Ethernet frame of much work."""


@pytest.mark.parametrize("kind", DENSE)
def test_messages_of_much_work_have_a_budget(kind: str) -> None:
    process, session = CollectingProcess(), Session(1, "192.0.2.66", True)
    announced, dense = DENSE[kind]
    process.receive(ipfix(template(256, FLOW), *([announced] if announced else [])), session, NOW_S)
    taken = sum(process.receive(dense, session, NOW_S) for _ in range(2_000))
    assert 5 < taken < 1_000, "an Ethernet frame or some of them may be so, but not all"
    assert dict(process.statistics().refused) == {"bound": 2_000 - taken}
    records = process.statistics().records
    for number in range(50):  # what is no more work than its length is still taken, and others are not concerned
        assert process.receive(ipfix(set_of(256, flow(number))), session, NOW_S)
    assert process.statistics().records == records + 50
    assert process.receive(ipfix(template(256, FLOW), *([announced] if announced else [])), VICTIM, NOW_S)
    assert process.receive(dense, VICTIM, NOW_S)
    assert process.receive(dense, session, NOW_S + 5), "later, it may again"


def test_what_exporters_send_is_no_more_work_than_its_length() -> None:
    """Datagrams of an Ethernet's size: full of flows of 25 octets and more, of long strings, of a table of names."""
    short = template(256, ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 4), (2, 4), (22, 4)))
    strings = template(257, (*FLOW, *((460 + number, 65_535) for number in range(10)), (96, 65_535)))
    names = template(258, ((10, 4), (82, 16)), scope=1)
    record = flow(1) + b"".join(bytes([length]) + bytes(length) for length in (0, 11, 0, 0, 40, 0, 3, 0, 24, 0, 9))
    sets = (short, set_of(256, bytes(25 * 56)), strings, set_of(257, record * 9), names, set_of(258, bytes(20 * 16)))
    store = TemplateStore()
    messages = [decode_message(ipfix(each), store, session=0, datagram=True) for each in sets]
    assert [message.record_count for message in messages] == [0, 56, 0, 9, 0, 16]
    assert [excess(message, len(ipfix(each))) for message, each in zip(messages, sets, strict=True)] == [0] * 6
    fields = DENSE["empty values"][1]
    decode_message(ipfix(VALUES), store, session=0, datagram=True)
    dense = decode_message(fields, store, session=0, datagram=True, strict=False)
    assert excess(dense, len(fields)) == 8 + 4 * 304 - len(fields) // 4 - 32


def test_new_interfaces_have_a_budget_of_time() -> None:
    process = CollectingProcess()
    process.receive(ipfix(template(256, FLOW)), VICTIM, NOW_S)

    def numbered(first: int, number: int, later_s: float) -> int:
        for start in range(first, first + number, 20):
            process.receive(ipfix(set_of(256, b"".join(flow(each, interface=each) for each in range(
                start, start + 20)))), VICTIM, NOW_S + later_s)
        keys, _, _ = process.drain()
        return int(np.count_nonzero(keys["ifindex"] != OTHERS))

    assert numbered(1, 5_000, 0) == MAX_NEW
    assert numbered(10_001, 5_000, 1) == NEW_A_SECOND
    assert numbered(20_001, 5_000, 3) == 2 * NEW_A_SECOND
    assert numbered(1, 4_000, 3) == 4_000, "old ones are free"
    assert numbered(30_001, 5_000, 60) == MAX_NEW
    assert process.statistics().evicted_state == 4 * 5_000 - 2 * MAX_NEW - 3 * NEW_A_SECOND
