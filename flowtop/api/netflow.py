"""NetFlow 9 (RFC 3954) and NetFlow 5 for programs: decode datagrams, export records. `flowtop.netflow`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from flowtop.api.decoding import Message, decode_netflow
from flowtop.api.errors import EncodeError
from flowtop.api.ipfix import UNKNOWN_MTU_OCTETS, SentStatistics
from flowtop.api.ipfix import ExportSession as _IpfixSession
from flowtop.api.templates import Values, record_set, template
from flowtop.wire.ipfix import EncodedMessages, RecordSet
from flowtop.wire.ipfix_template import Template
from flowtop.wire.netflow5 import MAX_FLOWS, RECORD, encode_netflow5
from flowtop.wire.netflow9 import encode_netflow9, netflow9_template_sets

__all__ = ["MAX_FLOWS", "UNKNOWN_MTU_OCTETS", "V5_TEMPLATE", "ExportSession", "ExportSession5", "decode", "template"]

V5_TEMPLATE = RECORD
"""The fields of a NetFlow 5 flow, by the IANA elements that mean the same."""


def decode(octets: bytes) -> Message:
    """Decode one datagram of NetFlow 5 or 9 by itself: see flowtop.ipfix.decode.

    Raises DecodeError: it is neither.
    """
    return decode_netflow(octets)


class ExportSession(_IpfixSession):
    """As flowtop.ipfix.ExportSession over UDP, in datagrams of NetFlow 9, whose sequence counts datagrams.

    Args:
        templates: without elements of other enterprises and variable lengths; scopes of Options are exportingProcessId,
            ingressInterface, lineCardId, meteringProcessId or templateId.
        source_id: told apart like Observation Domains.
        boot_s: when the exporter booted, seconds since 1970 UTC: flowStartSysUpTime and flowEndSysUpTime are
            milliseconds since then. None: now.
        max_octets, refresh_s, refresh_messages, clock: as of flowtop.ipfix.ExportSession.
    """

    def __init__(self, templates: Iterable[Template] = (), *, source_id: int = 1, boot_s: float | None = None,
                 max_octets: int | None = None, refresh_s: float = 60.0, refresh_messages: int = 1_000,
                 clock: Callable[[], float] = time.time) -> None:
        self.boot_s = clock() if boot_s is None else boot_s
        super().__init__(templates, domain=source_id, datagram=True, max_octets=max_octets, refresh_s=refresh_s,
                         refresh_messages=refresh_messages, clock=clock)

    def renewed(self) -> ExportSession:
        """A new session with the same Templates and settings, its sequence at 0."""
        return ExportSession(self.templates, source_id=self.domain, boot_s=self.boot_s, max_octets=self.max_octets,
                             refresh_s=self._refresh_s, refresh_messages=self._refresh_messages, clock=self._clock)

    def uptime_ms(self, unix_ms: int) -> int:
        """A time, ms since 1970 UTC, as sysUpTime fields say it. It wraps after 49 days."""
        return _uptime_ms(unix_ms, self.boot_s)

    def _template_sets(self, templates: Iterable[Template]) -> list[RecordSet]:
        return netflow9_template_sets(templates)

    def _encode(self, sets: Sequence[RecordSet], sequence: int, now_s: float) -> EncodedMessages:
        return encode_netflow9(sets, source_id=self.domain, sequence=sequence, export_time_s=int(now_s),
                               uptime_ms=_uptime_ms(int(now_s) * 1000, self.boot_s), max_octets=self.max_octets)


class ExportSession5:
    """Makes NetFlow 5 datagrams, for the caller to send in order; their sequence counts flows.

    Args:
        engine_type, engine_id: 0..255 each: what tells exporters of one address apart.
        sampling_interval: one packet in so many was looked at; 0: all were.
        boot_s: as of ExportSession.
        clock: seconds since 1970 UTC.

    Raises EncodeError: a number that its field cannot hold.
    """

    def __init__(self, *, engine_type: int = 0, engine_id: int = 0, sampling_interval: int = 0,
                 boot_s: float | None = None, clock: Callable[[], float] = time.time) -> None:
        for name, number, most in (("engine_type", engine_type, 0xFF), ("engine_id", engine_id, 0xFF),
                                   ("sampling_interval", sampling_interval, 0x3FFF)):
            if not 0 <= number <= most:
                raise EncodeError(f"{name} {number}", hint=f"from 0 to {most}")
        self.boot_s = clock() if boot_s is None else boot_s
        self._engine_type, self._engine_id = engine_type, engine_id
        self._sampling_interval = sampling_interval
        self._clock = clock
        self._statistics = SentStatistics()

    @property
    def sequence(self) -> int:
        """Sequence number of the next datagram: flows before it, modulo 2**32."""
        return self._statistics.records & 0xFFFF_FFFF

    @property
    def statistics(self) -> SentStatistics:
        """The counters now."""
        return self._statistics

    def uptime_ms(self, unix_ms: int) -> int:
        """As ExportSession.uptime_ms."""
        return _uptime_ms(unix_ms, self.boot_s)

    def messages(self, records: Iterable[Values]) -> list[bytes]:
        """Flows as datagrams of up to 30 to send now.

        Args:
            records: by the names of V5_TEMPLATE's fields, those that are left out are 0; or a value for each, in order.

        Raises EncodeError: a value that its field cannot hold; nothing was encoded.
        """
        flows = [bytes(flow) for flow in record_set(RECORD, records, fill=True).records]
        now_s = self._clock()
        messages = encode_netflow5(
            flows, sequence=self.sequence, export_ns=round(now_s * 1000) * 1_000_000,
            uptime_ms=_uptime_ms(round(now_s * 1000), self.boot_s), engine_type=self._engine_type,
            engine_id=self._engine_id, sampling_interval=self._sampling_interval)
        before = self._statistics
        self._statistics = SentStatistics(before.messages + len(messages), before.records + len(flows),
                                          before.octets + sum(map(len, messages)))
        return messages


def _uptime_ms(unix_ms: int, boot_s: float) -> int:
    return unix_ms - round(boot_s * 1000) & 0xFFFF_FFFF
