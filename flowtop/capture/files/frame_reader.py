"""The interface of frame readers, implemented in pcap.py and pcapng.py."""

from __future__ import annotations

from typing import Protocol

from flowtop.capture.files.octets import OctetStream
from flowtop.capture.packets.frames import Frames
from flowtop.wire.owner_comments import CommentOwners


class FrameReader(Protocol):
    """Finds the frames of one file format.

    Attributes:
        owners: those of frames, which the file names; None: this format has none.
    """

    owners: CommentOwners | None

    def read(self, stream: OctetStream) -> Frames | None:
        """Take the complete frames from the stream's buffer; None if more has to be read first.

        Raises:
            DamagedError: no valid record where the next one should be. Frames before it were returned first.
        """
