"""Counters by their meaning: totals, counters of what went out, of other layers, a firewall's events.

Expected values are sums of what the generated traffic was, made by plain Python.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from typing import Any

import pytest

from flowtop.capture.collector import totals as module
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.model.exporters import CollectingStatistics, collecting_record, facts, faults
from tests.unit.capture.collector.exports import NOW_S, ipfix, set_of, template

NOW_MS = int(NOW_S) * 1000
START_MS = NOW_MS - 60_000
UDP = Session("udp", "192.0.2.1", True)
REVERSE = 29305
KEY = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1)]
Field = tuple[int, int] | tuple[int, int, int]

WIDTHS = {1: 8, 2: 8, 23: 8, 24: 8, 85: 8, 86: 8, 171: 8, 172: 8, 152: 8, 153: 8, 148: 8, 231: 8, 232: 8, 298: 4,
          299: 4, 401: 8, 402: 8, 352: 8, 353: 8, 417: 8, 420: 8, 430: 8, 431: 8, 19: 4, 20: 4, 233: 1, 40005: 1,
          230: 1, 323: 8, 61: 1, 10: 4, 136: 1, 34: 4, 150: 4, 22: 4, 21: 4}


def key(port: int) -> bytes:
    return struct.pack(">4s4sHHB", b"\x0a\0\0\1", b"\x0a\0\0\2", port, 443, 6)


def record(port: int, fields: Sequence[Field], values: Sequence[int]) -> bytes:
    """A key, and integers of the fields' lengths."""
    return key(port) + b"".join(value.to_bytes(field[1], "big") for field, value in zip(fields, values, strict=True))


def fields_of(*elements: int) -> list[Field]:
    return [(element, WIDTHS[element]) for element in elements]


