"""Which client called which address what, and which conversation named its server itself.

Bounded: what was used least recently goes first, and what an answer said is believed for a time only. Written by the
thread that captures, read by the one that owns the flow table.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import Direction, IpVersion, Kind
from flowtop.model.names_seen import CODE_BITS, CODE_MASK, OF_SOURCE, Codes, Origin, name_codes, peer_name
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.text.names import harmless_host

PAIRS = 65_536
"""Clients and addresses."""
LOOKED_UP = 8
"""Names that one client had for one address."""
CONVERSATIONS = 65_536
TEXTS = 131_072
_LOCAL_NS = 5 * 10**9
"""How long it is kept whether an address is this host's."""
_LEAST_LIFE_NS, _LONGEST_LIFE_NS = 3600 * 10**9, 86_400 * 10**9
"""Clients keep an address beyond its time to live: a connection pool, a cache. But an address is given to others."""

_KEY = FLOW_KEY_DTYPE.itemsize
_ADDRESS = 16
_PORTS = slice(2 * _ADDRESS, 2 * _ADDRESS + 4)
_TALK = 2 * _ADDRESS + 6
"""Octets of a Flow Key that say who talks: addresses, ports, protocol, IP version."""
_ADDRESSES = slice(0, 2 * _ADDRESS)
THIS_HOST = bytes(_ADDRESS)
"""In place of an address of this host, or a loopback one: what it asks by one address counts for all of them, also for
those of the other version of IP."""
MANY = b""
"""In place of a client: several."""
_LOOPBACK_V6 = bytes(15) + b"\1"
_LOOPBACK_V4 = 127
_BITS = 16
_WORDS, _WORD = struct.Struct("=QQ"), (1 << 64) - 1
_MULTIPLIERS = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F
_MIX = np.array(_MULTIPLIERS, np.uint64)
_TURN = np.uint8(int(Direction.INGRESS) ^ int(Direction.EGRESS))

AreLocal = Callable[[npt.NDArray[np.void], npt.NDArray[np.uint8]], npt.NDArray[np.bool_]]
"""Addresses (V16, shape (n,)) and IP versions -> which are this host's."""


class _Called(NamedTuple):
    """What one client called an address since a time."""

    at_ns: int
    until_ns: int
    code: int


def _looks_like_v4(address: bytes) -> bool:
    return not any(address[4:])


