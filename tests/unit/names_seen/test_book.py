"""Which flow gets which name: by client, time and origin, within bounds."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from flowtop.model.kinds import Direction, IpVersion, Protocol
from flowtop.model.names_seen import CODE_MASK, OF_SOURCE, Origin, name_origins
from flowtop.model.record import FLOW_KEY_DTYPE
from flowtop.names_seen.book import LOOKED_UP, NameBook
from flowtop.names_seen.reader import NameReader
from tests.unit.names_seen.initials import VERSION_1
from tests.unit.names_seen.messages import AAAA, A, address_record, answer, client_hello, flow_key, query

S = 1_000_000_000
CLIENT, OTHER, SERVER, RESOLVER = "10.0.0.5", "10.0.0.6", "192.0.2.1", "10.0.0.1"


def v4(address: str) -> bytes:
    return socket.inet_aton(address).ljust(16, b"\0")


def names(book: NameBook, flows: Sequence[bytes], at_ns: int = 10 * S) -> list[tuple[str, Origin, str] | None]:
    """Name, origin, and which end has it, of flows that begin then."""
    keys = np.frombuffer(b"".join(flows), FLOW_KEY_DTYPE)
    found = book.of_new(keys, np.full(len(keys), at_ns, np.uint64))
    if found is None:
        return [None] * len(flows)
    texts = book.texts()
    return [(texts[value & CODE_MASK], Origin(int(origin) & OF_SOURCE - 1),
             "source" if origin & OF_SOURCE else "destination") if value else None
            for value, origin in zip(found.tolist(), name_origins(found).tolist(), strict=True)]


def tcp(source: str, destination: str, ports: tuple[int, int] = (40_000, 443)) -> bytes:
    return flow_key(source, destination, ports, Protocol.TCP)


def looked_up(book: NameBook, name: str, at_ns: int = S, client: str = CLIENT, server: str = SERVER,
              life_s: int = 60) -> None:
    book.look_up(v4(client), IpVersion.V4, (socket.inet_aton(server),), name, at_ns, life_s)


# ---- the book


def test_both_directions_of_a_flow_have_the_name_that_its_client_asked_for_and_nobody_elses() -> None:
    book = NameBook()
    looked_up(book, "WWW.Example.com.")
    assert names(book, [tcp(CLIENT, SERVER), tcp(SERVER, CLIENT, (443, 40_000)), tcp(OTHER, SERVER),
                        tcp(CLIENT, OTHER)]) == [
        ("www.example.com", Origin.DNS, "destination"), ("www.example.com", Origin.DNS, "source"), None, None]
    assert book.addresses() == {socket.inet_aton(SERVER): "www.example.com"}


def test_a_flow_has_what_was_asked_last_before_it_began() -> None:
    book = NameBook()
    looked_up(book, "a.example", 1 * S)
    looked_up(book, "b.example", 3 * S)
    looked_up(book, "a.example", 5 * S)
    flow = [tcp(CLIENT, SERVER)]
    asked = [found and found[0] for at in (0, 1, 2, 3, 4, 5, 6) for found in names(book, flow, at * S)]
    assert asked == [None, "a.example", "a.example", "b.example", "b.example", "a.example", "a.example"]


def test_an_answer_that_a_second_processor_noted_late_is_put_in_its_place() -> None:
    book = NameBook()
    looked_up(book, "b.example", 3 * S)
    looked_up(book, "a.example", 1 * S)
    assert [found and found[0] for found in names(book, [tcp(CLIENT, SERVER)], 2 * S)] == ["a.example"]
    assert [found and found[0] for found in names(book, [tcp(CLIENT, SERVER)], 4 * S)] == ["b.example"]


@pytest.mark.parametrize(("life_s", "believed_s"), [(1, 3600), (7200, 7200), (10_000_000, 86_400)])
def test_an_answer_is_believed_for_its_life_but_an_hour_at_least_and_a_day_at_most(life_s: int,
                                                                                   believed_s: int) -> None:
    book = NameBook()
    looked_up(book, "a.example", 0, life_s=life_s)
    assert names(book, [tcp(CLIENT, SERVER)], (believed_s - 1) * S) != [None]
    assert names(book, [tcp(CLIENT, SERVER)], believed_s * S) == [None]


def test_what_a_flow_says_itself_comes_before_dns_also_for_flows_that_exist() -> None:
    book = NameBook()
    looked_up(book, "dns.example")
    key, back = tcp(CLIENT, SERVER), flow_key(SERVER, CLIENT, (443, 40_000), Protocol.TCP, Direction.INGRESS)
    assert book.name_server(key, "sni.example", Origin.TLS)
    assert names(book, [key, back, tcp(CLIENT, SERVER, (40_001, 443))]) == [
        ("sni.example", Origin.TLS, "destination"), ("sni.example", Origin.TLS, "source"),
        ("dns.example", Origin.DNS, "destination")]
    news = book.take_news()
    assert news is not None
    assert [row.tobytes() for row in news[0]] == [key, back]
    assert (name_origins(news[1]) == [Origin.TLS, Origin.TLS | OF_SOURCE]).all()
    assert book.take_news() is None


def test_what_a_host_asks_its_own_resolver_counts_for_all_its_addresses_but_for_no_other_host() -> None:
    def are_local(addresses: npt.NDArray[np.void], versions: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        return np.array([bytes(address) == v4(CLIENT) for address in addresses])

    book = NameBook(are_local)
    looked_up(book, "stub.example", client="127.0.0.1")
    assert [found and found[0] for found in names(book, [
        tcp(CLIENT, SERVER), tcp(SERVER, CLIENT, (443, 1)), tcp(OTHER, SERVER), tcp("127.0.0.9", SERVER)])] == [
        "stub.example", "stub.example", None, "stub.example"]
    looked_up(book, "upstream.example", 2 * S)
    assert [found and found[0] for found in names(book, [tcp(CLIENT, SERVER)])] == ["upstream.example"]
    looked_up(book, "cached.example", 3 * S, client="127.0.0.1")
    assert [found and found[0] for found in names(book, [tcp(CLIENT, SERVER)])] == ["cached.example"], "the last one"


def test_a_client_that_asks_by_ipv4_and_connects_by_ipv6() -> None:
    """An AAAA record comes by IPv4. Of this host both addresses are known; else the only client that asked counts."""
    six, other_six, server = "2001:db8::5", "2001:db8::6", "2001:db8:1::1"
    packed = socket.inet_pton(socket.AF_INET6, server)

    def are_local(addresses: npt.NDArray[np.void], versions: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        own = {v4(CLIENT), socket.inet_pton(socket.AF_INET6, six)}
        return np.array([bytes(address) in own for address in addresses])

    host, file = NameBook(are_local), NameBook()
    for book in (host, file):
        book.look_up(v4(CLIENT), IpVersion.V4, (packed,), "six.example", S, 60)
    flows = [tcp(six, server), tcp(server, six, (443, 1)), tcp(other_six, server)]
    assert [found and found[0] for found in names(host, flows)] == ["six.example", "six.example", None]
    assert [found and found[0] for found in names(file, flows)] == ["six.example"] * 3
    file.look_up(v4(OTHER), IpVersion.V4, (packed,), "another.example", S, 60)
    assert names(file, flows) == [None] * 3, "who of both is who is not known"


@pytest.mark.parametrize("name", ["", ".", "192.0.2.7", "2001:db8::1", "[2001:db8::1]", "???", "\x1b\x07"])
def test_what_is_no_name_or_looks_like_an_address_is_none(name: str) -> None:
    book = NameBook()
    looked_up(book, name)
    assert not book.name_server(tcp(CLIENT, SERVER), name, Origin.TLS)
    assert names(book, [tcp(CLIENT, SERVER)]) == [None]


@pytest.mark.parametrize(("name", "shown"), [
    ("a\x1b[31mb.example", "ab.example"), ("a b.example\n", "a?b.example"), ("x" * 300, "x" * 252 + "…"),
    ("[bold]b[/].example", "?bold?b???.example"), ("a\u202eb.example", "ab.example")])
def test_names_are_made_harmless(name: str, shown: str) -> None:
    book = NameBook()
    looked_up(book, name)
    assert [found and found[0] for found in names(book, [tcp(CLIENT, SERVER)])] == [shown]


def test_the_book_is_bounded_and_keeps_the_texts_of_flows_that_exist() -> None:
    book = NameBook(pairs=100, conversations=100, texts=200)
    used = np.zeros(0, np.uint32)
    first = None

    def in_use() -> npt.NDArray[np.uint32]:
        return used

    for number in range(2_000):
        server = socket.inet_ntoa((0xC0000000 + number).to_bytes(4, "big"))
        looked_up(book, f"h{number}.example", number * S, server=server)
        key = tcp(CLIENT, server)
        book.name_server(key, f"s{number}.example", Origin.TLS)
        if first is None:
            first = names(book, [key], number * S)
            used = np.asarray(book.of_new(np.frombuffer(key, FLOW_KEY_DTYPE), np.zeros(1, np.uint64)))
        book.forget_but(in_use)
        assert len(book.texts()) <= 210
    assert len(book.addresses()) <= 100
    assert book.forgotten >= 3_700
    assert book.texts()[int(used[0]) & CODE_MASK] == "s0.example"
    assert names(book, [tcp(CLIENT, "192.0.7.207", (40_000, 443))], 2_000 * S) == [
        ("s1999.example", Origin.TLS, "destination")]
    for number in range(3 * LOOKED_UP):
        looked_up(book, f"n{number}.example", number * S)
    oldest = 3 * LOOKED_UP - LOOKED_UP
    assert names(book, [tcp(CLIENT, SERVER)], (oldest - 1) * S) == [None], "too many names of one address"
    assert names(book, [tcp(CLIENT, SERVER)], oldest * S)[0] is not None


# ---- the reader


def ask(reader: NameReader, name: str, type_: int = A, *, number: int = 7, port: int = 5353, at_ns: int = S) -> None:
    octets = query(name, type_, number)
    reader.read(flow_key(CLIENT, RESOLVER, (port, 53)), at_ns, octets, len(octets))


def reply(reader: NameReader, name: str, address: str, *, number: int = 7, port: int = 5353, at_ns: int = S,
          source: str = RESOLVER, type_: int = A) -> None:
    octets = answer(name, [address_record(address)], type_, number)
    reader.read(flow_key(source, CLIENT, (53, port), direction=Direction.INGRESS), at_ns, octets, len(octets))


@pytest.fixture
def book() -> NameBook:
    return NameBook()


@pytest.fixture
def reader(book: NameBook) -> NameReader:
    return NameReader(book)


def test_an_answer_to_a_question(book: NameBook, reader: NameReader) -> None:
    ask(reader, "www.Example.com")
    reply(reader, "wWw.eXample.com", SERVER)
    assert [found and found[0] for found in names(book, [tcp(CLIENT, SERVER)])] == ["www.example.com"]
    ask(reader, "six.example.com", AAAA)
    octets = answer("six.example.com", [address_record("2001:db8::7")], AAAA, 7)
    reader.read(flow_key(RESOLVER, CLIENT, (53, 5353)), 2 * S, octets, len(octets))
    assert book.addresses()[socket.inet_pton(socket.AF_INET6, "2001:db8::7")] == "six.example.com"
    assert reader.statistics().answers == 2


@pytest.mark.parametrize("forged", [
    {"number": 8}, {"port": 5354}, {"source": "203.0.113.9"}, {"name": "bank.example"}, {"at_ns": 60 * S},
    {"type_": AAAA, "address": "2001:db8::1"}], ids=str)
def test_an_answer_to_no_question_names_nothing(book: NameBook, reader: NameReader, forged: dict[str, object]) -> None:
    ask(reader, "www.example.com")
    reply(reader, **{"name": "www.example.com", "address": SERVER, **forged})  # type: ignore[arg-type]
    assert not book.addresses()
    assert reader.statistics().unasked == 1
    reply(reader, "www.example.com", SERVER)
    assert book.addresses(), "the right one still counts"


def test_of_an_answer_that_nobody_waits_for_only_the_question_is_read(reader: NameReader) -> None:
    """Records cost 60 times as much, and who floods the host with them takes that from the names of others. That they
    are not read shows in damaged ones."""
    octets = answer("www.example.com", [address_record(SERVER)] * 9, number=7)[:-3]
    key = flow_key(RESOLVER, CLIENT, (53, 5353), direction=Direction.INGRESS)
    reader.read(key, 2 * S, octets, len(octets))
    assert (reader.statistics().unasked, reader.statistics().malformed) == (1, 0)
    ask(reader, "www.example.com")
    reader.read(key, 2 * S, octets, len(octets))
    assert (reader.statistics().unasked, reader.statistics().malformed) == (1, 1)


def test_the_first_answer_counts_and_repeated_packets_of_other_interfaces_are_no_news(book: NameBook,
                                                                                      reader: NameReader) -> None:
    ask(reader, "www.example.com")
    reply(reader, "www.example.com", SERVER)
    reply(reader, "www.example.com", SERVER)
    reply(reader, "www.example.com", "203.0.113.66")
    assert list(book.addresses()) == [socket.inet_aton(SERVER)]
    assert (reader.statistics().answers, reader.statistics().unasked) == (1, 0)


def test_a_truncated_answer_and_then_tcp(book: NameBook, reader: NameReader) -> None:
    ask(reader, "www.example.com")
    cut = answer("www.example.com", [], number=7, flags=0x8380)
    reader.read(flow_key(RESOLVER, CLIENT, (53, 5353)), S, cut, len(cut))
    for key, message in ((flow_key(CLIENT, RESOLVER, (9, 53), Protocol.TCP), query("www.example.com", A, 9)),
                         (flow_key(RESOLVER, CLIENT, (53, 9), Protocol.TCP),
                          answer("www.example.com", [address_record(SERVER)], A, 9))):
        octets = len(message).to_bytes(2, "big") + message
        reader.read(key, S, octets, len(octets))
    assert book.addresses() == {socket.inet_aton(SERVER): "www.example.com"}


def test_the_first_segment_of_an_answer_on_tcp_is_enough(book: NameBook, reader: NameReader) -> None:
    message = query("www.example.com", A, 9)
    octets = len(message).to_bytes(2, "big") + message
    reader.read(flow_key(CLIENT, RESOLVER, (9, 53), Protocol.TCP), S, octets, len(octets))
    long = answer("www.example.com", [address_record(f"192.0.2.{number}") for number in range(200)], A, 9)
    octets = len(long).to_bytes(2, "big") + long[:1400]
    reader.read(flow_key(RESOLVER, CLIENT, (53, 9), Protocol.TCP), S, octets, len(octets))
    assert len(book.addresses()) == (1400 - 12 - 17 - 4) // 16
    assert reader.statistics().malformed == 0


def test_a_hello_in_three_segments_a_host_and_an_initial(book: NameBook, reader: NameReader) -> None:
    hello = client_hello("www.example.org")
    flow = tcp(CLIENT, SERVER)
    for start in range(0, len(hello), 200):
        reader.read(flow, S, hello[start:start + 200], min(200, len(hello) - start))
    request = b"GET / HTTP/1.1\r\nHost: plain.example:80\r\n\r\n"
    reader.read(tcp(CLIENT, SERVER, (41_000, 8080)), S, request, len(request))
    quic = flow_key(CLIENT, SERVER, (42_000, 443))
    reader.read(quic, S, VERSION_1, len(VERSION_1))
    assert names(book, [flow, tcp(CLIENT, SERVER, (41_000, 8080)), quic]) == [
        ("www.example.org", Origin.TLS, "destination"), ("plain.example", Origin.HTTP, "destination"),
        ("example.com", Origin.QUIC, "destination")]
    found = reader.statistics()
    assert (found.server_names, found.hosts, found.initials, found.malformed) == (1, 1, 1, 0)


def test_datagrams_of_one_super_packet_are_read_one_by_one(book: NameBook, reader: NameReader) -> None:
    quic = flow_key(CLIENT, SERVER, (42_000, 443))
    other = VERSION_1[:6] + b"\0" + VERSION_1[7:]
    reader.read(quic, S, other + VERSION_1, 2400, 1200)
    assert names(book, [quic]) == [("example.com", Origin.QUIC, "destination")]
    assert reader.statistics().unreadable == 1


def test_without_cryptography_quic_is_said_to_be_unread(reader: NameReader, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowtop.names_seen import quic_initials

    def missing() -> None:
        raise ImportError("No module named 'cryptography'")

    monkeypatch.setattr(quic_initials, "_ciphers", missing)
    reader.read(flow_key(CLIENT, SERVER, (42_000, 443)), S, VERSION_1, len(VERSION_1))
    assert reader.statistics().faults == ("names in QUIC need the package cryptography",)


def test_any_octets_are_read_without_an_error_and_what_is_kept_is_bounded(book: NameBook, reader: NameReader) -> None:
    rng = random.Random(5)
    hello = client_hello("www.example.org")
    good = [query("a.example"), answer("a.example", [address_record(SERVER)]), hello, hello[:300], VERSION_1,
            b"GET / HTTP/1.1\r\nHost: x\r\n"]
    for _ in range(5_000):
        octets = bytearray(rng.choice([*good, rng.randbytes(rng.randrange(100))]))
        for _ in range(rng.randint(0, 4)):
            if octets:
                octets[rng.randrange(len(octets))] = rng.randrange(256)
        ports = rng.choice([(rng.randrange(65_536), 53), (53, rng.randrange(65_536)), (rng.randrange(65_536), 443)])
        key = flow_key(CLIENT, SERVER, ports, rng.choice([Protocol.TCP, Protocol.UDP]))
        reader.read(key, S, bytes(octets), len(octets) + rng.choice([0, 0, 100]), rng.choice([0, 0, 50]))
    assert len(reader._hellos) <= 1_024
    assert len(reader._initials) <= 1_024
    assert len(reader._questions) <= 16_384
    assert reader.statistics().malformed
