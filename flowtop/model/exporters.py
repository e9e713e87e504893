"""What a Collecting Process reports about itself and its exporters, and how its Observation Points are named."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, NamedTuple


class InterfaceCounters(NamedTuple):
    """Counters of an interface that its agent reported last (sFlow), since the agent or interface started.

    Attributes:
        exporter: address of the agent, as text.
        domain: sub-agent.
        interface: its number (ifIndex).
        name: "" if the agent does not report one.
        type: ifType, as IANA numbers it.
        speed_bps: bits per second; 0 if unknown.
        duplex: "full", "half", "in", "out", or "" if unknown.
        admin_up, oper_up: status.
        in_octets to out_errors: as in RFC 2863; None if the agent does not count it. Packets are those of all kinds.
        in_rate_bps, out_rate_bps: bits per second between the last two reports; None before the second one.
    """

    exporter: str
    domain: int
    interface: int
    name: str
    type: int
    speed_bps: int
    duplex: str
    admin_up: bool
    oper_up: bool
    in_octets: int | None
    in_packets: int | None
    in_discards: int | None
    in_errors: int | None
    out_octets: int | None
    out_packets: int | None
    out_discards: int | None
    out_errors: int | None
    in_rate_bps: float | None
    out_rate_bps: float | None


@dataclass(frozen=True, slots=True)
class CollectingStatistics:
    """Sums since the start, over all listening sockets and exporters. No counter is part of another.

    Attributes:
        messages: datagrams and messages that were read.
        records: Flow Records read.
        options_records: records of Options Data read.
        lost_flows, lost_messages, lost_records: gaps in sequence numbers, in the unit of NetFlow 5, of NetFlow 9 and
            sFlow, and of IPFIX.
        late_messages: arrived after a later one, or twice.
        sequence_resets: the exporter has restarted.
        refused: by kind (`version`, `length`, `set`, `template`, `value`, `bound`): messages that could not be read.
        unusable_records: records without traffic that are no events: no counters, all zeros.
        implausible_records: records that an exporter has more traffic with than can be, or all together: in a second,
            or since the start. Sums never exceed 64 bits.
        waiting_sets: Data Sets that wait for their Template now.
        dropped_sets: such sets dropped, because of age or lack of room.
        dropped_records: Flow Records dropped, as too many different Templates were in use at a time.
        dropped_by_kernel: datagrams dropped because the socket's buffer was full.
        dropped_by_exporter: packets that sFlow agents report as dropped.
        refused_connections: connections over the limit, and TLS and DTLS handshakes that failed.
        refused_sources: datagrams and connections from addresses that are not allowed (`--allow-from`).
        evicted_sessions: sessions of exporters removed because there were too many.
        evicted_templates: Templates removed because their session, or all, had too many: the least recently used.
        evicted_state: what was known of others and removed because there was too much, the least recently used first:
            sFlow agents, sequences, samplers, boot times, names of any kind, codes of applications, VRFs, users and
            processes, interfaces.
        corrected_clocks: messages of exporters whose clock is far off, with times moved to this host's clock.
        exporters: exporting sessions known now.
        sampled_packets: packets as reported by exporters that sample, before they were multiplied by the interval.
        sampling_interval: the highest interval applied; 1 when nothing was sampled.
        unknown_sampling: records of flows that were sampled with an interval that is not known, and so not multiplied.
        options_of_other_domain, options_of_other_port: records with a sampling interval, and records with a boot time
            that their times count from, that the exporter announced in another Observation Domain, or from another
            source port.
        templates_of_other_port: Data Sets decoded with a Template that the exporter sent from another source port.
        names_of_other_domain: interfaces with a name that the exporter announced in another Observation Domain.
        dropped_options: records of Options Data that were not read, because there were too many in a Data Set.
        events: by kind: records of events of a firewall or of NAT that report no traffic; denied flows are shown.
        transport_records: records whose octets are of the transport layer, as they have no IP octets.
        layer2_records: the same for layer 2: octets of frames.
        unchanged_totals: reports, one a direction, whose total counters were the same as in the flow's previous one.
        forgotten_totals: flows whose total counters were forgotten because there were too many; when they are reported
            again, they are counted from their beginning.
        skipped: by kind (`length`, `count`, `padding`, `trailing`, `set`, `reserved`, `template`, `record`,
            `withdrawn`, `properties`, `list`, `bound`): parts that could not be read of messages that were.
        counter_samples: sFlow samples of counters.
        discarded_packets: packets that sFlow agents report as not forwarded. They are not in flows.
        unknown_samples: sFlow samples of unknown types.
        short_records: records in sFlow samples that end before their content.
        interfaces: counters of interfaces, from sFlow counter samples.
        lying_lengths: packet headers whose IP length is larger than the frame, whose length was used.
        incomplete_messages: in a capture: messages of which fragments or other octets were not captured, or before
            which a part of the stream is missing.
        wrong_checksums: messages that are not as their MD5 checksum (RFC 5655) says; their records are counted.
    """

    messages: int = 0
    records: int = 0
    options_records: int = 0
    lost_flows: int = 0
    lost_messages: int = 0
    lost_records: int = 0
    late_messages: int = 0
    sequence_resets: int = 0
    refused: tuple[tuple[str, int], ...] = ()
    unusable_records: int = 0
    implausible_records: int = 0
    waiting_sets: int = 0
    dropped_sets: int = 0
    dropped_records: int = 0
    dropped_by_kernel: int = 0
    dropped_by_exporter: int = 0
    refused_connections: int = 0
    refused_sources: int = 0
    evicted_sessions: int = 0
    evicted_templates: int = 0
    evicted_state: int = 0
    corrected_clocks: int = 0
    exporters: int = 0
    sampled_packets: int = 0
    sampling_interval: int = 1
    unknown_sampling: int = 0
    options_of_other_domain: int = 0
    options_of_other_port: int = 0
    templates_of_other_port: int = 0
    names_of_other_domain: int = 0
    dropped_options: int = 0
    events: tuple[tuple[str, int], ...] = ()
    transport_records: int = 0
    layer2_records: int = 0
    unchanged_totals: int = 0
    forgotten_totals: int = 0
    skipped: tuple[tuple[str, int], ...] = ()
    counter_samples: int = 0
    discarded_packets: int = 0
    unknown_samples: int = 0
    short_records: int = 0
    interfaces: tuple[InterfaceCounters, ...] = ()
    lying_lengths: int = 0
    incomplete_messages: int = 0
    wrong_checksums: int = 0

    @property
    def refused_messages(self) -> int:
        """Messages refused, of all kinds."""
        return sum(count for _, count in self.refused)


class Exporter(NamedTuple):
    """The exporter that reported an Observation Point.

    Attributes:
        address: of the exporter, as text.
        domain: Observation Domain ID, Source ID, or engine.
        interface: name of the interface, empty if the exporter does not report one.
    """

    address: str
    domain: int
    interface: str


def observation_point_name(exporter: Exporter) -> str:
    """`192.0.2.1/7 eth0`: a name that no local interface can have, because of the `/` and the space."""
    return f"{exporter.address}/{exporter.domain} {exporter.interface}"


@lru_cache(4096)
def exporter_of(name: str) -> Exporter | None:
    """The exporter in an Observation Point's name; None: it is an interface of this host, or a file."""
    who, blank, interface = name.partition(" ")
    address, slash, domain = who.rpartition("/")
    if not blank or not slash or not domain.isascii() or not domain.isdecimal() or len(domain) > 10:
        return None
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return None
    return Exporter(address, int(domain), interface)


