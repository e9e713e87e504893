"""Names for numbers: hosts by reverse DNS, ports by /etc/services. Never blocks the caller.

Whoever runs the reverse zone of an address chooses its name, so names are untrusted. Names from this module consist of
single-cell letters, digits, `-`, `.` and `_`, never look like an address, and never change the writing direction.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
import socket
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flowtop.model.kinds import IpVersion, Protocol
from flowtop.text import units


@dataclass(frozen=True, slots=True)
class KnownNames:
    """The names that are known at one time.

    Attributes:
        edition: version of the cache they were taken from; equal editions have equal names.
        names: by address, 4 bytes of IPv4 or 16 of IPv6.
    """

    edition: int = 0
    names: Mapping[bytes, str] = field(default_factory=dict, compare=False, repr=False)

    def matching(self, pattern: str, *, whole: bool) -> list[bytes]:
        """Addresses whose name matches `pattern` in any case: `whole` as a glob, else as a part of the name."""
        passes = name_pattern(pattern, whole=whole)
        return [address for address, name in self.names.items() if passes(name)]


def name_pattern(pattern: str, *, whole: bool) -> Callable[[str], bool]:
    """Whether a name matches, in any case: `whole` as a glob, else as a part of the name."""
    pattern = pattern.casefold()
    if not whole:
        return lambda name: pattern in name.casefold()
    glob = re.compile(fnmatch.translate(pattern))
    return lambda name: glob.match(name.casefold()) is not None


NO_NAMES = KnownNames()
"""No name is known."""

NAME_S = 3600.0
"""A name is looked up again after this time; meanwhile the old one is shown."""
NO_NAME_S = 300.0
"""The same for an address without a name."""
SILENT_S = 30.0
"""A resolver that does not answer is not asked for this time: it may be part of an outage."""
_FAILURES = 3
"""Look-ups that must fail in a row before the resolver counts as silent."""
_LONGEST = 253
"""Characters of a domain name (RFC 1035)."""

LookUp = Callable[[str], str | None]


_NO_NAME = (0, 1, 4)
"""NETDB_SUCCESS, HOST_NOT_FOUND and NO_DATA of netdb.h. With others it is not known whether there is a name."""


def system_look_up(address: str) -> str | None:
    """The name of an address as the system's resolver gives it, unchecked; None if it has none. Blocks for seconds.

    Raises:
        OSError: the resolver did not answer, or failed.
    """
    try:
        return socket.gethostbyaddr(address)[0]  # not getnameinfo, during which Python 3.11 runs no other thread
    except socket.herror as error:
        if error.errno in _NO_NAME:
            return None
        raise
    except UnicodeError:  # octets that are not text
        return None


def harmless_host(name: str) -> str | None:
    """A host name from the network made safe to show; None if it is not a name, or looks like an address."""
    clean = "".join(map(_host_character, units.printable(name.strip(), 4 * _LONGEST))).rstrip(".")
    if not clean.strip("?"):
        return None
    try:
        ipaddress.ip_address(clean)
    except ValueError:
        return clean if len(clean) <= _LONGEST else clean[: _LONGEST - 1] + "…"
    return None


def _host_character(character: str) -> str:
    keeps = character.isalnum() or character in "-._"
    return character if keeps and unicodedata.bidirectional(character) not in ("R", "AL", "AN") else "?"


def shorten_name(name: str, width: int) -> str:
    """A host name in at most `width` cells that still says which host and whose: `web-1…example.net`.

    The labels between the first and the registered domain go first; then each end loses its middle.
    """
    if len(name) <= width:
        return name
    name, mark, number = name.partition(_SHARED)
    end = mark + number
    room = width - len(end) - 1
    first, _, _ = name.partition(".")
    domain = _registered_domain(name)
    if room < _LEAST_ENDS or not domain or first == name:
        return units.elide(name + end, width)
    if room - len(domain) < (len(first) if len(first) <= _WHOLE_FIRST else _LEAST_FIRST):
        domain = domain[-max(room - len(first), room // 3):]
    kept = len(domain)
    first = units.elide(first, room - kept)
    return f"{first}…{domain}{end}"


def _registered_domain(name: str) -> str:
    """The last two labels, or three where the last two are short, as in `co.uk`; "" of a name of one or two labels."""
    labels = name.split(".")
    count = 3 if len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= _SHORT_LABEL else 2
    return ".".join(labels[-count:]) if len(labels) > count else ""


_SHORT_LABEL = 3
_WHOLE_FIRST = 8
"""Cells of a host's own label that is left whole, if its domain must be cut for that."""
_LEAST_FIRST = 5
"""Cells of a longer one, at least, beside its whole domain."""
_LEAST_ENDS = 9
"""Cells for both ends of a name, at least; below, its middle is left out."""
_SHARED = "#"
"""Before the number of an address, where several have the same name."""


