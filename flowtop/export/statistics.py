"""Figures of an export, and the facts of the Metering Process that it reports."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from flowtop.text.lookups import NO_LOOKUPS, Lookups


class ExportState(enum.Enum):
    """State of an export."""

    STARTING = "starting"
    CONNECTING = "connecting"
    EXPORTING = "exporting"
    BLOCKED = "blocked"
    """Connected, but the collector does not read; with UDP, nothing listens on the port."""
    WAITING = "waiting"
    """It failed and will be retried: see `last_error`."""
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ExportStatistics:
    """Figures of one export at one instant. Every record is in exactly one of sent, queued, spooled, not sent.

    Attributes:
        url: as given.
        state: current state.
        sent_records: Flow Records passed to the collector and, as far as the transport knows, not lost afterwards.
        sent_messages: IPFIX Messages (lines for jsonl and csv) written, including repeated ones.
        sent_octets: their octets, before compression and TLS.
        repeated_records: Flow Records sent again after a broken connection, or after a run that was killed while it
            sent them; the collector may have them twice.
        queued_records: Flow Records in memory.
        spooled_records: Flow Records in the spool on disk.
        not_sent_records, not_sent_packets, not_sent_octets: records given up, and the sums of their delta counters.
        last_error: text of the last error; "" if there was none.
        last_template_unix_s: time of the last Templates; None before that, and for jsonl and csv.
        since_unix_s: start of the current state.
        file_octets: size of the file being written; None for a collector.
        refused_messages: datagrams that the collector's host or a router has refused, as far as they said so (ICMP).
        refusal: why they are refused now; "" if they are not.
        unmarked_records: records of an export without duplicates that may contain packets which other records have too.
        cut_owners: records, also repeated ones, that have less than is known of their process: texts were cut or left
            out.
    """

    url: str
    state: ExportState
    sent_records: int
    sent_messages: int
    sent_octets: int
    repeated_records: int
    queued_records: int
    spooled_records: int
    not_sent_records: int
    not_sent_packets: int
    not_sent_octets: int
    last_error: str
    last_template_unix_s: float | None
    since_unix_s: float
    file_octets: int | None
    refused_messages: int = 0
    refusal: str = ""
    unmarked_records: int = 0
    cut_owners: int = 0

    @property
    def record(self) -> dict[str, str | int]:
        """As members of JSON."""
        return {"url": self.url, "state": self.state.value, "sentRecords": self.sent_records,
                "repeatedRecords": self.repeated_records, "queuedRecords": self.queued_records,
                "spooledRecords": self.spooled_records, "notSentRecords": self.not_sent_records,
                "refusedMessages": self.refused_messages, "cutOwnerRecords": self.cut_owners,
                "lastError": self.last_error}


@dataclass(frozen=True, slots=True)
class MeteringFacts:
    """Facts of the Metering Process that exports report in band.

    Attributes:
        lookups: names of Observation Points and the like.
        ignored_packets, ignored_octets: observed packets that are in no Flow Record; cumulative.
        first_ignored_ms, last_ignored_ms: times of the first and last of these, since 1970 UTC; 0 if there were none.
    """

    lookups: Lookups = NO_LOOKUPS
    ignored_packets: int = 0
    ignored_octets: int = 0
    first_ignored_ms: int = 0
    last_ignored_ms: int = 0

    def updated(self, lookups: Lookups, ignored_packets: int, ignored_octets: int,
                now_ms: int, since_ms: int | None = None) -> MeteringFacts:
        """The facts at a later time.

        If the counts have increased, `now_ms` is the time of the last ignored packet, and `since_ms`, if given, that of
        the first.
        """
        if (ignored_packets, ignored_octets) == (self.ignored_packets, self.ignored_octets):
            return replace(self, lookups=lookups)
        return MeteringFacts(lookups, ignored_packets, ignored_octets, self.first_ignored_ms or since_ms or now_ms,
                             now_ms)


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Flow Records not sent: totals, and times (ms since 1970 UTC) of the first and the last."""

    records: int = 0
    packets: int = 0
    octets: int = 0
    first_ms: int = 0
    last_ms: int = 0

    def plus(self, records: int, packets: int, octets: int, now_ms: int) -> GivenUp:
        """The totals with these records added."""
        return GivenUp(self.records + records, self.packets + packets, self.octets + octets,
                       self.first_ms or now_ms, now_ms)


@dataclass(slots=True)
class Counters:
    """Counters of an export. The exporter's lock protects moves between counters, so that they always add up.

    `held`: records in the exporter's thread.
    """

    sent: int = 0
    messages: int = 0
    octets: int = 0
    repeated: int = 0
    held: int = 0
    spooled: int = 0
    given_up: GivenUp = field(default_factory=GivenUp)
    last_error: str = ""
    refused: int = 0
    refusal: str = ""
    unmarked: int = 0
    cut_owners: int = 0
    announced_at: float | None = None
