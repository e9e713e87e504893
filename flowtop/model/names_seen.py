"""Names that passed by: what a flow's peer was looked up as, or is called by the client that asks it.

A flow has one number for it, `peer_name`: the code of the text, how it was seen, and which end has the name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

NAMES = "names seen"
"""Key of FlowBatch.texts: text by code. Whoever sends packets chooses it."""

CODE_BITS = 28
CODE_MASK = (1 << CODE_BITS) - 1
OF_SOURCE = 1 << 3
"""Of an origin: the flow's source has the name; else its destination."""

Codes = npt.NDArray[np.uint32]


class Origin(IntEnum):
    """How a name was seen."""

    DNS = 1
    """An answer to the client that the address was in."""
    TLS = 2
    """Server Name Indication (RFC 6066) of the flow's own ClientHello."""
    HTTP = 3
    """The Host of the flow's own request."""
    QUIC = 4
    """Server Name Indication in the flow's own Initial packet."""
    FILE = 5
    """A list of names in the capture file (Name Resolution Block)."""


def peer_name(code: int, origin: Origin, *, of_source: bool) -> int:
    """The number of a flow."""
    return (int(origin) | (OF_SOURCE if of_source else 0)) << CODE_BITS | code


def name_codes(peer_names: Codes) -> Codes:
    """The codes of the texts, shape (n,); 0: no name."""
    return peer_names & np.uint32(CODE_MASK)


def name_origins(peer_names: Codes) -> Codes:
    """Origin, plus OF_SOURCE, shape (n,); 0: no name."""
    return peer_names >> np.uint32(CODE_BITS)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


@dataclass(frozen=True, slots=True)
class NameStatistics:
    """What was seen of names, and what is missing. All but `refused` and `unable` are counts since the start.

    Attributes:
        refused: why no packets are looked at; "": they are.
        unable: what of QUIC is needed but missing; "": nothing is, or no QUIC was seen.
        answers: DNS answers with addresses for somebody who asked.
        server_names: ClientHellos with a server's name.
        hosts: HTTP requests with a host.
        initials: QUIC Initials with a server's name.
        unasked: DNS answers to no question that was seen: of a question that passed elsewhere, or forged.
        malformed: messages that are not what they begin like.
        unreadable: QUIC Initials that could not be decrypted.
        dropped: packets with names that were not looked at, as too many came at once.
        forgotten: names that were given up for lack of room.
    """

    refused: str = ""
    unable: str = ""
    answers: int = 0
    server_names: int = 0
    hosts: int = 0
    initials: int = 0
    unasked: int = 0
    malformed: int = 0
    unreadable: int = 0
    dropped: int = 0
    forgotten: int = 0

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong, in words; empty: nothing is."""
        return (
            *((f"no names seen: {self.refused}",) if self.refused else ()),
            *((self.unable,) if self.unable else ()),
            *((f"names dropped: {_counted(self.dropped, 'packet', 'packets')}",) if self.dropped else ()),
            *((f"names forgotten: {self.forgotten:,}",) if self.forgotten else ()))

    @property
    def record(self) -> dict[str, str | int]:
        """As members of JSON."""
        return {"refused": self.refused, "unable": self.unable, "dnsAnswers": self.answers,
                "tlsServerNames": self.server_names, "httpHosts": self.hosts, "quicServerNames": self.initials,
                "unaskedAnswers": self.unasked, "malformedMessages": self.malformed,
                "unreadableInitials": self.unreadable, "droppedPackets": self.dropped,
                "forgottenNames": self.forgotten}


class PeerNames(Protocol):
    """Gives flows their names. Called by the thread that owns the flow table, while the capture waits for it."""

    def of_new(self, keys: npt.NDArray[np.void], first_ns: npt.NDArray[Any]) -> Codes | None:
        """`peer_name` of flows that begin; 0: none is known. None: none of all.

        Args:
            keys: FLOW_KEY_DTYPE, shape (n,).
            first_ns: the time of each one's first packet, shape (n,).
        """

    def take_news(self) -> tuple[npt.NDArray[np.void], Codes] | None:
        """Flows that named their server since the last call, if they exist: FLOW_KEY_DTYPE, shape (m,), and `peer_name`
        of each. None: there are none."""

    def forget_but(self, used: Callable[[], Codes]) -> None:
        """A moment to give up texts, if they are too many.

        Args:
            used: gives the codes that flows of the table have, which are kept.
        """


NO_NAMES_SEEN: Mapping[int, str] = {}
"""No texts."""
