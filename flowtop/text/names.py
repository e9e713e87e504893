"""Names for numbers: hosts by reverse DNS, ports by /etc/services. Neither is ever waited for.

Names come from whoever runs the reverse zone of an address: they are untrusted. What is given out here is of one-cell
letters, digits, `-`, `.` and `_`, never looks like an address, and cannot turn the writing direction.
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
    """Names of one edition; those of the same edition are equal.

    Attributes:
        edition: of the cache they are from: another one has other names.
        names: by address, 4 bytes of IPv4 or 16 of IPv6.
    """

    edition: int = 0
    names: Mapping[bytes, str] = field(default_factory=dict, compare=False, repr=False)

    def matching(self, pattern: str, *, whole: bool) -> list[bytes]:
        """Addresses of which the name is `pattern`, a glob, or has that text in it; upper and lower case are alike."""
        pattern = pattern.casefold()
        if not whole:
            return [address for address, name in self.names.items() if pattern in name.casefold()]
        glob = re.compile(fnmatch.translate(pattern))
        return [address for address, name in self.names.items() if glob.match(name.casefold())]


NO_NAMES = KnownNames()
"""None is known."""

NAME_S = 3600.0
"""A name is looked up again after this long; it is shown meanwhile."""
NO_NAME_S = 300.0
"""So is an address without a name."""
SILENT_S = 30.0
"""A resolver that does not answer is left alone for this long: it may be what the outage is about."""
_FAILURES = 3
"""Look-ups in a row that fail before the resolver counts as silent."""
_LONGEST = 253
"""Of a domain name (RFC 1035)."""

LookUp = Callable[[str], str | None]


def system_look_up(address: str) -> str | None:
    """The host's own resolver's name for an address, as it comes; None when there is none. Blocks for seconds.

    Raises:
        OSError: the resolver did not answer, or failed.
    """
    try:
        return socket.getnameinfo((address, 0), socket.NI_NAMEREQD)[0]
    except socket.gaierror as error:
        if error.errno in (socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_FAIL):
            raise
        return None
    except UnicodeError:  # octets that are no text
        return None


def harmless_host(name: str) -> str | None:
    """A host name from the network as it may be shown, None when it is none or pretends to be an address."""
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


class HostNames:
    """Names of addresses, looked up in threads of its own; those asked for last come first.

    Args:
        look_up: address as text -> name or None; OSError when the resolver does not answer. May block.
        on_change: called from those threads when a name came, or the resolver fell silent.
        threads: look-ups at a time.
        size: addresses remembered; the least recently asked for are forgotten first.
        pending: look-ups that may wait; the oldest are given up first, and come again when asked for again.
        clock: seconds, monotonic.
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
        self.edition = 0

    def name(self, raw: bytes, ip_version: int) -> str | None:
        """The name of an address of 16 bytes (IPv4: the first 4), None while there is none. Never blocks."""
        key = raw if ip_version == IpVersion.V6 else raw[:4]
        with self._changed:
            name, expires_at = self._known.get(key, (None, 0.0))
            if key in self._known:
                self._known.move_to_end(key)
            now = self._clock()
            if now >= expires_at and now >= self._silent_until and key not in self._busy and not self._closed:
                self._want(key, units.address(raw, ip_version))
            return name

    def known(self) -> KnownNames:
        """The names there are now. The same object as long as these are the same."""
        with self._changed:
            if self._told.edition != self.edition:
                self._told = KnownNames(self.edition, {
                    address: name for address, (name, _) in self._known.items() if name is not None})
            return self._told

    @property
    def silent(self) -> bool:
        """The resolver did not answer lately; nobody asks it for a while."""
        with self._changed:
            return self._clock() < self._silent_until

    def close(self) -> None:
        """Look nothing up any more. Returns at once; a look-up under way ends by itself."""
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
        self._known[key] = name, expires_at
        self._known.move_to_end(key)
        while len(self._known) > self._size:
            self._known.popitem(last=False)

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
    """Whether anybody would have put this address into a reverse zone."""
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
"""For hosts without /etc/services, as small containers are."""

_NAMELESS_PORTS = range(32_768, 65_536)
"""What Linux gives to clients, and RFC 6335's dynamic ports: a service's name there would nearly always be wrong."""


class ServiceNames:
    """Names of ports: the first name that a services(5) file has for a port and protocol.

    Args:
        text: such a file; None reads the host's own, or takes COMMON_SERVICES when there is none.
    """

    def __init__(self, text: str | None = None) -> None:
        self._names = dict(_services((_host_services() if text is None else text).splitlines()))

    def name(self, protocol: int, port: int) -> str | None:
        """The name of a port of an IP protocol, None when it has none or is a client's."""
        return None if port in _NAMELESS_PORTS else self._names.get((protocol, port))

    def ports(self, text: str) -> list[int]:
        """Ports, ascending, whose names have this text in them, in any case."""
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
    """What is put in the place of numbers now.

    Attributes:
        hosts, services: None: numbers.
        edition: of `hosts`; another one means that cells have to be worded anew.
    """

    hosts: HostNames | None = None
    services: ServiceNames | None = None
    edition: int = 0

    def host(self, raw: bytes, ip_version: int) -> str | None:
        """The name of an address, None: show the number."""
        return None if self.hosts is None else self.hosts.name(raw, ip_version)

    def service(self, protocol: int, port: int) -> str | None:
        """The name of a port, None: show the number."""
        return None if self.services is None else self.services.name(protocol, port)


NUMBERS = Names()
"""No names."""