def point_elements(name: str, clean: Callable[[str], str]) -> dict[str, str | int]:
    """An Observation Point as IANA element names and values: its interface, and the exporter that reported it, if any.

    Args:
        name: of the point.
        clean: removes control characters from an interface's name.
    """
    exporter = exporter_of(name)
    if exporter is None:
        return {"interfaceName": clean(name)}
    version = "IPv6" if ":" in exporter.address else "IPv4"
    return {"interfaceName": clean(exporter.interface), f"exporter{version}Address": exporter.address,
            "observationDomainId": exporter.domain}


def interface_of(name: str) -> str:
    """The interface in an Observation Point's name, of this host or of an exporter."""
    exporter = exporter_of(name)
    return name if exporter is None else exporter.interface


_FAULTS: tuple[tuple[str, str], ...] = (
    ("lost_records", "records lost"), ("lost_messages", "messages lost"), ("lost_flows", "flows lost"),
    ("dropped_by_kernel", "datagrams dropped"), ("dropped_by_exporter", "dropped at the agent"),
    ("dropped_records", "records over limit"),
    ("dropped_sets", "sets without template"), ("unusable_records", "no flows"),
    ("implausible_records", "records too large"),
    ("refused_connections", "connections refused"), ("refused_sources", "from elsewhere refused"),
    ("evicted_sessions", "exporters forgotten"),
    ("evicted_templates", "templates forgotten"), ("evicted_state", "other state forgotten"),
    ("corrected_clocks", "clock off"), ("unknown_sampling", "unknown sampling"), ("dropped_options", "options dropped"),
    ("forgotten_totals", "totals forgotten"), ("unknown_samples", "unknown samples"), ("short_records", "records cut"),
    ("lying_lengths", "length lies"), ("incomplete_messages", "messages incomplete"),
    ("wrong_checksums", "checksums wrong"),
)
_JOINED: tuple[tuple[str, str], ...] = (
    ("options_of_other_domain", "options of another domain"), ("options_of_other_port", "options of another port"),
    ("templates_of_other_port", "templates of another port"), ("names_of_other_domain", "names of another domain"),
)
"""What an exporter has announced elsewhere than it should."""


