"""Names in the packets of a file: which packets may tell one, by ports and first octets, for all packets at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets.frames import Frames, Integers, gather
from flowtop.capture.packets.internet import NO_FRAGMENT, Packets
from flowtop.model.kinds import Protocol, TcpBits
from flowtop.model.names_seen import NameStatistics
from flowtop.names_seen.book import NameBook
from flowtop.names_seen.reader import DNS_PORT, HTTP_METHODS, HTTPS_PORT, TLS_HANDSHAKE, NameReader

_UDP_HEADER = np.dtype([("ports", "V4"), ("length", ">u2"), ("checksum", "V2")])
_MOST_OCTETS = 4096
"""Of a packet that are read, as in bpf/names.h."""
_BEGINS = np.zeros(256, np.bool_)
_BEGINS[[TLS_HANDSHAKE, *(method[0] for method in HTTP_METHODS)]] = True
"""First octets of what is looked at in TCP."""
_HTTP = np.array([int.from_bytes(method, "big") for method in HTTP_METHODS], np.uint32)
_FOUR = np.dtype(">u4")
_TLS_BEGIN, _TLS_MASK = TLS_HANDSHAKE << 24 | 3 << 16, 0xFFFF0000
_LONG_HEADER = 0xC0
"""The two first bits of a long header of QUIC."""
_RECORD_HEADER = 5
_FOLLOWING, _WINDOW = 3, 8192
"""Segments after a ClientHello that did not fit in one, and among how many packets each of them is looked for."""
_FIN, _SYN = np.uint16(TcpBits.FIN), np.uint16(TcpBits.SYN)


class FileNames:
    """Reads the names in a file's packets, in the file's order.

    Attributes:
        book: what was read.
    """

    def __init__(self) -> None:
        self.book = NameBook()
        self._reader = NameReader(self.book)
        self._due: dict[bytes, int] = {}

    @property
    def statistics(self) -> NameStatistics:
        """What was seen so far."""
        return self._reader.statistics()

    def look(self, packets: Packets, frames: Frames, ip_at: Integers, transport_at: Integers) -> None:
        """Read what these packets say.

        Args:
            packets: parsed, with joined fragments.
            frames: theirs, shape (n,).
            ip_at, transport_at: where their IP and transport headers are in the buffer, shape (n,).
        """
        captured_to = frames.offset + frames.captured
        rows, at, octets = self._segments(packets, frames, ip_at, captured_to)
        datagrams = self._datagrams(packets, frames, transport_at, captured_to)
        rows, at, octets = (np.concatenate(parts) for parts in zip((rows, at, octets), datagrams, strict=True))
        order = np.argsort(rows, kind="stable")
        for row, start, length in zip(rows[order].tolist(), at[order].tolist(), octets[order].tolist(), strict=True):
            stop = min(start + min(length, _MOST_OCTETS), int(captured_to[row]))
            if start < stop:
                self._reader.read(packets.keys[row].tobytes(), int(packets.time_ns[row]),
                                  frames.octets[start:stop].tobytes(), length)

    def _datagrams(self, packets: Packets, frames: Frames, transport_at: Integers,
                   captured_to: Integers) -> tuple[Integers, Integers, Integers]:
        """Rows, places and lengths of the payloads of DNS messages and QUIC packets in UDP."""
        source, destination = packets.keys["source_port"], packets.keys["destination_port"]
        dns = (source == np.uint16(DNS_PORT)) | (destination == np.uint16(DNS_PORT))
        rows = np.flatnonzero(dns | (destination == np.uint16(HTTPS_PORT)))
        udp = packets.keys["protocol"][rows] == np.uint8(Protocol.UDP)
        rows = rows[udp & (packets.fragment[rows] == NO_FRAGMENT)]
        rows = rows[transport_at[rows] + _UDP_HEADER.itemsize < captured_to[rows]]
        at = transport_at[rows] + _UDP_HEADER.itemsize
        wanted = dns[rows] | (frames.octets[at] >= np.uint8(_LONG_HEADER))
        rows, at = rows[wanted], at[wanted]
        length = gather(frames.octets, transport_at[rows], _UDP_HEADER)["length"].astype(np.int64)
        return rows, at, np.maximum(length - _UDP_HEADER.itemsize, 0)

    def _segments(self, packets: Packets, frames: Frames, ip_at: Integers,
                  captured_to: Integers) -> tuple[Integers, Integers, Integers]:
        """Rows, places and lengths of the payloads of TCP segments: DNS, ClientHellos, HTTP requests."""
        nothing = np.zeros(0, np.int64)
        rows = np.flatnonzero(packets.segment_octets)
        bits = packets.tcp_bits[rows]
        octets = packets.segment_octets[rows] - (bits & _FIN != 0) - (bits & _SYN != 0)
        at = ip_at[rows] + packets.octets[rows] - octets
        there = (octets > 0) & (at < captured_to[rows])
        if not there.all():
            rows, octets, at = rows[there], octets[there], at[there]
        if not len(rows):
            return nothing, nothing, nothing
        chosen = np.flatnonzero(_BEGINS[frames.octets[at]])
        head = gather(frames.octets, at[chosen], _FOUR).astype(np.uint32)
        hello = head & np.uint32(_TLS_MASK) == np.uint32(_TLS_BEGIN)
        dns = np.flatnonzero((packets.keys["source_port"][rows] == np.uint16(DNS_PORT))
                             | (packets.keys["destination_port"][rows] == np.uint16(DNS_PORT)))
        hellos = chosen[hello]
        following = self._following(packets, rows, octets, hellos, frames.octets, at)
        places = np.unique(np.concatenate((chosen[hello | np.isin(head, _HTTP)], dns, following)))
        return rows[places], at[places], octets[places]

    def _following(self, packets: Packets, rows: Integers, octets: Integers, hellos: Integers,
                   buffer: npt.NDArray[np.uint8], at: Integers) -> Integers:
        """Places, among `rows`, of the segments in which ClientHellos go on, of this piece and of the one before."""
        found: list[int] = []
        sequences = packets.sequence[rows]
        due, self._due = self._due, {}
        for key, sequence in due.items():
            self._find(packets, rows, sequences, octets, (key, sequence, -1, _FOLLOWING), found)
        for place in hellos.tolist():
            start = int(at[place])
            length = int.from_bytes(buffer[start + _RECORD_HEADER - 2:start + _RECORD_HEADER].tobytes(), "big")
            if length + _RECORD_HEADER > octets[place]:
                sequence = int(sequences[place]) + int(octets[place])
                self._find(packets, rows, sequences, octets,
                           (packets.keys[rows[place]].tobytes(), sequence, place, _FOLLOWING), found)
        return np.array(found, np.int64)

    def _find(self, packets: Packets, rows: Integers, sequences: npt.NDArray[np.uint32], octets: Integers,
              where: tuple[bytes, int, int, int], found: list[int]) -> None:
        """Add places of segments that follow one another in a flow.

        Args:
            where: the flow's key, the sequence number at which the first of them begins, the place that all are after,
                and how many are looked for.
        """
        key, sequence, place, left = where
        while left:
            window = np.flatnonzero(sequences[place + 1:place + 1 + _WINDOW] == np.uint32(sequence & 0xFFFFFFFF))
            here = [place + 1 + step for step in window.tolist()
                    if packets.keys[rows[place + 1 + step]].tobytes() == key]
            if not here:
                if place + 1 + _WINDOW >= len(rows) and len(self._due) < _WINDOW:
                    self._due[key] = sequence
                return
            place, left = here[0], left - 1
            found.append(place)
            sequence += int(octets[place])
