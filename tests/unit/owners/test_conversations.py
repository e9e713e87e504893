"""Conversations: the same for both directions; what is remembered of them; the two sides of address translation."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.model.kinds import Protocol
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.model.translations import Flow, Translation, TranslationTexts
from flowtop.owners.conversations import WORDS, Conversations, Senders, Sides, conversations_of, words_of

ENDS = st.tuples(st.sampled_from([bytes(16), b"\1" + bytes(15), bytes(8) + b"\1" + bytes(7), b"\xff" * 16]),
                 st.sampled_from([0, 1, 255, 256, 65535]))
PROTOCOLS = st.sampled_from([Protocol.TCP, Protocol.UDP, Protocol.ICMP, Protocol.ICMPV6])


def address(text: str) -> bytes:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return socket.inet_pton(family, text).ljust(16, b"\0")


def flow(source: str, source_port: int, destination: str, destination_port: int,
         protocol: Protocol = Protocol.TCP) -> Flow:
    return Flow(address(source), address(destination), source_port, destination_port, protocol,
                6 if ":" in source else 4)


def keys(*flows: Flow) -> np.ndarray:
    made = np.zeros(len(flows), FLOW_KEY_DTYPE)
    for place, one in enumerate(flows):
        made["source_address"][place], made["destination_address"][place] = map(np.void, one[:2])
        for name in ("source_port", "destination_port", "protocol", "ip_version"):
            made[name][place] = getattr(one, name)
    made["ifindex"], made["direction"] = 7, 1
    return made


def words(*flows: Flow) -> np.ndarray:
    return conversations_of(keys(*flows))[0]


@given(ENDS, ENDS, PROTOCOLS)
def test_both_directions_are_one_conversation_alike_for_arrays_and_for_one(
        one: tuple[bytes, int], other: tuple[bytes, int], protocol: Protocol) -> None:
    if protocol in (Protocol.ICMP, Protocol.ICMPV6):  # type and code both ways
        there, back = (Flow(ends[0], ends[1], 0, other[1], protocol, 4) for ends in (
            (one[0], other[0]), (other[0], one[0])))
    else:
        there, back = (Flow(ends[0][0], ends[1][0], ends[0][1], ends[1][1], protocol, 4)
                       for ends in ((one, other), (other, one)))
    assert words(there).tobytes() == words(back).tobytes() == there.conversation == back.conversation
    made, turned = conversations_of(keys(there.plain()))
    assert turned[0] == there.plain().is_turned
    assert made.tobytes() == (there.plain().turned() if turned[0] else there.plain()).code.to_bytes(40, "big")
    assert Flow.of_code(there.code) == there


def test_an_echo_reply_is_of_its_requests_conversation() -> None:
    request = flow("192.0.2.1", 0, "198.51.100.1", 8 << 8, Protocol.ICMP)
    reply = flow("198.51.100.1", 0, "192.0.2.1", 0, Protocol.ICMP)
    unreachable = flow("198.51.100.1", 0, "192.0.2.1", 3 << 8 | 1, Protocol.ICMP)
    assert request.conversation == reply.conversation != unreachable.conversation
    assert words(request, reply, unreachable).tobytes() == b"".join(
        one.conversation for one in (request, reply, unreachable))


def many(number: int) -> list[Flow]:
    return [flow(f"10.0.{n >> 8}.{n & 255}", 1000 + n % 7, "192.0.2.1", 80) for n in range(number)]


def conversations(now: list[float], width: int = 1, **options: float) -> Conversations:
    return Conversations(np.random.default_rng(1), lambda: now[0], width, **options)  # type: ignore[arg-type]


def test_values_are_found_by_conversation_and_the_last_one_counts() -> None:
    known, flows = conversations([0.0]), many(2000)
    known.note(words(*flows), np.arange(2000, dtype=np.uint64)[:, np.newaxis])
    known.note(words(flows[5], flows[5], flow("10.9.9.9", 1, "192.0.2.1", 80)), np.array([[7], [8], [9]], np.uint64))
    values, found = known.find(words(*flows, *(flow("10.9.9.9", port, "192.0.2.1", 80) for port in (1, 2))))
    assert found.tolist() == [True] * 2001 + [False]
    assert values[:, 0].tolist() == [*range(5), 8, *range(6, 2000), 9, 0]


def test_what_was_not_seen_for_long_is_forgotten_first_and_counted() -> None:
    now = [0.0]
    known, flows = conversations(now, most=100), many(120)
    known.note(words(*flows[:100]), np.ones((100, 1), np.uint64))
    now[0] = 1
    known.find(words(*flows[:90]))
    now[0] = 2
    known.note(words(*flows[100:110]), np.ones((10, 1), np.uint64))
    assert known.forgotten == 10
    assert known.find(words(*flows))[1].tolist() == [True] * 90 + [False] * 10 + [True] * 10 + [False] * 10
    now[0] = 1000
    known.note(words(*flows[110:]), np.ones((10, 1), np.uint64))
    assert (len(known), known.forgotten) == (10, 10)


def test_each_direction_has_its_sender_and_else_the_other_ones() -> None:
    known = Senders(np.random.default_rng(1), lambda: 0.0)
    one, other, alone = (flow("10.0.0.1", 1, "10.0.0.2", 2), flow("10.0.0.2", 2, "10.0.0.1", 1),
                         flow("10.0.0.3", 3, "10.0.0.4", 4))
    known.note(*conversations_of(keys(one, other, alone)), np.array([11, 22, 33], np.uint64))
    back = flow("10.0.0.4", 4, "10.0.0.3", 3)
    assert known.find(*conversations_of(keys(other, one, back, alone))).tolist() == [22, 11, 33, 33]
    known.note(*conversations_of(keys(one)), np.array([44], np.uint64))
    assert known.find(*conversations_of(keys(other, one))).tolist() == [22, 44]


MASQUERADED = (flow("10.88.0.2", 40000, "198.51.100.7", 443), flow("192.0.2.1", 61000, "198.51.100.7", 443))
PUBLISHED = (flow("198.51.100.9", 5555, "192.0.2.1", 8080), flow("198.51.100.9", 5555, "10.88.0.3", 80))
PINGED = (flow("10.88.0.2", 0, "198.51.100.7", 8 << 8, Protocol.ICMP).plain(),
          flow("192.0.2.1", 0, "198.51.100.7", 8 << 8, Protocol.ICMP).plain())
SIX = (flow("fd00::2", 40000, "2001:db8::7", 443), flow("2001:db8::1", 40000, "2001:db8::7", 443))


@pytest.mark.parametrize(("before", "after"), [MASQUERADED, PUBLISHED, PINGED, SIX])
def test_the_sides_of_a_translation(before: Flow, after: Flow) -> None:
    sides, one = Sides(np.random.default_rng(1), lambda: 0.0), Translation.of(before, after)
    sides.note([one])
    for here, there in ((before, after), (after, before), (before.turned(), after.turned()),
                        (after.turned(), before.turned())):
        others, turned, found = sides.other(*conversations_of(keys(here)))
        assert found.tolist() == [True]
        assert others.tobytes() == there.conversation
        assert turned.tolist() == [there.is_turned]
        assert one.other_side(here) == there
    stranger = flow("192.0.2.1", 1, "198.51.100.7", 443)
    assert sides.other(*conversations_of(keys(stranger)))[2].tolist() == [False]
    assert one.other_side(stranger) is None


@pytest.mark.parametrize(("before", "after"), [MASQUERADED, PUBLISHED, SIX])
def test_keys_before_the_translation(before: Flow, after: Flow) -> None:
    """All but the ends stays as it is."""
    sides = Sides(np.random.default_rng(1), lambda: 0.0)
    sides.note([Translation.of(before, after)])
    seen = keys(after, after.turned(), before, before.turned())
    made, places = sides.before(words_of(seen), *conversations_of(seen))
    assert places.tolist() == [0, 1]
    assert made.tolist() == words_of(keys(before, before.turned())).tolist()


def test_keys_of_a_ping_before_the_translation_keep_their_types() -> None:
    sides = Sides(np.random.default_rng(1), lambda: 0.0)
    sides.note([Translation.of(*PINGED)])
    request, reply = (flow("192.0.2.1", 0, "198.51.100.7", 8 << 8, Protocol.ICMP),
                      flow("198.51.100.7", 0, "192.0.2.1", 0, Protocol.ICMP))
    seen = keys(request, reply)
    made, places = sides.before(words_of(seen), *conversations_of(seen))
    assert places.tolist() == [0, 1]
    assert made.tolist() == words_of(keys(flow("10.88.0.2", 0, "198.51.100.7", 8 << 8, Protocol.ICMP),
                                          flow("198.51.100.7", 0, "10.88.0.2", 0, Protocol.ICMP))).tolist()


def test_texts_of_translations() -> None:
    known = {}
    for one in (Translation.of(*MASQUERADED), Translation.of(*PINGED), Translation.of(*SIX)):
        known[one.one] = known[one.other] = one
    texts = TranslationTexts(known)
    assert texts[MASQUERADED[0].code] == "192.0.2.1:61000 > 198.51.100.7:443"
    assert texts[MASQUERADED[1].turned().code] == "198.51.100.7:443 > 10.88.0.2:40000"
    assert texts[flow("198.51.100.7", 0, "192.0.2.1", 0, Protocol.ICMP).code] == "198.51.100.7 > 10.88.0.2"
    assert texts[SIX[0].code] == "[2001:db8::1]:40000 > [2001:db8::7]:443"
    assert texts.get(PUBLISHED[0].code) is None
    assert len(MASQUERADED[0].conversation) == WORDS * 8
