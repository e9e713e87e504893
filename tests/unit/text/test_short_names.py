"""Host names in narrow cells: which host and whose, told apart where several addresses have one name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.text.names import HostNames, shorten_name


@pytest.mark.parametrize(("name", "width", "short"), [
    ("web-1.example.net", 40, "web-1.example.net"),
    ("web-1.prod.eu-west.example.net", 20, "web-1…example.net"),
    ("web-1.prod.eu-west.example.net#12", 21, "web-1…example.net#12"),
    ("db.prod.example.co.uk", 18, "db…example.co.uk"),
    ("backup.storage.example.com", 17, "backup…xample.com"),
    ("backup-of-monday.storage.example.com", 19, "bac…day…example.com"),
    ("localhost", 5, "lo…st"),
])
def test_the_left_end_and_the_registered_domain_stay(name: str, width: int, short: str) -> None:
    assert shorten_name(name, width) == short


@pytest.mark.parametrize("width", range(10, 30))
def test_hosts_that_differ_at_the_left_differ_when_they_are_short(width: int) -> None:
    names = [f"ip-10-0-1-{number}.eu-west-1.compute.internal" for number in (7, 8, 9)]
    assert len({shorten_name(name, width) for name in names}) == 3


@given(st.text("abc-.#0123456789", max_size=80), st.integers(0, 60))
def test_it_never_is_longer_than_it_may_be_and_is_cut_with_a_mark(name: str, width: int) -> None:
    short = shorten_name(name, width)
    assert len(short) <= width
    assert short == name or width == 0 or "…" in short


def settled(names: HostNames, addresses: list[bytes], done: Callable[[list[str | None]], bool]) -> list[str | None]:
    for _ in range(1_000):
        found = [names.name(raw.ljust(16, b"\0"), 4) for raw in addresses]
        if done(found):
            return found
        threading.Event().wait(0.01)
    raise AssertionError(found)


def test_addresses_with_one_name_are_told_apart() -> None:
    raw = [ip_address(text).packed for text in ("192.0.2.1", "192.0.2.2", "192.0.2.3")]
    names = HostNames(lambda address: "edge.example.net" if address != "192.0.2.3" else "other.example.net")
    found = settled(names, raw, lambda found: None not in found and found[0] != "edge.example.net")
    assert found[2] == "other.example.net", "nothing is added to a name of one address"
    assert set(found[:2]) == {"edge.example.net#1", "edge.example.net#2"}
    assert set(names.known().names.values()) == {"edge.example.net", "other.example.net"}, "filters ask for the name"
    names.close()


def test_what_was_scrolled_past_is_not_looked_up() -> None:
    gate, asked = threading.Event(), []

    def look_up(address: str) -> str:
        asked.append(address)
        assert gate.wait(30)
        return f"h{address}.example"

    names = HostNames(look_up, threads=1)
    past = [ip_address(f"192.0.2.{number}").packed for number in range(1, 60)]
    for raw in past:
        names.name(raw.ljust(16, b"\0"), 4)
    before = names.edition
    names.leave_view()
    assert names.edition > before, "cells of rows that are in view still ask again"
    in_view = [ip_address(f"198.51.100.{number}").packed for number in range(1, 4)]
    for raw in in_view:
        names.name(raw.ljust(16, b"\0"), 4)
    gate.set()
    settled(names, in_view, lambda found: None not in found)
    assert len([address for address in asked if address.startswith("192.0.2.")]) <= 1, "but for the one that was asked"
    names.leave_view()
    names.close()


def test_names_that_are_told_again_are_no_change() -> None:
    names = HostNames(lambda _: None)
    raw = ip_address("192.0.2.1").packed
    names.called = {raw: "edge.example.net"}
    edition = names.edition
    names.called = {raw: "edge.example.net"}
    assert names.edition == edition, "or a filter of names would ask for page after page"
    names.called = {raw: "other.example.net"}
    assert names.edition > edition
    names.close()
