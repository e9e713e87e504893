"""Files into flow tables, and into the export messages that are in them."""

from __future__ import annotations

import lzma
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from flowtop.api.metering import LONGEST_S, Dedupe, Metering, table_config
from flowtop.api.table import Table
from flowtop.capture.files.capture import FileCapture, FileConfig
from flowtop.capture.files.messages import read_payloads
from flowtop.capture.files.octets import OctetStream
from flowtop.errors import EXIT_NO_INPUT, FlowtopError
from flowtop.filters.kernel import Narrowing
from flowtop.pipeline.drive import Driving, Handover, PipelineConfig

Source = str | os.PathLike[str] | IO[bytes]
"""A path ("-": standard input), or a file that was opened in binary mode: what is left of that is copied first."""


def read(source: Source, *, decap: bool = False, idle_timeout: float = 15.0, active_timeout: float = 60.0,
         max_flows: int = 1_000_000, dedupe: Dedupe = "mark", strict: bool = False) -> Table:
    """Read a capture (pcap, pcapng) or an IPFIX file (RFC 5655), gzipped or not, into a flow table.

    Args:
        source: a path, "-" for standard input, or a binary file object, which is read to its end.
        decap: packets in tunnels count as what they carry.
        idle_timeout: seconds without a packet that end a flow.
        active_timeout: seconds after which a flow that goes on is reported.
        max_flows: flows alive at once; past it the least recently used end. About as many again are kept when they have
            ended, see Table.books.
        dedupe: flows whose packets were counted at another interface of the file are marked, or left out, or not
            looked for.
        strict: raise what `Table.fault` would say.

    Raises:
        FlowtopError: nothing can be read there, or, with `strict`, not all of it; a timeout or bound that cannot be.
    """
    # Flows that have ended stay.
    metering = Metering(table_config(idle_timeout=idle_timeout, active_timeout=active_timeout, linger=LONGEST_S,
                                     max_flows=max_flows, dedupe=dedupe))
    with _opened(source) as (path, descriptor):
        capture = FileCapture(FileConfig(path, tick_s=None, descriptor=descriptor, decap=decap))
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
    """Path and, of a file object, descriptor of a copy."""
    if isinstance(source, str | os.PathLike):
        yield os.fspath(source), None
        return
    name = getattr(source, "name", "")
    with tempfile.TemporaryFile() as copy:
        try:
            shutil.copyfileobj(source, copy)
            copy.flush()
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise FlowtopError(f"cannot read the file object: {error}",
                               hint="name the file: what is before the damage is read then",
                               exit_code=EXIT_NO_INPUT) from error
        os.lseek(copy.fileno(), 0, os.SEEK_SET)
        yield name if isinstance(name, str) and name else "the file object", copy.fileno()


class ExportMessage(NamedTuple):
    """One message of an export, as it was sent.

    Attributes:
        octets: all of it: what `Collector.receive`, `Connection.receive` and `Decoder.decode` take.
        sender: address and port; None in a file of messages, which says nothing of that.
        receiver: likewise.
        datagram: it was sent over UDP; otherwise over TCP, or it is of an IPFIX file.
        gap: the capture lacks something of its TCP stream before it.
    """

    octets: bytes
    sender: tuple[str, int] | None
    receiver: tuple[str, int] | None
    datagram: bool
    gap: bool


def read_exports(source: Source) -> Iterator[ExportMessage]:
    """The NetFlow 5, NetFlow 9, IPFIX and sFlow 5 messages in a capture, an IPFIX file, or a file of raw datagrams.

    Args:
        source: as of `read`.

    Raises FlowtopError: nothing can be read there, or it is damaged: what is before the damage was given first.
    """
    with _opened(source) as (path, descriptor):
        stream = OctetStream(path, descriptor)
        try:
            for payload in read_payloads(stream):
                yield ExportMessage(payload.octets, _end(payload.sender), _end(payload.receiver), payload.datagram,
                                    payload.gap)
        finally:
            stream.close()


def _end(text: str) -> tuple[str, int] | None:
    host, _, port = text.rpartition(":")
    return (host.strip("[]"), int(port)) if port else None
