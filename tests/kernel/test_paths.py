"""Conversations that change their path, pings and fragments, from real packets: each packet counts once."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

import pytest

from flowtop.filters.filter import compile_filter
from flowtop.query.answer import Answerer
from flowtop.query.query import Query
from tests.kernel.netns import Lab, Namespace, Recorder
from tests.kernel.test_end_to_end import MeteredBooks

HERE, THERE, PORT = "10.99.0.1", "10.99.0.2", 6000
PATHS = 3
ACCEPTED = compile_filter(f"dst host {THERE} and dst port {PORT}")


def joined(lab: Lab) -> tuple[Namespace, Namespace]:
    """Two hosts with PATHS veth pairs p1 - q1, p2 - q2, ... between them."""
    here, there = lab.namespace(), lab.namespace()
    for number in range(1, PATHS + 1):
        here.ip(f"link add p{number} type veth peer name q{number} netns {there.name}")
        for namespace, name, host in ((here, f"p{number}", 1), (there, f"q{number}", 2)):
            namespace.ip(f"addr add 10.77.{number}.{host}/24 dev {name}")
            namespace.ip(f"link set {name} up")
    for namespace, address in ((here, HERE), (there, THERE)):
        namespace.ip("link set lo up")
        namespace.ip(f"addr add {address}/32 dev lo")
    for number in range(1, PATHS + 1):
        there.ip(f"route add {HERE} via 10.77.{number}.1 metric {number}")
    here.await_up(*(f"p{number}" for number in range(1, PATHS + 1)))
    there.await_up(*(f"q{number}" for number in range(1, PATHS + 1)))
    return here, there


def route(namespace: Namespace, number: int) -> None:
    namespace.ip(f"route replace {THERE} via 10.77.{number}.2 src {HERE}")
    namespace.run("ping", "-c", "1", "-W", "2", f"10.77.{number}.2")  # resolves the neighbour


def totals_of(found: Any) -> tuple[int, int]:
    """Packets of the conversation: of all flows, and of its Flow Records that are no duplicates."""
    rows = Answerer().answer(Query(filter=ACCEPTED, limit=None), found.table).rows
    records = found.table.end_all(found.table.now_ns)
    once = records[(records["destination_port"] == PORT) & (records["protocol"] == 17) & ~records["duplicate"]]
    return sum(row.packet_total for row in rows), int(once["packet_delta"].sum())


@pytest.mark.parametrize("delay_s", [0.05, 0.3])
@pytest.mark.parametrize("plan", [
    [(1, 100)], [(1, 60), (2, 60)], [(2, 100), (1, 20)], [(1, 40), (2, 40), (3, 40)], [(1, 50), (2, 50), (1, 50)],
    [(1, 1), (2, 1), (3, 1)]], ids=str)
def test_a_conversation_that_changes_its_path_loses_nothing(lab: Lab, plan: list[tuple[int, int]],
                                                            delay_s: float) -> None:
    here, _ = joined(lab)

    def send(count: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sender.bind((HERE, 5000))
            for _ in range(count):
                sender.sendto(bytes(72), (THERE, PORT))
                time.sleep(0.012)

    with Recorder(here, *(f"p{number}" for number in range(1, PATHS + 1)), delay_s=delay_s) as recorder:
        recorder.books = books = MeteredBooks()
        for number, count in plan:
            route(here, number)
            here.call(lambda count=count: send(count))
    sent = sum(count for _, count in plan)
    assert totals_of(books) == (sent, sent)


def test_a_ping_has_its_identifier_and_round_trip(lab: Lab) -> None:
    here, _ = joined(lab)
    route(here, 1)
    with Recorder(here, "p1", "p2", "p3", delay_s=0.2) as recorder:
        recorder.books = books = MeteredBooks()
        shown = here.run("ping", "-c", "2", "-i", "0.3", "-e", "4660", "-I", HERE, THERE)
    longest_us = max(float(ms) * 1000 for ms in re.findall(r"time=([0-9.]+) ms", shown))
    rows = Answerer().answer(Query(filter=compile_filter(f"icmp and host {THERE}"), limit=None), books.table).rows
    assert sorted(row.destination_port >> 8 for row in rows) == [0, 8]
    assert {row.more["icmp_id"] for row in rows} == {4660}
    [rtt_us] = {row.rtt_us for row in rows}
    assert 0 < rtt_us <= longest_us + 1000, "as ping measured it, around the same packets"


def test_fragments_of_live_flows_are_counted(lab: Lab) -> None:
    here, _ = joined(lab)
    route(here, 1)

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((HERE, 5000))
            sender.sendto(bytes(72), (THERE, PORT))
            sender.sendto(bytes(4000), (THERE, PORT))  # 4,008 octets in pieces of 1,480

    with Recorder(here, "p1", delay_s=0.2) as recorder:
        recorder.books = books = MeteredBooks()
        here.call(send)
    [row] = Answerer().answer(Query(filter=ACCEPTED, limit=None), books.table).rows
    assert (row.packet_total, row.more["fragments"]) == (4, 3)