class HostNames:
    """Names of addresses, looked up in its own threads, the most recent request first.

    Where several addresses have one name, each name gets a number: `edge.example.net#2`.

    Args:
        look_up: address as text -> name or None; OSError when the resolver does not answer. May block.
        on_change: called from those threads when a name has arrived or the resolver has become silent.
        threads: simultaneous look-ups.
        size: entries of the cache; the least recently used are removed first.
        pending: look-ups that may wait; the oldest are dropped first, and made again on the next request.
        clock: seconds, monotonic.

    Attributes:
        called: names of addresses, 4 bytes of IPv4 or 16 of IPv6, that are known already: nobody is asked for these.
    """

    def __init__(self, look_up: LookUp = system_look_up, *, on_change: Callable[[], None] = lambda: None,
                 threads: int = 4, size: int = 10_000, pending: int = 256,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._look_up = look_up
        self._on_change = on_change
        self._threads = threads
        self._size = size
        self._pending_size = pending
        self._clock = clock
        self._changed = threading.Condition()
        self._known: OrderedDict[bytes, tuple[str | None, float]] = OrderedDict()
        self._pending: OrderedDict[bytes, str] = OrderedDict()
        self._busy: set[bytes] = set()
        self._started = 0
        self._failures = 0
        self._silent_until = 0.0
        self._closed = False
        self._told = NO_NAMES
        self._called: Mapping[bytes, str] = {}
        self._numbers: dict[str, dict[bytes, int]] = {}  # of the addresses of each name
        self.edition = 0

    @property
    def called(self) -> Mapping[bytes, str]:
        """See above; what it holds must not change."""
        return self._called

    @called.setter
    def called(self, names: Mapping[bytes, str]) -> None:
        before, self._called = self._called, names
        if names is not before and names != before:  # each page has an object of its own
            with self._changed:
                self.edition += 1

    def name(self, raw: bytes, ip_version: int) -> str | None:
        """The name of an address of 16 bytes (IPv4: the first 4); None while it is not known. Never blocks."""
        key = raw if ip_version == IpVersion.V6 else raw[:4]
        called = self._called.get(key)
        if called is not None:
            return called
        with self._changed:
            name, expires_at = self._known.get(key, (None, 0.0))
            if key in self._known:
                self._known.move_to_end(key)
            now = self._clock()
            if now >= expires_at and now >= self._silent_until and key not in self._busy and not self._closed:
                self._want(key, units.address(raw, ip_version))
            numbers = {} if name is None else self._numbers.get(name, {})
            return name if len(numbers) < 2 else f"{name}{_SHARED}{numbers[key]}"

    def leave_view(self) -> None:
        """Other rows are in view: look up what is asked for from now on, not what still waits."""
        with self._changed:
            if self._pending:
                self._pending.clear()
                self.edition += 1  # cells of rows that are in view still are made again, and ask again

    def known(self) -> KnownNames:
        """The names that are known now. The same object as long as they do not change."""
        with self._changed:
            if self._told.edition != self.edition:
                self._told = KnownNames(self.edition, {
                    **{address: name for address, (name, _) in self._known.items() if name is not None},
                    **self._called})
            return self._told

    @property
    def silent(self) -> bool:
        """Whether the resolver does not answer and is not asked for a while."""
        with self._changed:
            return self._clock() < self._silent_until

    def close(self) -> None:
        """Stop looking up. Returns at once; a look-up that has begun ends by itself."""
        with self._changed:
            self._closed = True
            self._pending.clear()
            self._changed.notify_all()

    def _want(self, key: bytes, address: str) -> None:
        if not _has_name(address):
            self._remember(key, None, float("inf"))
            return
        self._pending[key] = address
        self._pending.move_to_end(key)
        while len(self._pending) > self._pending_size:
            self._pending.popitem(last=False)
        if self._started < self._threads:
            self._started += 1
            threading.Thread(target=self._work, name="names", daemon=True).start()  # may hang in the resolver
        self._changed.notify()

    def _remember(self, key: bytes, name: str | None, expires_at: float) -> None:
        before, _ = self._known.get(key, (None, 0.0))
        if before != name:
            self._forget_number(key, before)
            if name is not None:
                numbers = self._numbers.setdefault(name, {})
                numbers[key] = max(numbers.values(), default=0) + 1
        self._known[key] = name, expires_at
        self._known.move_to_end(key)
        while len(self._known) > self._size:
            oldest, (name, _) = self._known.popitem(last=False)
            self._forget_number(oldest, name)

    def _forget_number(self, key: bytes, name: str | None) -> None:
        if name is not None and name in self._numbers:
            self._numbers[name].pop(key, None)
            if not self._numbers[name]:
                del self._numbers[name]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                if self._closed:
                    return
                key, address = self._pending.popitem()
                self._busy.add(key)
            try:
                found = self._look_up(address)
                name = None if found is None else harmless_host(found)
            except OSError:
                self._failed(key)
            except UnicodeError:
                self._answered(key, None)
            else:
                self._answered(key, name)

    def _answered(self, key: bytes, name: str | None) -> None:
        with self._changed:
            self._busy.discard(key)
            self._failures = 0
            before = self._known.get(key, (None, 0.0))[0]
            self._remember(key, name, self._clock() + (NO_NAME_S if name is None else NAME_S))
            self.edition += name != before
        if name != before:
            self._on_change()

    def _failed(self, key: bytes) -> None:
        with self._changed:
            self._busy.discard(key)
            self._failures += 1
            self._remember(key, self._known.get(key, (None, 0.0))[0], self._clock() + SILENT_S)
            if self._failures < _FAILURES:
                return
            self._silent_until = self._clock() + SILENT_S
            self._pending.clear()
        self._on_change()


def _has_name(address: str) -> bool:
    """Whether this address can be in a reverse zone."""
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_multicast or parsed.is_unspecified or parsed.is_link_local or parsed == _BROADCAST)


