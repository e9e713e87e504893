"""Messages with one bad part: what is wrong, the flows that remain by arithmetic, and the parts that are lost, by kind.

Every flow of case `n` goes from 10.n.0.1, and is in Observation Domain n, so that one collector can take all cases.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from tests.unit.capture.collector.exports import FLOW, NOW_S, set_of, template


class Damaged(NamedTuple):
    """`flows` remain of `octets`; `skipped` says what was lost, by kind."""

    octets: bytes
    flows: int
    skipped: dict[str, int]


FIELDS9 = ((8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (10, 4), (2, 4), (1, 4), (22, 4), (21, 4))


def ipfix(number: int, *sets: bytes) -> bytes:
    body = b"".join(sets)
    return struct.pack(">HHIII", 10, 16 + len(body), int(NOW_S), 0, number) + body


def resized(message: bytes, change: int) -> bytes:
    """The message with a length in its header that is wrong by this much."""
    return message[:2] + struct.pack(">H", len(message) + change) + message[4:]


def misled(one_set: bytes, change: int) -> bytes:
    """A Set with a length that is wrong by this much."""
    return one_set[:2] + struct.pack(">H", max(0, len(one_set) + change)) + one_set[4:]


def netflow9(number: int, *flowsets: bytes, count: int) -> bytes:
    return struct.pack(">HHIIII", 9, count, 60_000, int(NOW_S), 1, number) + b"".join(flowsets)


def flowset(set_id: int, *words: int, octets: bytes = b"") -> bytes:
    body = struct.pack(f">{len(words)}H", *words) + octets
    return struct.pack(">HH", set_id, 4 + len(body)) + body


def flow(case: int, number: int) -> bytes:
    """A record of FLOW: 51 octets."""
    return struct.pack(">4s4sHHBIQQQQ", bytes((10, case, 0, 1)), bytes((10, 1, 0, number)), 1000, 443, 6, 3, 2, 300,
                       1_699_999_990_000, 1_699_999_999_000)


def flow9(case: int, number: int) -> bytes:
    """A record of FIELDS9: 33 octets."""
    return struct.pack(">4s4sHHBIIIII", bytes((10, case, 0, 1)), bytes((10, 1, 0, number)), 1000, 443, 6, 3, 2, 300,
                       50_000, 51_000)


def flow5(case: int, number: int) -> bytes:
    source, destination = bytes((10, case, 0, 1)), bytes((10, 1, 0, number))
    return struct.pack(">4s4s4sHHIIIIHHBBBBHHBBH", source, destination, bytes(4), 3, 4, 2, 300, 50_000, 51_000, 1000,
                       443, 0, 16, 6, 0, 1, 2, 24, 24, 0)


def netflow5(count: int, octets: bytes) -> bytes:
    return struct.pack(">HHIIIIBBH", 5, count, 60_000, int(NOW_S), 0, 42, 0, 0, 0) + octets


FLOWS = template(256, FLOW)
FLOWS9 = flowset(0, 256, len(FIELDS9), *(word for pair in FIELDS9 for word in pair))


def _ipfix(make: Callable[[int, bytes, bytes], bytes], flows: int, **skipped: int) -> Callable[[int], Damaged]:
    """A case of a case's number, a Data Set of flows 1 and 2, and one of flow 3."""
    return lambda number: Damaged(make(number, set_of(256, flow(number, 1) + flow(number, 2)),
                                       set_of(256, flow(number, 3))), flows, skipped)


def _v9(make: Callable[[int, bytes, bytes], bytes], flows: int, **skipped: int) -> Callable[[int], Damaged]:
    return lambda number: Damaged(make(number, flowset(256, octets=flow9(number, 1) + flow9(number, 2)),
                                       flowset(256, octets=flow9(number, 3))), flows, skipped)


def _v5(promised: int, cut: int, flows: int, more: bytes = b"", **skipped: int) -> Callable[[int], Damaged]:
    """A case of two flows, a header that promises a number of them, and octets cut off or added."""
    return lambda number: Damaged(
        netflow5(promised, (flow5(number, 1) + flow5(number, 2))[:96 - cut] + more), flows, skipped)


