"""The pipeline with a scripted capture: what goes in comes out, whoever stops it and however slow the reader is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flowtop.errors import FlowtopError
from flowtop.export.statistics import MeteringFacts
from flowtop.filters.filter import compile_filter
from flowtop.filters.kernel import Narrowing, split
from flowtop.metering.flows import TableConfig
from flowtop.model.kinds import EndReason
from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, OBSERVATION_DTYPE, FlowBatch, FlowRecords
from flowtop.pipeline.drive import Driving, Handover, PipelineConfig
from flowtop.pipeline.pipeline import Pipeline
from flowtop.query.query import Page, Query

SECOND_NS = 1_000_000_000


class ScriptedCapture:
    """Every drain brings `packets` packets of 100 octets in each of `flows` flows; close brings the same once more."""

    def __init__(self, *, flows: int = 3, packets: int = 5, open_error: FlowtopError | None = None,
                 fail_at: int | None = None) -> None:
        self.flows, self.packets = flows, packets
        self.drains = 0
        self.closed = 0
        self.lifted = threading.Event()
        self._open_error, self._fail_at = open_error, fail_at
        self._wake = threading.Event()

    def open(self, progress: Callable[[str], None]) -> None:
        if self._open_error:
            raise self._open_error
        progress("opening the script")

    def wait(self, timeout_s: float) -> None:
        self._wake.wait(timeout_s)
        self._wake.clear()

    def wake(self) -> None:
        self._wake.set()

    def lift_filter(self, lifted: bool) -> None:
        if lifted:
            self.lifted.set()

    def drain(self) -> FlowBatch:
        if self._fail_at is not None and self.drains >= self._fail_at:
            raise ValueError("the script broke")
        return self._batch()

    def close(self) -> FlowBatch:
        self.closed += 1
        return self._batch()

    def _batch(self) -> FlowBatch:
        self.drains += 1
        keys = np.zeros(self.flows, FLOW_KEY_DTYPE)
        keys["source_port"] = np.arange(self.flows) + 1
        keys["protocol"], keys["ip_version"], keys["ifindex"] = 17, 4, 2
        counters = np.zeros(self.flows, FLOW_COUNTERS_DTYPE)
        counters["packets"], counters["octets"] = self.packets, self.packets * 100
        now = self.drains * SECOND_NS
        counters["first_ns"] = counters["last_ns"] = now
        observations = np.zeros(1, OBSERVATION_DTYPE)
        observations["ifindex"] = 2
        observations["packets"] = observations["frames"] = self.drains * self.flows * self.packets
        observations["octets"] = self.drains * self.flows * self.packets * 100
        return FlowBatch(keys, counters, observations, now, 10 * SECOND_NS, {2: "eth0"}, ("eth0",))


class Watcher:
    """Keeps what a pipeline tells, and lets a test wait for it."""

    def __init__(self) -> None:
        self.pages: list[Page] = []
        self.errors: list[FlowtopError] = []
        self.progress: list[str] = []
        self.told = threading.Condition()

    def on_progress(self, text: str) -> None:
        self.progress.append(text)

    def on_page(self, page: Page) -> None:
        with self.told:
            self.pages.append(page)
            self.told.notify_all()

    def on_error(self, error: FlowtopError) -> None:
        with self.told:
            self.errors.append(error)
            self.told.notify_all()

    def wait_for(self, what: Callable[[], object]) -> None:
        with self.told:
            assert self.told.wait_for(what, timeout=20)


class Recorder:
    """A Flow Record consumer."""

    def __init__(self) -> None:
        self.records: list[FlowRecords] = []
        self.facts: list[MeteringFacts] = []

    def update(self, facts: MeteringFacts) -> None:
        self.facts.append(facts)

    def consume(self, records: FlowRecords) -> None:
        self.records.append(records.copy())

    def total(self, field: str) -> int:
        return int(sum(records[field].sum() for records in self.records))


def test_exported_deltas_equal_what_every_drain_brought_the_last_one_included() -> None:
    capture, recorder, watcher = ScriptedCapture(), Recorder(), Watcher()
    pipeline = Pipeline(PipelineConfig(delay_s=0.01), capture, [recorder])
    pipeline.start(watcher)
    watcher.wait_for(lambda: len(watcher.pages) >= 5)
    pipeline.stop()
    assert recorder.total("packet_delta") == capture.drains * 3 * 5
    assert recorder.total("octet_delta") == capture.drains * 3 * 5 * 100
    assert capture.closed == 1
    assert {int(reason) for records in recorder.records for reason in records["end_reason"]} >= {EndReason.FORCED_END}


def test_the_last_page_comes_after_the_last_drain_and_only_it_says_so() -> None:
    capture, watcher = ScriptedCapture(), Watcher()
    pipeline = Pipeline(PipelineConfig(delay_s=0.01, ticks=4), capture)
    pipeline.start(watcher)
    pipeline.join()
    assert [page.last for page in watcher.pages] == [False, False, False, True]
    last = watcher.pages[-1]
    assert last.books.accounted_packets == last.books.observed_packets == capture.drains * 15
    assert {row.end_reason for row in last.rows} == {EndReason.FORCED_END}
    assert sum(row.packet_total for row in last.rows) == capture.drains * 15


def test_deltas_of_all_rounds_add_up_when_the_reader_is_not_ready() -> None:
    capture, watcher = ScriptedCapture(), Watcher()
    asked = iter([True, False, False, False, True])
    pipeline = Pipeline(PipelineConfig(delay_s=0.01, ticks=3), capture, ready=lambda: next(asked, True))
    pipeline.start(watcher)
    pipeline.join()
    assert len(watcher.pages) == 3
    assert capture.drains >= 6
    assert sum(row.packet_delta for page in watcher.pages for row in page.rows) == capture.drains * 15


def test_a_query_is_answered_without_waiting_for_the_next_tick() -> None:
    capture, watcher = ScriptedCapture(), Watcher()
    pipeline = Pipeline(PipelineConfig(delay_s=3600, first_delay_s=0.01), capture)
    pipeline.start(watcher)
    watcher.wait_for(lambda: watcher.pages)
    pipeline.ask(Query(limit=1))
    watcher.wait_for(lambda: len(watcher.pages) == 2)
    pipeline.stop()
    first, second, last = watcher.pages
    assert (len(first.rows), len(second.rows), len(last.rows)) == (3, 1, 1)
    assert first.tick == second.tick == 1


def test_a_query_asked_before_the_first_tick_is_the_one_answered() -> None:
    watcher = Watcher()
    pipeline = Pipeline(PipelineConfig(delay_s=0.01, ticks=1), ScriptedCapture())
    pipeline.ask(Query(limit=2))
    pipeline.start(watcher)
    pipeline.join()
    assert [len(page.rows) for page in watcher.pages] == [2]


def test_a_capture_that_cannot_open_ends_with_its_error_and_no_page() -> None:
    watcher = Watcher()
    error = FlowtopError("cannot", hint="do")
    pipeline = Pipeline(PipelineConfig(), ScriptedCapture(open_error=error))
    pipeline.start(watcher)
    pipeline.join()
    assert (watcher.errors, watcher.pages, pipeline.failure) == ([error], [], error)


def test_a_drain_that_breaks_is_told_and_the_hooks_still_come_off() -> None:
    capture, watcher = ScriptedCapture(fail_at=2), Watcher()
    pipeline = Pipeline(PipelineConfig(delay_s=0.01), capture)
    pipeline.start(watcher)
    pipeline.join()
    assert capture.closed == 1
    assert "the script broke" in watcher.errors[0].message


def test_a_consumer_that_breaks_is_told_and_the_hooks_still_come_off() -> None:
    class Broken(Recorder):
        def consume(self, records: FlowRecords) -> None:
            raise OSError("disk on fire")

    capture, watcher = ScriptedCapture(), Watcher()
    pipeline = Pipeline(PipelineConfig(delay_s=0.01, ticks=2), capture, [Broken()])
    pipeline.start(watcher)
    pipeline.join()
    assert capture.closed == 1
    assert "disk on fire" in watcher.errors[0].message


def test_consumers_are_told_of_interfaces_and_of_what_is_in_no_record_before_the_records_come() -> None:
    class InOrder(Recorder):
        def consume(self, records: FlowRecords) -> None:
            assert self.facts and self.facts[-1].lookups.interfaces == {2: "eth0"}
            super().consume(records)

    class Ignoring(ScriptedCapture):
        """From the second drain on, 7 ARP frames of 46 octets each; then no more."""

        def _batch(self) -> FlowBatch:
            batch = super()._batch()
            if self.drains >= 2:
                for name, value in (("frames", 7), ("ignored_packets", 7), ("ignored_octets", 7 * 46)):
                    batch.observations[name].reshape(-1)[0] += value
            return batch

    recorder = InOrder()
    pipeline = Pipeline(PipelineConfig(delay_s=0.01, ticks=4), Ignoring(), [recorder])
    pipeline.start(watcher := Watcher())
    pipeline.join()
    assert not watcher.errors and recorder.records
    assert recorder.facts[0].ignored_packets == recorder.facts[0].first_ignored_ms == 0
    last = recorder.facts[-1]
    assert (last.ignored_packets, last.ignored_octets) == (7, 7 * 46)
    assert last.first_ignored_ms == last.last_ignored_ms == 12_000, "second drain, at 2 s, 10 s offset"


def test_asking_for_flows_the_capture_filter_leaves_out_lifts_it_at_once() -> None:
    watcher, capture = Watcher(), ScriptedCapture()
    web = compile_filter("tcp port 443")
    pipeline = Pipeline(PipelineConfig(delay_s=3600, first_delay_s=0.01), capture,
                        narrowing=Narrowing(split(web, observation_points=False)))
    pipeline.ask(Query(filter=web))
    pipeline.start(watcher)
    watcher.wait_for(lambda: watcher.pages)
    assert watcher.pages[0].capture_filter == "tcp port 443"
    assert not capture.lifted.is_set()
    pipeline.ask(Query())
    assert capture.lifted.wait(20)
    watcher.wait_for(lambda: watcher.pages[-1].query == Query())
    pipeline.stop()
    assert not watcher.pages[-1].capture_filter


def test_pages_name_interfaces_time_and_traffic() -> None:
    watcher = Watcher()
    pipeline = Pipeline(PipelineConfig(delay_s=0.01, ticks=2), ScriptedCapture())
    pipeline.start(watcher)
    pipeline.join()
    page = watcher.pages[-1]
    assert page.lookups.interfaces == {2: "eth0"}
    assert page.attached == ("eth0",)
    assert page.unix_ms == 13_000, "third drain, at 3 s on the capture's clock, 10 s offset"
    assert page.ingress.octet_rate == pytest.approx(3 * 5 * 100), "1,500 octets in the second between the drains"
    assert page.egress.octet_rate == 0
    assert page.usage.resident_octets > 1_000_000


@pytest.mark.parametrize(("dedupe", "delay_s", "longest_s"), [
    ("mark", 3600.0, 1.0), ("drop", 60.0, 1.0), ("mark", 0.5, 0.5), ("off", 3600.0, 3600.0), ("off", 1.0, 1.0)])
def test_while_duplicates_are_looked_for_batches_are_short(dedupe: Any, delay_s: float, longest_s: float) -> None:
    """A conversation that leaves an interface and comes back within one batch cannot be told from one that stayed."""
    waits: list[float] = []

    class Waiting(ScriptedCapture):
        def wait(self, timeout_s: float) -> None:
            waits.append(timeout_s)

    handed: list[Handover] = []
    config = PipelineConfig(delay_s=delay_s, table=TableConfig(dedupe=dedupe))
    driving = Driving(config, Waiting(), handed.append, Narrowing(), lambda: True, lambda _: None, lambda: 0.0)

    def stop_soon(handover: Handover) -> None:
        handed.append(handover)
        if len(handed) == 4:
            driving.stop()

    driving._hand_over = stop_soon
    driving.run()
    assert set(waits) == {longest_s}
    assert not any(handover.close_tick for handover in handed), "the tick is as long as before"


@pytest.mark.parametrize("name", ["metering", "capture"])
def test_a_thread_that_the_host_refuses_is_an_error_and_leaves_no_other_one_waiting(
        name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pipeline = Pipeline(PipelineConfig(), ScriptedCapture())
    before = threading.active_count()
    with pytest.raises(FlowtopError, match="can't start new thread") as caught:
        pipeline.start(Watcher())
    assert "ulimit -u" in caught.value.hint
    pipeline.join()
    assert threading.active_count() == before
