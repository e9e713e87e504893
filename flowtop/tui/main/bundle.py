"""A bundle for a ticket, of what is under the cursor: a directory with packets, flows, the screen and the check."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from flowtop.errors import FlowtopError
from flowtop.files import recording_owner
from flowtop.filters.filter import Filter, compile_filter
from flowtop.output import bundle
from flowtop.output.records import rows_name
from flowtop.query.query import Page
from flowtop.text import units
from flowtop.tui.main.view import View
from flowtop.tui.source import PacketControl
from flowtop.tui.state.subject import Subject

PACKETS_S = 10.0
"""How long packets are written."""
_LOOK_EVERY_S = 0.1


class BundleMaker:
    """Makes one bundle at a time: the screen and the flows at once, packets and the check in the background.

    Args:
        view: the main screen.
        packets: what writes packets; None: nothing does.
        file_ended: whether a file has been read to its end, so that no more packets come.
    """

    def __init__(self, view: View, packets: PacketControl | None, file_ended: Callable[[], bool]) -> None:
        self._view = view
        self._packets = packets
        self._file_ended = file_ended
        self._busy = ""

    @property
    def busy(self) -> str:
        """The directory that is being filled, "" for none."""
        return self._busy

    async def begin(self, path: Path, subject: Subject, flows: Awaitable[Page], picture: str) -> str:
        """Make the directory, with what can be written at once; gives a message. The rest follows by itself.

        Args:
            path: of the directory.
            subject: what was chosen; its row is in the bundle also when its flows have left since.
            flows: its flows as they were then.
            picture: text of the screen.

        Raises:
            FlowtopError: it exists, or cannot be written.
        """
        chosen, owner = compile_filter(subject.whole), recording_owner(os.environ, os.geteuid())
        shown = units.printable(str(path), 200)  # as it was typed: what came of it has room beside it
        path = path.absolute()
        page = with_chosen(await flows, subject.page)
        directory = await asyncio.to_thread(bundle.BundleDirectory, path, owner)
        try:
            await asyncio.to_thread(directory.write_text, bundle.SCREEN, picture)
            await asyncio.to_thread(directory.write_rows, bundle.FLOWS, page)
        except BaseException:
            directory.close()
            raise
        self._busy = shown
        over = all(row.end_reason for row in page.rows)
        self._view.app.run_worker(self._fill(directory, path, chosen, rows_text(page), over=over))
        return f"bundle in {shown}: packets for {PACKETS_S:.0f} s …"

    async def _fill(self, directory: bundle.BundleDirectory, path: Path, chosen: Filter, flows: str, *,
                    over: bool) -> None:
        shown = self._busy
        try:
            written, words = await self._write_packets(path / bundle.PACKETS, chosen, directory.descriptor)
            if not written:
                words = f"no packets ({words or _none(over=over)})"
                await asyncio.to_thread(directory.write_text, bundle.NO_PACKETS, f"{words}\n")
            text = await asyncio.to_thread(bundle.check_text)
            await asyncio.to_thread(directory.write_text, bundle.CHECK, text)
            self._view.say(f"bundle in {shown}: {flows}, {words}, screen, check")
        except FlowtopError as error:
            self._view.say(f"bundle in {shown} is not complete: {error.message}")
        finally:
            directory.close()
            self._busy = ""

    async def _write_packets(self, path: Path, chosen: Filter, directory: int) -> tuple[int, str]:
        """Packets for a while, where there are any; gives how many, and that in words, or why there are none, if it is
        not that none came."""
        packets = self._packets
        if packets is None or self._file_ended():
            return 0, "none come here"
        if packets.running:
            return 0, "they are being written to another file"
        try:
            await asyncio.to_thread(packets.begin, str(path), (chosen,), new=True, directory=directory)
        except FlowtopError as error:
            return 0, error.message
        self._view.paint()
        for _ in range(round(PACKETS_S / _LOOK_EVERY_S)):
            if not packets.running:  # W has ended it, or the disk is full
                break
            await asyncio.sleep(_LOOK_EVERY_S)
        figures = await asyncio.to_thread(packets.end)
        self._view.paint()
        if figures is None or not figures.written:
            return 0, ""
        return figures.written, units.things(figures.written, "packet")


def _none(*, over: bool) -> str:
    """Why no packets came."""
    return f"none came in {PACKETS_S:.0f} s{': it had ended' if over else ''}"


def with_chosen(page: Page, chosen: Page) -> Page:
    """The page of the flows, with the row that was chosen: flows that have left are listed as they were then, and a
    group whose flows have all left as the group."""
    if chosen.query.group:
        return page if page.rows else chosen
    there = {row.flow_id for row in page.rows}
    return replace(page, rows=(*(row for row in chosen.rows if row.flow_id not in there), *page.rows))


def rows_text(page: Page) -> str:
    """How many rows of which kind."""
    return units.things(len(page.rows), rows_name(page.query).removesuffix("s"))
