"""Export URLs: `ipfix+tcp://collector:4739?reconnect=5s`, `file:flows.ipfix`, `jsonl:-`."""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.export.compression import SUFFIXES, Compression
from flowtop.export.ports import IPFIX_PORT, IPFIX_TLS_PORT, LINES_PORT
from flowtop.text import quantities
from flowtop.text.quantities import QuantityError
from flowtop.text.suggestions import nearest
from flowtop.wire.flow_templates import PROFILES, Profile

Kind = Literal["udp", "tcp", "tls", "file", "jsonl", "csv", "parquet", "jsonl+tcp", "jsonl+udp"]

RECONNECT_S = 60.0
"""RFC 7011 section 10.4.4: a lost connection is retried once a minute by default."""
TEMPLATE_REFRESH_S = 60.0
TEMPLATE_REFRESH_PACKETS = 1_000

_SCHEMES: dict[str, Kind] = {"ipfix": "udp", "ipfix+udp": "udp", "ipfix+tcp": "tcp", "ipfix+tls": "tls",
                             "file": "file", "jsonl": "jsonl", "csv": "csv", "parquet": "parquet",
                             "jsonl+tcp": "jsonl+tcp", "jsonl+udp": "jsonl+udp"}
_COLLECTORS: tuple[Kind, ...] = ("udp", "tcp", "tls")
_FILES: tuple[Kind, ...] = ("file", "jsonl", "csv")
_LINES: tuple[Kind, ...] = ("jsonl+tcp", "jsonl+udp")
"""Collectors of JSON Lines."""
PARQUET_ROTATE_S = 600.0
"""A Parquet file is complete, and can be read, after this time by default."""


@dataclass(frozen=True, slots=True)
class UrlOption:
    """One option of the query string.

    Attributes:
        name: text before the equals sign.
        kinds: transports that support it.
        default: as written in a URL, or a description.
        doc: one line for the README.
    """

    name: str
    kinds: tuple[Kind, ...]
    default: str
    doc: str


OPTIONS: dict[str, UrlOption] = {option.name: option for option in (
    UrlOption("profile", (*_COLLECTORS, "file"), "default", "Templates for a specific collector, see below."),
    UrlOption("domain", (*_COLLECTORS, "file"), "1", "Observation Domain ID."),
    UrlOption("duplicates", (*_COLLECTORS, *_FILES, "parquet", *_LINES), "keep",
              "`drop` omits flows already counted at another interface: each packet is exported once."),
    UrlOption("reconnect", ("tcp", "tls", "jsonl+tcp"), "60s",
              "Time between attempts to connect (RFC 7011: once a minute)."),
    UrlOption("ca", ("tls",), "the system's", "PEM file of the authorities that the collector is verified with."),
    UrlOption("cert", ("tls",), "none", "PEM file of the client's certificate."),
    UrlOption("key", ("tls",), "in `cert`", "PEM file of its private key."),
    UrlOption("servername", ("tls",), "the host", "Name that the collector's certificate must have."),
    UrlOption("refresh", ("udp",), "60s", "Time after which Templates are sent again."),
    UrlOption("refresh-packets", ("udp",), "1000", "Number of datagrams after which Templates are sent again."),
    UrlOption("rotate-size", _FILES, "never", "Start a new file at this size (`100M`, `1.5Gi`), before compression."),
    UrlOption("rotate-time", (*_FILES, "parquet"), "never, Parquet 10m",
              "Start a new file after this time (`10m`, `1h30m`)."),
    UrlOption("compress", _FILES, "by suffix", "`gzip`, `zstd` or `none`; or by suffix: `.gz`, `.zst`."),
    UrlOption("biflow", (*_COLLECTORS, "file"), "off",
              "`on` exports both directions of a conversation as one record (RFC 5103)."),
    UrlOption("owners", (*_COLLECTORS, "file"), "off",
              "`on` adds the local socket's process, its user and what else is known of it to each record."),
)}
"""Query options by name: the only list of them."""

_DEFAULT_PORTS: dict[Kind, int] = {"tls": IPFIX_TLS_PORT, "jsonl+tcp": LINES_PORT, "jsonl+udp": LINES_PORT}
_SHORTEST_S, _LONGEST_S = 0.01, 366 * 86_400
"""Durations in an export URL."""
_SMALLEST_FILE = 4000


