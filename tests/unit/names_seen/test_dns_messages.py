"""DNS: which addresses answer which question. Messages are written from RFC 1035."""

from __future__ import annotations

import random
import socket
import struct
import tracemalloc

import pytest

from flowtop.names_seen.dns_messages import MalformedError, Message, Question, name_text, read_message
from tests.unit.names_seen.messages import (
    AAAA,
    CNAME,
    HEADER_OCTETS,
    HTTPS,
    QUESTION,
    A,
    address_record,
    answer,
    encoded,
    pointer,
    query,
    record,
)


def packed(*addresses: str) -> tuple[bytes, ...]:
    return tuple(socket.inet_pton(socket.AF_INET6 if ":" in one else socket.AF_INET, one) for one in addresses)


def read(octets: bytes, *, cut: bool = False) -> Message:
    message = read_message(octets, cut=cut)
    assert message is not None
    return message


def test_a_question() -> None:
    assert read(query("WWW.Example.com", AAAA)) == Message(Question((b"www", b"example", b"com"), AAAA), False)


@pytest.mark.parametrize(("type_", "address"), [(A, "192.0.2.1"), (AAAA, "2001:db8::1")])
def test_an_address(type_: int, address: str) -> None:
    message = read(answer("www.example.com", [address_record(address, life_s=77)], type_))
    assert message.addresses == packed(address)
    assert message.life_s == 77
    assert message.is_answer and message.complete
    assert name_text(message.question.labels) == "www.example.com"


def test_a_chain_of_cnames_in_any_order_leads_to_the_name_that_was_asked_for() -> None:
    """`www` is the alias of `edge`, whose canonical name is `node`; the life is the shortest one."""
    aliases = [record(QUESTION, CNAME, encoded("edge.cdn.example"), 60),
               record(encoded("edge.cdn.example"), CNAME, encoded("node.cdn.example"), 30)]
    addresses = [address_record("192.0.2.7", encoded("node.cdn.example"), 90),
                 address_record("192.0.2.8", encoded("NODE.cdn.example"), 90)]
    for records in (aliases + addresses, addresses + aliases[::-1]):
        message = read(answer("www.example.com", records))
        assert message.addresses == packed("192.0.2.7", "192.0.2.8")
        assert message.life_s == 30


def test_an_address_of_another_name_is_not_the_answer() -> None:
    """Records that no chain leads to: somebody slips in an address of a name that nobody asked for."""
    records = [address_record("192.0.2.66", encoded("bank.example")), address_record("192.0.2.1")]
    assert read(answer("www.example.com", records)).addresses == packed("192.0.2.1")


def test_a_ring_of_cnames_ends() -> None:
    records = [record(QUESTION, CNAME, encoded("b.example")), record(encoded("b.example"), CNAME, QUESTION)]
    assert read(answer("a.example", records)).addresses == ()


def test_compressed_names() -> None:
    """The canonical name `node.example.com` by a pointer to the question's `example.com`."""
    canonical = b"\4node" + pointer(HEADER_OCTETS + 4)
    records = [record(QUESTION, CNAME, canonical), address_record("192.0.2.9", encoded("node.example.com"))]
    assert read(answer("www.example.com", records)).addresses == packed("192.0.2.9")


@pytest.mark.parametrize(("flags", "complete"), [(0x8183, True), (0x8380, False)])
def test_no_such_name_and_a_cut_answer(flags: int, complete: bool) -> None:
    message = read(answer("www.example.com", [address_record("192.0.2.1")], flags=flags))
    assert message.addresses == ()
    assert message.complete == complete


@pytest.mark.parametrize("octets", [
    query("www.example.com", HTTPS),
    query("www.example.com")[:-1] + b"\3",                        # class CHAOS
    query("www.example.com").replace(b"\x01\x00", b"\x28\x00", 1),  # an update
    query("www.example.com").replace(b"\0\1\0\0", b"\0\2\0\0", 1),  # two questions
])
def test_what_is_not_of_interest(octets: bytes) -> None:
    assert read_message(octets) is None


LONG = ".".join(["x" * 63] * 3 + ["y" * 61])
"""255 octets in wire format: the longest name there may be."""


def test_the_longest_name() -> None:
    assert len(encoded(LONG)) == 255
    assert name_text(read(answer(LONG, [address_record("192.0.2.1")])).question.labels) == LONG


HOSTILE = {
    "a pointer to itself": answer("a.example", [record(pointer(HEADER_OCTETS + 15), A, b"\1\2\3\4")]),
    "a pointer forward": answer("a.example", [record(pointer(HEADER_OCTETS + 40), A, b"\1\2\3\4") + bytes(40)]),
    "two pointers in a ring": struct.pack("!HHHHHH", 1, 0x8180, 1, 0, 0, 0) + pointer(14) + pointer(12) + b"\0\1\0\1",
    "a label of 64 octets": struct.pack("!HHHHHH", 1, 0x8180, 1, 0, 0, 0) + b"\x40" + b"x" * 64 + b"\0\0\1\0\1",
    "a name of 256 octets": query(LONG + "z"),
    "no end of the name": struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0) + b"\3www",
    "nothing": b"",
    "a header alone": struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0),
    "more records than there are": answer("a.example", [address_record("192.0.2.1")] ).replace(
        b"\0\1\0\1\0\0\0\0", b"\0\1\xff\xff\0\0\0\0", 1),
    "a record longer than the message": answer("a.example", [QUESTION + struct.pack("!HHIH", A, 1, 1, 65_535)]),
    "an alias that goes on behind its record": answer("a.example", [record(QUESTION, CNAME, b"\7exa")]),
}


@pytest.mark.parametrize("octets", HOSTILE.values(), ids=HOSTILE)
def test_hostile_messages_are_refused(octets: bytes) -> None:
    with pytest.raises(MalformedError):
        read_message(octets)


def test_what_is_left_of_a_cut_message_is_enough() -> None:
    whole = answer("a.example", [address_record("192.0.2.1"), address_record("192.0.2.2")])
    assert read(whole[:-3], cut=True).addresses == packed("192.0.2.1")
    with pytest.raises(MalformedError):
        read_message(whole[:-3])


def test_random_and_damaged_messages_raise_nothing_else_and_keep_no_memory() -> None:
    rng = random.Random(12)
    good = [answer("www.example.com", [record(QUESTION, CNAME, b"\4node" + pointer(HEADER_OCTETS + 4)),
                                       address_record("192.0.2.1", encoded("node.example.com"))]),
            query("www.example.com"), *HOSTILE.values()]
    tracemalloc.start()
    try:
        for number in range(20_000):
            if number % 2:
                octets = bytearray(rng.choice(good))
                for _ in range(rng.randint(1, 6)):
                    if octets:
                        octets[rng.randrange(len(octets))] = rng.randrange(256)
            else:
                octets = bytearray(rng.randbytes(rng.randrange(600)))
            try:
                found = read_message(bytes(octets), cut=bool(number % 3))
            except MalformedError:
                continue
            assert found is None or len(name_text(found.question.labels)) <= 255
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
