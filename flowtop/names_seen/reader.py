"""Payloads of packets that may tell a name -> what they say, in a NameBook. Never raises: they come from strangers.

The parsers are imported when the first message of their kind comes.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar

from flowtop.model.kinds import Protocol
from flowtop.model.names_seen import NameStatistics, Origin
from flowtop.names_seen.book import NameBook
from flowtop.names_seen.errors import IncompleteError, MalformedError

if TYPE_CHECKING:
    from flowtop.names_seen.quic_initials import InitialHello

DNS_PORT, HTTPS_PORT = 53, 443
TLS_HANDSHAKE = 22
HTTP_METHODS = (b"GET ", b"POST", b"HEAD", b"PUT ", b"DELE", b"OPTI", b"PATC")
"""The first four octets of requests that are looked at."""

_KEY = struct.Struct("=16s16sHHBB")
_LENGTH = struct.Struct("!H")
_ASKED_FOR_NS = 30 * 10**9
"""An answer may take this long."""
_MOST_QUESTIONS = 16_384
_MOST_UNFINISHED = 1_024
_MOST_SEGMENTS = 4
"""Of a ClientHello on TCP."""
_MOST_DATAGRAMS = 8
"""Of one in QUIC."""
_ANSWERED = b""

Value = TypeVar("Value")


def _bounded(table: OrderedDict[bytes, Value], most: int) -> None:
    while len(table) > most:
        table.popitem(last=False)


class NameReader:
    """Reads payloads and notes what they say.

    Args:
        book: gets the names.
    """

    def __init__(self, book: NameBook) -> None:
        self._book = book
        self._counts: Counter[str] = Counter()
        self._unable = ""
        self._questions: OrderedDict[bytes, tuple[int, Any]] = OrderedDict()
        self._hellos: OrderedDict[bytes, list[bytes]] = OrderedDict()
        self._initials: OrderedDict[bytes, InitialHello] = OrderedDict()

    def statistics(self, *, refused: str = "", dropped: int = 0) -> NameStatistics:
        """What was seen so far.

        Args:
            refused: see NameStatistics.
            dropped: packets that did not come here.
        """
        return NameStatistics(refused, self._unable, **self._counts, dropped=dropped, forgotten=self._book.forgotten)

    def read(self, key: bytes, time_ns: int, payload: bytes, octets: int, segment: int = 0) -> None:
        """Read a packet.

        Args:
            key: FLOW_KEY_DTYPE as octets.
            time_ns: on the clock of flows.
            payload: after the transport header, or its beginning.
            octets: how long that was on the wire.
            segment: octets of each datagram in it, if there are several; else 0.
        """
        _, _, source_port, destination_port, protocol, _ = _KEY.unpack_from(key)
        if protocol == Protocol.UDP:
            if DNS_PORT in (source_port, destination_port):
                self._dns(key, time_ns, payload, cut=len(payload) < octets)
            elif destination_port == HTTPS_PORT:
                size = segment or len(payload) or 1
                for start in range(0, len(payload), size):
                    self._quic(key, payload[start:start + size])
        elif protocol != Protocol.TCP:
            return
        elif DNS_PORT in (source_port, destination_port):
            if len(payload) > _LENGTH.size:
                length = _LENGTH.unpack_from(payload)[0]
                message = payload[_LENGTH.size:_LENGTH.size + length]
                self._dns(key, time_ns, message, cut=len(message) < length)
        elif key in self._hellos or payload[:1] == bytes([TLS_HANDSHAKE]):
            self._tls(key, payload)
        else:
            self._http(key, payload)

    def list_name(self, address: bytes, name: bytes, *, whole: bool) -> None:
        """Note an entry of a list of names in a file; see NameBook.list_name."""
        if not whole or not self._book.list_name(address, name.decode("utf-8", "replace")):
            self._counts["malformed"] += 1

    @property
    def unfinished(self) -> tuple[bytes, ...]:
        """Keys of flows in which a ClientHello goes on."""
        return tuple(self._hellos)

    # ---- DNS

    def _dns(self, key: bytes, time_ns: int, octets: bytes, *, cut: bool) -> None:
        from flowtop.names_seen.dns_messages import name_text, read_message

        source, destination, source_port, destination_port, protocol, version = _KEY.unpack_from(key)
        number = octets[:_LENGTH.size] + bytes([protocol])
        answered = destination + source + struct.pack("=H", destination_port) + number
        at_ns, question = self._questions.get(answered, (0, None))
        try:  # of an answer that nobody waits for the question is enough: many of them take little time from others
            message = read_message(octets, cut=cut, answers=bool(question))
        except MalformedError:
            self._counts["malformed"] += 1
            return
        if message is None:
            return
        if not message.is_answer:
            if destination_port == DNS_PORT:
                asked = source + destination + struct.pack("=H", source_port) + number
                self._questions[asked] = time_ns, message.question
                self._questions.move_to_end(asked)
                _bounded(self._questions, _MOST_QUESTIONS)
            return
        if source_port != DNS_PORT:
            return
        if question == _ANSWERED:
            return  # the same packet, seen at another interface; or somebody who comes too late
        if question != message.question or not -_ASKED_FOR_NS <= time_ns - at_ns <= _ASKED_FOR_NS:
            self._counts["unasked"] += 1
            return
        if message.complete:
            self._questions[answered] = at_ns, _ANSWERED
        if message.addresses:
            self._counts["answers"] += 1
            self._book.look_up(destination, version, message.addresses, name_text(question.labels), time_ns,
                               message.life_s)

    # ---- what a connection's first packets say

    def _tls(self, key: bytes, payload: bytes) -> None:
        from flowtop.names_seen.client_hello import LONGEST_HELLO, name_in_records

        parts = self._hellos.pop(key, [])
        if parts and payload.startswith(parts[0][:64]):
            parts = []  # sent again
        parts.append(payload)
        try:
            name = name_in_records(b"".join(parts))
        except MalformedError:
            self._counts["malformed"] += 1
        except IncompleteError:
            if len(parts) < _MOST_SEGMENTS and sum(map(len, parts)) < LONGEST_HELLO:
                self._hellos[key] = parts
                _bounded(self._hellos, _MOST_UNFINISHED)
        else:
            self._note(key, name, Origin.TLS, "server_names")

    def _http(self, key: bytes, payload: bytes) -> None:
        from flowtop.names_seen.http_requests import host_of

        try:
            name = host_of(payload)
        except MalformedError:
            return  # text of another protocol that begins like a request
        self._note(key, name, Origin.HTTP, "hosts")

    def _quic(self, key: bytes, datagram: bytes) -> None:
        from flowtop.names_seen import quic_initials

        hello = self._initials.pop(key, None) or quic_initials.InitialHello()
        try:
            name = hello.add(datagram)
        except ImportError:
            self._unable = quic_initials.MISSING
        except MalformedError:
            self._counts["malformed"] += 1
        except quic_initials.UnreadableError:
            self._counts["unreadable"] += 1
        except IncompleteError:
            if hello.datagrams < _MOST_DATAGRAMS:
                self._initials[key] = hello
                _bounded(self._initials, _MOST_UNFINISHED)
        else:
            self._note(key, name, Origin.QUIC, "initials")

    def _note(self, key: bytes, name: bytes | None, origin: Origin, counter: str) -> None:
        if name and self._book.name_server(key, name.decode("ascii", "replace"), origin):
            self._counts[counter] += 1
