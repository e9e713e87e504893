"""The server's name in TLS, HTTP and QUIC: of OpenSSL's own ClientHello, of RFC 9001's and RFC 9369's packets."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from flowtop.names_seen.client_hello import name_in_message, name_in_records
from flowtop.names_seen.errors import IncompleteError, MalformedError
from flowtop.names_seen.http_requests import host_of
from flowtop.names_seen.quic_initials import InitialHello, UnreadableError
from tests.unit.names_seen.initials import VERSION_1, VERSION_2
from tests.unit.names_seen.messages import client_hello

HELLO = client_hello("www.example.org")
RECORD_HEADER = 5

# ---- TLS


def test_the_name_in_a_hello_of_openssl() -> None:
    assert name_in_records(HELLO) == b"www.example.org"


def test_a_hello_without_a_name() -> None:
    assert name_in_records(client_hello(None)) is None


def test_a_hello_in_pieces_has_its_name_as_soon_as_it_is_there() -> None:
    """Every length: incomplete until the name is in what came."""
    end = HELLO.index(b"www.example.org") + len(b"www.example.org")
    for length in range(len(HELLO)):
        if length < end:
            with pytest.raises(IncompleteError):
                name_in_records(HELLO[:length])
        else:
            assert name_in_records(HELLO[:length]) == b"www.example.org"


def test_a_hello_in_several_records() -> None:
    """RFC 8446, section 5.1: a handshake message may be in several records."""
    message = HELLO[RECORD_HEADER:]
    records = b"".join(b"\x16\3\1" + struct.pack("!H", len(part)) + part
                       for part in (message[:10], message[10:50], message[50:]))
    assert name_in_records(records) == b"www.example.org"
    with pytest.raises(IncompleteError):
        name_in_records(records[:70])


def test_a_whole_hello_whose_parts_are_too_long_is_refused() -> None:
    """The length of the extensions is larger than the message: nothing more will come."""
    message = bytearray(client_hello(None)[RECORD_HEADER:])
    at = 4 + 34
    for octets in (1, 2, 1):
        at += octets + int.from_bytes(message[at:at + octets], "big")
    message[at:at + 2] = b"\xff\xff"
    with pytest.raises(MalformedError):
        name_in_message(bytes(message))


@pytest.mark.parametrize("octets", [
    b"\x16\3\1\0\5\2\0\0\1\0",           # a ServerHello
    b"\x17\3\3\0\5hello",                # application data
    b"\x16\2\0\0\5\1\0\0\1\0",           # SSL 2
    b"\x16\3\1\0\0",                     # an empty record
    b"\x16\3\1\xff\xff" + bytes(100),    # a record that is too long
    b"\x16\3\1\0\4\1\xff\xff\xff",       # a message of 16 MiB
])
def test_what_is_no_hello(octets: bytes) -> None:
    with pytest.raises(MalformedError):
        name_in_records(octets)


# ---- HTTP


@pytest.mark.parametrize(("request_", "host"), [
    (b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", b"www.example.com"),
    (b"GET /a?b HTTP/1.1\r\nUser-Agent: x\r\nhOsT:\twww.example.com:8080 \r\nAccept: */*\r\n\r\n", b"www.example.com"),
    (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", b"h"),
    (b"POST / HTTP/1.1\r\nHost: a\r\n\r\nHost: b\r\n", b"a"),
    (b"GET / HTTP/1.0\r\n\r\n", None),
    (b"POST / HTTP/1.1\r\nX-Host: c\r\n\r\nHost: b\r\n", None),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", None),
    (b"GET http://www.example.com/ HTTP/1.1\r\nHost: www.example.com\r\n\r\n", None),
    (b"GET / HTTP/1.1\r\nHost: www.exam", None),
    (b"GET / HTTP/1.1\nHost: lf.example\n\n", b"lf.example"),
])
def test_the_host_of_a_request(request_: bytes, host: bytes | None) -> None:
    assert host_of(request_) == host


@pytest.mark.timeout(120)
def test_a_host_of_a_million_spaces_takes_no_hours() -> None:
    """It is a matter of milliseconds; if each space were tried with each other, of two hours."""
    assert host_of(b"GET / HTTP/1.1\r\nHost:" + b" " * 1_000_000 + b"a b\r\n\r\n") is None


@pytest.mark.parametrize("octets", [b"", b"GET", b"GET / HTTP/2\r\n\r\n", b"HELO x\r\n", b"GET /\r\nHost: a\r\n"])
def test_what_is_no_request(octets: bytes) -> None:
    with pytest.raises(MalformedError):
        host_of(octets)


# ---- QUIC


@pytest.mark.parametrize("packet", [VERSION_1, VERSION_2], ids=["RFC 9001", "RFC 9369"])
def test_the_published_packets_ask_for_example_com(packet: bytes) -> None:
    assert len(packet) == 1200
    assert InitialHello().add(packet) == b"example.com"


def sealed(frames: bytes, connection_id: bytes, number: int) -> bytes:
    """An Initial packet of version 1, made with cryptography's own HKDF (RFC 9001, section 5)."""
    def expand(secret: bytes, label: bytes, octets: int) -> bytes:
        info = struct.pack("!HB", octets, 6 + len(label)) + b"tls13 " + label + b"\0"
        return HKDFExpand(SHA256(), octets, info).derive(secret)

    extract = HMAC(bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), SHA256())
    extract.update(connection_id)
    secret = expand(extract.finalize(), b"client in", 32)
    key, iv, protection = (expand(secret, b"quic " + label, octets) for label, octets in (
        (b"key", 16), (b"iv", 12), (b"hp", 16)))
    frames = frames.ljust(1100, b"\0")
    head = (b"\xc3\0\0\0\1" + bytes([len(connection_id)]) + connection_id + b"\0\0"
            + struct.pack("!H", 0x4000 | 4 + len(frames) + 16))
    number_octets = number.to_bytes(4, "big")
    nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
    content = AESGCM(key).encrypt(nonce, frames, head + number_octets)
    mask = Cipher(algorithms.AES(protection), modes.ECB()).encryptor().update(content[:16])
    first = head[0] ^ mask[0] & 0x0F
    return bytes([first]) + head[1:] + bytes(a ^ b for a, b in zip(number_octets, mask[1:5], strict=True)) + content


