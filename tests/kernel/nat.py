"""Address translation rules, by netlink (uapi/linux/netfilter/nf_tables.h): no tool has to be installed."""

from __future__ import annotations

import os
import socket
import struct

_NETFILTER, _IPV4, _TABLES = 12, 2, 10
_NEW_TABLE, _NEW_CHAIN, _NEW_RULE = (_TABLES << 8 | number for number in (0, 3, 6))
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_PREROUTING, _POSTROUTING = 0, 4


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">I", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _nest(kind: int, *values: bytes) -> bytes:
    return _attribute(kind | 0x8000, b"".join(values))


def _expression(name: str, *values: bytes) -> bytes:
    return _nest(1, _text(1, name), _nest(2, *values))


def _message(kind: int, sequence: int, body: bytes, *, family: int = _IPV4, flags: int = _REQUEST | _ACK | _CREATE,
             resource: int = 0) -> bytes:
    general = struct.pack(">BBH", family, 0, resource)
    return struct.pack("=IHHII", 16 + len(general) + len(body), kind, flags, sequence, 0) + general + body


def _send(*messages: tuple[int, bytes]) -> None:
    """Apply as one transaction, in this thread's network namespace."""
    begin = _message(0x10, 1, b"", family=0, flags=_REQUEST, resource=_TABLES)
    body = b"".join(_message(kind, number, body) for number, (kind, body) in enumerate(messages, 2))
    end = _message(0x11, 100, b"", family=0, flags=_REQUEST, resource=_TABLES)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as netlink:
        netlink.settimeout(30)
        netlink.send(begin + body + end)
        answered = 0
        while answered < len(messages):
            data, place = netlink.recv(1 << 16), 0
            while place < len(data):
                length, kind = struct.unpack_from("=IH", data, place)
                if kind == 2:
                    (code,) = struct.unpack_from("=i", data, place + 16)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    answered += 1
                place += length + 3 & ~3


def _chain(name: str, hook: int, priority: int) -> tuple[int, bytes]:
    return _NEW_CHAIN, b"".join((
        _text(1, "nat"), _text(3, name), _nest(4, _number(1, hook), _number(2, priority & 0xFFFFFFFF)),
        _text(7, "nat")))


def _rule(chain: str, key: int, ifindex: int, *expressions: bytes) -> tuple[int, bytes]:
    """A rule for packets of an interface: `key` is NFT_META_IIF or _OIF."""
    meta = _expression("meta", _number(1, 1), _number(2, key))
    equal = _expression("cmp", _number(1, 1), _number(2, 0), _nest(3, _attribute(1, struct.pack("=I", ifindex))))
    return _NEW_RULE, b"".join((_text(1, "nat"), _text(2, chain), _nest(4, meta, equal, *expressions)))


def masquerade(interface: str) -> None:
    """What leaves by the interface gets its address."""
    _send((_NEW_TABLE, _text(1, "nat")), _chain("out", _POSTROUTING, 100),
          _rule("out", 5, socket.if_nametoindex(interface), _expression("masq")))


def publish(interface: str, address: str) -> None:
    """What comes in by the interface goes to the address; after `masquerade`."""
    constant = _expression("immediate", _number(1, 1), _nest(2, _attribute(1, socket.inet_aton(address))))
    _send(_chain("in", _PREROUTING, -100),
          _rule("in", 4, socket.if_nametoindex(interface), constant,
                _expression("nat", _number(1, 1), _number(2, _IPV4), _number(3, 1))))
