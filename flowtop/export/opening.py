"""Create an Exporter from a URL; errors that can be detected before the first record are raised here."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from flowtop.errors import EXIT_USAGE, FlowtopError, output_hint
from flowtop.export.backlog import QueueBounds
from flowtop.export.compression import check_compression
from flowtop.export.context import Transport
from flowtop.export.exporter import Exporter
from flowtop.export.owners import OwnerTexts
from flowtop.export.pairing import Hold
from flowtop.export.spool import MAX_OCTETS, Spool, SpoolInUse
from flowtop.export.transports.files import FileTransport
from flowtop.export.transports.parquet import ParquetTransport, check_parquet
from flowtop.export.transports.tcp import TcpTransport
from flowtop.export.transports.udp import UdpTransport
from flowtop.export.url import ExportUrl, parse_export_url
from flowtop.files import FILE_IN_USE, FileInUse, FileRefused, check_output, delegated, recording_owner
from flowtop.process import agent

_MAX_SPOOLS = 16


def open_exporter(text: str, state_directory: Path | None, *, bounds: QueueBounds | None = None,
                  spool_octets: int = MAX_OCTETS, monotonic: Callable[[], float] = time.monotonic,
                  wall: Callable[[], float] = time.time) -> Exporter:
    """Create an Exporter for a URL: call `start`, then pass records to it.

    Args:
        text: see `export.url`.
        state_directory: parent directory of the spools of TCP and TLS exports; created if needed; None: no
            place for spools.
        bounds: limits of the queue in memory.
        spool_octets: limit of each spool.
        monotonic, wall: clocks, in seconds.

    Raises FlowtopError: invalid URL, unreadable certificate or key, path or spool that cannot be written, no
        place for a spool. An unreachable collector is no error: the exporter waits for it.
    """
    url = parse_export_url(text)
    transport: Transport
    spool = None
    owners = OwnerTexts() if url.owners else None
    if url.kind in ("udp", "jsonl+udp"):
        transport = UdpTransport(url)
    elif url.kind in ("tcp", "tls"):
        transport = TcpTransport(url, tls_context(url) if url.kind == "tls" else None)
        spool = _spool(url, state_directory, spool_octets, wall)
        spool.owners = owners
    elif url.kind == "jsonl+tcp":
        transport = TcpTransport(url)  # no spool: its files of IPFIX lack some of what lines have
    elif url.kind == "parquet":
        check_parquet()
        owner = _check_writable(url)
        transport = ParquetTransport(url, owner)
    else:
        check_compression(url.compress)
        owner = _check_writable(url)
        transport = FileTransport(url, owner, agent=agent())
    return Exporter(text, transport, spool, bounds=bounds or QueueBounds(), monotonic=monotonic, wall=wall,
                    hold=Hold() if url.biflow else None, owners=owners)


def tls_context(url: ExportUrl) -> ssl.SSLContext:
    """TLS 1.2 or newer, with verification of the server, and the client's certificate if there is one.

    Raises FlowtopError: a certificate or key cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # Verifies certificate and name.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if url.ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(url.ca)
    except OSError as error:
        raise _certificate("the authorities' certificates", url.ca, error) from error
    try:
        if url.cert is not None:
            context.load_cert_chain(url.cert, url.key, _no_password)
    except OSError as error:
        raise _certificate("the client's certificate and key", url.cert, error) from error
    return context


def _no_password() -> str:
    raise FlowtopError("the client's private key is encrypted", exit_code=EXIT_USAGE,
                       hint="decrypt it: openssl pkey -in client.key -out plain.key")


def _certificate(what: str, path: Path | None, error: OSError) -> FlowtopError:
    return FlowtopError(f"cannot read {what} from {path}: {error.strerror or error}", exit_code=EXIT_USAGE,
                        hint="it must be a PEM file that this user can read")


def _spool(url: ExportUrl, state_directory: Path | None, max_octets: int, wall: Callable[[], float]) -> Spool:
    """The first spool of this collector and domain that is not in use, with the content of further unused ones."""
    if state_directory is None:
        raise FlowtopError("this user has no home directory to keep a spool in", exit_code=EXIT_USAGE,
                           hint="name a directory for spools with --state-directory")
    name = re.sub(r"[^a-z0-9.]", "_", url.host)[:80]
    identity = hashlib.sha256(f"{url.kind}|{url.host}|{url.port}|{url.domain}".encode()).hexdigest()[:12]
    first: Spool | None = None
    for number in range(1, _MAX_SPOOLS + 1):
        end = f"-{number}" if number > 1 else ""
        directory = state_directory / f"spool-{name}-{identity}{end}"
        if first is not None and not directory.is_dir():
            continue
        try:
            spool = Spool(directory, domain=url.domain, wall=wall, max_octets=max_octets)
        except SpoolInUse:
            if number == _MAX_SPOOLS and first is None:
                raise
        else:
            if first is None:
                first = spool
            else:
                _adopt(first, spool)
    assert first is not None
    return first


def _adopt(spool: Spool, left: Spool) -> None:
    """Take over the files of another spool, which no other export would send."""
    try:
        spool.adopt(left)
    except OSError as error:
        raise FlowtopError(f"cannot take over a spool: {error.strerror}", hint="check the state directory") from error


def _check_writable(url: ExportUrl) -> tuple[int, int] | None:
    """Whose the file will be, see files.open_output. Raises FlowtopError if none can be written there."""
    owner = recording_owner(os.environ, os.geteuid())
    if url.path == "-":
        return owner
    path = Path(url.path)
    problem = "" if delegated(path) else _problem(path)
    if not problem:
        try:
            check_output(path, owner)
        except FileInUse as error:
            raise FlowtopError(f"cannot write {path}: {FILE_IN_USE}", hint="use another file, or end that first",
                               exit_code=EXIT_USAGE) from error
        except OSError as error:
            problem = error.strerror or str(error)
            problem = problem if isinstance(error, FileRefused) else problem.lower()
    if problem:
        raise FlowtopError(f"cannot write {path}: {problem}", hint=output_hint(problem), exit_code=EXIT_USAGE)
    return owner


def _problem(path: Path) -> str:
    """Why no file can be written there; "": none is known."""
    if path.is_dir():
        return "it is a directory"
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    if path.is_symlink():
        return ""  # said by check_output
    return "" if os.access(path if path.exists() else path.parent, os.W_OK) else "permission denied"
