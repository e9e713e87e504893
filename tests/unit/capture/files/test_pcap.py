"""Records are found in many lanes at once exactly where a walk from one to the next finds them, whatever is in them."""

from __future__ import annotations

import random
import struct

import pytest

from flowtop.capture.files import pcap
from flowtop.capture.files.pcap import record_offsets
from tests.unit.capture.files import writers as w

T_S = 1_700_000_000
LONGEST = 2 << 20
TAIL = bytes(128)


def walked(raw: bytes, order: str) -> tuple[list[int], int]:
    """One record after another."""
    at, found = 0, []
    while at + 16 <= len(raw):
        (captured,) = struct.unpack_from(f"{order}I", raw, at + 8)
        if captured > LONGEST or at + 16 + captured > len(raw):
            break
        found.append(at)
        at += 16 + captured
    return found, at


def records(rng: random.Random, order: str, octets: int, *, payload: str) -> bytes:
    """Records of such a total: their payloads are zeros, noise, pieces of captures, or lengths that mislead."""
    out, size, at_s = [], 0, T_S
    inner = w.pcap([((T_S + n) * w.SECOND, bytes(rng.randrange(200))) for n in range(60)], order=order)[24:]
    while size < octets:
        length = rng.choice((0, 1, 40, 60, 60, 60, 590, 1500, rng.randrange(70_000)))
        if payload == "noise":
            frame = rng.randbytes(length)
        elif payload == "captures":
            frame = (inner * (length // len(inner) + 1))[:length]
        elif payload == "stamps":
            header = struct.pack(f"{order}IIII", at_s, 0, rng.choice((7, 60, 1 << 31)), 1 << 31)
            frame = (header * (length // 16 + 1))[:length]
        else:
            frame = bytes(length)
        at_s += rng.choice((0, 0, 0, 1, 70_000))
        out.append(struct.pack(f"{order}IIII", at_s & 0xFFFFFFFF, 5, len(frame), len(frame)) + frame)
        size += 16 + length
    return b"".join(out)


@pytest.mark.parametrize("payload", ["zeros", "noise", "captures", "stamps"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("cut", [0, 1, 9, 300])
def test_lanes_find_what_a_walk_finds(payload: str, order: str, cut: int) -> None:
    rng = random.Random(f"{payload}{order}{cut}")
    raw = records(rng, order, 1_500_000, payload=payload)
    raw = raw[:len(raw) - cut]
    found, end = record_offsets(bytearray(raw + TAIL), 0, len(raw), order, LONGEST)
    assert (found.tolist(), end) == walked(raw, order)


@pytest.mark.parametrize("captured", [LONGEST + 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_damage_ends_it_wherever_it_stands(captured: int) -> None:
    rng = random.Random(captured)
    for place in (0, 1, 900_000):
        raw = (records(rng, "<", place, payload="noise") + struct.pack("<IIII", T_S, 0, captured, captured)
               + records(rng, "<", 900_000, payload="noise"))
        found, end = record_offsets(bytearray(raw + TAIL), 0, len(raw), "<", LONGEST)
        assert (found.tolist(), end) == walked(raw, "<")


def test_lanes_are_what_a_plain_capture_is_walked_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above would test the loop alone."""
    steps = []
    walk = pcap._walk
    monkeypatch.setattr(pcap, "_walk", lambda *arguments: steps.append(len(found := walk(*arguments))) or found)
    raw = b"".join(struct.pack("<IIII", T_S, 5, 100, 100) + bytes(100) for _ in range(20_000))
    found, _ = record_offsets(bytearray(raw + TAIL), 0, len(raw), "<", LONGEST)
    assert len(found) == 20_000 and sum(steps) < 1000