CASES: dict[str, Callable[[int], Damaged]] = {
    "whole": _ipfix(lambda n, two, one: ipfix(n, FLOWS, two, one), 3),
    "two octets of padding behind": _ipfix(lambda n, two, one: ipfix(n, FLOWS, two, one) + bytes(2), 3, padding=1),
    "32 octets of padding behind": _ipfix(lambda n, two, one: ipfix(n, FLOWS, two, one) + bytes(32), 3, padding=1),
    "octets behind": _ipfix(lambda n, two, one: ipfix(n, FLOWS, two, one) + b"\xff" * 8, 3, trailing=1),
    "one octet in place of a set": _ipfix(lambda n, two, one: ipfix(n, FLOWS, two, one, b"\1"), 3, set=1),
    "four octets of zeros at the end": _ipfix(lambda n, two, one: ipfix(n, FLOWS, two, one, bytes(4)), 3, padding=1),
    "length of 20 more": _ipfix(lambda n, two, one: resized(ipfix(n, FLOWS, two, one), 20), 3, length=1),
    "length within a set": _ipfix(lambda n, two, one: resized(ipfix(n, FLOWS, two, one), -10), 3, length=1),
    "length of a set less": _ipfix(lambda n, two, one: resized(ipfix(n, FLOWS, two, one), -len(one)), 3, length=1),
    "length of 0": _ipfix(lambda n, two, one: b"\0\x0a\0\0" + ipfix(n, FLOWS, two, one)[4:], 3, length=1),
    "length of the header": _ipfix(lambda n, two, one: b"\0\x0a\0\x10" + ipfix(n, FLOWS, two, one)[4:], 3, length=1),
    "cut in the last record": _ipfix(lambda n, two, one: ipfix(n, FLOWS, one, two)[:-9], 2, length=1, set=1, record=1),
    "set of length 0": _ipfix(lambda n, two, one: ipfix(n, FLOWS, two, b"\1\0\0\0"), 2, set=1),
    "set of length 3": _ipfix(lambda n, two, one: ipfix(n, FLOWS, two, b"\1\0\0\3", one), 3, set=1),
    "set of length 3 behind a template": _ipfix(lambda n, two, one: ipfix(n, FLOWS, b"\1\0\0\3", two, one), 3, set=1),
    "set of length 2 before a template": _ipfix(lambda n, two, one: ipfix(n, b"\1\0\0\2", FLOWS, two, one), 3, set=1),
    "template set of length 0": _ipfix(lambda n, two, one: ipfix(n, b"\0\2\0\0" + FLOWS[4:], two, one), 3, set=1),
    "set beyond the end": _ipfix(lambda n, two, one: ipfix(n, FLOWS, two, b"\1\0\xff\xff" + one[4:]), 2, set=1),
    "four octets between sets": _ipfix(lambda n, two, one: ipfix(n, FLOWS, two, bytes(4), one), 3, padding=1),
    "two octets between sets": _ipfix(lambda n, two, one: ipfix(n, FLOWS, two, bytes(2), one), 3, padding=1),
    "three octets before a template": _ipfix(lambda n, two, one: ipfix(n, bytes(3), FLOWS, two, one), 3, padding=1),
    "padding in sets": _ipfix(lambda n, two, one: ipfix(
        n, set_of(2, FLOWS[4:] + bytes(7)), set_of(256, two[4:] + bytes(3)), one), 3),
    "last record of variable length cut": _ipfix(lambda n, two, one: ipfix(
        n, template(256, (*FLOW, (82, 65_535))), set_of(256, flow(n, 1) + b"\4eth0" + flow(n, 2)[:30]),
        set_of(256, flow(n, 3) + b"\0")), 2, record=1),
    "padding behind records of variable length": _ipfix(lambda n, two, one: ipfix(
        n, template(256, (*FLOW, (82, 65_535))), set_of(256, flow(n, 1) + b"\4eth0" + flow(n, 2) + b"\0" + bytes(3)),
        set_of(256, flow(n, 3) + b"\xff\1\0" + bytes(256))), 3),
    "last record of a set cut": _ipfix(lambda n, two, one: ipfix(n, FLOWS, set_of(256, two[4:] + one[4:24]), one), 3,
                                       record=1),
    "set 5": _ipfix(lambda n, two, one: ipfix(n, set_of(5, b"abcd"), FLOWS, two, one), 3, reserved=1),
    "set 5 before many": _ipfix(lambda n, two, one: ipfix(n, set_of(5, b"\x08abc"), FLOWS, *[two] * 50), 100,
                                reserved=1),
    "v9 records alone counted": _v9(lambda n, two, one: netflow9(n, FLOWS9, FLOWS9, two, one, count=3), 3),
    "set 255": _ipfix(lambda n, two, one: ipfix(n, FLOWS, two, set_of(255, b""), one), 3, reserved=1),
    "template 100": _ipfix(lambda n, two, one: ipfix(n, set_of(2, struct.pack(">HHHH", 100, 1, 8, 4) + FLOWS[4:]), two,
                                                     one), 3, template=1),
    "template without fields": _ipfix(lambda n, two, one: ipfix(
        n, set_of(2, struct.pack(">HH", 300, 0) + FLOWS[4:]), two, one), 3, template=1),
    "template of empty records": _ipfix(lambda n, two, one: ipfix(
        n, set_of(2, struct.pack(">HHHH", 300, 1, 82, 0) + FLOWS[4:]), two, one), 3, template=1),
    "template cut off": _ipfix(lambda n, two, one: ipfix(n, set_of(2, struct.pack(">HHHH", 300, 9, 8, 4)), FLOWS, two,
                                                         one), 3, template=1),
    "options without scope": _ipfix(lambda n, two, one: ipfix(
        n, set_of(3, struct.pack(">HHHHH", 300, 1, 0, 34, 4)), FLOWS, two, one), 3, template=1),
    "options of too much scope": _ipfix(lambda n, two, one: ipfix(
        n, set_of(3, struct.pack(">HHHHH", 300, 1, 2, 34, 4)), FLOWS, two, one), 3, template=1),
    "a value that exceeds its set": _ipfix(lambda n, two, one: ipfix(
        n, template(300, ((82, 65_535),)), set_of(300, b"\4eth0\5a"), FLOWS, two, one), 3, record=1),
    "data before their template": _ipfix(lambda n, two, one: ipfix(n, two, FLOWS, one), 3),
    "templates of netflow 9": _v9(lambda n, two, one: ipfix(n, FLOWS9, two, one), 3),
    "v9 whole": _v9(lambda n, two, one: netflow9(n, FLOWS9, two, one, count=4), 3),
    "v9 sets counted": _v9(lambda n, two, one: netflow9(n, FLOWS9, two, one, count=3), 3),
    "v9 count of 9": _v9(lambda n, two, one: netflow9(n, FLOWS9, two, one, count=9), 3, count=1),
    "v9 count of 0": _v9(lambda n, two, one: netflow9(n, FLOWS9, two, one, count=0), 3, count=1),
    "v9 zeros behind": _v9(lambda n, two, one: netflow9(n, FLOWS9, two, one, count=4) + bytes(20), 3),
    "v9 options without scope": _v9(lambda n, two, one: netflow9(n, flowset(1, 300, 0, 4, 34, 4), FLOWS9, two, one,
                                                                 count=4), 3, template=1),
    "v9 options of nothing": _v9(lambda n, two, one: netflow9(n, flowset(1, 300, 0, 0), FLOWS9, two, one, count=4), 3,
                                 template=1),
    "v9 options with scope of 3 octets": _v9(lambda n, two, one: netflow9(n, flowset(1, 300, 3, 4, 34, 4), FLOWS9, two,
                                                                          one, count=4), 3, template=1),
    "v9 template without fields": _v9(lambda n, two, one: netflow9(
        n, flowset(0, 300, 0, octets=FLOWS9[4:]), two, one, count=4), 3, template=1),
    "v9 template 100": _v9(lambda n, two, one: netflow9(
        n, flowset(0, 100, 1, 8, 4, octets=FLOWS9[4:]), two, one, count=4), 3, template=1),
    "v9 template cut off": _v9(lambda n, two, one: netflow9(n, FLOWS9, two, one, flowset(0, 300, 9, 8, 4), count=4), 3,
                               template=1),
    "v9 set beyond the end": _v9(lambda n, two, one: netflow9(n, FLOWS9, two, b"\1\0\x0f\xff", one, count=3), 3, set=1),
    "v9 set of length 3": _v9(lambda n, two, one: netflow9(n, FLOWS9, b"\1\0\0\3", two, one, count=4), 3, set=1),
    "v9 set of length 0": _v9(lambda n, two, one: netflow9(n, FLOWS9, two, b"\1\0\0\0", count=4), 2, set=1),
    "v9 cut": _v9(lambda n, two, one: netflow9(n, FLOWS9, one, two, count=4)[:-4], 2, set=1, record=1),
    "v9 set 7": _v9(lambda n, two, one: netflow9(n, FLOWS9, flowset(7, 1, 2), two, one, count=4), 3, reserved=1),
    "v9 data before their template": _v9(lambda n, two, one: netflow9(n, two, FLOWS9, one, count=4), 3),
    "v9 padding not in the length": _v9(lambda n, two, one: netflow9(n, FLOWS9, two + bytes(2), one, count=4), 3,
                                       padding=1),
    "v9 templates of ipfix": _v9(lambda n, two, one: netflow9(n, b"\0\2" + FLOWS9[2:], two, one, count=4), 3),
    "v5 whole": _v5(2, 0, 2),
    "v5 count too large": _v5(5, 0, 2, count=1),
    "v5 cut": _v5(2, 7, 1, count=1, trailing=1),
    "v5 octets behind": _v5(2, 0, 2, b"abc", trailing=1),
    "v5 count of 0": _v5(0, 0, 2, count=1),
}


