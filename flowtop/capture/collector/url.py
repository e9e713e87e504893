"""URLs of `-l`: addresses to listen on. The default is loopback."""

from __future__ import annotations

import ipaddress
import unicodedata
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from flowtop.errors import EXIT_USAGE, FlowtopError

Transport = Literal["udp", "tcp", "tls", "dtls", "sctp"]

SCHEMES: dict[str, tuple[Transport, int, str]] = {
    "udp": ("udp", 2055, "NetFlow 1 and 5 to 9, IPFIX and sFlow 5 in datagrams, detected by version"),
    "sflow": ("udp", 6343, "the same on sFlow's port"),
    "ipfix": ("udp", 4739, "the same on IPFIX's port"),
    "tcp": ("tcp", 4739, "IPFIX over TCP"),
    "tls": ("tls", 4740, "IPFIX over TLS: `?cert=FILE&key=FILE`, and `ca=FILE` to require certificates of exporters"),
    "dtls": ("dtls", 4740, "IPFIX over DTLS 1.2, with the same options: `pip install 'flowtop[dtls]'`"),
    "sctp": ("sctp", 4739, "IPFIX over SCTP, where the kernel has it: `modprobe sctp`"),
}
"""Scheme: transport, default port, description."""
_ALIASES = {"netflow": "udp", "ipfix+udp": "ipfix", "ipfix+tcp": "tcp", "ipfix+tls": "tls",
            "ipfix+dtls": "dtls", "ipfix+sctp": "sctp"}
_LOOPBACK = "127.0.0.1"
_TLS_OPTIONS = ("cert", "key", "ca")
_ENCRYPTED = ("tls", "dtls")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LARGEST_SAMPLING = 1 << 24
"""Limit of `?sampling=`."""


@dataclass(frozen=True, slots=True)
class ListenUrl:
    """An address to listen on.

    Attributes:
        transport: udp, tcp, tls, dtls or sctp.
        address: IPv4 or IPv6, numeric.
        port: 1..65535; 0 lets the system choose.
        cert, key, ca: PEM files of a TLS or DTLS server; with ca, exporters need a certificate signed by it.
        sampling: interval of exporters that sample and don't report it; 0: records are as reported.
        allow: networks that exporters may send from; empty: all.
    """

    transport: Transport
    address: str
    port: int
    cert: str = ""
    key: str = ""
    ca: str = ""
    sampling: int = 0
    allow: tuple[Network, ...] = ()

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.transport}://{host}:{self.port}"


def parse_listen_url(text: str) -> ListenUrl:
    """Read `udp://192.0.2.1:2055`, `tcp://:4739`, `sflow://`, or a bare port.

    Raises FlowtopError: not a valid address to listen on (EXIT_USAGE).
    """
    if any(unicodedata.category(character) == "Cc" for character in unquote(text)):
        raise _refusal(text, "addresses and options must not have control characters")
    plain = text.strip()
    if plain.lstrip(":").isdecimal():
        plain = f"udp://:{plain.lstrip(':')}"
    scheme, separator, _ = plain.partition("://")
    scheme = _ALIASES.get(scheme.lower(), scheme.lower())
    if not separator or scheme not in SCHEMES:
        raise _refusal(text, f"expected {', '.join(f'{name}://' for name in SCHEMES)}[ADDRESS][:PORT], or a port")
    transport, default_port, _ = SCHEMES[scheme]
    try:
        parts = urlsplit(plain)
        host, port = parts.hostname or _LOOPBACK, parts.port
    except ValueError as error:
        raise _refusal(text, "a port is a number from 1 to 65535, an IPv6 address is written in [ ]") from error
    try:
        address = str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError as error:
        raise _refusal(text, "use an address of this host, such as 0.0.0.0 for all of IPv4") from error
    if parts.path.strip("/") or parts.username is not None or parts.fragment:
        raise _refusal(text, "only options may follow the port: ?sampling=..., ?allow=..., for TLS ?cert=...&key=...")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise _refusal(text, "an option of a URL may be given once only")
    sampling = _sampling(text, options.pop("sampling", "0"))
    allow = tuple(parse_network(network) for network in options.pop("allow").split(",")) if "allow" in options else ()
    if unknown := options.keys() - (_TLS_OPTIONS if transport in _ENCRYPTED else ()):
        raise _refusal(text, f"unknown option in a {transport} URL: {', '.join(sorted(unknown))}")
    if transport in _ENCRYPTED and not options.get("cert"):
        raise _refusal(text, f"{transport.upper()} needs a certificate: {transport}://...?cert=server.pem&key=server.key")
    return ListenUrl(transport, address, default_port if port is None else port, **options, sampling=sampling,
                     allow=allow)


def parse_network(text: str) -> Network:
    """Read `192.0.2.0/24`, `2001:db8::/32`, or one address.

    Raises FlowtopError: no network (EXIT_USAGE).
    """
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise FlowtopError(f"{text.strip()!r} is no network to allow exporters from",
                           hint="for example 192.0.2.0/24, 2001:db8::/32 or one address",
                           exit_code=EXIT_USAGE) from error


def no_password() -> str:
    """Instead of a prompt for the password of a private key. Raises FlowtopError."""
    raise FlowtopError("the private key of the collector is encrypted", exit_code=EXIT_USAGE,
                       hint="decrypt it: openssl pkey -in server.key -out plain.key")


class AllowedSources:
    """Whether exporters may send from an address; of the last ones it is known.

    Args:
        networks: of both versions of IP, not empty.
    """

    _MOST = 4_096

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self._networks = networks
        self._known: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        known = self._known.get(address)
        if known is None:
            plain = ipaddress.ip_address(address.partition("%")[0].removeprefix("::ffff:"))
            known = any(plain.version == network.version and plain in network for network in self._networks)
            if len(self._known) >= self._MOST:
                self._known.clear()
            self._known[address] = known
        return known


def _sampling(text: str, number: str) -> int:
    """The value of ?sampling=; 0 if it is 0 or missing."""
    if not number.isascii() or not number.isdecimal() or len(number) > 8 or int(number) > LARGEST_SAMPLING:
        raise _refusal(text, f"sampling is a number up to {LARGEST_SAMPLING:,}: ?sampling=1000 for 1 in 1,000 packets")
    return int(number)


def _refusal(text: str, hint: str) -> FlowtopError:
    return FlowtopError(f"cannot listen on {text!r}", hint=hint, exit_code=EXIT_USAGE)