class Exports:
    """A Collecting Process that is sent records, and what it found."""

    def __init__(self, *templates: Sequence[Field], domain: int = 7, process: CollectingProcess | None = None) -> None:
        self.process = process or CollectingProcess()
        self.domain = domain
        self.templates = templates
        self.found: dict[tuple[int, int], tuple[int, int]] = {}
        self.netflow9 = any(field[0] > 32767 for fields in templates for field in fields)
        for number, fields in enumerate(templates, 256):
            body = b"".join(struct.pack(">HH", *field[:2]) for field in (*KEY, *fields))
            self._send(set_of(2, struct.pack(">HH", number, len(KEY) + len(fields)) + body) if self.netflow9
                       else template(number, [*KEY, *fields]))

    def _send(self, one: bytes) -> None:
        """Send one Set; in NetFlow 9 if there are elements whose number has no room in IPFIX."""
        message = ipfix(one, domain=self.domain)
        if self.netflow9:
            one = (b"\0\0" if one[:2] == b"\0\2" else one[:2]) + one[2:]
            message = struct.pack(">HHIIII", 9, 1, 3_600_000, int(NOW_S), 0, self.domain) + one
        assert self.process.receive(message, UDP, NOW_S)

    def send(self, port: int, *values: int, template: int = 0) -> None:
        self._send(set_of(256 + template, record(port, self.templates[template], values)))

    def drain(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Octets and packets so far by ports."""
        keys, counters, _ = self.process.drain()
        for flow, counter in zip(keys, counters, strict=True):
            ports = int(flow["source_port"]), int(flow["destination_port"])
            octets, packets = self.found.get(ports, (0, 0))
            self.found[ports] = octets + int(counter["octets"]), packets + int(counter["packets"])
        return self.found

    @property
    def counted(self) -> dict[str, Any]:
        statistics = self.process.statistics()
        return {name: value for name in ("events", "unusable_records", "transport_records", "layer2_records",
                                         "unchanged_totals", "forgotten_totals")
                if (value := getattr(statistics, name))}


TOTALS = [fields_of(85, 86, 152, 153), fields_of(171, 172, 152, 153), fields_of(85, 86, 148), fields_of(85, 86),
          fields_of(353, 431, 152, 153), fields_of(420, 86, 150, 153)]


@pytest.mark.parametrize("fields", TOTALS)
@pytest.mark.parametrize("seed", range(5))
def test_totals_replace(fields: Sequence[Field], seed: int) -> None:
    """Any number of flows and reports, drained at any moment; a report may come twice."""
    rng = random.Random(seed)
    exports = Exports(fields)
    true = dict.fromkeys(range(1000, 1000 + rng.randrange(1, 6)), (0, 0))
    for step in range(60):
        port = rng.choice(list(true))
        octets, packets = rng.randrange(0, 1500), rng.randrange(0, 3)
        true[port] = true[port][0] + octets, true[port][1] + packets
        for _ in range(1 + (rng.random() < 0.2)):
            values = {85: true[port][0], 171: true[port][0], 353: true[port][0], 420: true[port][0],
                      86: true[port][1], 172: true[port][1], 431: true[port][1], 152: START_MS, 150: START_MS // 1000,
                      153: START_MS + step, 148: port}
            exports.send(port, *(values[field[0]] for field in fields))
        if rng.random() < 0.3:
            exports.drain()
    assert exports.drain() == {(port, 443): traffic for port, traffic in true.items() if traffic != (0, 0)}


@pytest.mark.parametrize("drains", [False, True])
@pytest.mark.parametrize(("fields", "reports", "expected"), [
    # a flow of another start, and of another flowId, is another flow
    (fields_of(85, 86, 152), [(100, 1, START_MS), (300, 3, START_MS), (400, 4, START_MS + 9)], (700, 7)),
    (fields_of(85, 86, 148), [(100, 1, 1), (300, 3, 1), (400, 4, 2), (500, 5, 1)], (900, 9)),
    # a lower total is of a flow that began anew
    (fields_of(85, 86, 153), [(100, 1, START_MS), (300, 3, START_MS + 1), (50, 1, START_MS + 2), (70, 2, START_MS + 3)],
     (370, 5)),
    (fields_of(85, 86), [(300, 3), (50, 1), (50, 1)], (350, 4)),
    # unless it was overtaken
    (fields_of(85, 86, 153), [(100, 1, START_MS), (300, 3, START_MS + 2), (200, 2, START_MS + 1),
                              (400, 4, START_MS + 3)], (400, 4)),
    # the flow ended (flowEndReason 3), so that what follows is another one, even if it is larger
    (fields_of(85, 86, 136, 153), [(100, 1, 2, START_MS), (200, 2, 3, START_MS + 1), (500, 5, 2, START_MS + 2)],
     (700, 7)),
    # octets only; packets only
    (fields_of(85,), [(100,), (300,), (300,)], (300, 0)), (fields_of(86,), [(3,), (5,)], (0, 5)),
    # deltas win; where they are 0, totals count
    (fields_of(1, 2, 85, 86), [(100, 1, 5000, 50), (30, 1, 5030, 51), (0, 0, 5030, 51)], (130, 2)),
    (fields_of(1, 2, 85, 86), [(0, 0, 500, 5), (0, 0, 700, 7)], (700, 7)),
    # a counter of 32 bits has wrapped: 2**32 - 296 to 500 is 796 more, as the other counter has grown
    (fields_of(85, 86, 153), [((1 << 32) - 296, 100, START_MS), (500, 110, START_MS + 1), (700, 111, START_MS + 2)],
     ((1 << 32) + 700, 111)),
    (fields_of(85, 86), [((1 << 32) - 296, 100), (500, 110)], ((1 << 32) + 500, 110)),
    (fields_of(86, 85), [((1 << 32) - 1, 100), (3, 2_000)], (2_000, (1 << 32) + 3)),
    # or as the start is the same, though its report has octets alone
    (fields_of(85, 152), [((1 << 32) - 296, START_MS), (500, START_MS)], ((1 << 32) + 500, 0)),
    # but not a new flow, whose counters are both lower, or that has no start, or one of 64 bits, or one that ended
    (fields_of(85, 86), [((1 << 32) - 296, 100), (500, 5)], ((1 << 32) + 204, 105)),
    (fields_of(85,), [((1 << 32) - 296,), (500,)], ((1 << 32) + 204, 0)),
    (fields_of(85, 86, 152), [(9 << 32, 100, START_MS), (500, 110, START_MS)], ((9 << 32) + 500, 210)),
    (fields_of(85, 86, 136, 153), [((1 << 32) - 296, 100, 3, START_MS), (500, 110, 2, START_MS + 1)],
     ((1 << 32) + 204, 210)),
    # nor an older report that came late
    (fields_of(85, 152, 153), [((1 << 32) - 1, START_MS, START_MS + 2), (5, START_MS, START_MS + 1)],
     ((1 << 32) - 1, 0)),
    # the time of the system is what counts from its start
    (fields_of(85, 86, 22), [(100, 1, 5000), (300, 3, 5000), (400, 4, 9000)], (700, 7)),
])
def test_what_is_another_flow(fields: Sequence[Field], reports: Sequence[Sequence[int]], expected: tuple[int, int],
                              drains: bool) -> None:
    exports = Exports(fields)
    for report in reports:
        exports.send(1000, *report)
        if drains:
            exports.drain()
    assert exports.drain() == {(1000, 443): expected}


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_totals_of_32_bits_wrap(started: bool, seed: int) -> None:
    rng = random.Random(seed)
    fields: list[Field] = [(85, 4), (86, 4), *([(152, 8)] if started else [])]
    exports = Exports(fields)
    octets = packets = 0
    for _ in range(40):
        octets, packets = octets + rng.randrange(1, 1 << 31), packets + rng.randrange(1, 1 << 20)
        exports.send(1000, octets % (1 << 32), packets, *([START_MS] if started else []))
        if rng.random() < 0.5:
            exports.drain()
    assert octets > 1 << 32 and exports.drain() == {(1000, 443): (octets, packets)}


@pytest.mark.parametrize("drains", [False, True])
def test_deltas_of_0_are_deltas_where_others_are_not(drains: bool) -> None:
    """Barracuda: a flow's last record has the total, and a delta of 0 if all was reported before."""
    exports = Exports(fields_of(1, 2, 85, 86))
    for port, values in ((1, (65, 1, 65, 1)), (2, (0, 0, 81, 1)), (1, (0, 0, 65, 1)), (3, (40, 1, 900, 9))):
        exports.send(port, *values)
        if drains:
            exports.drain()
    assert exports.drain() == {(1, 443): (65, 1), (3, 443): (40, 1)}
    assert exports.counted == {"unchanged_totals": 2}


def test_an_exporter_whose_clock_was_set_back_by_an_hour_is_counted_on() -> None:
    exports = Exports(fields_of(85, 86, 153))
    for octets, packets, end_ms in ((100, 1, START_MS), (300, 3, START_MS - 3_600_000), (400, 4, START_MS - 3_599_000)):
        exports.send(1000, octets, packets, end_ms)
        exports.drain()
    assert exports.found == {(1000, 443): (400, 4)}


def test_totals_of_both_directions_and_of_each_exporter_are_kept_apart() -> None:
    fields: list[Field] = [(85, 8), (86, 8), (85, 8, REVERSE), (86, 8, REVERSE)]
    exports = Exports(fields)
    other = Exports(fields, domain=8, process=exports.process)
    for step in (1, 2, 3):
        exports.send(1000, 100 * step, step, 1000 * step, 10 * step)
        other.send(1000, 5 * step, step, 0, 0)
    assert exports.drain() == {(1000, 443): (315, 6), (443, 1000): (3000, 30)}


def test_sampled_totals_are_multiplied_once() -> None:
    exports = Exports(fields_of(85, 86, 34))
    for octets, packets in ((100, 1), (300, 3), (300, 3), (700, 7)):
        exports.send(1000, octets, packets, 10)
    assert exports.drain() == {(1000, 443): (7000, 70)}
    assert exports.process.statistics().sampled_packets == 7


def test_what_is_known_of_flows_is_bounded_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FLOWS", 3)
    exports = Exports(fields_of(85, 86, 136))
    exports.send(1, 10, 1, 3)  # ended: forgotten first, and not counted
    for port in (2, 3, 4, 5):
        exports.drain()
        exports.send(port, 100, 1, 2)
    assert sum(octets for octets, _ in exports.drain().values()) == 410
    assert exports.counted == {"forgotten_totals": 1}
    assert ("totals forgotten", 1) in faults(exports.process.statistics())
    exports.send(5, 150, 2, 2)
    exports.send(2, 130, 2, 2)
    assert exports.drain()[5, 443] == (150, 2) and exports.found[2, 443] == (230, 3)


@pytest.mark.parametrize(("fields", "values", "expected", "marked"), [
    (fields_of(1, 2, 23, 24), (0, 0, 1000, 10), (1000, 10), {}),
    (fields_of(1, 2, 23, 24), (700, 7, 1000, 10), (700, 7), {}),
    (fields_of(23, 24), (1000, 10), (1000, 10), {}),
    (fields_of(1, 24), (500, 5), (500, 5), {}),
    (fields_of(1, 2, 19, 20), (500, 5, 50, 5000), (500, 5), {}),
    (fields_of(19, 20), (50, 5000), None, {"unusable_records": 1}),
    (fields_of(352, 2), (900, 9), (900, 9), {"layer2_records": 1}),
    (fields_of(352, 430), (900, 9), (900, 9), {"layer2_records": 1}),
    (fields_of(417, 2), (900, 9), (900, 9), {"layer2_records": 1}),
    (fields_of(1, 2, 352), (800, 9, 900), (800, 9), {}),
    (fields_of(1, 2, 352), (0, 0, 900), (900, 0), {"layer2_records": 1}),
    (fields_of(353, 431), (900, 9), (900, 9), {"layer2_records": 1}),
    (fields_of(85, 86, 353), (800, 9, 900), (800, 9), {}),
    (fields_of(401, 402), (700, 9), (700, 9), {"transport_records": 1}),
    (fields_of(401, 402, 352), (700, 9, 900), (700, 9), {"transport_records": 1}),
    (fields_of(1, 2, 401, 402), (800, 9, 700, 9), (800, 9), {}),
    (fields_of(231, 298), (700, 9), (700, 9), {}),
    (fields_of(1, 2), (0, 0), None, {"unusable_records": 1}),
])
def test_which_counters_are_taken(fields: Sequence[Field], values: Sequence[int], expected: tuple[int, int] | None,
                                  marked: dict[str, int]) -> None:
    exports = Exports(fields)
    exports.send(1000, *values)
    assert exports.drain() == ({(1000, 443): expected} if expected else {}) and exports.counted == marked


def test_in_or_out_is_decided_for_each_record() -> None:
    exports = Exports(fields_of(1, 2, 23, 24))
    for port, values in enumerate([(0, 0, 10, 1), (20, 2, 0, 0), (30, 3, 40, 4), (0, 0, 0, 0), (0, 0, 50, 5)]):
        exports.send(port, *values)
    assert exports.drain() == {(0, 443): (10, 1), (1, 443): (20, 2), (2, 443): (30, 3), (4, 443): (50, 5)}
    assert exports.counted == {"unusable_records": 1}


CREATED, DELETED, DENIED, ALERT, UPDATE = 1, 2, 3, 4, 5
NSEL = [fields_of(148, 233, 323, 231, 232, 298, 299, 152), fields_of(148, 40005, 323, 231, 232, 298, 299),
        fields_of(233, 323, 231, 232, 298, 299, 152)]


@pytest.mark.parametrize("fields", NSEL)
@pytest.mark.parametrize("seed", range(5))
def test_a_connection_counts_once(fields: Sequence[Field], seed: int) -> None:
    """Updates have what came since the one before, the deletion the sum: in any order within a drain, and some lost."""
    rng = random.Random(seed)
    exports = Exports(fields, fields)  # an ASA has a Template for each event
    true: dict[tuple[int, int], tuple[int, int]] = {}
    created = 0
    for port in range(1000, 1012):
        sums, events = [0, 0, 0, 0], []
        for at in range(rng.randrange(4)):
            part = [rng.randrange(5000), rng.randrange(5000), rng.randrange(9), rng.randrange(9)]
            sums = [total + new for total, new in zip(sums, part, strict=True)]
            if rng.random() < 0.8:  # not lost
                events.append((UPDATE, at, part))
        if not any(sums):
            sums = [1, 1, 1, 1]
        events.append((DELETED, 100, sums))
        events.append((CREATED, 0, [0, 0, 0, 0]))
        created += 1
        true[port, 443], true[443, port] = (sums[0], sums[2]), (sums[1], sums[3])
        rng.shuffle(events)
        for event, at, part in events:
            values = dict(zip((231, 232, 298, 299), part, strict=True)) | {
                148: port, 233: event, 40005: event, 323: START_MS + at, 152: START_MS}
            exports.send(port, *(values[field[0]] for field in fields), template=int(event == DELETED))
            if rng.random() < 0.2:
                exports.drain()
    assert exports.drain() == {ports: traffic for ports, traffic in true.items() if traffic != (0, 0)}
    assert dict(exports.counted["events"])["created"] == created


def test_a_firewall_reuses_the_key_of_a_connection() -> None:
    exports = Exports(fields_of(233, 323, 231))
    for event, at, octets in ((UPDATE, 1, 100), (DELETED, 2, 250), (CREATED, 3, 0), (UPDATE, 4, 40), (DELETED, 5, 70),
                              (DELETED, 5, 70)):
        exports.send(1000, event, START_MS + at, octets)
    assert exports.drain() == {(1000, 443): (320, 0)}
    for event, at, octets in ((UPDATE, 6, 1000), (UPDATE, 4, 40), (DELETED, 8, 1000)):
        exports.send(1000, event, START_MS + at, octets)
    assert exports.drain() == {(1000, 443): (1320, 0)}


def test_the_connection_of_an_asa_with_updates_and_a_teardown() -> None:
    exports = Exports(fields_of(148, 233, 323, 231, 232, 298, 299, 152))
    for event, at, counts in ((CREATED, 0, (0, 0, 0, 0)), (UPDATE, 60_000, (2500, 1100, 10, 9)),
                              (UPDATE, 120_000, (300, 5000, 4, 6)), (UPDATE, 130_000, (200, 900, 2, 2)),
                              (DELETED, 130_000, (3000, 7000, 16, 17))):
        exports.send(55182, 4711, event, START_MS + at, *counts, START_MS)
    assert exports.drain() == {(55182, 443): (3000, 16), (443, 55182): (7000, 17)}


def test_a_connection_that_has_not_ended_counts_its_updates() -> None:
    exports = Exports(fields_of(148, 233, 323, 231, 232))
    for at, octets in enumerate((100, 20, 3)):
        exports.send(1000, 9, UPDATE, START_MS + at, octets, 10 * octets)
        exports.drain()
    assert exports.found == {(1000, 443): (123, 0), (443, 1000): (1230, 0)}


def test_a_connection_with_both_kinds_of_counters_counts_once() -> None:
    exports = Exports(fields_of(148, 233, 323, 231, 232, 85))
    for event, at, values in ((UPDATE, 1, (10, 20, 30)), (DELETED, 2, (100, 200, 300))):
        exports.send(1000, 9, event, START_MS + at, *values)
        exports.drain()
    assert exports.found == {(1000, 443): (100, 0), (443, 1000): (200, 0)}


def test_events_with_unidirectional_deltas_are_deltas() -> None:
    """Palo Alto Networks: firewallEvent with IE 1 and 2, which are of the interval in every record."""
    exports = Exports(fields_of(148, 233, 1, 2))
    for event, octets in ((CREATED, 0), (UPDATE, 100), (UPDATE, 30), (DELETED, 7)):
        exports.send(1000, 9, event, octets, octets and 1)
    assert exports.drain() == {(1000, 443): (137, 3)}
    assert exports.counted == {"events": (("created", 1),)}


@pytest.mark.parametrize(("fields", "values", "event", "shown"), [
    (fields_of(233, 323), (DENIED, START_MS), "denied", True),
    (fields_of(233, 231, 232), (DENIED, 0, 0), "denied", True),
    (fields_of(40005, 85), (DENIED, 0), "denied", True),
    (fields_of(233, 231), (CREATED, 0), "created", False),
    (fields_of(233, 231), (DELETED, 0), "deleted", False),
    (fields_of(233,), (ALERT,), "alert", False),
    (fields_of(233,), (77,), "firewall event 77", False),
    (fields_of(230,), (4,), "nat44 session create", False),
    (fields_of(230, 1), (5, 0), "nat44 session delete", False),
    (fields_of(230,), (16,), "port block allocation", False),
    (fields_of(230,), (12,), "ports exhausted", False),
    (fields_of(230,), (200,), "NAT event 200", False),
])
def test_events_without_traffic_are_counted_by_kind_and_what_was_denied_is_shown(
    fields: Sequence[Field], values: Sequence[int], event: str, shown: bool,
) -> None:
    exports = Exports(fields)
    exports.send(1000, *values)
    exports.send(1001, *values)
    assert exports.drain() == ({(1000, 443): (0, 0), (1001, 443): (0, 0)} if shown else {})
    assert exports.counted == {"events": ((event, 2),)}
    statistics = exports.process.statistics()
    assert (f"events ({event})", "2") in facts(statistics)
    assert collecting_record(statistics)["events"] == {event: 2}


def test_what_is_counted_instead_of_ip_octets_is_a_fact() -> None:
    shown = facts(CollectingStatistics(layer2_records=1200, transport_records=3, unchanged_totals=4))
    assert {("octets of layer 2", "1,200"), ("octets of transport", "3"), ("totals unchanged", "4")} <= set(shown)
