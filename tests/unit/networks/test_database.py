"""Databases of networks: look-ups against `ipaddress` and the prefixes that were written; bad files; replaced files."""

from __future__ import annotations

import ipaddress
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowtop.networks.database import Database, DatabaseError, Known, known_of
from flowtop.networks.here import HostAddresses
from flowtop.networks.networks import NetworkDatabases
from flowtop.networks.places import usual_databases
from tests.unit.networks.databases import asn, country, write

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Halves = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def halves(addresses: Sequence[str]) -> Halves:
    """As look-ups take addresses: IPv4 as IPv4-mapped."""
    numbers = [int(ipaddress.ip_address(text if ":" in text else f"::ffff:{text}")) for text in addresses]
    return (np.array([number >> 64 for number in numbers], np.uint64),
            np.array([number & (1 << 64) - 1 for number in numbers], np.uint64))


def whole(count: int) -> np.ndarray[Any, Any]:
    return np.full(count, 128, np.uint8)


def looked_up(databases: NetworkDatabases, *addresses: str) -> list[tuple[int, str, str]]:
    numbers, names, countries = databases.origins(*halves(addresses), whole(len(addresses)))
    return [(number, databases.names.get(name, ""), databases.countries.get(code, ""))
            for number, name, code in zip(numbers.tolist(), names.tolist(), countries.tolist(), strict=True)]


def random_networks(rng: random.Random, version: int, count: int) -> list[Network]:
    """Networks that do not overlap."""
    bits, found = (32, []) if version == 4 else (128, [])
    while len(found) < count:
        length = rng.randint(3, 32) if version == 4 else rng.randint(16, 64)
        start = (0x2001 << 112 | rng.getrandbits(100)) if version == 6 else rng.randrange(1 << 24, 0xE000_0000)
        mask = (1 << bits) - (1 << bits - length)
        network = ipaddress.ip_network((start & mask, length))
        if not any(network.overlaps(other) for other in found):  # type: ignore[arg-type]
            found.append(network)
    return found


@pytest.mark.parametrize("record_size", [24, 28, 32])
def test_look_ups_give_the_network_that_has_the_address(tmp_path: Path, record_size: int) -> None:
    rng = random.Random(record_size)
    networks = {version: random_networks(rng, version, 150) for version in (4, 6)}
    numbers = {network: number for number, network in enumerate((*networks[4], *networks[6]), 1)}
    path = write(tmp_path / "asn.mmdb", {str(network): asn(number) for network, number in numbers.items()},
                 record_size=record_size)
    asked = []
    for network in numbers:
        asked += [network[0], network[-1], network[rng.randrange(network.num_addresses)], network[0] - 1,
                  network[-1] + 1]
    asked += [ipaddress.IPv4Address(rng.getrandbits(32)) for _ in range(500)]
    expected = [next((number for network, number in numbers.items()
                      if network.version == address.version and address in network), 0) for address in asked]
    assert 0 in expected and len(set(expected)) == len(numbers) + 1
    databases = NetworkDatabases([path])
    for _ in range(2):  # looked up, and from the cache
        found = looked_up(databases, *map(str, asked))
        assert [number for number, _, _ in found] == expected
        assert [name for _, name, _ in found] == [f"Example {number}" if number else "" for number in expected]


def test_many_addresses_are_kept_and_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "asn.mmdb", {f"{first}.0.0.0/8": asn(first) for first in range(1, 200)})
    databases = NetworkDatabases([path], rng=np.random.default_rng(1))
    walked: list[int] = []
    walk = Database.records
    monkeypatch.setattr(Database, "records", lambda self, *args: (walked.append(len(args[0])), walk(self, *args))[1])
    low = np.uint64(0xFFFF << 32) | np.random.default_rng(2).integers(1 << 24, 199 << 24, 100_000).astype(np.uint64)
    for _ in range(3):
        numbers, _, _ = databases.origins(np.zeros(len(low), np.uint64), low, whole(len(low)))
        assert (numbers == low >> np.uint64(24) & np.uint64(255)).all()
    assert sum(walked) < 1.1 * len(low), "the file is asked for addresses that are new, and for few that had no place"


