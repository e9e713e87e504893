"""The collector's capture: Flow Records received since the last drain as FlowBatches, on a clock since 1970."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from flowtop.capture.collector.connections import Places, SpareDescriptor, descriptor_budget
from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sockets import Listener
from flowtop.capture.collector.url import ListenUrl
from flowtop.capture.protocol import Wake
from flowtop.model.record import FlowBatch
from flowtop.model.tunnel_ports import TunnelPorts


def collected_batch(process: CollectingProcess, now_ns: int, addresses: tuple[str, ...] = ()) -> FlowBatch:
    """What was collected since the last call; each batch has arrays of its own.

    Args:
        now_ns: since 1970 UTC.
        addresses: where exporters send to.
    """
    keys, counters, other_ifindexes, described, reported = process.drain_all()
    for name in ("first_ns", "last_ns"):  # an exporter's clock may be slightly ahead
        counters[name] = counters[name].clip(max=now_ns)
    return FlowBatch(keys, counters, process.points.observations(), now_ns, 0, process.points.interfaces(),
                     addresses, collecting=process.statistics(), other_ifindexes=other_ifindexes,
                     described=described, reported=reported, texts=process.texts())


class CollectorCapture:
    """A flowtop.capture.protocol.Capture of flows received from other exporters.

    Args:
        urls: addresses to listen on, at least one.
        clock_ns: ns, monotonic.
        unix_ns: ns since 1970 UTC; read once, so that a change of the system clock does not move flows.
        tunnel_ports: take sampled packets out of tunnels; see CollectingProcess.
    """

    def __init__(self, urls: tuple[ListenUrl, ...], *, tunnel_ports: TunnelPorts | None = None,
                 clock_ns: Callable[[], int] = time.monotonic_ns, unix_ns: Callable[[], int] = time.time_ns) -> None:
        self._urls = urls
        self._clock_ns = clock_ns
        self._since_1970_ns = unix_ns() - clock_ns()
        self._process = CollectingProcess(tunnel_ports=tunnel_ports)
        self._resources = ExitStack()
        self._listeners: list[Listener] = []
        self._wake = Wake()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses in use, as URLs; valid once open."""
        return tuple(listener.address for listener in self._listeners)

    def bind(self) -> None:
        """Listen already, while ports and keys are within reach; `open` does it otherwise. Raises FlowtopError."""
        try:
            self._selector = self._resources.enter_context(selectors.DefaultSelector())
            self._selector.register(self._wake, selectors.EVENT_READ)
            spare = SpareDescriptor()
            self._resources.callback(spare.close)
            places = Places(descriptor_budget())
            for url in self._urls:
                listener = Listener(url, self._selector, self._process, self._now_s, places, spare)
                self._listeners.append(listener)
                self._resources.callback(listener.close)
        except BaseException:
            self._resources.close()
            raise

    def unbind(self) -> None:
        """Listen no more. Does nothing after `close`."""
        self._resources.close()

    def open(self, progress: Callable[[str], None]) -> None:
        """See Capture.open."""
        if not self._listeners:
            self.bind()
        progress(f"listening on {', '.join(self.addresses)}")

    def wait(self, timeout_s: float) -> None:
        """See Capture.wait; receives messages while it waits."""
        deadline_ns = self._clock_ns() + round(timeout_s * 1e9)
        while (left_ns := deadline_ns - self._clock_ns()) > 0 and not self._process.full:
            for key, _ in self._selector.select(left_ns / 1e9):
                if key.fd == self._wake.fileno():
                    self._wake.clear()
                    return
                key.data()

    def wake(self) -> None:
        """See Capture.wake."""
        self._wake.call()

    def lift_filter(self, lifted: bool) -> None:
        """See Capture.lift_filter; does nothing, as there is no capture filter."""

    def drain(self) -> FlowBatch:
        """See Capture.drain; every batch has new arrays."""
        for listener in self._listeners:
            listener.count_drops()
        return collected_batch(self._process, self._clock_ns() + self._since_1970_ns, self.addresses)

    def close(self) -> FlowBatch:
        """See Capture.close."""
        addresses = self.addresses
        try:
            for listener in self._listeners:
                listener.take_all()
            return replace(self.drain(), attached=addresses)
        finally:
            self._resources.close()

    def _now_s(self) -> float:
        return (self._clock_ns() + self._since_1970_ns) / 1e9