def faults(statistics: CollectingStatistics) -> list[tuple[str, int]]:
    """Faults as (words, count), worst first; refused messages and skipped parts of messages by kind."""
    found = [(f"refused ({kind})", count) for kind, count in statistics.refused]
    found += [(f"skipped ({kind})", count) for kind, count in statistics.skipped]
    found += [(words, getattr(statistics, name)) for name, words in _FAULTS]
    return [(words, count) for words, count in found if count]


def facts(statistics: CollectingStatistics) -> list[tuple[str, str]]:
    """Figures as (label, value)."""
    found = [("exporters", f"{statistics.exporters:,}"), ("records", f"{statistics.records:,}")]
    if statistics.sampling_interval > 1:
        found.append(("sampled 1 in", f"{statistics.sampling_interval:,}"))
    found += [(f"events ({kind})", f"{count:,}") for kind, count in statistics.events]
    found += [(words, f"{count:,}") for words, count in (
        ("octets of layer 2", statistics.layer2_records), ("octets of transport", statistics.transport_records),
        ("totals unchanged", statistics.unchanged_totals)) if count]
    if statistics.discarded_packets:
        found.append(("discards", f"{statistics.discarded_packets:,}"))
    if statistics.waiting_sets:
        found.append(("waiting for templates", f"{statistics.waiting_sets:,}"))
    return found + [(words, f"{count:,}") for name, words in _JOINED if (count := getattr(statistics, name))]


def collecting_record(statistics: CollectingStatistics) -> dict[str, Any]:
    """Every counter by its name in camelCase; `refused`, `skipped`, `events` by kind, `interfaces` as records."""
    record = {_camel(field.name): dict(value) if isinstance(value := getattr(statistics, field.name), tuple) else value
              for field in fields(statistics) if field.name != "interfaces"}
    record["interfaces"] = [{_camel(name): value for name, value in interface._asdict().items()
                             if value is not None and value != ""} for interface in statistics.interfaces]
    return record


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
