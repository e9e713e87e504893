"""The classic pcap format: micro- and nanoseconds, both byte orders (draft-ietf-opsawg-pcap)."""

from __future__ import annotations

import struct

import numpy as np

from flowtop.capture.files.chain import record_offsets
from flowtop.capture.files.frames import LONGEST_FRAME, FileInterface, Frames, gather
from flowtop.capture.files.octets import DamagedError, OctetStream

HEADER_OCTETS = 24
RECORD_OCTETS = 16
_LINK_TYPE = 0xFFFF
"""The bits above say how long a frame check sequence is."""
_MAGIC = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}
"""By magic number: ns of a time's fraction."""


def pcap_order(octets: bytes) -> str | None:
    """ "<" or ">" when a pcap file begins with these octets."""
    for order in "<>":
        if len(octets) >= 4 and struct.unpack_from(f"{order}I", octets)[0] in _MAGIC:
            return order
    return None


class PcapReader:
    """Finds the frames of a pcap file.

    Args:
        stream: with the file's header in its buffer, which is taken.
        name: of the file's one interface.
    """

    def __init__(self, stream: OctetStream, name: str) -> None:
        header = stream.buffer[stream.start:stream.end][:HEADER_OCTETS].tobytes()
        order = pcap_order(header)
        if order is None or len(header) < HEADER_OCTETS:
            raise DamagedError("is cut off in its header")
        magic, link_type = struct.unpack(f"{order}I16xI", header)
        self._order = order
        self._fraction_ns = _MAGIC[magic]
        self.interfaces = (FileInterface(link_type & _LINK_TYPE, name),)
        self._record = np.dtype([(field, f"{order}u4") for field in ("s", "fraction", "captured", "wire")])
        stream.start += HEADER_OCTETS

    def read(self, stream: OctetStream) -> Frames | None:
        """See FrameReader."""
        at, following = record_offsets(stream.raw, stream.start, stream.end, self._order, LONGEST_FRAME)
        if not len(at):
            self._refuse_damage(stream)
            return None
        stream.start = following
        records = gather(stream.buffer, at, self._record)
        captured = records["captured"].astype(np.int64)
        return Frames(
            octets=stream.buffer,
            offset=at + RECORD_OCTETS,
            captured=captured,
            wire=np.maximum(records["wire"], captured),
            time_ns=records["s"].astype(np.int64) * 1_000_000_000
            + records["fraction"].astype(np.int64) * self._fraction_ns,
            interface=np.zeros(len(at), np.int64),
            egress=np.zeros(len(at), np.bool_),
            interfaces=self.interfaces,
        )

    def _refuse_damage(self, stream: OctetStream) -> None:
        left = stream.end - stream.start
        if left >= RECORD_OCTETS:
            (captured,) = struct.unpack_from(f"{self._order}I", stream.view, stream.start + 8)
            if captured > LONGEST_FRAME:
                raise DamagedError(f"is damaged: a record of {captured:,} octets")
        if left and stream.at_end:
            raise DamagedError("is cut off in the middle of a record")
