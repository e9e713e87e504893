"""What finds the frames of one file format: pcap.py and pcapng.py each have one."""

from __future__ import annotations

from typing import Protocol

from flowtop.capture.files.octets import OctetStream
from flowtop.capture.packets.frames import Frames


class FrameReader(Protocol):
    """Finds the frames of one file format."""

    def read(self, stream: OctetStream) -> Frames | None:
        """The complete frames in the stream's buffer, which are taken; None: there is none before more is read.

        Raises:
            DamagedError: no record can begin where the next one should. Frames before it were given first.
        """