def _wrong_lengths() -> dict[str, Callable[[int], Damaged]]:
    """One Set with a wrong length, of records of 51 octets and 33 octets: before another Set, or the last one.

    The Sets behind it are found again, and then it is known how long it was. Where a wrong length leads to the header
    of a later Set (by 55 octets, the length of Set `one`), nothing is wrong to see. If the last Set exceeds the
    message, its records may be cut off.
    """
    cases: dict[str, Callable[[int], Damaged]] = {}
    for change in (-200, -106, -102, -51, -20, -4, -2, -1, 1, 2, 3, 4, 20, 51, 60, 200, 60_000):
        cases[f"set longer by {change}"] = _ipfix(
            lambda n, two, one, by=change: ipfix(n, FLOWS, misled(two, by), one), 3, set=1)  # type: ignore[misc]
    for change in (-40, -20, -4, -2, -1):
        cases[f"last set longer by {change}"] = _ipfix(
            lambda n, two, one, by=change: ipfix(n, FLOWS, one, misled(two, by)), 3, set=1)  # type: ignore[misc]
    for change in (-70, -66, -33, -2, 2, 4, 20, 200):
        cases[f"v9 set longer by {change}"] = _v9(lambda n, two, one, by=change: netflow9(  # type: ignore[misc]
            n, FLOWS9, misled(two, by), one, count=4), 3, set=1)
    for change in (-2, 2, 4, 8):
        cases[f"template set longer by {change}"] = _ipfix(
            lambda n, two, one, by=change: ipfix(n, misled(FLOWS, by), two, one), 3, set=1)  # type: ignore[misc]
        cases[f"v9 template set longer by {change}"] = _v9(lambda n, two, one, by=change: netflow9(  # type: ignore[misc]
            n, misled(FLOWS9, by), two, one, count=4), 3, set=1)
    return cases


CASES |= _wrong_lengths()
