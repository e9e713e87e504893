"""The pcapng format (draft-ietf-opsawg-pcapng): sections in both byte orders, interfaces, packets, names of addresses.

Of comments only those of packets that flowtop has written there (wire/owner_comments.py).
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowtop.capture.files.names import FileNames
from flowtop.capture.files.octets import DamagedError, OctetStream
from flowtop.capture.packets.frames import LATEST_NS, LONGEST_FRAME, FileInterface, Frames, Integers, Octets, gather
from flowtop.wire.owner_comments import PREFIX, CommentOwners

SECTION_HEADER = 0x0A0D0D0A
_INTERFACE_DESCRIPTION, _PACKET, _SIMPLE_PACKET, _NAME_RESOLUTION, _ENHANCED_PACKET = 1, 2, 3, 4, 6
_PACKETS = frozenset((_PACKET, _SIMPLE_PACKET, _ENHANCED_PACKET))
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_BLOCK_OCTETS = 12
"""Octets of type, length, and trailing length of any block."""
_PACKET_OCTETS, _SIMPLE_OCTETS = 28, 12
"""Octets from the start of a block to its frame."""
_LONGEST_BLOCK = LONGEST_FRAME + (1 << 20)
"""Limit of blocks that are not skipped: a frame and its options."""
_MOST_INTERFACES = 1024
_IF_NAME, _IF_TSRESOL, _IF_TSOFFSET, _EPB_FLAGS, _COMMENT = 2, 9, 14, 2, 1
_LONG_DESCRIPTION = 1_024
"""Octets of an interface description that are not kept for the next section."""
_NAMED_OCTETS = {1: 4, 2: 16}
"""Octets of the address in a record of a Name Resolution Block, by its type."""
_INBOUND, _OUTBOUND = 1, 2
_MOST_OPTIONS = 16
"""Limit of options per packet that are searched for its direction and its owner."""


def is_pcapng(octets: bytes) -> bool:
    """Whether these octets begin a pcapng file; the type of a section header is the same in both byte orders."""
    return octets[:4] == SECTION_HEADER.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class _Interface:
    """One interface of a section.

    Attributes:
        number: index into PcapngReader.interfaces.
        snap: maximum octets per frame, 0 for no limit.
        resolution: if_tsresol.
        offset_s: if_tsoffset.
    """

    number: int
    snap: int
    resolution: int
    offset_s: int


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Packet blocks of one or more sections.

    Attributes:
        at: offset of each.
        kinds: type of each.
        starts: number of blocks before each section but the first.
        sections: the interfaces of each section.
    """

    at: list[int]
    kinds: list[int]
    starts: list[int]
    sections: list[list[_Interface]]

    def interfaces(self, count: int) -> tuple[list[_Interface], Integers, Integers]:
        """All interfaces; and for each block the place of its section's first one, and their number, shape (n,)."""
        blocks = np.diff([0, *self.starts, count])
        numbers = np.array(list(map(len, self.sections)), np.int64)
        firsts = np.cumsum(numbers) - numbers
        return [each for section in self.sections for each in section], firsts.repeat(blocks), numbers.repeat(blocks)

    def section_of(self, block: int) -> list[_Interface]:
        """The interfaces of the section that a block is in."""
        return self.sections[bisect_right(self.starts, block)]


