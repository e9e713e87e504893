"""Names in the packets of a file: which packets may tell one, by ports and first octets, for all packets at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.capture.packets.frames import Frames, Integers, gather
from flowtop.capture.packets.internet import NO_FRAGMENT, Packets
from flowtop.model.kinds import Protocol, TcpBits
from flowtop.model.names_seen import NameStatistics
from flowtop.model.record import FLOW_KEY_DTYPE
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
_KEY_FIELDS = FLOW_KEY_DTYPE.fields
assert _KEY_FIELDS is not None
_PORTS_WORD, _PROTOCOL_OCTET = int(_KEY_FIELDS["source_port"][1]) // 8, int(_KEY_FIELDS["protocol"][1]) % 8
"""Where ports and protocol are in a Flow Key: the word of eight octets, and the octet in it."""
_LEAST_INITIAL = 1200 + 28
"""Octets of an IP packet with a client's Initial packet (RFC 9000, section 14.1)."""
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

    def list_name(self, address: bytes, name: bytes, *, whole: bool) -> None:
        """The file has a list of names, with this one.

        Args:
            address: 4 or 16 octets.
            name: from the file.
            whole: whether that is all of it.
        """
        self._reader.list_name(address, name, whole=whole)

    def look(self, packets: Packets, frames: Frames, ip_at: Integers, transport_at: Integers) -> None:
        """Read what these packets say.

        Args:
            packets: parsed, with joined fragments.
            frames: theirs, shape (n,).
            ip_at, transport_at: where their IP and transport headers are in the buffer, shape (n,).
        """
        captured_to = frames.offset + frames.captured
        ends = _Ends(packets.keys)
        rows, at, octets = self._segments(packets, frames, ip_at, captured_to, ends)
        datagrams = self._datagrams(packets, frames, transport_at, captured_to, ends)
        rows, at, octets = (np.concatenate(parts) for parts in zip((rows, at, octets), datagrams, strict=True))
        order = np.argsort(rows, kind="stable")
        for row, start, length in zip(rows[order].tolist(), at[order].tolist(), octets[order].tolist(), strict=True):
            stop = min(start + min(length, _MOST_OCTETS), int(captured_to[row]))
            if start < stop:
                self._reader.read(packets.keys[row].tobytes(), int(packets.time_ns[row]),
                                  frames.octets[start:stop].tobytes(), length)

    @staticmethod
    def _datagrams(packets: Packets, frames: Frames, transport_at: Integers, captured_to: Integers,
                   ends: _Ends) -> tuple[Integers, Integers, Integers]:
        """Rows, places and lengths of the payloads of DNS messages and QUIC packets in UDP."""
        initial = (ends.destination == np.uint16(HTTPS_PORT)) & (packets.octets >= _LEAST_INITIAL)
        rows = np.flatnonzero((ends.dns | initial) & (ends.protocol == np.uint8(Protocol.UDP)))
        rows = rows[packets.fragment[rows] == NO_FRAGMENT]
        rows = rows[transport_at[rows] + _UDP_HEADER.itemsize < captured_to[rows]]
        at = transport_at[rows] + _UDP_HEADER.itemsize
        wanted = ends.dns[rows] | (frames.octets[at] >= np.uint8(_LONG_HEADER))
        rows, at = rows[wanted], at[wanted]
        length = gather(frames.octets, transport_at[rows], _UDP_HEADER)["length"].astype(np.int64)
        return rows, at, np.maximum(length - _UDP_HEADER.itemsize, 0)

    def _segments(self, packets: Packets, frames: Frames, ip_at: Integers, captured_to: Integers,
                  ends: _Ends) -> tuple[Integers, Integers, Integers]:
        """Rows, places and lengths of the payloads of TCP segments: DNS, ClientHellos, HTTP requests."""
        at = ip_at + packets.octets
        at -= packets.segment_octets  # where the payload begins, but for SYN and FIN, which are not in the packet
        bits = packets.tcp_bits & (_FIN | _SYN)
        some = np.flatnonzero(bits)
        if len(some):
            at[some] += (bits[some] & _FIN != 0).astype(np.int64) + (bits[some] & _SYN != 0)
        np.minimum(at, len(frames.octets) - _FOUR.itemsize, out=at)  # of packets that were not captured to there
        there = np.flatnonzero(packets.segment_octets > 0)
        chosen = there[_BEGINS[frames.octets[at[there]]]]
        head = gather(frames.octets, at[chosen], _FOUR).astype(np.uint32)
        hello = head & np.uint32(_TLS_MASK) == np.uint32(_TLS_BEGIN)
        octets = ip_at + packets.octets - at
        hellos = chosen[hello]
        dns = there[ends.dns[there]]
        following = self._following(packets, octets, hellos[at[hellos] + _RECORD_HEADER <= captured_to[hellos]],
                                    frames.octets, at)
        rows = np.unique(np.concatenate((chosen[hello | np.isin(head, _HTTP)], dns, following)))
        rows = rows[(octets[rows] > 0) & (at[rows] < captured_to[rows])]
        return rows, at[rows], octets[rows]

    def _following(self, packets: Packets, octets: Integers, hellos: Integers, buffer: npt.NDArray[np.uint8],
                   at: Integers) -> Integers:
        """Rows of the segments in which ClientHellos go on, of these packets and of those before.

        Args:
            octets: of the payload of each packet, shape (n,).
            hellos: rows.
            at: where the payload of each packet is in the buffer, shape (n,).
        """
        found: list[int] = []
        due, self._due = self._due, {}
        for key, sequence in due.items():
            self._find(packets, octets, key, sequence, -1, found)
        for row in hellos.tolist():
            start = int(at[row])
            length = int.from_bytes(buffer[start + _RECORD_HEADER - 2:start + _RECORD_HEADER].tobytes(), "big")
            if length + _RECORD_HEADER > octets[row]:
                self._find(packets, octets, packets.keys[row].tobytes(), int(packets.sequence[row]) + int(octets[row]),
                           row, found)
        return np.array(found, np.int64)

    def _find(self, packets: Packets, octets: Integers, key: bytes, sequence: int, row: int, found: list[int]) -> None:
        """Add the rows, after `row`, of segments of a flow that follow one another; the first begins at `sequence`."""
        for _ in range(_FOLLOWING):
            first = row + 1
            window = np.flatnonzero(packets.sequence[first:first + _WINDOW] == np.uint32(sequence & 0xFFFFFFFF))
            here = [first + step for step in window.tolist() if packets.segment_octets[first + step]
                    and packets.keys[first + step].tobytes() == key]
            if not here:
                if first + _WINDOW >= len(packets.keys) and len(self._due) < _WINDOW:
                    self._due[key] = sequence
                return
            row = here[0]
            found.append(row)
            sequence += int(octets[row])


class _Ends:
    """Ports and protocol of Flow Keys, each in a row: the members of a structured array are far from each other.

    Args:
        keys: FLOW_KEY_DTYPE, shape (n,).
    """

    def __init__(self, keys: npt.NDArray[np.void]) -> None:
        word = np.ascontiguousarray(keys.view(np.uint64).reshape(len(keys), -1)[:, _PORTS_WORD])
        ports = word.view(np.uint16).reshape(len(keys), -1)
        self.destination = ports[:, 1]
        self.protocol = word.view(np.uint8).reshape(len(keys), -1)[:, _PROTOCOL_OCTET]
        self.dns = (ports[:, 0] == np.uint16(DNS_PORT)) | (self.destination == np.uint16(DNS_PORT))
