"""Batch output: one round per tick on standard output, as a table, JSON Lines or CSV.

Standard output carries data only; nothing else is ever written there.
"""

from __future__ import annotations

import json
import math
import os
import queue
import select
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from flowtop.errors import FlowtopError
from flowtop.fields.columns import Wording
from flowtop.fields.fitting import NO_DISTINCTIONS, fit
from flowtop.fields.records import iso_time
from flowtop.model.exporters import CollectingStatistics, collecting_record, facts, faults
from flowtop.model.kinds import EndReason
from flowtop.model.record import Unobserved
from flowtop.output.records import record, record_cells, record_names, rows_name
from flowtop.pipeline.pipeline import Pipeline
from flowtop.query.layout import columns_of, order_text, sorted_column
from flowtop.query.query import Books, Page, Query
from flowtop.text.csv_lines import CsvLines
from flowtop.text.units import duration, rate

NARRATION_EVERY_S = 60.0
"""How often another reason is said of what is not observed."""
OutputFormat = Literal["table", "json", "csv", "none"]


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """How rounds are written.

    Attributes:
        output: table, json (JSON Lines), csv, or none: rounds are counted but not written.
        query: the flows of a round and their order.
        width: of a table, in terminal columns.
        wording: units of a table.
        agent: in each round of JSON, which host it is from: see process.agent; None: not said.
        confinement: likewise, which rights the process has given up; None: not said.
        exports: gives the figures of the exports now, for each round of JSON.
    """

    output: OutputFormat = "table"
    query: Query = Query(limit=None)
    width: int = 120
    wording: Wording = Wording()
    agent: Mapping[str, str] | None = None
    confinement: Mapping[str, object] | None = None
    exports: Callable[[], Sequence[Mapping[str, str | int]]] = tuple