class PcapngReader:
    """Finds the frames of a pcapng file, starting with its first section header.

    Args:
        name: name of interfaces without one in the file.
        names: gets the names of addresses in the file; None: they are not read.

    Attributes:
        interfaces: those described so far.
        owners: those in comments of packets.
    """

    def __init__(self, name: str, names: FileNames | None = None) -> None:
        self.interfaces: tuple[FileInterface, ...] = ()
        self.owners: CommentOwners | None = CommentOwners()
        self._name = name
        self._names = names
        self._order = "<"
        self._section: list[_Interface] = []
        self._numbers: dict[FileInterface, int] = {}
        self._descriptions: dict[bytes, _Interface] = {}
        self._skip = 0
        self._time_ns = 0

    def read(self, stream: OctetStream) -> Frames | None:
        """See FrameReader."""
        if self._skip:
            skipped = min(self._skip, stream.end - stream.start)
            self._skip -= skipped
            stream.start += skipped
            if self._skip:
                if stream.at_end:
                    raise DamagedError("is cut off in the middle of a block")
                return None
        blocks = self._walk(stream)
        return self._frames(stream, blocks) if blocks.at else None

    def _walk(self, stream: OctetStream) -> _Blocks:
        """Packet blocks up to an incomplete block, or a section of the other byte order after packets."""
        blocks = _Blocks([], [], [], [self._section])
        at, kinds = blocks.at, blocks.kinds
        view = stream.view
        header = struct.Struct(f"{self._order}II").unpack_from
        start, end = stream.start, stream.end
        while end - start >= _BLOCK_OCTETS:
            kind, length = header(view, start)
            if kind == SECTION_HEADER:
                if at and struct.unpack_from(f"{self._order}I", view, start + 8)[0] != _BYTE_ORDER_MAGIC:
                    break
                self._begin_section(view, start)
                blocks.starts.append(len(at))
                blocks.sections.append(self._section)
                header = struct.Struct(f"{self._order}II").unpack_from
                kind, length = header(view, start)
            if kind in _PACKETS and _BLOCK_OCTETS <= length <= _LONGEST_BLOCK:
                if start + length > end:
                    break
                at.append(start)
                kinds.append(kind)
                start += length
                continue
            try:
                following = self._other_block(stream, kind, start, length)
            except DamagedError:
                if not at:
                    raise
                break  # raised again when the packets before it are taken
            if following == start:
                break
            start = following
        left = end - start
        if not at and left and stream.at_end and not self._skip:
            raise DamagedError("is cut off in the middle of a block")
        stream.start = start
        return blocks

    def _other_block(self, stream: OctetStream, kind: int, start: int, length: int) -> int:
        """Take a block that is not a packet; returns the offset of the next one, or `start` if it is incomplete."""
        names = kind == _NAME_RESOLUTION and self._names is not None and length <= _LONGEST_BLOCK
        needed = kind in (SECTION_HEADER, _INTERFACE_DESCRIPTION) or names
        if length < _BLOCK_OCTETS or (length > _LONGEST_BLOCK and (needed or kind in _PACKETS)):
            raise DamagedError(f"is damaged: a block of {length:,} octets")
        length += -length % 4
        if start + length > stream.end:
            if needed:
                return start
            self._skip = start + length - stream.end
            return stream.end
        if kind == _INTERFACE_DESCRIPTION:
            self._describe(stream.buffer[start:start + length].tobytes())
        elif names:
            self._read_names(stream.buffer[start:start + length].tobytes())
        return start + length

    def _begin_section(self, view: memoryview, start: int) -> None:
        for order in "<>":
            if struct.unpack_from(f"{order}I", view, start + 8)[0] == _BYTE_ORDER_MAGIC:
                if order != self._order:
                    self._descriptions.clear()
                self._order = order
                self._section = []
                return
        raise DamagedError("is damaged: a section header of unknown byte order")

    def _describe(self, block: bytes) -> None:
        """Read an Interface Description Block; most sections have those of the one before."""
        if len(self._section) >= _MOST_INTERFACES:
            raise DamagedError(f"describes more than {_MOST_INTERFACES:,} interfaces")
        found = self._descriptions.get(block)
        if found is None:
            found = self._described(block)
            if len(self._descriptions) < _MOST_INTERFACES and len(block) <= _LONG_DESCRIPTION:
                self._descriptions[block] = found
        self._section.append(found)

    def _described(self, block: bytes) -> _Interface:
        if len(block) < 20:
            raise DamagedError("is damaged: an interface description that is too short")
        link_type, snap = struct.unpack_from(f"{self._order}HxxI", block, 8)
        options = self._options(block[16:-4])
        resolution = options.get(_IF_TSRESOL, b"\x06")
        offset = options.get(_IF_TSOFFSET, b"")
        offset_s = struct.unpack(f"{self._order}q", offset)[0] if len(offset) == 8 else 0
        name = options.get(_IF_NAME, b"").rstrip(b"\0")[:256].decode("utf-8", "replace") or self._name
        described = FileInterface(link_type, name)
        number = self._numbers.get(described)
        if number is None:
            if len(self.interfaces) >= _MOST_INTERFACES:
                raise DamagedError(f"describes more than {_MOST_INTERFACES:,} interfaces")
            number = self._numbers[described] = len(self.interfaces)
            self.interfaces += (described,)
        return _Interface(number, snap, resolution[0] if resolution else 6, offset_s)

    def _read_names(self, block: bytes) -> None:
        """Read a Name Resolution Block."""
        assert self._names is not None
        at, end = 8, len(block) - 4
        while at + 4 <= end:
            kind, length = struct.unpack_from(f"{self._order}HH", block, at)
            value = block[at + 4:min(at + 4 + length, end)]
            if not kind:
                return
            if kind in _NAMED_OCTETS:
                octets = _NAMED_OCTETS[kind]
                self._names.list_name(value[:octets], value[octets:].partition(b"\0")[0], whole=len(value) == length)
            at += 4 + length + -length % 4

    def _options(self, octets: bytes) -> dict[int, bytes]:
        """The first value of each option."""
        options: dict[int, bytes] = {}
        at = 0
        while at + 4 <= len(octets):
            code, length = struct.unpack_from(f"{self._order}HH", octets, at)
            if not code:
                break
            options.setdefault(code, octets[at + 4:at + 4 + length])
            at += 4 + length + -length % 4
        return options

    def _frames(self, stream: OctetStream, blocks: _Blocks) -> Frames:
        """Frames of these blocks; stops at an invalid one, which raises DamagedError if it is the first."""
        at, kinds = np.array(blocks.at, np.int64), np.array(blocks.kinds, np.int64)
        interfaces, first, number = blocks.interfaces(len(at))
        words = gather(stream.buffer, at, np.dtype((f"{self._order}u4", (7,)))).astype(np.int64)
        length, simple = words[:, 1], kinds == _SIMPLE_PACKET
        interface = np.where(simple, 0, words[:, 2])
        if (kinds == _PACKET).any():  # the obsolete block: 16 bits each for interface and drops
            halves = gather(stream.buffer, at + 8, np.dtype(f"{self._order}u2"))
            interface = np.where(kinds == _PACKET, halves, interface)
        wire = np.where(simple, words[:, 2], words[:, 6])
        head = np.where(simple, _SIMPLE_OCTETS, _PACKET_OCTETS)
        room = length - head - 4
        captured = np.where(simple, np.minimum(wire, room), words[:, 5])
        good = (interface < number) & (captured <= room) & (room >= 0) & (captured <= LONGEST_FRAME)
        if not good.all():
            keep = int(np.argmin(good))
            if not keep:
                raise DamagedError("is damaged: a packet block with inconsistent lengths")
            stream.start = int(at[keep])
            self._section = blocks.section_of(keep)
            at, simple, interface, wire, head, captured, words, length, first = (
                part[:keep] for part in (at, simple, interface, wire, head, captured, words, length, first))
        interface = interface + first
        snaps = np.array([described.snap or LONGEST_FRAME for described in interfaces], np.int64)
        captured = np.where(simple, np.minimum(captured, snaps[interface]), captured)
        direction, owner = self._marks(stream.buffer, at, head + captured + -captured % 4, length, simple)
        return Frames(
            octets=stream.buffer, offset=at + head, captured=captured, wire=np.maximum(wire, captured),
            time_ns=self._times(words[:, 3] << 32 | words[:, 4], interfaces, interface, simple),
            interface=np.array([described.number for described in interfaces], np.int64)[interface],
            egress=direction == _OUTBOUND, interfaces=self.interfaces, ingress=direction == _INBOUND,
            owner=owner)

    def _times(self, ticks: Integers, interfaces: list[_Interface], interface: Integers,
               simple: npt.NDArray[np.bool_]) -> Integers:
        """Times in ns since 1970 UTC. A simple packet, which has none, gets the time of the packet before."""
        time_ns = np.zeros(len(ticks), np.int64)
        clocks: dict[tuple[int, int], int] = {}  # most interfaces count in the same way
        clock_of = np.array([clocks.setdefault((described.resolution, described.offset_s), len(clocks))
                             for described in interfaces], np.int64)[interface]
        for (resolution, offset_s), clock in clocks.items():
            mine = clock_of == clock
            if mine.any():
                time_ns[mine] = _nanoseconds(ticks[mine].view(np.uint64), resolution, offset_s)
        if simple.any():
            before = np.maximum.accumulate(np.where(simple, -1, np.arange(len(ticks))))
            time_ns = np.where(before < 0, self._time_ns, time_ns[before])
        self._time_ns = int(time_ns[-1])
        return time_ns

    def _marks(self, octets: Octets, at: Integers, head: Integers, length: Integers, simple: npt.NDArray[np.bool_],
               ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64] | None]:
        """Direction in the packets' flags, _INBOUND or _OUTBOUND, 0 if there is none; and owners in their comments."""
        direction, owner = np.zeros(len(at), np.uint8), None
        rows = np.flatnonzero(~simple & (head + 8 + 4 <= length))
        option = np.dtype([("code", f"{self._order}u2"), ("length", f"{self._order}u2"), ("value", f"{self._order}u4")])
        position = head[rows]
        for _ in range(_MOST_OPTIONS):
            if not len(rows):
                break
            headers = gather(octets, at[rows] + position, option)
            flags = (headers["code"] == _EPB_FLAGS) & (headers["length"] == 4)
            direction[rows[flags]] = headers["value"][flags] & 3
            size = headers["length"].astype(np.int64)
            noted = (headers["code"] == _COMMENT) & (size > len(PREFIX)) & (position + 4 + size <= length[rows])
            if noted.any():
                some = np.flatnonzero(noted)
                begin = at[rows[some]] + position[some] + 4
                found = self._owners(octets, begin, begin + size[some])
                owner = np.zeros(len(at), np.uint64) if owner is None else owner
                owner[rows[some]] = np.where(found != 0, found, owner[rows[some]])
            position = position + 4 + size + -size % 4
            more = (headers["code"] != 0) & ~flags & (position + 12 <= length[rows])
            rows, position = rows[more], position[more]
        return direction, owner

    def _owners(self, octets: Octets, begin: Integers, end: Integers) -> npt.NDArray[np.uint64]:
        """The owners in comments from `begin` to `end`, shape (n,)."""
        found = np.zeros(len(begin), np.uint64)
        ours = np.flatnonzero(gather(octets, begin, np.dtype(np.uint64)) == np.frombuffer(PREFIX, np.uint64))
        assert self.owners is not None
        buffer, owner = memoryview(octets.data), self.owners.owner
        for row, start, stop in zip(ours.tolist(), begin[ours].tolist(), end[ours].tolist(), strict=True):
            found[row] = owner(bytes(buffer[start:stop]))
        return found


