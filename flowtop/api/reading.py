"""Reads files into flow tables, and export messages from files."""

from __future__ import annotations

import lzma
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, NamedTuple

from flowtop.api.metering import LONGEST_S, Dedupe, Metering, table_config
from flowtop.api.table import Table
from flowtop.capture.files.capture import FileCapture, FileConfig
from flowtop.capture.files.messages import read_payloads
from flowtop.capture.files.octets import OctetStream
from flowtop.errors import EXIT_NO_INPUT, FlowtopError
from flowtop.filters.kernel import Narrowing
from flowtop.model.tunnel_ports import added_ports
from flowtop.pipeline.drive import Driving, Handover, PipelineConfig

Source = str | os.PathLike[str] | IO[bytes]
"""A path ("-": standard input), or a file opened in binary mode: its rest is copied to a temporary file first."""


def read(source: Source, *, decap: bool = False, tunnel_ports: Mapping[int, str] | None = None,
         idle_timeout: float = 15.0, active_timeout: float = 60.0, max_flows: int = 1_000_000,
         dedupe: Dedupe = "mark", strict: bool = False, collect: bool = False) -> Table:
    """Read a capture (pcap, pcapng), an IPFIX file (RFC 5655) or raw datagrams, gzipped or not, into a flow table.

    Args:
        source: a path, "-" for standard input, or a binary file object, which is read to its end.
        decap: count the inner packets of tunnels.
        tunnel_ports: with `decap`, UDP ports of "vxlan", "geneve" and "mpls" in addition to the standard ones.
        idle_timeout: a flow ends after this many seconds without a packet.
        active_timeout: a flow that continues is reported after this many seconds.
        max_flows: maximum number of active flows; when there are more, the least recently used ones end. About the same
            number of ended flows is kept, see Table.books.
        dedupe: flows whose packets were already counted at another interface of the file: "mark" them, "drop" them, or
            "off": do not look for them.
        strict: raise the error that would otherwise be in `Table.fault`.
        collect: of a capture, take the flows in its NetFlow, IPFIX and sFlow messages, not its packets. Exporters
            report a long flow about once a minute, so that an `idle_timeout` of 90 s suits them.

    Raises:
        FlowtopError: the file cannot be read, or, with `strict`, not all of it; a timeout, limit or port out of range.
    """
    ports = added_ports((label, port) for port, label in (tunnel_ports or {}).items())
    # With this linger, ended flows stay in the table.
    metering = Metering(table_config(idle_timeout=idle_timeout, active_timeout=active_timeout, linger=LONGEST_S,
                                     max_flows=max_flows, dedupe=dedupe))
    with _opened(source) as (path, descriptor):
        capture = FileCapture(FileConfig(path, tick_s=None, descriptor=descriptor, decap=decap, tunnel_ports=ports,
                                         collect=collect))
        capture.open(lambda _: None)
        try:
            _driving(capture, metering).run()
        finally:
            last = capture.close()
    metering.take(last, close_tick=True)
    metering.end()
    table = Table(metering)
    if strict and table.fault is not None:
        raise table.fault
    return table


def _driving(capture: FileCapture, metering: Metering) -> Driving:
    def hand_over(handover: Handover) -> None:
        metering.take(handover.batch, close_tick=handover.close_tick)

    return Driving(PipelineConfig(own_time=True), capture, hand_over, Narrowing(), lambda: True, lambda _: None,
                   time.monotonic)


@contextmanager
def _opened(source: Source) -> Iterator[tuple[str, int | None]]:
    """The path, and for a file object the descriptor of a copy."""
    if isinstance(source, str | os.PathLike):
        yield os.fspath(source), None
        return
    name = getattr(source, "name", "")
    with tempfile.TemporaryFile() as copy:
        try:
            shutil.copyfileobj(source, copy)
            copy.flush()
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:  # ValueError: it is closed
            raise FlowtopError(f"cannot read the file object: {error}",
                               hint="give its path instead: the part before the damage can then be read",
                               exit_code=EXIT_NO_INPUT) from error
        os.lseek(copy.fileno(), 0, os.SEEK_SET)
        yield name if isinstance(name, str) and name else "the file object", copy.fileno()


class ExportMessage(NamedTuple):
    """One export message as it was sent.

    Attributes:
        octets: the whole message, for `Collector.receive`, `Connection.receive` or `Decoder.decode`.
        sender: address and port; None in files without packet headers.
        receiver: the same for the receiver.
        datagram: True: sent over UDP. False: sent over TCP, or from an IPFIX file.
        gap: the capture lacks a part of the TCP stream before this message, or of the datagram.
    """

    octets: bytes
    sender: tuple[str, int] | None
    receiver: tuple[str, int] | None
    datagram: bool
    gap: bool


def read_exports(source: Source) -> Iterator[ExportMessage]:
    """The NetFlow, IPFIX and sFlow 5 messages in a capture, an IPFIX file, or a file of raw datagrams.

    Args:
        source: as for `read`.

    Raises FlowtopError: the file cannot be read, or it is damaged: then after the messages before the damage.
    """
    with _opened(source) as (path, descriptor):
        stream = OctetStream(path, descriptor)
        try:
            for payload in read_payloads(stream):
                yield ExportMessage(payload.octets, _end(payload.sender), _end(payload.receiver), payload.datagram,
                                    bool(payload.damage))
        finally:
            stream.close()


def _end(text: str) -> tuple[str, int] | None:
    host, _, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if port else None
