"""Packets of the flows that match, to a file, while it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from flowtop.tui.screens.flow_screen import FlowScreen
from flowtop.view import units

_NAME_LENGTH = 30


class Recording(FlowScreen):
    """Begins and ends a recording of packets."""

    def action_packets(self) -> None:
        """Ask where to; or end the one that goes on."""
        if self.packets is None:
            self.say("there are no packets here")
        elif self.packets.running:
            self.run_worker(self._end_packets(), exclusive=True, group="packets")
        else:
            from flowtop.tui.screens.writing import WriteScreen  # needed only now

            name = time.strftime("flowtop-%Y%m%d-%H%M%S.pcapng", self.clock.local(self.clock.wall()))
            query = self.questions.asked
            filters = () if query is None else tuple(one for one in (query.filter, query.scope) if one is not None)
            texts = " and ".join(f"({one.text})" if len(filters) > 1 else one.text for one in filters)
            which = f"flows that match {texts}" if texts else "all flows"

            async def begin(path: Path) -> str:
                if self.packets is not None:
                    await asyncio.to_thread(self.packets.begin, str(path), filters, new=True)
                self.paint()
                return f"packets are written to {units.printable(str(path.absolute()), 200)} until W"

            self.app.push_screen(WriteScreen(
                name, begin, self.say, title=f"write packets of {which}", suffixes=(".pcapng",),
                verb="begin"))

    async def _end_packets(self) -> None:
        from flowtop.recording import closing_line  # needed only now

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
        else:
            yield f"PACKETS: {'FILE FULL' if figures.state == 'full' else 'CANNOT WRITE'}, {name}"
