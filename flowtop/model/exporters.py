"""What a Collecting Process reports about itself and its exporters, and how its Observation Points are named."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, NamedTuple


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
        unusable_records: records without traffic: events, no counters, all zeros.
        waiting_sets: Data Sets that wait for their Template now.
        dropped_sets: such sets dropped, because of age or lack of room.
        dropped_by_kernel: datagrams dropped because the socket's buffer was full.
        dropped_by_exporter: packets that sFlow agents report as dropped.
        refused_connections: connections over the limit, and TLS handshakes that failed.
        evicted_sessions: sessions of exporters removed because there were too many.
        corrected_clocks: messages of exporters whose clock is far off, with times moved to this host's clock.
        exporters: exporting sessions known now.
        sampled_packets: packets as reported by exporters that sample, before they were multiplied by the interval.
        sampling_interval: the highest interval applied; 1 when nothing was sampled.
        unnamed_values: applications, VRFs, users, and names of their tables that were beyond the limit.
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
    waiting_sets: int = 0
    dropped_sets: int = 0
    dropped_by_kernel: int = 0
    dropped_by_exporter: int = 0
    refused_connections: int = 0
    evicted_sessions: int = 0
    corrected_clocks: int = 0
    exporters: int = 0
    sampled_packets: int = 0
    sampling_interval: int = 1
    unnamed_values: int = 0

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
    ("dropped_sets", "sets without template"), ("unusable_records", "no flows"),
    ("refused_connections", "connections refused"), ("evicted_sessions", "exporters forgotten"),
    ("corrected_clocks", "clock off"), ("unnamed_values", "names over limit"),
)


def faults(statistics: CollectingStatistics) -> list[tuple[str, int]]:
    """Faults as (words, count), worst first; refused messages by kind."""
    found = [(f"refused ({kind})", count) for kind, count in statistics.refused]
    found += [(words, getattr(statistics, name)) for name, words in _FAULTS]
    return [(words, count) for words, count in found if count]


def facts(statistics: CollectingStatistics) -> list[tuple[str, str]]:
    """Figures as (label, value)."""
    found = [("exporters", f"{statistics.exporters:,}"), ("records", f"{statistics.records:,}")]
    if statistics.sampling_interval > 1:
        found.append(("sampled 1 in", f"{statistics.sampling_interval:,}"))
    if statistics.waiting_sets:
        found.append(("waiting for templates", f"{statistics.waiting_sets:,}"))
    return found


def collecting_record(statistics: CollectingStatistics) -> dict[str, Any]:
    """Every counter by its name in camelCase; `refused` by kind."""
    return {_camel(field.name): dict(statistics.refused) if field.name == "refused" else getattr(statistics, field.name)
            for field in fields(statistics)}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
