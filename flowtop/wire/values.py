"""Values of Information Elements as plain Python values, and back (RFC 7011 section 6.1).

Integers and floats are themselves, strings are `str`, a boolean is `bool`, IP and MAC addresses are text. Times are
integers since 1970 UTC in the unit that the type is named after, also where NTP timestamps are sent. All else is
`bytes` as on the wire: octet arrays, lists that cannot be decoded, and elements that the registry does not have.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from typing import Any

from flowtop.wire.ipfix import Value
from flowtop.wire.ipfix_template import VARIABLE_LENGTH, FieldSpecifier, IpfixEncodeError

Scalar = int | float | str | bytes
PlainValue = Scalar | dict[str, Any]
"""What is read; a bool is an int, and structured data (RFC 6313) are a mapping: see plain_list in structured.py."""
GivenValue = PlainValue | ipaddress.IPv4Address | ipaddress.IPv6Address
"""What `wire_value` takes."""

_NTP_EPOCH_S = 2_208_988_800
"""1970 on NTP's clock, which counts from 1900."""
_FRACTIONS = {"dateTimeMicroseconds": (1_000_000, 11), "dateTimeNanoseconds": (1_000_000_000, 0)}
"""By type: units in a second, and bits of the fraction that are 0 (RFC 7011 section 6.1.9)."""
_ADDRESSES = {"ipv4Address": 4, "ipv6Address": 16}


def reader(specifier: FieldSpecifier) -> Callable[[Any], Scalar]:
    """A function that converts a value of a decoded record, of the numpy type in FieldSpecifier, to a plain value."""
    type_ = _type(specifier)
    if specifier.format[0] in "SVO":
        return _octets_reader(type_, specifier.length)
    if type_ == "boolean":
        return lambda value: value == 1 if value in (1, 2) else int(value)
    if type_ in _FRACTIONS:
        units, _ = _FRACTIONS[type_]
        return lambda stamp: ((stamp >> 32) - _NTP_EPOCH_S) * units + ((stamp & 0xFFFF_FFFF) * units >> 32)
    return lambda value: value


def plain_octets(value: bytes, specifier: FieldSpecifier) -> Scalar:
    """A value that was decoded as octets."""
    return _octets_reader(_type(specifier), specifier.length)(value)


def _octets_reader(type_: str, length: int) -> Callable[[bytes], Scalar]:
    if type_ == "string":
        return lambda value: value.rstrip(b"\0").decode("utf-8", "backslashreplace")
    if type_ in _ADDRESSES:
        return lambda value: str(ipaddress.ip_address(value)) if len(value) in (4, 16) else value
    if type_ == "macAddress":
        return lambda value: value.hex(":") if len(value) == 6 else value
    if type_.startswith("unsigned") and length <= 8:  # a length that RFC 7011 does not allow, and NetFlow does
        return lambda value: int.from_bytes(value, "big")
    return lambda value: value


def wire_value(name: str, value: object, specifier: FieldSpecifier) -> Value:
    """What `encode_record` takes for a value of GivenValue: also addresses of `ipaddress`, and octets for anything.

    An integer for an element that the registry does not have is written in network order, as long as its field is.

    Raises IpfixEncodeError: it is no value of that field.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address):
        return _address(name, value, specifier)
    if isinstance(value, str):
        return _of_text(name, value, specifier)
    if isinstance(value, int):
        return _of_integer(name, value, specifier)
    if isinstance(value, float) and specifier.format[0] == "f":
        try:
            struct.pack(">d" if specifier.length == 8 else ">f", value)
        except OverflowError:
            raise IpfixEncodeError(f"{name} {value} does not fit in {specifier.length} octets") from None
        return value
    raise IpfixEncodeError(f"{name} takes {_wanted(specifier)}, not {type(value).__name__}")


def _type(specifier: FieldSpecifier) -> str:
    return specifier.element.type if specifier.element else ""


def _wanted(specifier: FieldSpecifier) -> str:
    return {"u": "an integer", "i": "an integer", "f": "a number", "S": "text"}.get(specifier.format[0], "octets")


def _address(name: str, value: ipaddress.IPv4Address | ipaddress.IPv6Address, specifier: FieldSpecifier) -> bytes:
    if _ADDRESSES.get(_type(specifier), len(value.packed)) != len(value.packed):
        raise IpfixEncodeError(f"{name} is an address of the other IP version: {value}")
    return value.packed


def _of_text(name: str, value: str, specifier: FieldSpecifier) -> str | bytes:
    type_ = _type(specifier)
    try:
        if type_ in _ADDRESSES:
            return _address(name, ipaddress.ip_address(value), specifier)
        if type_ == "macAddress":
            return bytes.fromhex(value.replace(":", "").replace("-", ""))
        if type_ in ("string", ""):
            value.encode()
            return value
    except IpfixEncodeError:
        raise
    except ValueError as error:
        raise IpfixEncodeError(f"{name} {value!r} cannot be encoded: {error}") from error
    raise IpfixEncodeError(f"{name} takes {_wanted(specifier)}, not text")


def _of_integer(name: str, value: int, specifier: FieldSpecifier) -> int | float | bytes:
    type_, kind, length = _type(specifier), specifier.format[0], specifier.length
    if type_ == "boolean" and isinstance(value, bool):
        return 1 if value else 2
    if type_ in _FRACTIONS and kind == "u":
        units, zeros = _FRACTIONS[type_]
        seconds, fraction = divmod(value, units)
        # Rounded up, so that the way back, which rounds down, gives the same.
        return seconds + _NTP_EPOCH_S << 32 | -(-(fraction << 32 - zeros) // units) << zeros
    if kind == "f":
        try:
            return float(value)
        except OverflowError:
            raise IpfixEncodeError(f"{name} does not fit in {length} octets") from None
    if kind == "V" and (type_ == "" or type_.startswith("unsigned")):
        try:
            return value.to_bytes(length, "big", signed=value < 0)
        except OverflowError:
            raise IpfixEncodeError(f"{name} {value} does not fit in {length} octets") from None
    if kind in "ui":
        return value
    unknown = " of variable length" if length == VARIABLE_LENGTH else ""
    raise IpfixEncodeError(f"{name}{unknown} takes {_wanted(specifier)}, not a number")
