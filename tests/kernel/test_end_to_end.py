"""From the wire to the flow table and to the exported Flow Records: each packet once, and none missing."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flowtop.capture.ebpf.capture import EbpfCapture, EbpfConfig
from flowtop.errors import FlowtopError
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import Direction, EndReason
from flowtop.model.record import FlowBatch, FlowRecords
from flowtop.pipeline.drive import PipelineConfig
from flowtop.pipeline.pipeline import Pipeline
from flowtop.query.query import Page
from tests.kernel.netns import PATIENCE_S, Books, Lab, Namespace, Recorder, scaled


@dataclass
class MeteredBooks(Books):
    """Books that feed a flow table too."""

    table: FlowTable = field(default_factory=lambda: FlowTable(TableConfig(dedupe="mark")))

    def add(self, batch: FlowBatch) -> None:
        super().add(batch)
        self.table.update(batch)


def join(left: Namespace, router: Namespace, right: Namespace) -> None:
    """left 10.82.1.1 - 10.82.1.2 west, router, east 10.82.2.2 - 10.82.2.1 right; 198.18.0.0/15 is beyond right."""
    for number, (end, name) in enumerate(((left, "west"), (right, "east")), 1):
        end.ip(f"link add edge type veth peer name {name} netns {router.name}")
        for namespace, interface, host, other in ((end, "edge", 1, 2), (router, name, 2, 1)):
            namespace.ip(f"link set {interface} address 02:00:00:82:0{number}:0{host}")
            namespace.ip(f"addr add 10.82.{number}.{host}/24 dev {interface}")
            namespace.ip(f"link set {interface} up")
            namespace.ip(f"neigh add 10.82.{number}.{other} lladdr 02:00:00:82:0{number}:0{other} dev {interface}")
        end.await_up("edge")
    router.await_up("west", "east")
    router.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    left.ip("route add 198.18.0.0/15 via 10.82.1.2")
    router.ip("route add 198.18.0.0/15 via 10.82.2.1")


@pytest.mark.core
def test_a_forwarded_packet_counts_once_in_the_totals(lab: Lab) -> None:
    left, router, right = lab.namespace(), lab.namespace(), lab.namespace()
    join(left, router, right)
    flows, each = scaled(200), 50
    before = right.link_statistics("edge")["rx"]["packets"]

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(flows * each):
                sender.sendto(bytes(18), ("198.18.0.1", 10_000 + number % flows))

    with Recorder(router, "west", "east", delay_s=0.01) as recorder:
        recorder.books = books = MeteredBooks()
        left.call(send)
    packets = flows * each
    assert right.link_statistics("edge")["rx"]["packets"] - before == packets, "all were forwarded"
    assert books.imbalances == []
    assert books.points["west", Direction.INGRESS].flow_packets == packets
    assert books.points["east", Direction.EGRESS].flow_packets == packets
    totals = books.table.totals
    assert totals.accounted_packets == 2 * packets
    assert totals.accounted_packets - totals.duplicate_packets == packets
    assert totals.accounted_octets - totals.duplicate_octets == packets * (20 + 8 + 18)
    assert totals.observed_packets == totals.accounted_packets + totals.ignored_packets + totals.lost_packets
    assert totals.observed_octets == totals.accounted_octets + totals.ignored_octets + totals.lost_octets


class Consumer:
    """Keeps every Flow Record."""

    def __init__(self) -> None:
        self.records: list[FlowRecords] = []

    def update(self, facts: object) -> None:
        """Not looked at."""

    def consume(self, records: FlowRecords) -> None:
        self.records.append(records.copy())

    def total(self, name: str) -> int:
        return sum(int(records[name].sum()) for records in self.records)


class Watcher:
    """A pipeline's listener."""

    def __init__(self) -> None:
        self.pages: list[Page] = []
        self.errors: list[FlowtopError] = []
        self.attached = threading.Event()

    def on_progress(self, text: str) -> None:
        if text == "waiting for the first packets":
            self.attached.set()

    def on_page(self, page: Page) -> None:
        self.pages.append(page)

    def on_error(self, error: FlowtopError) -> None:
        self.errors.append(error)
        self.attached.set()


@pytest.mark.core
def test_what_was_exported_is_what_was_observed_to_the_last_packet_before_the_end(lab: Lab, udp_flood: Path) -> None:
    near, _ = lab.pair()
    flows, packets, rounds = scaled(5_000), scaled(100_000), 3
    consumer, watcher = Consumer(), Watcher()
    # So few flows fit, and so short is the active timeout, that records of every kind are exported on the way.
    table = TableConfig(active_timeout_s=0.3, max_flows=max(1, flows // 2))
    pipeline = Pipeline(PipelineConfig(delay_s=0.1, table=table), EbpfCapture(EbpfConfig(("veth0",))), [consumer])
    near.call(lambda: pipeline.start(watcher))  # its threads inherit the namespace
    try:
        assert watcher.attached.wait(PATIENCE_S)
        for _ in range(rounds):
            assert int(near.run(str(udp_flood), "198.18.0.1", str(flows), str(packets), "18")) == packets
    finally:
        pipeline.stop()
    assert watcher.errors == []
    assert consumer.total("packet_delta") == rounds * packets
    assert consumer.total("octet_delta") == rounds * packets * (20 + 8 + 18)
    books = watcher.pages[-1].books
    assert watcher.pages[-1].last
    assert books.observed_packets - books.ignored_packets - books.lost_packets == rounds * packets
    assert books.lost_packets == 0
    reasons = {EndReason(int(reason)) for records in consumer.records for reason in records["end_reason"]}
    assert {EndReason.FORCED_END, EndReason.LACK_OF_RESOURCES} <= reasons
