"""What a file is, told by its first octets."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flowtop.capture.files.link import LINK_TYPES
from flowtop.capture.files.octets import DamagedError, OctetStream
from flowtop.capture.files.packets import PacketReader
from flowtop.capture.files.pcap import HEADER_OCTETS, PcapReader, pcap_order
from flowtop.capture.files.pcapng import PcapngReader, is_pcapng
from flowtop.capture.files.pieces import Piece
from flowtop.collecting import CollectingStatistics
from flowtop.errors import EXIT_DAMAGED, FlowtopError

_LINK_TYPES_HINT = "read are Ethernet, Linux cooked v1 and v2, raw IP, null and loopback"


class Reader(Protocol):
    """Reads one file to its end."""

    @property
    def statistics(self) -> CollectingStatistics | None:
        """What a Collecting Process says; None: it is none."""

    @property
    def fault(self) -> str:
        """What could not be read though the file is whole, in words that follow its name; "" for nothing."""

    def read(self, stream: OctetStream, latest_ns: int) -> Piece | None:
        """What lies complete in the stream's buffer, which is taken; None: there is nothing before more is read.

        Args:
            latest_ns: time that the piece's clock begins with.

        Raises DamagedError: what comes next cannot be read. What is before it was given first.
        """

    def observations(self) -> npt.NDArray[np.void]:
        """The books of what was handed over: OBSERVATION_DTYPE, cumulative."""

    def names(self) -> dict[int, str]:
        """Interfaces by number."""


def identify(stream: OctetStream, *, decap: bool = False) -> Reader | None:
    """What reads it; None: too little has come to tell.

    Args:
        decap: packets in tunnels stand for what carries them.

    Raises FlowtopError: it is empty, or nothing that is read here.
    """
    try:
        stream.fill()
        head = stream.buffer[stream.start:stream.end][:HEADER_OCTETS].tobytes()
        if len(head) < HEADER_OCTETS and not stream.at_end:
            return None
        name = "stdin" if stream.name == "standard input" else Path(stream.name).name
        if pcap_order(head):
            frames = PcapReader(stream, name)
            _require(stream, frames.interfaces[0].link_type)
            return PacketReader(frames, decap=decap)
        if is_pcapng(head):
            return PacketReader(PcapngReader(name), decap=decap)
        from flowtop.wire.ipfix import begins_message  # registry and Collecting Process: not for a packet capture

        if begins_message(head):
            from flowtop.capture.files.records import RecordReader

            return RecordReader(name)
    except DamagedError as error:
        raise FlowtopError(f"{stream.name} {error}", hint="nothing of it could be read",
                           exit_code=EXIT_DAMAGED) from error
    raise FlowtopError(f"{stream.name} {'is not a capture file' if head else 'is empty'}",
                       hint="-r reads pcap, pcapng and IPFIX files, gzipped too", exit_code=EXIT_DAMAGED)


def _require(stream: OctetStream, link_type: int) -> None:
    if link_type not in LINK_TYPES:
        raise FlowtopError(f"{stream.name} has link type {link_type}, which is not read here", hint=_LINK_TYPES_HINT,
                           exit_code=EXIT_DAMAGED)