_BROADCAST = ipaddress.ip_address("255.255.255.255")

_SERVICE_PROTOCOLS = {"tcp": Protocol.TCP, "udp": Protocol.UDP, "dccp": Protocol.DCCP, "sctp": Protocol.SCTP,
                      "udplite": Protocol.UDPLITE}

COMMON_SERVICES = "\n".join((
    "ftp 21/tcp", "ssh 22/tcp", "telnet 23/tcp", "smtp 25/tcp", "domain 53/tcp", "domain 53/udp", "bootps 67/udp",
    "bootpc 68/udp", "http 80/tcp", "pop3 110/tcp", "ntp 123/udp", "imap2 143/tcp", "snmp 161/udp", "bgp 179/tcp",
    "ldap 389/tcp", "https 443/tcp", "https 443/udp", "submission 587/tcp", "syslog 514/udp", "ldaps 636/tcp",
    "imaps 993/tcp", "mysql 3306/tcp", "postgresql 5432/tcp", "nfs 2049/tcp", "rsync 873/tcp", "mdns 5353/udp",
))
"""For hosts without /etc/services, such as small containers."""

_NAMELESS_PORTS = range(32_768, 65_536)
"""Ports that Linux gives to clients, and RFC 6335's dynamic ports: a service name would nearly always be wrong."""


class ServiceNames:
    """Names of ports: the first name that a services(5) file has for a port and protocol.

    Args:
        text: of such a file; None: the host's own, or COMMON_SERVICES if it has none.
    """

    def __init__(self, text: str | None = None) -> None:
        self._names = dict(_services((_host_services() if text is None else text).splitlines()))

    def name(self, protocol: int, port: int) -> str | None:
        """The name of a port of an IP protocol; None if it has none or is a client's port."""
        return None if port in _NAMELESS_PORTS else self._names.get((protocol, port))

    def ports(self, text: str) -> list[int]:
        """Ports, ascending, whose names contain this text, without regard to case."""
        part = text.casefold()
        return sorted({port for (_, port), name in self._names.items()
                       if part in name.casefold() and port not in _NAMELESS_PORTS})


def _host_services(path: Path = Path("/etc/services")) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return COMMON_SERVICES


def _services(lines: Iterable[str]) -> Iterable[tuple[tuple[int, int], str]]:
    found: dict[tuple[int, int], str] = {}
    for line in lines:
        words = line.partition("#")[0].split()
        if len(words) < 2:
            continue
        port, _, protocol = words[1].partition("/")
        if port.isascii() and port.isdecimal() and protocol in _SERVICE_PROTOCOLS:
            found.setdefault((_SERVICE_PROTOCOLS[protocol], int(port)), units.printable(words[0], 16))
    return found.items()


@dataclass(frozen=True, slots=True)
class Names:
    """Which names are shown instead of numbers.

    Attributes:
        hosts, services: None: show numbers.
        edition: of `hosts`; when it changes, cells must be made again.
        seen: names of flows' peers by code, shown with `hosts`.
    """

    hosts: HostNames | None = None
    services: ServiceNames | None = None
    edition: int = 0
    seen: Mapping[int, str] = field(default_factory=dict, compare=False)

    def host(self, raw: bytes, ip_version: int) -> str | None:
        """The name of an address; None: show the number."""
        return None if self.hosts is None or not ip_version else self.hosts.name(raw, ip_version)

    def peer(self, code: int) -> str | None:
        """The name of a flow's peer; None: show the address, or its name."""
        return None if self.hosts is None or not code else self.seen.get(code)

    def service(self, protocol: int, port: int) -> str | None:
        """The name of a port; None: show the number."""
        return None if self.services is None else self.services.name(protocol, port)


NUMBERS = Names()
"""No names."""
