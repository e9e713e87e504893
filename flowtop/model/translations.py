"""Address translation (NAT): one connection as two conversations, one on each side of the translating host."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from flowtop.model.kinds import ICMP_ECHO, IpVersion

TRANSLATIONS = "translations"
"""Key of FlowBatch.texts: the other side's ends by Flow.code."""

CONVERSATION_OCTETS = 40
_CONVERSATION = struct.Struct("<16s16sHHBB2x")


class Flow(NamedTuple):
    """One direction of a conversation. Addresses are 16 octets, IPv4 in the first 4; of ICMP the destination port is
    type << 8 | code."""

    source_address: bytes
    destination_address: bytes
    source_port: int
    destination_port: int
    protocol: int
    ip_version: int

    @classmethod
    def of_code(cls, code: int) -> Flow:
        """The flow with this code."""
        return cls(*_CONVERSATION.unpack(code.to_bytes(CONVERSATION_OCTETS, "big")))

    @property
    def code(self) -> int:
        """As a number."""
        return int.from_bytes(_CONVERSATION.pack(*self), "big")

    def turned(self) -> Flow:
        """The other direction."""
        return self._replace(source_address=self.destination_address, destination_address=self.source_address,
                             source_port=self.destination_port, destination_port=self.source_port)

    def plain(self) -> Flow:
        """With equal ports if it is of ICMP, those of the request if it is an echo reply: `turned` is right then."""
        types = ICMP_ECHO.get(self.protocol)
        if types is None:
            return self
        request, reply = types
        kind, code = divmod(self.destination_port, 256)
        port = (request if kind == reply else kind) << 8 | code
        return self._replace(source_port=port, destination_port=port)

    @property
    def is_turned(self) -> bool:
        """Whether the source is the greater end: address, then port; of an address as two numbers whose first octets
        count least. The flow is plain."""
        source, destination = (tuple(int.from_bytes(address[half:half + 8], "little") for half in (0, 8))
                               for address in (self.source_address, self.destination_address))
        return (source, self.source_port) > (destination, self.destination_port)

    @property
    def conversation(self) -> bytes:
        """Of both directions, CONVERSATION_OCTETS: the lesser end first."""
        flow = self.plain()
        return _CONVERSATION.pack(*(flow.turned() if flow.is_turned else flow))

    @property
    def text(self) -> str:
        """`192.0.2.1:40000 > 198.51.100.7:53`."""
        ports = ("", "") if self.protocol in ICMP_ECHO else (f":{self.source_port}", f":{self.destination_port}")
        if self.ip_version == IpVersion.V4:
            ends = [str(ipaddress.IPv4Address(address[:4])) for address in self[:2]]
        else:
            ends = [f"[{ipaddress.IPv6Address(address)}]" for address in self[:2]]
        return " > ".join(end + port for end, port in zip(ends, ports, strict=True))


@dataclass(frozen=True, slots=True)
class Translation:
    """A connection with translated addresses or ports.

    Attributes:
        before: plain, from the initiator, as it sends.
        after: the same packets, as the responder gets them.
        one, other: conversations of `before` and `after`.
    """

    before: Flow
    after: Flow
    one: bytes
    other: bytes

    @classmethod
    def of(cls, before: Flow, after: Flow) -> Translation:
        """A connection; the flows as in Flow.plain."""
        return cls(before, after, before.conversation, after.conversation)

    def other_side(self, flow: Flow) -> Flow | None:
        """The same packets on the other side; None: they are not of this connection.

        Args:
            flow: plain.
        """
        for here, there in ((self.before, self.after), (self.after, self.before)):
            if flow == here:
                return there
            if flow.turned() == here:
                return there.turned()
        return None


class TranslationTexts(Mapping[int, str]):
    """The other side's ends by Flow.code, always of now.

    Args:
        known: connections by both of their conversations; may change.
    """

    def __init__(self, known: Mapping[bytes, Translation]) -> None:
        self._known = known

    def __getitem__(self, code: int) -> str:
        flow = Flow.of_code(code).plain()
        found = self._known.get(flow.conversation)
        side = found.other_side(flow) if found is not None else None
        if side is None:
            raise KeyError(code)
        return side.text

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[int]:
        return iter([flow.code for one in list(self._known.values()) for flow in (one.before, one.after)])