@dataclass(frozen=True, slots=True)
class ExportUrl:
    """A parsed export URL.

    Attributes:
        text: as given.
        kind: the transport.
        host: name or address of the collector, without brackets; "" for a file.
        port: 1..65535; 0 for a file.
        path: path of the file, `-` for standard output (jsonl and csv); "" for a collector.
        profile: selects the Templates.
        domain: Observation Domain ID, 1..2**32 - 1.
        reconnect_s: seconds between attempts to connect.
        ca: PEM file of the authorities to verify the server with; None: the system's.
        cert, key: PEM files of the client's certificate and its private key; one file may have both.
        servername: name that the server's certificate must have.
        refresh_s, refresh_packets: over UDP, Templates are sent again after this time or number of datagrams.
        rotate_octets, rotate_s: size or age at which the next file is started; None: never.
        compress: compression of files; "" for none.
        duplicates: whether to export flows that are duplicates of another Observation Point's flow.
        biflow: both directions of a conversation are one record.
        owners: records have the process of their local socket.
    """

    text: str
    kind: Kind
    host: str = ""
    port: int = 0
    path: str = ""
    profile: Profile = PROFILES["default"]
    domain: int = 1
    reconnect_s: float = RECONNECT_S
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    servername: str = ""
    refresh_s: float = TEMPLATE_REFRESH_S
    refresh_packets: int = TEMPLATE_REFRESH_PACKETS
    rotate_octets: int | None = None
    rotate_s: float | None = None
    compress: Compression = ""
    duplicates: bool = True
    biflow: bool = False
    owners: bool = False


def parse_export_url(text: str) -> ExportUrl:
    """Parse an export URL.

    Raises FlowtopError (EXIT_USAGE): unknown scheme, option or profile; port, number, size or duration out of range;
    invalid host name; control characters.
    """
    if any(unicodedata.category(character) == "Cc" for character in unquote(text)):
        raise _usage(f"control characters in export {text!r}", "paths, names and options must not have any")
    scheme, colon, rest = text.partition(":")
    kind = _SCHEMES.get(scheme.lower())
    if not colon or kind is None:
        raise _unknown("scheme", scheme if colon else text, _SCHEMES, text)
    if kind in (*_COLLECTORS, *_LINES):
        return _collector(text, kind)
    path, _, query = rest.partition("?")
    if path.startswith("//"):  # file:///var/log/flows.ipfix
        path = "/" + path.lstrip("/")
    path = unquote(path)
    if not path:
        raise _usage(f"export {text!r} has no file", f"add one, for example {scheme}:flows")
    options = _options(text, kind, query)
    if path == "-" and kind in ("file", "parquet"):
        what = {"file": "IPFIX", "parquet": "Parquet"}[kind]
        raise _usage(f"{what} cannot be written to standard output", "use a file, or jsonl:- or csv:-")
    if path == "-" and (options.keys() - {"compress", "duplicates"}
                        or options.get("compress", "none") != "none"):
        raise _usage("standard output cannot be rotated or compressed", f"use a file, for example {scheme}:flows")
    return ExportUrl(
        text, kind, path=path, profile=_profile(options, text), domain=_domain(options),
        rotate_octets=_size(options, "rotate-size"),
        rotate_s=_duration(options, "rotate-time", PARQUET_ROTATE_S if kind == "parquet" else 0.0) or None,
        compress="" if kind == "parquet" else _compress(options, path),
        duplicates=_duplicates(options), biflow=_switch(options, "biflow"), owners=_owners(options))


def _collector(text: str, kind: Kind) -> ExportUrl:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _usage(f"export {text!r}: {error}", "a port is 1 to 65535, IPv6 addresses are in brackets") from error
    host = parts.hostname or ""
    _check_authority(text, parts, host, port, f"{parts.scheme}://collector:{_DEFAULT_PORTS.get(kind, IPFIX_PORT)}")
    options = _options(text, kind, parts.query)
    for name in (host, options.get("servername", host)):
        _check_name(text, name)
    if "key" in options and "cert" not in options:
        raise _usage("a private key without its certificate", "give both: cert=client.pem&key=client.key")
    return ExportUrl(
        text, kind, host, _DEFAULT_PORTS.get(kind, IPFIX_PORT) if port is None else port,
        profile=_profile(options, text), domain=_domain(options),
        reconnect_s=_duration(options, "reconnect", RECONNECT_S),
        ca=_path(options, "ca"), cert=_path(options, "cert"), key=_path(options, "key"),
        servername=options.get("servername", host),
        refresh_s=_duration(options, "refresh", TEMPLATE_REFRESH_S),
        refresh_packets=_whole(options, "refresh-packets", TEMPLATE_REFRESH_PACKETS, 1, 2**32 - 1),
        duplicates=_duplicates(options), biflow=_switch(options, "biflow"), owners=_owners(options))