def _nobody(addresses: npt.NDArray[np.void], versions: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:  # noqa: ARG001
    return np.zeros(len(addresses), np.bool_)


def _client(address: bytes, version: int) -> bytes:
    loopback = address == _LOOPBACK_V6 if version == IpVersion.V6 else address[0] == _LOOPBACK_V4
    return THIS_HOST if loopback else address


class NameBook:
    """A model.names_seen.PeerNames.

    Args:
        are_local: which addresses are this host's; None: not known, as in a file.
        pairs, conversations, texts: bounds.
    """

    def __init__(self, are_local: AreLocal | None = None, *, pairs: int = PAIRS, conversations: int = CONVERSATIONS,
                 texts: int = TEXTS) -> None:
        self._are_local = are_local or _nobody
        self._most_pairs, self._most_conversations, self._most_texts = pairs, conversations, texts
        self._lock = threading.Lock()
        self._texts: OrderedDict[int, str] = OrderedDict()
        self._codes: dict[str, int] = {}
        self._next_code = 1
        self._pairs: OrderedDict[bytes, list[_Called]] = OrderedDict()
        self._conversations: OrderedDict[bytes, int] = OrderedDict()
        self._addresses: OrderedDict[bytes, int] = OrderedDict()
        self._listed: OrderedDict[bytes, int] = OrderedDict()
        self._askers: OrderedDict[bytes, bytes] = OrderedDict()
        self._local: dict[bytes, bool] = {}
        self._local_ns = 0
        self._ends = np.zeros(1 << _BITS, np.bool_)
        self._fresh_ends = 0
        self._news: dict[bytes, int] = {}
        self._published: Mapping[int, str] = {}
        self._published_addresses: Mapping[bytes, str] = {}
        self._changed = False
        self.forgotten = 0

    # ---- the thread that captures

    def look_up(self, client: bytes, version: int, addresses: tuple[bytes, ...], name: str, at_ns: int,
                life_s: int) -> None:
        """The client asked for this name, and got these addresses.

        Args:
            client: 16 octets, as in Flow Keys.
            version: of IP, of the client's address.
            addresses: 4 or 16 octets each.
            name: from the network.
            at_ns: when the answer came.
            life_s: how long it may be kept.
        """
        until_ns = at_ns + min(max(life_s * 10**9, _LEAST_LIFE_NS), _LONGEST_LIFE_NS)
        with self._lock:
            code = self._code(name)
            if not code:
                return
            client = self._named_client(client, version, at_ns)
            for address in addresses:
                server = address.ljust(_ADDRESS, b"\0")
                self._note_pair(client + server, _Called(at_ns, until_ns, code))
                self._note_asker(server, client)
                self._note_address(address, code)
                self._note_end(server)

    def _named_client(self, client: bytes, version: int, at_ns: int) -> bytes:
        """The client's address, or THIS_HOST."""
        if abs(at_ns - self._local_ns) > _LOCAL_NS or len(self._local) > self._most_pairs:
            self._local, self._local_ns = {}, at_ns
        if client not in self._local:
            address = np.frombuffer(client, "V16")
            self._local[client] = _client(client, version) == THIS_HOST or bool(
                self._are_local(address, np.array([version], np.uint8))[0])
        return THIS_HOST if self._local[client] else client

    def _note_asker(self, server: bytes, client: bytes) -> None:
        if self._askers.setdefault(server, client) != client:
            self._askers[server] = MANY
        self._askers.move_to_end(server)
        if len(self._askers) > self._most_pairs:
            self._askers.popitem(last=False)

    def _note_pair(self, pair: bytes, called: _Called) -> None:
        history = self._pairs.setdefault(pair, [])
        self._pairs.move_to_end(pair)
        if history and history[-1].code == called.code:
            history[-1] = called._replace(at_ns=history[-1].at_ns)
            return
        history.append(called)
        if len(history) > 1 and history[-2].at_ns > called.at_ns:  # packets of two processors
            history.sort()
        del history[:-LOOKED_UP]
        if len(self._pairs) > self._most_pairs:
            self._pairs.popitem(last=False)

    def _note_address(self, address: bytes, code: int) -> None:
        if self._addresses.get(address) != code:
            self._addresses[address] = code
            self._changed = True
        self._addresses.move_to_end(address)
        if len(self._addresses) > self._most_pairs:
            self._addresses.popitem(last=False)

    def _note_end(self, address: bytes) -> None:
        number = _mark(address)
        if not self._ends[number]:
            self._ends[number] = True
            self._fresh_ends += 1
            if self._fresh_ends > len(self._ends) // 2:  # many of them are of addresses that are gone
                self._mark_again()

    def _mark_again(self) -> None:
        servers = [pair[_ADDRESS:] for pair in self._pairs]
        servers += [talk[_ADDRESS:2 * _ADDRESS] for talk in self._conversations]
        servers += self._listed
        self._ends[:] = False
        if servers:
            self._ends[_marks(np.frombuffer(b"".join(servers), np.uint64).reshape(-1, 2))] = True
        self._fresh_ends = 0

    def name_server(self, key: bytes, name: str, origin: Origin) -> bool:
        """The client of a flow called its server so in the flow itself.

        Args:
            key: FLOW_KEY_DTYPE as octets, of the direction to the server.

        Returns:
            Whether it is a name.
        """
        with self._lock:
            code = self._code(name)
            if not code:
                return False
            talk, value = key[:_TALK], peer_name(code, origin, of_source=False)
            self._conversations[talk] = value
            self._conversations.move_to_end(talk)
            if len(self._conversations) > self._most_conversations:
                self._conversations.popitem(last=False)
            self._note_end(key[_ADDRESS:2 * _ADDRESS])
            self._news[key] = value
            if len(self._news) > self._most_conversations:
                del self._news[next(iter(self._news))]
            return True

    def list_name(self, address: bytes, name: str) -> bool:
        """Somebody has called an address so, it is not known who and when: the name of its flows that have no other.

        Args:
            address: 4 or 16 octets.

        Returns:
            Whether it is a name.
        """
        with self._lock:
            code = self._code(name)
            if code:
                server = address.ljust(_ADDRESS, b"\0")
                self._listed[server] = code
                self._listed.move_to_end(server)
                if len(self._listed) > self._most_pairs:
                    self._listed.popitem(last=False)
                self._note_address(address, code)
                self._note_end(server)
            return bool(code)

    def _code(self, name: str) -> int:
        """The code of a name, made safe to show; 0: it is none."""
        text = None if ":" in name else harmless_host(name)  # an IPv6 address, in brackets or not
        if not text:
            return 0
        text = text.lower()
        code = self._codes.get(text)
        if code is None:
            if self._next_code > CODE_MASK:
                self.forgotten += 1
                return 0
            code, self._next_code = self._next_code, self._next_code + 1
            self._codes[text], self._texts[code] = code, text
            self._changed = True
        else:
            self._texts.move_to_end(code)
        return code

    def texts(self) -> Mapping[int, str]:
        """Text by code; does not change any more."""
        self._publish()
        return self._published

    def addresses(self) -> Mapping[bytes, str]:
        """What each address, 4 or 16 octets, was called last, by whichever client; does not change any more."""
        self._publish()
        return self._published_addresses

    def _publish(self) -> None:
        with self._lock:
            if self._changed:
                self._published = dict(self._texts)
                self._published_addresses = {
                    address: self._texts[code] for address, code in self._addresses.items() if code in self._texts}
                self._changed = False

    # ---- the thread that owns the flow table

    def of_new(self, keys: npt.NDArray[np.void], first_ns: npt.NDArray[Any]) -> Codes | None:
        """See PeerNames."""
        with self._lock:
            if not (self._pairs or self._conversations or self._listed):
                return None
            words = np.ascontiguousarray(keys).view(np.uint64).reshape(len(keys), -1)
            rows = np.flatnonzero(self._ends[_marks(words[:, 2:4])] | self._ends[_marks(words[:, :2])])
            if not len(rows):
                return None
            rows = rows[keys["kind"][rows] == np.uint8(Kind.FLOW)]
            found = np.zeros(len(keys), np.uint32)
            octets = words.take(rows, axis=0).tobytes()
            unsettled = []
            for place, (row, at_ns) in enumerate(zip(rows.tolist(), first_ns[rows].tolist(), strict=True)):
                key = octets[place * _KEY:place * _KEY + _TALK]
                value = self._of_flow(key, at_ns)
                if value is None:
                    unsettled.append((row, key, at_ns))
                elif value:
                    found[row] = value
            if unsettled:
                self._settle(unsettled, keys, found)
            return found

    def _of_flow(self, key: bytes, at_ns: int) -> int | None:
        """The number of a flow, 0: none; None: it depends on whether its client is this host."""
        turned = _turned(key)
        own = self._conversations.get(key)
        if own is not None:
            return own
        own = self._conversations.get(turned)
        if own is not None:
            return peer_name(own & CODE_MASK, _origin(own), of_source=True)
        for way, of_source in _both_ways(key, turned):
            client = _client(way[:_ADDRESS], way[_TALK - 1])
            if client != THIS_HOST and THIS_HOST + way[_ADDRESS:2 * _ADDRESS] in self._pairs:
                return None
            called = self._called(client, way, at_ns) or self._called_by_the_only_one(way, at_ns)
            if called is not None:
                return peer_name(called.code, Origin.DNS, of_source=of_source)
        for way, of_source in _both_ways(key, turned) if self._listed else ():
            code = self._listed.get(way[_ADDRESS:2 * _ADDRESS])
            if code is not None:
                return peer_name(code, Origin.FILE, of_source=of_source)
        return 0

    def _called_by_the_only_one(self, way: bytes, at_ns: int) -> _Called | None:
        """Addresses of both versions of IP do not show that they are one client's. So of the other version, the only
        one that has asked for that address counts."""
        asker = self._askers.get(way[_ADDRESS:2 * _ADDRESS], MANY)
        if asker in (MANY, THIS_HOST) or _looks_like_v4(asker) == (way[_TALK - 1] == IpVersion.V4):
            return None
        return self._called(asker, way, at_ns)

    def _called(self, client: bytes, way: bytes, at_ns: int) -> _Called | None:
        """What a client called the end that `way` leads to before that time, but not too long before."""
        history = self._pairs.get(client + way[_ADDRESS:2 * _ADDRESS])
        if history is None:
            return None
        return next((one for one in reversed(history) if one.at_ns <= at_ns < one.until_ns), None)

    def _settle(self, flows: list[tuple[int, bytes, int]], keys: npt.NDArray[np.void], found: Codes) -> None:
        """Flows to addresses that this host has asked its own resolver for: whether they are from this host."""
        rows = np.array([row for row, _, _ in flows])
        versions = keys["ip_version"][rows]
        local = [self._are_local(keys[name][rows], versions).tolist()
                 for name in ("source_address", "destination_address")]
        for (row, key, at_ns), from_here, to_here in zip(flows, *local, strict=True):
            for way, of_source in _both_ways(key, _turned(key)):
                clients = [_client(way[:_ADDRESS], way[_TALK - 1])]
                clients += [THIS_HOST] if (to_here if of_source else from_here) else []
                called = [one for client in clients if (one := self._called(client, way, at_ns)) is not None]
                if called:
                    found[row] = peer_name(max(called).code, Origin.DNS, of_source=of_source)
                    break

    def take_news(self) -> tuple[npt.NDArray[np.void], Codes] | None:
        """See PeerNames: both directions, at the Observation Point where it was seen."""
        with self._lock:
            news, self._news = self._news, {}
        if not news:
            return None
        keys = np.frombuffer(b"".join(news), FLOW_KEY_DTYPE)
        values = np.array(list(news.values()), np.uint32)
        back = keys.copy()
        for one, other in (("source_address", "destination_address"), ("source_port", "destination_port")):
            back[one], back[other] = keys[other], keys[one]
        back["direction"] ^= _TURN
        of_source = np.array([peer_name(value & CODE_MASK, _origin(value), of_source=True)
                              for value in news.values()], np.uint32)
        return np.concatenate((keys, back)), np.concatenate((values, of_source))

    def forget_but(self, used: Callable[[], Codes]) -> None:
        """See PeerNames. Texts beyond the bound go that no flow has, those that were seen longest ago first."""
        if len(self._texts) <= self._most_texts:
            return
        kept = set(np.unique(name_codes(used())).tolist())
        with self._lock:
            surplus = len(self._texts) - self._most_texts * 7 // 8
            gone: list[int] = []
            for code in self._texts:
                if len(gone) >= surplus:
                    break
                if code not in kept:
                    gone.append(code)
            for code in gone:
                del self._codes[self._texts.pop(code)]
            self.forgotten += len(gone)
            lost = set(gone)
            for address in [address for address, code in self._addresses.items() if code in lost]:
                del self._addresses[address]
            for pair in [pair for pair, history in self._pairs.items() if any(one.code in lost for one in history)]:
                self._pairs[pair] = [one for one in self._pairs[pair] if one.code not in lost]
                if not self._pairs[pair]:
                    del self._pairs[pair]
            for talk in [talk for talk, value in self._conversations.items() if value & CODE_MASK in lost]:
                del self._conversations[talk]
            for address in [address for address, code in self._listed.items() if code in lost]:
                del self._listed[address]
            self._mark_again()
            self._changed = True


def _marks(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A number of _BITS bits for each address; `words`: u8, shape (n, 2)."""
    mixed = words[:, 0] * _MIX[0] + words[:, 1] * _MIX[1]
    mixed ^= mixed >> np.uint64(29)
    found: npt.NDArray[np.uint64] = mixed * _MIX[0] >> np.uint64(64 - _BITS)
    return found


def _mark(address: bytes) -> int:
    """The same number of one address."""
    high, low = map(int, _WORDS.unpack(address))
    mixed = (high * _MULTIPLIERS[0] + low * _MULTIPLIERS[1]) & _WORD
    mixed ^= mixed >> 29
    return (mixed * _MULTIPLIERS[0] & _WORD) >> (64 - _BITS)


def _turned(key: bytes) -> bytes:
    """The key of the other direction."""
    source_port, destination_port = key[_PORTS][:2], key[_PORTS][2:]
    return key[_ADDRESS:2 * _ADDRESS] + key[:_ADDRESS] + destination_port + source_port + key[_PORTS.stop:]


def _both_ways(key: bytes, turned: bytes) -> tuple[tuple[bytes, bool], tuple[bytes, bool]]:
    """The flow and its other direction, the one that leads to the lower port first: there are most servers."""
    forward, backward = (key, False), (turned, True)
    ports = np.frombuffer(key[_PORTS], np.uint16)
    return (backward, forward) if ports[0] < ports[1] else (forward, backward)


def _origin(value: int) -> Origin:
    return Origin(value >> CODE_BITS & OF_SOURCE - 1)
