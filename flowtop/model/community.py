"""Community ID: an identifier of a conversation that is the same at every host, for both directions, and in other
programs: Zeek, Suricata, Wireshark, Arkime. It is specified at https://github.com/corelight/community-id-spec.

It is the SHA-1 hash of addresses, protocol and ports; of ICMP, type and the type of the answer (or the code) are used
as ports. Protocols other than TCP, UDP, SCTP and ICMP have no ports there. Tunnels and VLANs are not part of it.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.model.flows import FlowColumns
from flowtop.model.kinds import ICMP_VERSIONS, IpVersion, Kind, Protocol

VERSION = "1:"
DIGEST_OCTETS = 20
SEED = b"\0\0"
_PORTS = frozenset({Protocol.TCP, Protocol.UDP, Protocol.SCTP})
_BOTH_WAYS = {Protocol.ICMP: ((8, 0), (13, 14), (15, 16), (10, 9), (17, 18)),
              Protocol.ICMPV6: ((128, 129), (133, 134), (135, 136), (130, 131), (139, 140), (144, 145))}
ICMP_PARTNERS: dict[tuple[int, int], int] = {
    (protocol, one): other for protocol, pairs in _BOTH_WAYS.items()
    for pair in pairs for one, other in (pair, pair[::-1])}
"""Type of the answer, by protocol and type of the request, and the other way round."""

Words = npt.NDArray[np.uint32]


def community_id(source: bytes, destination: bytes, source_port: int, destination_port: int, protocol: int,
                 ip_version: int) -> str:
    """The Community ID of one flow.

    Args:
        source, destination: 16 octets; IPv4 addresses in the first 4.
        destination_port: of ICMP, type * 256 + code.
    """
    octets = 4 if ip_version == IpVersion.V4 else 16
    one, other = source[:octets], destination[:octets]
    ports = b""
    turns = one > other
    if protocol in _PORTS or protocol in ICMP_VERSIONS:
        ends = source_port, destination_port
        if protocol in ICMP_VERSIONS:
            kind, code = destination_port >> 8, destination_port & 0xFF
            partner = ICMP_PARTNERS.get((protocol, kind))
            ends = kind, code if partner is None else partner
            turns = partner is not None and (one, ends[0]) > (other, ends[1])
        else:
            turns = (one, source_port) > (other, destination_port)
        ports = struct.pack(">HH", *(ends[::-1] if turns else ends))
    if turns:
        one, other = other, one
    digest = hashlib.sha1(SEED + one + other + bytes((protocol, 0)) + ports, usedforsecurity=False).digest()
    return text_of(digest)


def text_of(digest: bytes) -> str:
    """The text for a hash."""
    return VERSION + base64.b64encode(digest).decode()


def digest_of(text: str) -> bytes:
    """The hash in a text, which may lack `=` at its end. Raises ValueError: it is no Community ID."""
    if not text.startswith(VERSION):
        raise ValueError(text)
    digest = base64.b64decode(text[len(VERSION):].rstrip("=") + "=", validate=True)
    if len(digest) != DIGEST_OCTETS:
        raise ValueError(text)
    return digest


_CHUNK = 16_384
"""Flows that are hashed at once: their words fit the CPU's caches."""


