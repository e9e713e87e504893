"""The exports of one run, from the first URL to the last line about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from flowtop.errors import EXIT_NOT_SENT, EXIT_OK, EXIT_USAGE, FlowtopError
from flowtop.export.exports import Exports
from flowtop.export.statistics import ExportStatistics

if TYPE_CHECKING:
    from flowtop.export.exports import Keep


def paired(urls: Sequence[str], filters: Sequence[str], order: Iterable[str]) -> list[tuple[str, str | None]]:
    """Each URL with the filter that followed it on the command line.

    Args:
        urls, filters: in the order in which they were given; URLs from elsewhere are in no order and have no filter.
        order: names of the options as they stood: `export` and `export_filter`, and others that do not matter.

    Raises FlowtopError: a filter that follows no URL, or another filter.
    """
    pairs: list[tuple[str, str | None]] = [(url, None) for url in urls]
    left, number = iter(filters), 0
    for name in order:
        if name == "export":
            number += 1
        elif name == "export_filter":
            text = next(left)
            if not number or pairs[number - 1][1] is not None:
                raise FlowtopError(f"--export-filter {text!r} follows no -e of its own", exit_code=EXIT_USAGE,
                                   hint="write -e URL --export-filter EXPR; join two filters with and")
            pairs[number - 1] = pairs[number - 1][0], text
    return pairs


def planned(urls: Sequence[str], filters: Sequence[str], order: Iterable[str],
            keep: Callable[[str], Keep]) -> list[tuple[str, Keep | None]]:
    """What `exporting` begins with, checked: `paired`, and each filter's text made into what it keeps.

    Raises FlowtopError: as `parse_export_url`, `paired`, `keep`.
    """
    from flowtop.export.url import parse_export_url

    for url in urls:
        parse_export_url(url)
    return [(url, None if text is None else keep(text)) for url, text in paired(urls, filters, order)]


def exporting(exports: Exports, begin: Iterable[tuple[str, Keep | None]], run: Callable[[Exports], int],
              tell: Callable[[str], None]) -> int:
    """Run with exports opened before and flushed after; then say of each what it sent, as tcpdump does.

    Args:
        exports: stopped when this returns.
        begin: with these: URL, and which records it is for (None: all).
        run: gives an exit status.
        tell: takes a line about each export; of a failed run, where there is something to tell.

    Returns:
        What `run` gave; EXIT_NOT_SENT for EXIT_OK when records were given up.

    Raises FlowtopError: as `Exports.add`, and as `run`.
    """
    failed = True
    try:
        for url, keep in begin:
            exports.add(url, keep)
        status = run(exports)
        failed = False
    finally:
        last = [export.statistics for export in exports.stop()]
        for figures in last:
            if not failed or records(figures):
                tell(closing_line(figures))
    return status or (EXIT_OK if all(map(complete, last)) else EXIT_NOT_SENT)


def records(figures: ExportStatistics) -> int:
    """Flow Records an export has had to do with."""
    return figures.sent_records + figures.spooled_records + _lost(figures)


def complete(figures: ExportStatistics) -> bool:
    """Whether every Flow Record was sent, or waits in the spool for the next run."""
    return not _lost(figures)


def closing_line(figures: ExportStatistics) -> str:
    """One line: what was sent, what was not and why. Without control characters."""
    parts = [f"{figures.sent_records} flow records sent"]
    if figures.repeated_records:
        parts.append(f"{figures.repeated_records} may arrive twice")
    if figures.spooled_records:
        parts.append(f"{figures.spooled_records} spooled for the next run")
    if _lost(figures):
        parts.append(f"{_lost(figures)} NOT SENT")
    if figures.last_error and (figures.spooled_records or _lost(figures) or not figures.sent_records):
        parts.append(figures.last_error)
    line = f"export {figures.url}: {', '.join(parts)}"
    return "".join(character if character.isprintable() else "?" for character in line)


def _lost(figures: ExportStatistics) -> int:
    """Given up, or still in memory when the flush time was over and the disk did not answer."""
    return figures.not_sent_records + figures.queued_records
