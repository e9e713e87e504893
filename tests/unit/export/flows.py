"""Flow Records for tests of exports: each with its own flowId and counters."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from flowtop.model.record import FLOW_RECORD_DTYPE, FlowRecords

PATIENCE_S = 20.0


def flows(count: int, first: int = 1) -> FlowRecords:
    """TCP flows of IPv4 and IPv6 with flowId first, first + 1, ...; packets = flowId, octets = 100 * flowId."""
    records = np.zeros(count, FLOW_RECORD_DTYPE)
    ids = np.arange(first, first + count, dtype=np.uint64)
    records["flow_id"] = records["packet_delta"] = records["packet_total"] = ids
    records["octet_delta"] = records["octet_total"] = ids * np.uint64(100)
    records["ip_version"] = np.where(ids % 3 == 0, 6, 4)
    records["source_address"] = bytes([192, 0, 2, 1]).ljust(16, b"\0")
    records["destination_address"] = bytes([198, 51, 100, 7]).ljust(16, b"\0")
    records["protocol"] = 6
    records["source_port"], records["destination_port"] = 40_000, 443
    records["tcp_control_bits"], records["tos"], records["end_reason"] = 0x112, 8, 2
    records["source_mac"], records["destination_mac"] = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
    records["vlan_id"], records["customer_vlan_id"], records["ifindex"] = 7, 9, 3
    records["direction"] = ids % 2
    records["start_ms"], records["end_ms"] = 1_700_000_000_000, 1_700_000_000_500
    return records


def until(done: Callable[[], bool], otherwise: Callable[[], object]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.005)


class RecordingTransport:
    """A transport that keeps what it is sent, fails when told to, and can be made to hang."""

    retry_s = 0.01
    file_octets = None

    def __init__(self) -> None:
        self.received: list[int] = []
        self.reports = 0
        self.fail_open = False
        self.fail_after: int | None = None
        self.lose = 0
        self.hang = threading.Event()
        self.finished = False
        self._unsent = flows(0)

    def open(self, context: object) -> None:
        if self.fail_open:
            raise OSError(111, "Connection refused")

    def send(self, records: FlowRecords, context: object) -> None:
        self._unsent = records
        while self.hang.is_set():
            context.wait(None, write=False, timeout_s=0.01)  # type: ignore[attr-defined]
        if self.fail_after is not None and len(self.received) + len(records) > self.fail_after:
            self.fail_after = None
            raise OSError(104, "Connection reset by peer")
        self.received += records["flow_id"].tolist()
        self._unsent = flows(0)

    @property
    def sending(self) -> bool:
        """Whether it has taken records that it has not kept yet."""
        return len(self._unsent) > 0

    def tick(self, context: object) -> float:
        return 10.0

    def finish(self, context: object) -> None:
        self.finished = True

    def abandon(self) -> tuple[FlowRecords, int]:
        """The last `lose` records that were sent are given back as well."""
        again = self.received[len(self.received) - self.lose:]
        del self.received[len(self.received) - self.lose:]
        parts = [flows(1, identity) for identity in again] + [self._unsent]
        self._unsent, self.lose = flows(0), 0
        return np.concatenate(parts), len(again)