def digests(columns: FlowColumns) -> Words:
    """The hashes of many flows, 5 words each (big-endian numbers): shape (n, 5). 0 of flows that have none: those of
    which only later fragments were seen, and aggregates."""
    kind = columns["kind"]
    found = np.zeros((len(kind), DIGEST_OCTETS // 4), np.uint32)
    some = np.flatnonzero((kind == Kind.FLOW) | (kind == Kind.PARENT))
    names = ("source_address", "destination_address", "source_port", "destination_port", "protocol", "ip_version")
    values = [columns[name] for name in names]
    for start in range(0, len(some), _CHUNK):
        rows = some[start:start + _CHUNK]
        found[rows] = _hashed(*_messages(*(column[rows] for column in values)))
    return found


def _messages(source: npt.NDArray[np.void], destination: npt.NDArray[np.void], source_port: npt.NDArray[Any],
              destination_port: npt.NDArray[Any], protocol: npt.NDArray[Any], ip_version: npt.NDArray[Any],
              ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """What is hashed: rows of 64 octets with the message in the first ones, and its length."""
    n = len(protocol)
    ends = np.empty((n, 2, 18), np.uint8)  # address and port, in the order in which they are compared
    for end, addresses in enumerate((source, destination)):
        ends[:, end, :16] = np.ascontiguousarray(addresses).view(np.uint8).reshape(n, 16)
    ports = np.stack((source_port, destination_port), axis=1).astype(np.int64)
    with_ports = np.isin(protocol, list(_PORTS))
    ports[~with_ports] = 0
    one_way = np.zeros(n, np.bool_)
    icmp = np.flatnonzero(np.isin(protocol, list(ICMP_VERSIONS)))
    with_ports[icmp] = True
    kind, code = destination_port[icmp] >> 8, destination_port[icmp] & np.uint16(0xFF)
    partner = _PARTNERS[protocol[icmp], kind].astype(np.int64)
    one_way[icmp] = partner < 0
    ports[icmp] = np.stack((kind, np.where(partner < 0, code, partner)), axis=1)
    ends[:, :, 16], ends[:, :, 17] = ports >> 8, ports & 0xFF
    words = np.concatenate((ends, np.zeros((n, 2, 6), np.uint8)), axis=2).view(">u8")
    turns = np.zeros(n, np.bool_)
    decided = one_way
    for word in range(3):
        turns |= ~decided & (words[:, 0, word] > words[:, 1, word])
        decided = decided | (words[:, 0, word] != words[:, 1, word])
    ends[turns] = ends[turns][:, ::-1]
    return _packed(ends, protocol, ip_version == np.uint8(IpVersion.V4), with_ports)


def _packed(ends: npt.NDArray[np.uint8], protocol: npt.NDArray[Any], v4: npt.NDArray[np.bool_],
            with_ports: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    octets = np.zeros((len(ends), 64), np.uint8)
    for rows, size in ((np.flatnonzero(v4), 4), (np.flatnonzero(~v4), 16)):
        at = len(SEED)
        for end in (0, 1):
            octets[rows, at:at + size] = ends[rows, end, :size]
            at += size
        octets[rows, at] = protocol[rows]
        octets[rows, at + 2:at + 6] = np.where(with_ports[rows, None], ends[rows, :, 16:].reshape(-1, 4), 0)
    length = np.where(v4, 12, 36) + np.where(with_ports, 4, 0)
    return octets, length


_PARTNERS = np.full((256, 256), -1, np.int16)
for (_protocol, _type), _partner in ICMP_PARTNERS.items():
    _PARTNERS[_protocol, _type] = _partner

_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
_ROUNDS = (0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6)


def _hashed(octets: npt.NDArray[np.uint8], length: npt.NDArray[np.int64]) -> Words:
    """SHA-1 (RFC 3174) of messages that fit one block, shape (n, 5). `octets` is changed."""
    rows = np.arange(len(octets))
    octets[rows, length] = 0x80
    octets[:, 62], octets[:, 63] = length * 8 >> 8, length * 8 & 0xFF
    schedule = list(np.ascontiguousarray(octets.view(">u4").T).astype(np.uint32))
    for t in range(16, 80):
        schedule.append(_turned(schedule[t - 3] ^ schedule[t - 8] ^ schedule[t - 14] ^ schedule[t - 16], 1))
    a, b, c, d, e = (np.full(len(octets), word, np.uint32) for word in _START)
    for t in range(80):
        if t < 20:
            mixed = d ^ (b & (c ^ d))
        elif 40 <= t < 60:
            mixed = (b & c) | (d & (b | c))
        else:
            mixed = b ^ c ^ d
        a, b, c, d, e = _turned(a, 5) + mixed + e + schedule[t] + np.uint32(_ROUNDS[t // 20]), a, _turned(b, 30), c, d
    sums = (word + np.uint32(start) for word, start in zip((a, b, c, d, e), _START, strict=True))
    return np.stack(list(sums), axis=1)


def _turned(words: Words, bits: int) -> Words:
    found: Words = words << np.uint32(bits) | words >> np.uint32(32 - bits)
    return found