def _nanoseconds(ticks: npt.NDArray[np.uint64], resolution: int, offset_s: int) -> Integers:
    """Convert ticks of if_tsresol to ns since 1970 UTC, 0 to LATEST_NS."""
    exponent = resolution & 0x7F
    if resolution & 0x80:
        seconds = ticks >> np.uint64(min(exponent, 63)) if exponent < 64 else np.zeros_like(ticks)
        kept = min(exponent, 30)
        dropped = np.uint64(min(exponent - kept, 63))
        fraction = ((ticks >> dropped) & np.uint64((1 << kept) - 1)) * np.uint64(1_000_000_000) >> np.uint64(kept)
    else:
        per_s = 10 ** min(exponent, 19)
        seconds = ticks // np.uint64(per_s)
        fraction = ticks - seconds * np.uint64(per_s)
        fraction = (fraction * np.uint64(10 ** (9 - exponent)) if exponent <= 9
                    else fraction // np.uint64(10 ** (min(exponent, 19) - 9)))
    latest_s = LATEST_NS // 1_000_000_000
    whole = np.minimum(seconds, np.uint64(latest_s)).astype(np.int64)
    shifted = np.clip(whole + max(-latest_s, min(offset_s, latest_s)), 0, latest_s)
    return np.minimum(shifted * 1_000_000_000 + fraction.astype(np.int64), LATEST_NS)
