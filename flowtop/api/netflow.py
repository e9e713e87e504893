"""NetFlow for programs: decode datagrams (1, 5 to 9), export records (5, and 9 of RFC 3954). `flowtop.netflow`."""

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
from flowtop.wire.netflow9 import encode_netflow9, netflow9_template_sets
from flowtop.wire.netflow_fixed import MAX_FLOWS, RECORD, encode_netflow5

__all__ = ["MAX_FLOWS", "UNKNOWN_MTU_OCTETS", "V5_TEMPLATE", "ExportSession", "ExportSession5", "decode", "template"]

V5_TEMPLATE = RECORD
"""The fields of a NetFlow 5 flow, named by the corresponding IANA elements."""


def decode(octets: bytes) -> Message:
    """Decode a single datagram of NetFlow 1 or 5 to 9: see flowtop.ipfix.decode.

    Raises DecodeError: neither of these.
    """
    return decode_netflow(octets)


class ExportSession(_IpfixSession):
    """Like flowtop.ipfix.ExportSession over UDP, but with NetFlow 9 datagrams; sequence numbers count datagrams.

    Args:
        templates: without enterprise elements and variable lengths; Scope Fields of Options Templates can be
            exportingProcessId, ingressInterface, lineCardId, meteringProcessId or templateId.
        source_id: Source ID; corresponds to the Observation Domain ID of IPFIX.
        boot_s: start of the exporter's uptime, seconds since 1970 UTC: flowStartSysUpTime and flowEndSysUpTime are
            milliseconds since then. None: now.
        max_octets, refresh_s, refresh_messages, clock: as for flowtop.ipfix.ExportSession.
    """

    def __init__(self, templates: Iterable[Template] = (), *, source_id: int = 1, boot_s: float | None = None,
                 max_octets: int | None = None, refresh_s: float = 60.0, refresh_messages: int = 1_000,
                 clock: Callable[[], float] = time.time) -> None:
        self.boot_s = clock() if boot_s is None else boot_s
        super().__init__(templates, domain=source_id, datagram=True, max_octets=max_octets, refresh_s=refresh_s,
                         refresh_messages=refresh_messages, clock=clock)

    def renewed(self) -> ExportSession:
        """A new session with the same Templates and settings and sequence number 0."""
        return ExportSession(self.templates, source_id=self.domain, boot_s=self.boot_s, max_octets=self.max_octets,
                             refresh_s=self._refresh_s, refresh_messages=self._refresh_messages, clock=self._clock)

    def uptime_ms(self, unix_ms: int) -> int:
        """Convert ms since 1970 UTC to the exporter's uptime in ms, for sysUpTime fields. It wraps after 49 days."""
        return _uptime_ms(unix_ms, self.boot_s)

    def _template_sets(self, templates: Iterable[Template]) -> list[RecordSet]:
        return netflow9_template_sets(templates)

    def _encode(self, sets: Sequence[RecordSet], sequence: int, now_s: float) -> EncodedMessages:
        return encode_netflow9(sets, source_id=self.domain, sequence=sequence, export_time_s=int(now_s),
                               uptime_ms=_uptime_ms(int(now_s) * 1000, self.boot_s), max_octets=self.max_octets)


class ExportSession5:
    """Makes NetFlow 5 datagrams, for the caller to send in order; sequence numbers count flows.

    Args:
        engine_type, engine_id: 0..255 each: distinguish exporters with the same address.
        sampling_interval: one in this many packets was sampled; 0: no sampling.
        boot_s: as for ExportSession.
        clock: gives seconds since 1970 UTC.

    Raises EncodeError: a number out of range.
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
        """Sequence number of the next datagram: number of flows before it, modulo 2**32."""
        return self._statistics.records & 0xFFFF_FFFF

    @property
    def statistics(self) -> SentStatistics:
        """The counters now."""
        return self._statistics

    def uptime_ms(self, unix_ms: int) -> int:
        """The same as ExportSession.uptime_ms."""
        return _uptime_ms(unix_ms, self.boot_s)

    def messages(self, records: Iterable[Values]) -> list[bytes]:
        """Datagrams with these flows, up to 30 in each, to send now.

        Args:
            records: mappings by field name of V5_TEMPLATE, where missing fields are 0; or sequences of all values.

        Raises EncodeError: a value does not fit its field; nothing was encoded.
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