class PageQueue:
    """Hands pages from the threads of the pipeline to the thread that writes them."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Page | FlowtopError] = queue.SimpleQueue()

    def ready(self) -> bool:
        """Whether all pages have been taken: rounds wait for their reader, packets do not."""
        return self._queue.empty()

    def on_progress(self, text: str) -> None:
        """Ignored: batch output does not report its start."""

    def on_page(self, page: Page) -> None:
        """Add one round."""
        self._queue.put(page)

    def on_error(self, error: FlowtopError) -> None:
        """Add the error that ended the run."""
        self._queue.put(error)

    def __iter__(self) -> Iterator[Page]:
        last = False
        while not last:
            item = self._queue.get()
            if isinstance(item, FlowtopError):
                raise item
            yield item
            last = item.last


class RoundFormat(Protocol):
    """Formats rounds."""

    def text(self, number: int, page: Page) -> str:
        """The text of round `number` (from 1), in complete lines."""


class _Gaps:
    """Says what is not observed."""

    def __init__(self, narrate: Callable[[str], None], monotonic_s: Callable[[], float]) -> None:
        self._narrate = narrate
        self._monotonic_s = monotonic_s
        self._said: dict[Unobserved, tuple[str, float]] = {}  # by place: which text, and when

    def note(self, unobserved: Iterable[Unobserved]) -> None:
        """Say what of this is new."""
        for one in unobserved:
            place, now_s = replace(one, reason=""), self._monotonic_s()
            text, since_s = self._said.get(place, ("", -math.inf))
            if one.text != text and now_s - since_s >= NARRATION_EVERY_S:
                self._said[place] = one.text, now_s
                self._narrate(one.text)


def run_batch(config: BatchConfig, pipeline: Pipeline, pages: PageQueue, write: Callable[[str], None],
              narrate: Callable[[str], None] = lambda _: None,
              monotonic_s: Callable[[], float] = time.monotonic) -> int:
    """Write rounds until the pipeline has ended; the last round shows the last drain.

    Args:
        config: format and query.
        pipeline: not started; made with `ready=pages.ready`.
        pages: becomes the listener of the pipeline.
        write: writes the text of one round, such as a `descriptor_writer`.
        narrate: called once with each line about what is not observed; when only the reason changes, as it does where
            another program is loaded again and again, once in NARRATION_EVERY_S.
        monotonic_s: clock, in seconds.

    Returns:
        The number of rounds written. When the reader closes the pipe, the run ends without an error.

    Raises:
        FlowtopError: capturing could not start, or failed.
    """
    form = round_format(config)
    pipeline.ask(config.query if config.output != "none" else replace(config.query, limit=0))
    pipeline.start(pages)
    rounds = 0
    gaps = _Gaps(narrate, monotonic_s)
    try:
        for page in pages:
            gaps.note(page.unobserved)
            write(form.text(rounds + 1, page))
            rounds += 1
    except BrokenPipeError:
        pass  # `flowtop -b | head`: the reader needs no more
    finally:
        pipeline.stop()
    return rounds


def descriptor_writer(descriptor: int) -> Callable[[str], None]:
    """A function that writes all of a text to a file descriptor, as UTF-8.

    It raises BrokenPipeError when the reader has closed the pipe, and FlowtopError when writing fails otherwise.

    It does not use sys.stdout: when a signal with a handler interrupts a large write, CPython's buffered text layer
    drops the rest (seen with 3.11, a full pipe and SIGINT), and output must not end in half a line.
    """
    writable = select.poll()  # not select, which stops at 1,024
    writable.register(descriptor, select.POLLOUT)

    def write(text: str) -> None:
        left = memoryview(text.encode())
        while left:
            try:
                left = left[os.write(descriptor, left):]
            except BlockingIOError:  # another process made the pipe non-blocking
                writable.poll()
            except BrokenPipeError:
                raise
            except OSError as error:
                raise FlowtopError(f"cannot write to standard output: {(error.strerror or str(error)).lower()}",
                                   hint="check the disk or file that it goes to") from error

    return write


def reader_watch(descriptor: int | None) -> Callable[[str], None]:
    """A function that writes nothing: for a standard output that belongs to an export.

    It raises BrokenPipeError when the descriptor is a pipe whose reader has closed it. A terminal that is gone has no
    reader to end for: exports go on in the background.

    Args:
        descriptor: None: closed, there is no reader to watch.
    """
    poll = select.poll()
    if descriptor is not None and _has_reader(os.fstat(descriptor).st_mode):
        poll.register(descriptor, 0)  # poll(2) reports errors unasked

    def watch(_: str) -> None:
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            raise BrokenPipeError

    return watch


def _has_reader(mode: int) -> bool:
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def round_format(config: BatchConfig) -> RoundFormat:
    """The formatter of an output format."""
    if config.output == "json":
        return _JsonLines(config)
    if config.output == "csv":
        return _Csv()
    if config.output == "none":
        return _Nothing()
    return _Table(config)


def totals_record(page: Page) -> dict[str, int]:
    """The counters of one round: observed = accounted + ignored + filtered + lost."""
    books = page.books
    return {
        "observedPackets": books.observed_packets,
        "observedOctets": books.observed_octets,
        "encapsulationOctets": books.encapsulation_octets,
        "accountedPackets": books.accounted_packets,
        "accountedOctets": books.accounted_octets,
        "ignoredPackets": books.ignored_packets,
        "ignoredOctets": books.ignored_octets,
        "filteredPackets": books.filtered_packets,
        "filteredOctets": books.filtered_octets,
        "lostPackets": books.lost_packets,
        "lostOctets": books.lost_octets,
        "aggregatedPackets": books.aggregated_packets,
        "aggregatedOctets": books.aggregated_octets,
        "duplicatePackets": books.duplicate_packets,
        "duplicateOctets": books.duplicate_octets,
        "unjoinedFragments": books.unjoined_fragments,
        "lyingLengths": books.lying_lengths,
        "decryptedPackets": books.decrypted_packets,
        "decryptedOctets": books.decrypted_octets,
        "evictedFlows": books.evicted_flows,
        "unlistedPackets": books.unlisted_packets,
        "unlistedOctets": books.unlisted_octets,
        "interfacePackets": books.interface_packets,
        "unseenPackets": books.unseen_packets,
        "excessIngressPackets": books.excess_ingress_packets,
        "excessEgressPackets": books.excess_egress_packets,
        "flows": page.flows,
        "matchedFlows": page.matched_flows,
    }


def not_observed(one: Unobserved) -> dict[str, str | bool]:
    """One thing that is not observed, for JSON."""
    direction = {} if one.direction is None else {"direction": one.direction.name.lower()}
    packets = {"packets": True} if one.packets else {}
    return {"interface": one.interface, **direction, **packets, "inPart": one.in_part, "reason": one.reason}


class _Nothing:
    """No text."""

    def text(self, number: int, page: Page) -> str:  # noqa: ARG002 - nothing is written
        return ""


class _JsonLines:
    """JSON Lines: one object for each round, with `flows`, `groups` or `biflows`."""

    def __init__(self, config: BatchConfig) -> None:
        self._agent: dict[str, object] = {} if config.agent is None else {"agent": config.agent}
        self._confinement = {} if config.confinement is None else {"confinement": config.confinement}
        self._exports = config.exports

    def text(self, number: int, page: Page) -> str:
        rows = [record(row, page.query, page.lookups) for row in page.rows]
        line = {"round": number, "time": iso_time(page.unix_ms), **self._agent, "totals": totals_record(page),
                rows_name(page.query): rows}
        networks = page.lookups.networks
        if networks is not None:
            line["networks"] = {"files": networks.files, "faults": networks.faults}
        if page.unobserved:
            line["notObserved"] = [not_observed(one) for one in page.unobserved]
        if page.collecting:
            line["collecting"] = collecting_record(page.collecting)
        if page.owners:
            line["owners"] = page.owners.record
        if page.names:
            line["namesSeen"] = page.names.record
        if exports := self._exports():
            line["exports"] = exports
        line |= self._confinement
        return json.dumps(line, separators=(",", ":")) + "\n"


class _Csv:
    """CSV (RFC 4180) with one header line; each row begins with the number and time of its round."""

    def text(self, number: int, page: Page) -> str:
        lines = CsvLines(("round", "time", *record_names(page.query)))
        stamp = {"round": number, "time": iso_time(page.unix_ms)}
        return "".join([*([lines.header()] if number == 1 else []),
                        *(lines.line(stamp | record_cells(row, page.query, page.lookups)) for row in page.rows)])


class _Table:
    """A plain table: the counters in two lines, then the flows."""

    def __init__(self, config: BatchConfig) -> None:
        self._config = config

    def text(self, number: int, page: Page) -> str:
        wording = self._config.wording
        layout = fit(self._config.width, names=page.attached, keep=sorted_column(page.query).id,
                     columns=columns_of(page.query).values(),
                     distinctions=NO_DISTINCTIONS.with_rows(page.rows, tunnels=page.tunnels),
                     needed=frozenset({"interface"}))  # no other line of a round says it
        lines = [] if number == 1 else [""]
        lines += _summary(number, page)
        lines.append(" ".join(
            column.header.rjust(width) if column.align == "right" else column.header.ljust(width)
            for column, width in layout).rstrip())
        for row in page.rows:
            if row.end_reason == EndReason.FORCED_END:  # the run ended, the flow did not
                row = row._replace(end_reason=EndReason.NONE)
            cells = [column.cell(row, wording, page.lookups, width) for column, width in layout]
            lines.append(" ".join(cells).rstrip())
        return "\n".join(lines) + "\n"


def _summary(number: int, page: Page) -> list[str]:
    books: Books = page.books
    some = page.query.filter is not None
    flows = "flow" if page.flows == 1 else "flows"
    counted = f"{page.matched_flows} of {page.flows} {flows}" if some else f"{page.flows} {flows}"
    out, into = rate(page.egress.octet_rate, bits=True), rate(page.ingress.octet_rate, bits=True)
    if rows_name(page.query) != "flows":
        counted = f"{page.matched} {rows_name(page.query)} of {counted}"
    first = (
        f"flowtop  round {number}  {iso_time(page.unix_ms)}  up {duration(page.uptime_s)}  "
        f"{counted}  out {out.strip()}  in {into.strip()}  "
        f"by {order_text(page.query)}"
    )
    second = (
        f"seen {books.observed_packets}  accounted {books.accounted_packets}  ignored {books.ignored_packets}  "
        f"lost {books.lost_packets}  dup {books.duplicate_packets}"
    )
    for word, number in (("aggregated", books.aggregated_packets), ("fragments", books.unjoined_fragments),
                         ("length lies", books.lying_lengths), ("decrypted", books.decrypted_packets),
                         ("evicted", books.evicted_flows), ("unlisted", books.unlisted_packets),
                         ("off", books.unexplained_packets), ("octets off", books.unexplained_octets)):
        if number:
            second += f"  {word} {number}"
    for word, number in (("unseen", books.unseen_packets), ("excess in", books.excess_ingress_packets),
                         ("excess out", books.excess_egress_packets)):
        if number:
            second += f"  {word} {number}"
    owners = () if page.owners is None else page.owners.faults
    names = () if page.names is None else page.names.faults
    return [first, second, *(one.text for one in page.unobserved), *owners, *names,
            *_collecting_lines(page.collecting), *_network_lines(page)]


def _network_lines(page: Page) -> list[str]:
    """What is wrong with databases of AS and country, a line each."""
    networks = page.lookups.networks
    return [] if networks is None else [f"AS and country  {fault}" for fault in networks.faults]


def _collecting_lines(statistics: CollectingStatistics | None) -> list[str]:
    """The state of the Collecting Process in one line; none without one."""
    if statistics is None:
        return []
    words = [*(f"{label} {value}" for label, value in facts(statistics)),
             *(f"{label} {count}" for label, count in faults(statistics))]
    return [f"collecting  {'  '.join(words)}"]