def test_a_network_is_known_only_if_it_is_in_one_network_of_the_database(tmp_path: Path) -> None:
    databases = NetworkDatabases([write(tmp_path / "asn.mmdb", {
        "192.0.2.0/25": asn(1), "198.51.100.0/24": asn(2), "2001:db8::/32": asn(3)})])
    prefixes = {"192.0.2.0/25": 1, "192.0.2.0/26": 1, "192.0.2.0/24": 0, "198.51.100.0/24": 2, "198.51.100.0/23": 0,
                "0.0.0.0/0": 0, "2001:db8:1::/48": 3, "2001:db8::/32": 3, "2001:db8::/31": 0, "::/0": 0}
    networks = [ipaddress.ip_network(prefix, strict=False) for prefix in prefixes]
    lengths = np.array([network.prefixlen + (96 if network.version == 4 else 0) for network in networks], np.uint8)
    numbers, _, _ = databases.origins(*halves([str(network[0]) for network in networks]), lengths)
    assert numbers.tolist() == list(prefixes.values())
    assert looked_up(databases, "192.0.2.0", "198.51.100.0") == [(1, "Example 1", ""), (2, "Example 2", "")]


def test_a_database_of_ipv4_alone_and_one_of_ipv6_alone(tmp_path: Path) -> None:
    four = NetworkDatabases([write(tmp_path / "4.mmdb", {"192.0.2.0/24": asn(4)}, version=4)])
    six = NetworkDatabases([write(tmp_path / "6.mmdb", {"2001:db8::/32": asn(6)})])
    for databases, expected in ((four, [4, 0, 0]), (six, [0, 6, 0])):
        assert [number for number, _, _ in looked_up(databases, "192.0.2.1", "2001:db8::1", "c000:201::")] == expected


@pytest.mark.parametrize(("record", "expected"), [
    (asn(64500, "Example"), Known(64500, "Example", "")),
    (country("DE"), Known(0, "", "DE")),
    ({"asn": "AS64500", "as_name": "Example", "as_domain": "example.com", "country_code": "FR", "country": "France",
      "continent_code": "EU"}, Known(64500, "Example", "FR")),  # IPinfo Lite
    ({"asn": "AS64500", "as_name": "Example", "country": "us", "country_name": "United States"},
     Known(64500, "Example", "US")),  # IPinfo Country + ASN
    ({"country": {"iso_code": "NL"}, "traits": {"autonomous_system_number": 64501, "isp": "x",
                                                "autonomous_system_organization": "Org"}}, Known(64501, "Org", "NL")),
    ({"country": "Germany", "asn": ""}, Known()), ({"asn": -1}, Known()), ({"asn": 1 << 32}, Known()),
    ({"asn": True, "as_name": 7, "country": ["DE"]}, Known()), ({"asn": "AS²"}, Known()), ("text", Known()),
    ([asn(1)], Known()), (None, Known()), ({"traits": [1], "country": {"iso_code": "D\x1b"}}, Known()),
    ({"asn": 5, "as_name": "\x1b[31mred\x07\u202egnp\n" + "x" * 300}, Known(5, "redgnp" + "x" * 57 + "…", "")),
])
def test_schemas(record: Any, expected: Known) -> None:
    assert known_of(record) == expected


def test_the_first_database_that_knows_something_says_it(tmp_path: Path) -> None:
    one = write(tmp_path / "a.mmdb", {"192.0.2.0/24": asn(1, "One")})
    two = write(tmp_path / "b.mmdb", {"192.0.2.0/24": asn(2, "Two") | country("DE"),
                                      "198.51.100.0/24": asn(3, "Three")})
    databases = NetworkDatabases([one, two])
    expected = [(1, "One", "DE"), (3, "Three", ""), (0, "", "")]
    assert looked_up(databases, "192.0.2.1", "198.51.100.1", "203.0.113.1") == expected


# ---- bad files


