"""What `-l` means for a run: which capture listens, and which defaults suit flows that others have metered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowtop.capture import Capture
    from flowtop.capture.listener.url import ListenUrl
    from flowtop.pipeline import PipelineConfig

IDLE_TIMEOUT_S = 90.0
"""Exporters report a flow that goes on each minute or so: it must not end, here, between two reports."""
SORT = "rate_60s"
"""A report brings a minute's traffic at once: only the longest window tells rates that mean something."""


@dataclass(frozen=True)
class Listening:
    """Places to listen at.

    Attributes:
        urls: at least one.
        own_idle_timeout: the user has said when flows end.
        own_dedupe: the user has said what becomes of duplicates.
    """

    urls: tuple[ListenUrl, ...]
    own_idle_timeout: bool
    own_dedupe: bool

    def capture(self) -> Capture:
        """What listens."""
        from flowtop.capture.listener.capture import ListenerCapture

        return ListenerCapture(self.urls)

    def pipeline_config(self, config: PipelineConfig) -> PipelineConfig:
        """As given, but for what the user left open: exporters' records are summed as they say, none is a duplicate."""
        table = config.table
        if not self.own_idle_timeout:
            table = replace(table, idle_timeout_s=IDLE_TIMEOUT_S)
        if not self.own_dedupe:
            table = replace(table, dedupe="off")
        return replace(config, table=table)


def parse_urls(texts: Sequence[str]) -> tuple[ListenUrl, ...]:
    """Read what `-l` says. Raises FlowtopError: no place to listen at."""
    from flowtop.capture.listener.url import parse_listen_url

    return tuple(map(parse_listen_url, texts))
