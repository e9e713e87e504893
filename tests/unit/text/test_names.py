"""Names: never waited for, bounded, forgotten in time, harmless."""

from __future__ import annotations

import ast
import ipaddress
import os
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.text.names import COMMON_SERVICES, NAME_S, NO_NAME_S, SILENT_S, HostNames, ServiceNames, harmless_host


def v4(text: str) -> bytes:
    return ipaddress.ip_address(text).packed.ljust(16, b"\0")


class Resolver:
    """A resolver that notes what it is asked, and answers from a dict; it may be told to hang or to fail."""

    def __init__(self, names: dict[str, str] | None = None) -> None:
        self.names = names or {}
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()

    def __call__(self, address: str) -> str | None:
        with self._lock:
            self.asked.append(address)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        self.gate.wait(30)
        with self._lock:
            self.running -= 1
        if self.error is not None:
            raise self.error
        return self.names.get(address)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "never"
        time.sleep(0.002)


def test_a_name_is_there_once_the_resolver_has_answered_and_is_asked_for_once() -> None:
    resolver = Resolver({"10.0.0.1": "db1.example.net"})
    told = threading.Event()
    hosts = HostNames(resolver, on_change=told.set)
    assert hosts.name(v4("10.0.0.1"), 4) is None
    assert told.wait(30)
    assert [hosts.name(v4("10.0.0.1"), 4) for _ in range(3)] == ["db1.example.net"] * 3
    assert resolver.asked == ["10.0.0.1"]
    assert hosts.edition == 1


def test_the_first_four_octets_of_an_ipv6_address_are_not_an_ipv4_address() -> None:
    six = ipaddress.ip_address("0a00:1::").packed
    resolver = Resolver({"a00:1::": "six", "10.0.0.1": "four"})
    hosts = HostNames(resolver)
    eventually(lambda: hosts.name(six, 6) == "six" and hosts.name(v4("10.0.0.1"), 4) == "four")


def test_asking_never_waits_for_a_resolver_that_hangs_and_what_waits_is_bounded() -> None:
    resolver = Resolver()
    resolver.gate.clear()
    hosts = HostNames(resolver, threads=3, pending=10)
    for number in range(200):
        assert hosts.name(v4(f"10.0.0.{number + 1}"), 4) is None
    eventually(lambda: resolver.running == 3)
    assert len(hosts._pending) <= 10
    resolver.gate.set()
    eventually(lambda: not hosts._pending and not resolver.running)
    assert len(resolver.asked) <= 13
    assert resolver.most_running == 3
    assert "10.0.0.200" in resolver.asked, "the last asked for is looked up, the oldest are given up"


def test_what_is_remembered_is_bounded_and_the_least_recently_asked_for_is_forgotten() -> None:
    resolver = Resolver({f"10.0.0.{n}": f"h{n}" for n in range(1, 21)})
    hosts = HostNames(resolver, threads=1, size=5)
    for number in range(1, 21):
        eventually(lambda number=number: hosts.name(v4(f"10.0.0.{number}"), 4) == f"h{number}")  # type: ignore[misc]
        eventually(lambda: hosts.name(v4("10.0.0.1"), 4) == "h1")
    assert len(hosts._known) == 5
    assert resolver.asked.count("10.0.0.1") == 1, "asked for all the time: never forgotten"


@pytest.mark.parametrize(("names", "lasts_s"), [({"10.0.0.1": "old"}, NAME_S), ({}, NO_NAME_S)])
def test_names_and_their_absence_expire_and_are_shown_until_the_answer_comes(names: dict[str, str],
                                                                             lasts_s: float) -> None:
    clock, resolver = Clock(), Resolver(names)
    hosts = HostNames(resolver, clock=clock)
    before = names.get("10.0.0.1")
    hosts.name(v4("10.0.0.1"), 4)
    eventually(lambda: v4("10.0.0.1")[:4] in hosts._known)
    clock.now += lasts_s - 1
    assert hosts.name(v4("10.0.0.1"), 4) == before
    assert len(resolver.asked) == 1
    resolver.names = {"10.0.0.1": "new"}
    resolver.gate.clear()
    clock.now += 2
    assert hosts.name(v4("10.0.0.1"), 4) == before
    resolver.gate.set()
    eventually(lambda: hosts.name(v4("10.0.0.1"), 4) == "new")


