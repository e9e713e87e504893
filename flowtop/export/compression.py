"""gzip and zstd for files, from the standard library where available."""

from __future__ import annotations

import gzip
import importlib.util
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, Literal, Protocol, cast

from flowtop.errors import EXIT_USAGE, FlowtopError

Compression = Literal["", "gzip", "zstd"]
SUFFIXES: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
END_OF_FLUSHED: dict[Compression, bytes] = {"": b"", "gzip": b"", "zstd": b"\x01\x00\x00"}
"""What ends a stream that was cut at a flush: for zstd the last block of a frame, raw and empty (RFC 8878, 3.1.1.2).

The zstd command leaves out up to 128 KiB of data, already decompressed, of a frame without an end.
"""


class Compressor(Protocol):
    """Writes compressed octets to a file that it does not close."""

    def write(self, octets: bytes, /) -> Any:
        """Compress octets."""

    def flush(self) -> Any:
        """Make written data readable."""

    def close(self) -> Any:
        """End the compressed stream."""


class WholeWriter:
    """The file object of a compressor: writes everything or raises OSError, and nothing after `abandon`.

    Compressors ignore short writes, and write again when they are garbage collected.

    Attributes:
        failed: a write has failed: the data ends at an arbitrary position.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write: Callable[[bytes], None] | None = write
        self.failed = False

    def write(self, octets: bytes) -> int:
        """Write octets. Raises OSError."""
        if self._write is not None:
            try:
                self._write(octets)
            except OSError:
                self.failed = True
                raise
        return len(octets)

    def flush(self) -> None:
        """Do nothing, as nothing is buffered here."""

    def abandon(self) -> None:
        """Ignore all further writes."""
        self._write = None


def check_compression(kind: Compression) -> None:
    """Raises FlowtopError if this Python does not support the compression."""
    if kind == "zstd" and not _standard_zstd() and importlib.util.find_spec("zstandard") is None:
        raise FlowtopError("cannot compress with zstd: the package zstandard is not installed", exit_code=EXIT_USAGE,
                           hint="install it beside flowtop (pip install zstandard), or use compress=gzip")


def compressor(kind: Literal["gzip", "zstd"], raw: WholeWriter, unix_s: float) -> Compressor:
    """A compressor that writes to `raw`. Call `check_compression` before."""
    if kind == "gzip":
        return cast(Compressor, gzip.GzipFile(fileobj=cast(BinaryIO, raw), mode="wb", mtime=int(unix_s)))
    if _standard_zstd():
        from compression.zstd import ZstdFile

        return cast(Compressor, ZstdFile(cast(BinaryIO, raw), mode="wb"))
    import zstandard

    return cast(Compressor, zstandard.ZstdCompressor().stream_writer(cast(BinaryIO, raw), closefd=False))


def _standard_zstd() -> bool:
    return sys.version_info >= (3, 14)