def crypto(offset: int, data: bytes) -> bytes:
    """A CRYPTO frame."""
    return b"\6" + struct.pack("!HH", 0x4000 | offset, 0x4000 | len(data)) + data


def long_hello() -> bytes:
    """A ClientHello of 2,000 octets: an extension of padding (RFC 7685) before the rest, as post-quantum keys are."""
    message = bytearray(HELLO[RECORD_HEADER:])
    at = 4 + 34
    for octets in (1, 2, 1):
        at += octets + int.from_bytes(message[at:at + octets], "big")
    padding = struct.pack("!HH", 21, 1700) + bytes(1700)
    extensions = padding + bytes(message[at + 2:])
    body = bytes(message[4:at]) + struct.pack("!H", len(extensions)) + extensions
    return b"\1" + len(body).to_bytes(3, "big") + body


def test_a_hello_in_two_packets_in_shuffled_frames() -> None:
    """As Chrome sends them: pieces in any order, with PING and PADDING between, and an ACK."""
    hello, connection_id = long_hello(), b"12345678"
    cuts = [0, 300, 900, 1000, 1500, len(hello)]
    frames = [crypto(start, hello[start:stop]) for start, stop in pairwise(cuts)]
    first = sealed(frames[3] + b"\1" + bytes(7) + frames[0], connection_id, 0)
    second = sealed(frames[4] + b"\2\5\0\1\0\0\0" + frames[2] + b"\1", connection_id, 1)
    third = sealed(frames[1], connection_id, 70_000)
    for order in ((first, second, third), (third, second, first)):
        connection = InitialHello()
        for packet in order[:-1]:
            with pytest.raises(IncompleteError):
                connection.add(packet)
        assert connection.add(order[-1]) == b"www.example.org"


def test_a_packet_with_a_wrong_tag_or_for_other_keys_cannot_be_read() -> None:
    with pytest.raises(UnreadableError):
        InitialHello().add(VERSION_1[:-1] + bytes([VERSION_1[-1] ^ 1]))
    with pytest.raises(UnreadableError):
        InitialHello().add(VERSION_1[:6] + b"\0" + VERSION_1[7:])


def test_frames_that_nobody_has_room_for_are_refused() -> None:
    far = b"\6" + struct.pack("!IH", 0x80000000 | 1 << 20, 0x4001) + b"x"
    with pytest.raises(MalformedError):
        InitialHello().add(sealed(far, b"12345678", 0))


# ---- random octets


def test_random_and_damaged_octets_raise_nothing_else() -> None:
    rng = random.Random(12)
    good = [HELLO, VERSION_1, VERSION_2, b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", long_hello()]
    for number in range(6_000):
        octets = bytearray(rng.choice(good) if number % 3 else rng.randbytes(rng.randrange(300)))
        for _ in range(rng.randint(0, 6)):
            if octets:
                octets[rng.randrange(min(len(octets), 200))] = rng.randrange(256)
        if rng.random() < 0.3:
            del octets[rng.randrange(len(octets) + 1):]
        for read in (name_in_records, name_in_message, host_of, InitialHello().add):
            try:
                found = read(bytes(octets))
            except (MalformedError, IncompleteError, UnreadableError):
                continue
            assert found is None or isinstance(found, bytes)