def test_a_resolver_that_does_not_answer_is_left_alone_for_a_while() -> None:
    clock, resolver = Clock(), Resolver({"10.0.0.9": "back"})
    resolver.error = OSError("timed out")
    hosts = HostNames(resolver, threads=1, clock=clock)
    for number in range(1, 9):
        hosts.name(v4(f"10.0.0.{number}"), 4)
    eventually(lambda: hosts.silent)
    asked = len(resolver.asked)
    for _ in range(50):
        hosts.name(v4("10.0.0.9"), 4)
    assert not hosts._pending and len(resolver.asked) == asked
    resolver.error = None
    clock.now += SILENT_S + 1
    eventually(lambda: hosts.name(v4("10.0.0.9"), 4) == "back")
    assert not hosts.silent


@pytest.mark.parametrize("address", ["224.0.0.251", "ff02::fb", "0.0.0.0", "::", "fe80::1", "255.255.255.255"])
def test_nobody_is_asked_about_addresses_that_have_no_names(address: str) -> None:
    resolver = Resolver({address: "never", "10.0.0.1": "asked"})
    hosts = HostNames(resolver, threads=1)
    version = ipaddress.ip_address(address).version
    assert hosts.name(v4(address), version) is None
    eventually(lambda: hosts.name(v4("10.0.0.1"), 4) == "asked")
    assert resolver.asked == ["10.0.0.1"]


def test_after_close_nobody_is_asked() -> None:
    resolver = Resolver()
    hosts = HostNames(resolver)
    hosts.close()
    hosts.name(v4("10.0.0.1"), 4)
    assert not hosts._pending and not resolver.asked


def test_a_name_that_is_no_text_is_no_name_and_harms_no_thread() -> None:
    resolver = Resolver({"10.0.0.2": "fine"})
    resolver.error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    hosts = HostNames(resolver, threads=1)
    hosts.name(v4("10.0.0.1"), 4)
    eventually(lambda: v4("10.0.0.1")[:4] in hosts._known)
    resolver.error = None
    eventually(lambda: hosts.name(v4("10.0.0.2"), 4) == "fine")


@pytest.mark.parametrize(("name", "shown"), [
    ("db1.example.net", "db1.example.net"),
    ("db1.example.net.", "db1.example.net"),
    ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ("bücher.example", "bücher.example"),
    ("_srv.a-b.example", "_srv.a-b.example"),
    ("\x1b[31mevil\x1b[0m", "evil"),
    ("\x1b]52;c;ZXZpbA==\x07x", "52?c?ZXZpbA??x"),
    ("a\u202eb\u200bc\u2066d\ufeffe", "abcde"),
    ("a\r\nb\tc\x00d\x7f\x9b1m", "abcd"),
    ("[bold red]x[/]", "?bold?red?x???"),
    ("web:22", "web?22"),
    ("שלום.example", "????.example"),
    ("漢字", None),
    ("a\udcffb", "ab"),
    ("10.0.0.1", None),
    ("2001:db8::1", "2001?db8??1"),
    ("", None), (".", None), ("\u202e", None), ("???", None),
])
def test_hostile_names_are_made_harmless(name: str, shown: str | None) -> None:
    assert harmless_host(name) == shown


def test_a_name_of_300_characters_is_cut() -> None:
    shown = harmless_host("a" * 300)
    assert shown is not None and len(shown) == 253 and shown.endswith("…")


@given(st.text(max_size=400))
def test_whatever_comes_is_short_one_cell_text_that_is_no_address(name: str) -> None:
    shown = harmless_host(name)
    if shown is None:
        return
    assert 0 < len(shown) <= 253
    for character in shown:
        assert character.isalnum() or character in "-._?…"
        assert unicodedata.bidirectional(character) not in ("R", "AL", "AN", "RLE", "RLO", "LRE", "LRO", "RLI", "FSI")
        assert unicodedata.east_asian_width(character) not in "WF"
    with pytest.raises(ValueError):
        ipaddress.ip_address(shown)


