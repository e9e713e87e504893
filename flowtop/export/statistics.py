"""What one export tells about itself, and what it is told about the rest of flowtop."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

from flowtop.text.lookups import NO_LOOKUPS, Lookups


class ExportState(enum.Enum):
    """What an export is doing."""

    STARTING = "starting"
    CONNECTING = "connecting"
    EXPORTING = "exporting"
    BLOCKED = "blocked"
    """Connected, but the collector does not read; over UDP, nobody listens there."""
    WAITING = "waiting"
    """It failed, and is tried again later: `last_error` says why."""
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ExportStatistics:
    """One export at one instant. Every record handed over is in exactly one of sent, queued, spooled, not sent.

    Attributes:
        url: as it was given.
        state: what it is doing.
        sent_records: Flow Records handed to the collector and, as far as the transport can tell, not lost since.
        sent_messages: IPFIX Messages (lines for jsonl and csv) written, repeated ones too.
        sent_octets: octets of them, before compression and TLS.
        repeated_records: Flow Records sent again as their connection broke: the collector may have them twice.
        queued_records: Flow Records in memory.
        spooled_records: Flow Records in the spool on disk.
        not_sent_records, not_sent_packets, not_sent_octets: given up, and what they counted (delta counters).
        last_error: in words; "" when there was none.
        last_template_unix_s: when Templates were sent last; None before that, and for jsonl and csv.
        since_unix_s: when this state began.
        file_octets: size of the file that is being written; None for a collector.
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


@dataclass(frozen=True, slots=True)
class MeteringFacts:
    """What the Metering Process tells the exports, to be reported in band.

    Attributes:
        lookups: names of Observation Points, and the like.
        ignored_packets, ignored_octets: observed, and in no Flow Record; cumulative.
        first_ignored_ms, last_ignored_ms: when, since 1970 UTC; 0 when none was.
    """

    lookups: Lookups = NO_LOOKUPS
    ignored_packets: int = 0
    ignored_octets: int = 0
    first_ignored_ms: int = 0
    last_ignored_ms: int = 0

    def told(self, lookups: Lookups, ignored_packets: int, ignored_octets: int,
             now_ms: int, since_ms: int | None = None) -> MeteringFacts:
        """The facts of a later time; when counts have grown since, this is the time of the last that was ignored, and
        `since_ms`, where it is told, of the first."""
        if (ignored_packets, ignored_octets) == (self.ignored_packets, self.ignored_octets):
            return replace(self, lookups=lookups)
        return MeteringFacts(lookups, ignored_packets, ignored_octets, self.first_ignored_ms or since_ms or now_ms,
                             now_ms)


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Flow Records not sent: cumulative, with the times (ms since 1970 UTC) of the first and the last."""

    records: int = 0
    packets: int = 0
    octets: int = 0
    first_ms: int = 0
    last_ms: int = 0

    def plus(self, records: int, packets: int, octets: int, now_ms: int) -> GivenUp:
        """With these too."""
        return GivenUp(self.records + records, self.packets + packets, self.octets + octets,
                       self.first_ms or now_ms, now_ms)


@dataclass(slots=True)
class Counters:
    """Guarded by the exporter's lock where records move from one to another, so that they add up at any instant.

    `held`: in the hands of the exporter's thread.
    """

    sent: int = 0
    messages: int = 0
    octets: int = 0
    repeated: int = 0
    held: int = 0
    spooled: int = 0
    given_up: GivenUp = field(default_factory=GivenUp)
    last_error: str = ""
    announced_at: float | None = None
