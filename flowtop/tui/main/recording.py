"""Packets of the flows that match, to a file, while it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flowtop.filters.filter import all_of_texts
from flowtop.text import units
from flowtop.tui.main.flow_screen import FlowScreen

if TYPE_CHECKING:
    from flowtop.filters.filter import Filter


_NAME_LENGTH = 30
_FILTER_LENGTH = 40


class Recording(FlowScreen):
    """Begins and ends a recording of packets."""

    def action_packets(self) -> None:
        """Ask where to; or end the one that goes on."""
        if self.packets is None:
            self.say("there are no packets here")
        elif self.packets.running:
            self.run_worker(self._end_packets(), exclusive=True, group="packets")
        elif self._file_has_ended:
            self.say("no packet comes any more: start again with -r FILE -w OTHER.pcapng")
        else:
            from flowtop.tui.panels.writing import WriteScreen  # needed only now

            name = time.strftime("flowtop-%Y%m%d-%H%M%S.pcapng", self.clock.local(self.clock.wall()))
            filters, texts = self._on_view()
            which = f"flows that match {texts}" if texts else "all flows"

            async def begin(path: Path) -> str:
                if self.packets is not None:
                    await asyncio.to_thread(self.packets.begin, str(path), filters, new=True)
                self.paint()
                return f"packets are written to {units.printable(str(path.absolute()), 200)} until W"

            self.app.push_screen(WriteScreen(
                name, begin, self.say, title=f"write packets of {which}", suffixes=(".pcapng",),
                verb="begin"))

    @property
    def _file_has_ended(self) -> bool:
        newest = self.questions.newest
        return newest is not None and newest.source is not None and newest.source.ended

    def _on_view(self) -> tuple[tuple[Filter, ...], str]:
        """The filters that the list has now, and the one text of all."""
        query = self.questions.asked
        filters = () if query is None else tuple(one for one in (query.filter, query.scope) if one is not None)
        return filters, all_of_texts([one.text for one in filters])

    async def _end_packets(self) -> None:
        from flowtop.recording.recorder import closing_line  # needed only now

        if self.packets is not None:
            self.say("packets: writing what is on its way …")
            figures = await asyncio.to_thread(self.packets.end)
            if figures is not None:
                self.say(closing_line(figures))
            self.paint()

    def banners(self) -> Iterator[str]:
        """The recording that goes on, or that ended by itself."""
        yield from super().banners()
        figures = None if self.packets is None else self.packets.statistics()
        if figures is None or figures.state == "ended":
            return
        name = units.printable(Path(figures.path).name, _NAME_LENGTH)
        if figures.state == "writing":
            yield f"PACKETS TO {name}"
            if figures.filter != self._on_view()[1]:  # else it stands beside it
                yield f"OF {units.printable(figures.filter, _FILTER_LENGTH) or 'ALL FLOWS'}"
        else:
            yield f"PACKETS: {'FILE FULL' if figures.state == 'full' else 'CANNOT WRITE'}, {name}"
