"""Who a pipeline talks to: whoever watches, and whoever is handed Flow Records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from flowtop.errors import FlowtopError
from flowtop.export.statistics import MeteringFacts
from flowtop.record import FlowRecords
from flowtop.view.flows import FlowSource
from flowtop.view.query import Page


class PipelineListener(Protocol):
    """Who watches. Called from the pipeline's threads, never from two at once."""

    def on_progress(self, text: str) -> None:
        """What is being waited for before the first page, in words."""

    def on_page(self, page: Page) -> None:
        """The newest answer to the newest query: after each tick, and at once after `ask`."""

    def on_error(self, error: FlowtopError) -> None:
        """Capturing failed and has ended; nothing is attached any more."""


class FlowRecordConsumer(Protocol):
    """Who is handed every expired Flow Record. Called from the metering thread: must not block."""

    def tell(self, facts: MeteringFacts) -> None:
        """How metering stands, before the records that belong to it: each tick, and before the last records."""

    def consume(self, records: FlowRecords) -> None:
        """Take records (FLOW_RECORD_DTYPE, never empty). The array is the consumer's to keep."""


class FlowWatcher(Protocol):
    """Who looks at the flow table whenever it has been brought up to date. Called from the metering thread."""

    def follow(self, source: FlowSource, interfaces: Mapping[int, str]) -> None:
        """The table at rest, and interfaces' names by ifindex: not to be kept."""
