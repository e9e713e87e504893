"""What a Collecting Process counts, in words for the accuracy line and in keys for JSON."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from flowtop.collecting import CollectingStatistics

_FAULTS: tuple[tuple[str, str], ...] = (
    ("lost_records", "records lost"), ("lost_messages", "messages lost"), ("lost_flows", "flows lost"),
    ("dropped_by_kernel", "datagrams dropped"), ("dropped_by_exporter", "dropped at the agent"),
    ("dropped_sets", "sets without template"), ("unusable_records", "no flows"),
    ("refused_connections", "connections refused"), ("evicted_sessions", "exporters forgotten"),
    ("corrected_clocks", "clock off"),
)


def faults(statistics: CollectingStatistics) -> list[tuple[str, int]]:
    """What went wrong, as (words, count), worst first; refused messages by kind."""
    found = [(f"refused ({kind})", count) for kind, count in statistics.refused]
    found += [(words, getattr(statistics, name)) for name, words in _FAULTS]
    return [(words, count) for words, count in found if count]


def facts(statistics: CollectingStatistics) -> list[tuple[str, str]]:
    """What is going on, as (label, value)."""
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