def _check_authority(text: str, parts: SplitResult, host: str, port: int | None, example: str) -> None:
    """Raises FlowtopError: the authority is not HOST, HOST:PORT or [IPv6]:PORT."""
    if not host:
        raise _usage(f"export {text!r} has no collector", f"add one, for example {example}")
    if port == 0:
        raise _usage(f"export {text!r}: port 0", "a port is 1 to 65535")
    if "@" in parts.netloc or parts.path not in ("", "/") or parts.fragment:
        raise _usage(f"export {text!r} has more than host, port and options",
                     f"write {example}?option=value")
    if "[" in parts.netloc or ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise _usage(f"export {text!r}: {error}", "IPv6 addresses are in brackets") from error


def _check_name(text: str, name: str) -> None:
    """Raises FlowtopError: not a valid host name."""
    try:
        name.encode("idna")
    except UnicodeError as error:
        raise _usage(f"export {text!r}: {name!r} is not a host name",
                     "it has labels of 1 to 63 characters, separated by dots") from error


def _options(text: str, kind: Kind, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in OPTIONS or kind not in OPTIONS[name].kinds:
            raise _unknown("option", name, [known.name for known in OPTIONS.values() if kind in known.kinds], text)
        if name in options:
            raise _usage(f"option {name!r} is given twice in {text!r}", "give it once")
        if not value:
            raise _usage(f"option {name!r} has no value in {text!r}", f"write {name}=VALUE")
        options[name] = value
    return options


def _profile(options: Mapping[str, str], text: str) -> Profile:
    name = options.get("profile", "default")
    if name not in PROFILES:
        raise _unknown("profile", name, PROFILES, text)
    return PROFILES[name]


def _domain(options: Mapping[str, str]) -> int:
    return _whole(options, "domain", 1, 1, 2**32 - 1)  # 0 is for reports about others (RFC 7011 section 3.1).


def _whole(options: Mapping[str, str], name: str, default: int, lowest: int, highest: int) -> int:
    if name not in options:
        return default
    number = _read(options, name, quantities.count)
    if number != int(number) or not lowest <= number <= highest:
        raise _usage(f"{name}={options[name]} is out of range", f"a whole number from {lowest} to {highest}")
    return int(number)


def _read(options: Mapping[str, str], name: str, read: Callable[[str], float]) -> float:
    """An option's quantity, as `read` of flowtop.text.quantities has it."""
    try:
        return read(options[name])
    except QuantityError as error:
        raise _usage(f"{name}: {error.problem}", error.hint) from error


def _duration(options: Mapping[str, str], name: str, default: float) -> float:
    """The option's value in seconds."""
    if name not in options:
        return default
    seconds = _read(options, name, quantities.seconds)
    if not _SHORTEST_S <= seconds <= _LONGEST_S:
        raise _usage(f"{name}={options[name]} is out of range", "from 10ms to 366d")
    return seconds


def _size(options: Mapping[str, str], name: str) -> int | None:
    """The option's value in octets."""
    if name not in options:
        return None
    octets = int(_read(options, name, quantities.octets))
    if octets < _SMALLEST_FILE:
        raise _usage(f"{name}={options[name]} is too small", "at least 4k; for example 100M or 1.5Gi")
    return octets


def _compress(options: Mapping[str, str], path: str) -> Compression:
    method = options.get("compress", SUFFIXES.get(Path(path).suffix, "none"))
    methods: dict[str, Compression] = {"none": "", "gzip": "gzip", "zstd": "zstd"}
    if method in methods:
        return methods[method]
    raise _usage(f"compress={method} is not known", "compress=gzip, compress=zstd or compress=none")


def _duplicates(options: Mapping[str, str]) -> bool:
    choice = options.get("duplicates", "keep")
    if choice not in ("keep", "drop"):
        raise _usage(f"duplicates={choice} is not known", "duplicates=keep or duplicates=drop")
    return choice == "keep"


def _switch(options: Mapping[str, str], name: str) -> bool:
    """An option that is on or off, by default off."""
    choice = options.get(name, "off")
    if choice not in ("on", "off"):
        raise _usage(f"{name}={choice} is not known", f"{name}=on or {name}=off")
    return choice == "on"


def _owners(options: Mapping[str, str]) -> bool:
    on = _switch(options, "owners")
    profile = options.get("profile", "default")
    if on and not PROFILES[profile].measured:
        raise _usage(f"profile={profile} has no owners", "its collectors refuse elements that they do not know")
    return on


def _path(options: Mapping[str, str], name: str) -> Path | None:
    return Path(options[name]) if name in options else None


def _unknown(what: str, name: str, known: Mapping[str, object] | list[str], text: str) -> FlowtopError:
    near = nearest(name, known)
    hint = f"did you mean {near[0]}? " if near else ""
    return _usage(f"unknown {what} {name!r} in export {text!r}", f"{hint}known: {', '.join(known)}")


def _usage(message: str, hint: str) -> FlowtopError:
    return FlowtopError(message, hint=hint, exit_code=EXIT_USAGE)