def damaged(tmp_path: Path, what: str) -> Path:
    good = write(tmp_path / "good.mmdb", {f"{first}.0.0.0/8": asn(first) for first in range(1, 100)})
    octets, path = good.read_bytes(), tmp_path / "bad.mmdb"
    if what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what != "missing":
        path.write_bytes({"empty": b"", "text": b"not a database\n" * 100, "first half": octets[:len(octets) // 2],
                          "second half": octets[len(octets) // 2:], "no end": octets[:-20]}[what])
    return path


@pytest.mark.parametrize(("what", "said"), [
    ("missing", "no such file"), ("empty", "is empty"), ("directory", "is not a file"), ("pipe", "is not a file"),
    ("text", "is not an MMDB file"), ("first half", "is not an MMDB file"), ("second half", "is damaged"),
    ("no end", "is not an MMDB file")])
def test_a_bad_file_is_one_line_and_the_others_are_used(tmp_path: Path, what: str, said: str) -> None:
    path = damaged(tmp_path, what)
    with pytest.raises(DatabaseError, match=said):
        Database(path)
    databases = NetworkDatabases([path, tmp_path / "good.mmdb"])
    [fault] = databases.faults
    assert str(path) in fault and said in fault and fault.isprintable()
    assert looked_up(databases, "7.1.2.3") == [(7, "Example 7", "")]


def test_records_that_cannot_be_decoded_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "asn.mmdb", {f"{first}.0.0.0/8": asn(first) for first in range(1, 100)})
    octets = bytearray(path.read_bytes())
    start, end = octets.index(b"autonomous_system_number") - 1, octets.rindex(b"\xab\xcd\xefMaxMind.com")
    octets[start:end] = b"\xff" * (end - start)
    path.write_bytes(octets)
    databases = NetworkDatabases([path])
    assert looked_up(databases, *(f"{first}.0.0.1" for first in range(1, 100))) == [(0, "", "")] * 99
    [fault] = databases.faults
    assert "99 records cannot be read" in fault


def test_a_key_that_is_a_number_does_no_harm(tmp_path: Path) -> None:
    """One damaged octet; maxminddb's extension in C ends the process (SIGSEGV)."""
    path = write(tmp_path / "asn.mmdb", {"10.0.0.0/8": asn(64500)})
    octets = bytearray(path.read_bytes())
    octets[octets.index(b"autonomous_system_number") - 1] = 0xA1  # a number of one octet, not a text of 24
    path.write_bytes(octets)
    databases = NetworkDatabases([path])
    assert looked_up(databases, "10.0.0.1") == [(0, "Example 64500", "")]


@pytest.mark.parametrize("seed", range(20))
def test_damage_anywhere_is_survived(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = write(tmp_path / "asn.mmdb", {f"{first}.0.0.0/8": asn(first) for first in range(1, 100)})
    octets = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 200)):
        octets[rng.randrange(len(octets))] = rng.getrandbits(8)
    path.write_bytes(octets)
    databases = NetworkDatabases([path])
    found = looked_up(databases, *(f"{rng.randrange(256)}.1.2.3" for _ in range(300)), "2001:db8::1")
    assert len(found) == 301
    assert all(name.isprintable() and (code == "" or len(code) == 2) for _, name, code in found)


# ---- files that change


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 2
        return self.now_s


def test_a_file_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "asn.mmdb", {"192.0.2.0/24": asn(1, "Old")})
    databases = NetworkDatabases([path], clock=Clock())
    assert looked_up(databases, "192.0.2.1") == [(1, "Old", "")]
    write(tmp_path / "new.mmdb", {"192.0.2.0/24": asn(2, "New")}).replace(path)
    assert looked_up(databases, "192.0.2.1") == [(2, "New", "")]
    assert databases.faults == ()


def test_a_file_that_is_replaced_by_a_bad_one_is_used_on(tmp_path: Path) -> None:
    path = write(tmp_path / "asn.mmdb", {"192.0.2.0/24": asn(1, "Old")})
    databases = NetworkDatabases([path], clock=Clock())
    (tmp_path / "bad").write_bytes(b"bad")
    (tmp_path / "bad").replace(path)
    assert looked_up(databases, "192.0.2.1") == [(1, "Old", "")]
    [fault] = databases.faults
    assert "is not an MMDB file" in fault and "still used" in fault
    path.unlink()
    assert looked_up(databases, "192.0.2.2") == [(1, "Old", "")]
    assert "no such file" in databases.faults[0]
    write(path, {"192.0.2.0/24": asn(2, "New")})
    assert looked_up(databases, "192.0.2.1", "192.0.2.2") == [(2, "New", "")] * 2
    assert databases.faults == ()


@pytest.mark.parametrize("clock", [Clock(), lambda: 0.0], ids=["after a second", "at once"])
def test_a_file_that_is_cut_in_place_is_not_read_any_more(tmp_path: Path, clock: Any) -> None:
    """Pages of a mapped file that are gone end the process (SIGBUS)."""
    path = write(tmp_path / "asn.mmdb", {f"{first}.0.0.0/8": asn(first) for first in range(1, 100)})
    good = path.read_bytes()
    databases = NetworkDatabases([path], clock=clock)
    assert looked_up(databases, "7.1.2.3") == [(7, "Example 7", "")]
    os.truncate(path, 10)
    assert looked_up(databases, "8.1.2.3") == [(0, "", "")]
    assert "is not an MMDB file" in databases.faults[0]
    path.write_bytes(good)  # as cp does
    if isinstance(clock, Clock):
        assert looked_up(databases, "7.1.2.3", "8.1.2.3") == [(7, "Example 7", ""), (8, "Example 8", "")]
        assert databases.faults == ()


def test_a_file_that_comes_later_is_read(tmp_path: Path) -> None:
    path = tmp_path / "asn.mmdb"
    databases = NetworkDatabases([path], clock=Clock())
    assert looked_up(databases, "192.0.2.1") == [(0, "", "")] and databases.faults
    write(path, {"192.0.2.0/24": asn(1)})
    assert looked_up(databases, "192.0.2.1") == [(1, "Example 1", "")] and not databases.faults


# ---- time


def test_a_look_up_that_takes_too_long_is_continued_by_the_next(tmp_path: Path) -> None:
    path = write(tmp_path / "asn.mmdb", {f"{first}.{second}.0.0/16": asn(256 * first + second)
                                         for first in range(1, 5) for second in range(256)})
    databases = NetworkDatabases([path], budget_s=1.0, clock=Clock())
    asked = [f"{first}.{second}.0.1" for first in range(1, 5) for second in range(256)]
    known = []
    for _ in range(100):
        found = looked_up(databases, *asked)
        assert all(number in (0, 256 * int(text.split(".")[0]) + int(text.split(".")[1]))
                   for text, (number, _, _) in zip(asked, found, strict=True))
        known.append(sum(number != 0 for number, _, _ in found))
        if known[-1] == len(asked):
            break
    assert known[0] < len(asked) and known == sorted(set(known)) and known[-1] == len(asked)


# ---- addresses of this host


def test_addresses_of_this_host(tmp_path: Path) -> None:
    own = ["192.0.2.1", "2001:db8::1", "fe80::1", "2001:db8:1::1"]
    addresses = HostAddresses(lambda: ([ipaddress.ip_address(text).packed for text in own], ()))
    others = ["192.0.2.2", "2001:db8::2", "::1", "fe80::", "2001:db8:2::1", "c000:201::"]
    assert addresses.local(*halves([*own, *others])).tolist() == [True] * len(own) + [False] * len(others)
    assert not addresses.broadcast(*halves(own)).any()
    assert not HostAddresses(lambda: ((), ())).local(*halves(own)).any()


# ---- usual places


@pytest.mark.parametrize(("names", "expected"), [
    (["GeoLite2-ASN.mmdb", "GeoLite2-City.mmdb", "GeoLite2-Country.mmdb"],
     ["GeoLite2-ASN.mmdb", "GeoLite2-Country.mmdb"]),
    (["GeoLite2-City.mmdb"], ["GeoLite2-City.mmdb"]),
    (["dbip-asn-lite-2026-10.mmdb", "dbip-asn-lite-2026-11.mmdb", "dbip-country-lite-2026-11.mmdb"],
     ["dbip-asn-lite-2026-11.mmdb", "dbip-country-lite-2026-11.mmdb"]),
    (["ipinfo_lite.mmdb", "GeoLite2-ASN.mmdb"], ["ipinfo_lite.mmdb"]), (["asn.mmdb", "country.mmdb"], None),
    (["GeoIP.dat", "GeoLite2-Anonymous.mmdb", "GeoLite2-ASN.mmdb.tmp"], []), ([], []),
])
def test_databases_in_the_usual_places(tmp_path: Path, names: list[str], expected: list[str] | None) -> None:
    place = tmp_path / "GeoIP"
    place.mkdir()
    for name in names:
        (place / name).touch()
    found = usual_databases([tmp_path / "missing", place])
    assert found == tuple(place / name for name in (names if expected is None else expected))


def test_questions_that_differ_a_little_have_their_own_answers(tmp_path: Path) -> None:
    """Flows come and go in a table that is asked for again and again; files change meanwhile; time is short."""
    path = write(tmp_path / "asn.mmdb", {f"{first}.0.0.0/8": asn(first) for first in range(1, 200)})
    dice = np.random.default_rng(3)
    for budget_s in (None, 1.0):
        databases = NetworkDatabases([path], clock=Clock(), budget_s=budget_s)
        tables = [np.uint64(0xFFFF << 32) | dice.integers(0, 1 << 32, 5_000).astype(np.uint64) for _ in range(3)]
        lengths = [dice.choice(np.array([0, 100, 104, 128], np.uint8), 5_000) for _ in range(3)]
        high = np.zeros(5_000, np.uint64)
        for turn in range(60):
            which = turn % 3
            changed = dice.integers(0, 5_000, dice.choice([0, 10, 4_000]) if turn < 40 else 0)
            others = dice.integers(0, 1 << 32, len(changed)).astype(np.uint64)
            tables[which][changed] = np.uint64(0xFFFF << 32) | others
            numbers, _, _ = databases.origins(high, tables[which].copy(), lengths[which])
            first = tables[which] >> np.uint64(24) & np.uint64(255)
            expected = np.where((lengths[which] >= 104) & (first >= 1) & (first < 200), first, 0)
            assert (numbers == expected).all() or (budget_s and ((numbers == expected) | (numbers == 0)).all())
            if turn >= 57:
                assert (numbers == expected).all(), "in the end everything is known"
