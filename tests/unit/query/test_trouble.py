"""Rules of trouble over a real flow table: what each finds is counted from the packets that the test made."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from flowtop.fields.networks import networked
from flowtop.filters.filter import compile_filter
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.flows import with_columns
from flowtop.model.kinds import Direction
from flowtop.networks.here import HostAddresses
from flowtop.query.answer import Answerer
from flowtop.query.query import Query
from flowtop.query.trouble import DEFAULTS, HOLD_S, RULES, Trouble, TroubleWatch, thresholds
from flowtop.query.views import VIEWS
from tests.unit.factories import ACK, RST, SECOND, START_NS, SYN, batch, counters, key

HERE, PEER = "198.51.100.10", "203.0.113.66"
Entry = tuple[npt.NDArray[np.void], npt.NDArray[np.void]]


class Scene:
    """A table, second by second."""

    def __init__(self, **limits: float) -> None:
        self.table = FlowTable(TableConfig(idle_timeout_s=300, linger_s=300))
        self.watch = TroubleWatch({**dict.fromkeys(DEFAULTS, 0.0), **limits})
        self.here = HostAddresses(lambda: ([ipaddress.ip_address(HERE).packed], ()))
        self.second = 0

    @property
    def now_ns(self) -> int:
        return START_NS + self.second * SECOND

    def tick(self, entries: Sequence[Entry] = (), seconds: int = 1) -> tuple[Trouble, ...]:
        self.second += seconds
        merged = {one.tobytes(): (one, other) for one, other in entries}
        self.table.update(batch(list(merged.values()), self.now_ns))
        columns = networked(self.table.columns, None, self.here)
        return self.watch.tick(with_columns(self.table, columns, self.table.visible))

    def syn(self, source: str, destination: str, ports: tuple[int, int], bits: int = SYN) -> Entry:
        return key(source, destination, *ports), counters(1, 60, self.now_ns, tcp_bits=bits, opening=True)

    def talk(self, source: str, destination: str, ports: tuple[int, int], packets: int = 10, size: int = 1000,
             ) -> Entry:
        return key(source, destination, *ports), counters(packets, packets * size, self.now_ns, tcp_bits=ACK)

    def sent(self, packets: int, retransmitted: int) -> Entry:
        """What a socket of this host sends, and what it has sent again so far."""
        return (key(HERE, PEER, 443, 40_000, direction=Direction.EGRESS),
                counters(packets, packets * 1_400, self.now_ns, tcp_bits=ACK, congestion_window=10,
                         retransmitted=retransmitted))

    def listed(self, trouble: Trouble) -> int:
        """Flows that the jump lists."""
        query = Query(limit=None, filter=compile_filter(trouble.filter))
        return Answerer().answer(query, self.table).matched_flows


def test_a_scan_of_ports_is_named_by_its_source() -> None:
    scene = Scene(scan=100)
    quiet = [scene.talk(f"192.0.2.{n}", HERE, (40_000, 443)) for n in range(150)]
    assert scene.tick(quiet) == ()
    probes = [scene.syn(PEER, HERE, (55_555, port)) for port in range(1, 100)]
    assert scene.tick(probes) == (), "99 ports are fewer than 100"
    [found] = scene.tick([scene.syn(PEER, HERE, (55_555, port)) for port in range(100, 181)])
    assert found.text == f"scan? {PEER}: 180 ports"
    assert scene.listed(found) == 180


def test_a_scan_of_hosts_too_and_of_ipv6() -> None:
    scene = Scene(scan=100)
    probes = [scene.syn("2001:db8::66", f"2001:db8:1::{n:x}", (50_000, 22), SYN | (RST if n % 2 else 0))
              for n in range(130)]
    [found] = scene.tick(probes)
    assert found.text == "scan? 2001:db8::66: 130 hosts"


def test_a_client_that_retries_one_port_scans_nothing() -> None:
    scene = Scene(scan=100)
    assert scene.tick([scene.syn(PEER, HERE, (port, 443)) for port in range(40_000, 40_500)]) == ()


def test_a_flood_is_of_many_sources_to_one_port() -> None:
    scene = Scene(scan=100, flood=1_000)
    flood = [scene.syn(f"10.{n // 250}.{n % 250}.1", HERE, (1024 + n, 443)) for n in range(1_200)]
    [found] = scene.tick(flood)
    assert (found.rule, found.text) == ("flood", f"SYN flood? {HERE}: 1,200 half-open to port 443")
    assert scene.listed(found) == 1_200


def test_answered_connections_are_no_flood() -> None:
    scene = Scene(scan=100, flood=1_000)
    assert scene.tick([scene.syn(f"10.{n // 250}.{n % 250}.1", HERE, (1024 + n, 443), SYN | ACK)
                       for n in range(1_200)]) == ()


def test_a_port_that_often_does_not_answer() -> None:
    scene = Scene(unanswered=10)
    served = [scene.syn(f"10.0.0.{n}", HERE, (40_000, 5432), SYN | ACK) for n in range(1, 41)]
    refused = [scene.syn(f"10.0.1.{n}", HERE, (40_000, 5432)) for n in range(1, 11)]
    others = [scene.syn(f"10.0.2.{n}", HERE, (40_000, 80), SYN | ACK) for n in range(1, 60)]
    assert scene.tick([*served, *refused, *others]) == (), "they may yet be answered"
    [found] = scene.tick(seconds=4)
    assert found.text == "port 5432 unanswered: 20 % of 50"
    assert scene.listed(found) == 10


def test_retransmits_are_of_what_was_seen_and_of_flows_with_data() -> None:
    scene = Scene(retransmits=5)

    def second(resent: int) -> tuple[Trouble, ...]:
        return scene.tick([
            scene.sent(100, 1_000 + resent),
            scene.talk(PEER, HERE, (40_000, 443), 100, 52)])

    assert second(0) == second(0) == (), "what a socket did before is not counted"
    assert second(4) == (), "few, and not enough"
    [found] = second(64)
    # Two seconds of data after the first were compared, and one without: 64 of 300.
    assert found.text == "retransmits 21 %: 64 of 300 segments in 10 s"
    assert found.sort == "retransmits" and scene.listed(found) == 1


def test_a_new_talker_is_a_host_that_was_quiet() -> None:
    scene = Scene(talker=1_250_000)
    steady, new = "203.0.113.1", "203.0.113.200"
    for _ in range(40):
        assert scene.tick([scene.talk(HERE, steady, (443, 40_000), 2_000)]) == (), "it talks all the time"
    for _ in range(20):
        found = scene.tick([scene.talk(HERE, steady, (443, 40_000), 2_000),
                            *(scene.talk(HERE, new, (873, port), 1_000) for port in (1, 2))])
    [talker] = found
    assert talker.subject == f"new talker {new}"
    assert talker.figure == "+16.0 Mb/s", "2 x 1000 packets of 1000 octets a second"
    assert scene.listed(talker) == 2


def test_new_flows_of_a_host_that_talked_before_are_no_new_talker() -> None:
    scene = Scene(talker=1_250_000)
    for second in range(60):
        assert scene.tick([scene.talk(HERE, PEER, (443, 40_000 + second), 2_000)]) == ()


def test_what_was_found_stays_for_a_while_in_the_order_of_the_rules() -> None:
    scene = Scene(scan=100, retransmits=5)
    for resent in (0, 0, 90):
        found = scene.tick([scene.sent(200, resent)])
    assert [trouble.rule for trouble in found] == ["retransmits"]
    found = scene.tick([scene.syn(PEER, HERE, (55_555, port)) for port in range(1, 200)])
    assert [trouble.rule for trouble in found] == ["scan", "retransmits"]
    assert [trouble.within_s for trouble in found] == [0, 0]
    found = scene.tick(seconds=int(HOLD_S) - 2)
    assert [(trouble.rule, trouble.within_s) for trouble in found] == [("scan", 0), ("retransmits", 30)]
    assert found[0].text.endswith("199 ports") and found[1].text.endswith(" in 10 s, < 30 s ago")
    assert (found[0].short, found[1].short) == (found[0].subject, f"{found[1].subject} (over)")
    assert [trouble.rule for trouble in scene.tick(seconds=12)] == ["scan"], "its flows are still there"


def test_a_rule_at_0_is_off() -> None:
    scene = Scene(scan=0)
    assert scene.tick([scene.syn(PEER, HERE, (55_555, port)) for port in range(1, 3_000)]) == ()


def test_thresholds_of_the_settings() -> None:
    assert thresholds({}) == DEFAULTS
    found = thresholds({"scan": 20, "talker": "8Mbit", "flood": "2k"})
    assert (found["scan"], found["talker"], found["flood"], found["unanswered"]) == (20, 1_000_000, 2_000, 10)
    for name, value in (("scans", 3), ("scan", "many")):
        with pytest.raises(ValueError, match=name):
            thresholds({name: value})


def test_rules_name_views_and_examples_that_there_are() -> None:
    assert {rule.read(rule.example.strip('"')) for rule in RULES} >= {rule.threshold for rule in RULES}
    assert "flows" in {view.id for view in VIEWS}


def test_an_empty_table_has_no_trouble() -> None:
    assert Scene(**DEFAULTS).tick() == ()