HOSTS = b"""127.0.0.1 localhost
10.99.0.1 \x1b[31mred\x1b[0m
10.99.0.2 \xff\xfe\xfa
10.99.0.3 fine.example
10.99.0.4 %s
10.99.0.5 [bold]markup
""" % (b"x" * 300)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting over /etc/hosts needs root")
def test_the_hosts_own_resolver_with_a_hostile_hosts_file(tmp_path: Path) -> None:
    hosts, nsswitch = tmp_path / "hosts", tmp_path / "nsswitch.conf"
    hosts.write_bytes(HOSTS)
    nsswitch.write_text("hosts: files\n")
    code = """
import sys
from flowtop.text.names import harmless_host, system_look_up
for number in range(1, 7):
    found = system_look_up(f"10.99.0.{number}")
    print(ascii(None if found is None else harmless_host(found)))
"""
    script = 'mount --bind "$1" /etc/hosts && { [ ! -e /etc/nsswitch.conf ] || mount --bind "$2" /etc/nsswitch.conf; }'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{script} && exec "$3" -c "$4"', "sh", hosts, nsswitch, sys.executable, code],
        capture_output=True, text=True, timeout=60)
    shown = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    assert len(shown) == 6, done
    assert shown[2] == "fine.example"
    for name in filter(None, shown):
        assert name.isprintable() and len(name) <= 253
        assert not set(name) & set("\x1b[]")


SERVICES = """# a comment
tcpmux\t\t1/tcp
domain 53/tcp # Domain Name Server
domain 53/udp
https  443/tcp www
later  443/tcp
high   51820/udp
broken
port   x/tcp
odd    ²/tcp
\x1b[31mred 99/tcp
"""


@pytest.mark.parametrize(("protocol", "port", "name"), [
    (6, 1, "tcpmux"), (6, 53, "domain"), (17, 53, "domain"), (6, 443, "https"), (17, 443, None), (6, 80, None),
    (17, 51820, None), (6, 99, "red"), (1, 53, None),
])
def test_services_are_those_of_the_file_first_name_first_and_never_a_clients_port(protocol: int, port: int,
                                                                                  name: str | None) -> None:
    assert ServiceNames(SERVICES).name(protocol, port) == name


def test_a_host_without_etc_services_knows_the_common_ones() -> None:
    services = ServiceNames(COMMON_SERVICES)
    assert [services.name(6, port) for port in (22, 443)] == ["ssh", "https"]
    assert services.name(17, 53) == "domain"


@pytest.mark.skipif(os.geteuid() != 0, reason="a resolver of one's own needs namespaces")
def test_while_the_resolver_does_not_answer_everything_else_goes_on(tmp_path: Path) -> None:
    """A name server that hears the question and says nothing for 1 s, then for another one answers "no such name"."""
    code = """
import socket, threading
from flowtop.text.names import system_look_up
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
heard, found = threading.Event(), []
def look_up():
    try:
        found.append(system_look_up("192.0.2.1"))
    except OSError as error:
        found.append(type(error).__name__)
thread = threading.Thread(target=look_up)
thread.start()
server.recv(512)
print("waiting" if thread.is_alive() and not found else "over", flush=True)
thread.join()
print(found)
thread = threading.Thread(target=look_up)
thread.start()
while thread.is_alive():
    server.settimeout(0.2)
    try:
        query, client = server.recvfrom(512)
        server.sendto(query[:2] + b"\\x81\\x83" + query[4:], client)
    except TimeoutError:
        pass
print(found[-1])
"""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    (tmp_path / "nsswitch.conf").write_text("hosts: dns\n")
    script = ('for name in resolv.conf nsswitch.conf; do mount --bind "$0/$name" "/etc/$name" || exit; done; '
              'ip link set lo up && exec "$1" -c "$2"')
    done = subprocess.run(["unshare", "--mount", "--net", "sh", "-c", script, str(tmp_path), sys.executable, code],
                          capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["waiting", "['herror']", "None"]
