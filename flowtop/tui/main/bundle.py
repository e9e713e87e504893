"""A bundle for a ticket, of what is under the cursor: a directory with packets, flows, the screen and the check."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from flowtop.errors import FlowtopError
from flowtop.files import recording_owner
from flowtop.filters.filter import Filter, compile_filter
from flowtop.output import bundle
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
        rows: gives the flows that pass a filter.
        file_ended: whether a file has been read to its end, so that no more packets come.
    """

    def __init__(self, view: View, packets: PacketControl | None, rows: Callable[[Filter], Awaitable[Page]],
                 file_ended: Callable[[], bool]) -> None:
        self._view = view
        self._packets = packets
        self._rows = rows
        self._file_ended = file_ended
        self._busy = ""

    @property
    def busy(self) -> str:
        """The directory that is being filled, "" for none."""
        return self._busy

    async def begin(self, path: Path, subject: Subject, picture: str) -> str:
        """Make the directory, with what can be written at once; gives a message. The rest follows by itself.

        Raises:
            FlowtopError: it exists, or cannot be written.
        """
        chosen, owner = compile_filter(subject.whole), recording_owner(os.environ, os.geteuid())
        shown = units.printable(str(path), 200)  # as it was typed: what came of it has room beside it
        path = path.absolute()
        page = await self._rows(chosen)
        directory = await asyncio.to_thread(bundle.BundleDirectory, path, owner)
        try:
            await asyncio.to_thread(directory.write_text, bundle.SCREEN, picture)
            await asyncio.to_thread(directory.write_rows, bundle.FLOWS, page)
        except BaseException:
            directory.close()
            raise
        self._busy = shown
        self._view.app.run_worker(self._fill(directory, path, chosen, len(page.rows)))
        return f"bundle in {shown}: packets for {PACKETS_S:.0f} s …"

    async def _fill(self, directory: bundle.BundleDirectory, path: Path, chosen: Filter, flows: int) -> None:
        shown = self._busy
        try:
            words = await self._write_packets(path / bundle.PACKETS, chosen, directory.descriptor)
            text = await asyncio.to_thread(bundle.check_text)
            await asyncio.to_thread(directory.write_text, bundle.CHECK, text)
            self._view.say(f"bundle in {shown}: {units.things(flows, 'flow')}, {words}, screen, check")
        except FlowtopError as error:
            self._view.say(f"bundle in {shown} is not complete: {error.message}")
        finally:
            directory.close()
            self._busy = ""

    async def _write_packets(self, path: Path, chosen: Filter, directory: int) -> str:
        """Packets for a while, where there are any; gives what came of it."""
        packets = self._packets
        if packets is None or self._file_ended():
            return "no packets (none come here)"
        if packets.running:
            return "no packets (they are being written to another file)"
        try:
            await asyncio.to_thread(packets.begin, str(path), (chosen,), new=True, directory=directory)
        except FlowtopError as error:
            return f"no packets ({error.message})"
        self._view.paint()
        for _ in range(round(PACKETS_S / _LOOK_EVERY_S)):
            if not packets.running:  # W has ended it, or the disk is full
                break
            await asyncio.sleep(_LOOK_EVERY_S)
        figures = await asyncio.to_thread(packets.end)
        self._view.paint()
        return "no packets" if figures is None else units.things(figures.written, "packet")
