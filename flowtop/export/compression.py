"""gzip and zstd, for files: the standard library's where it has them."""

from __future__ import annotations

import gzip
import importlib.util
import sys
from typing import Any, BinaryIO, Literal, Protocol, cast

from flowtop.errors import EXIT_USAGE, FlowtopError

Compression = Literal["", "gzip", "zstd"]
SUFFIXES: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}


class Compressor(Protocol):
    """Writes compressed octets into a file that it does not close."""

    def write(self, octets: bytes, /) -> Any:
        """Compress."""

    def flush(self) -> Any:
        """Let readers see what has been written."""

    def close(self) -> Any:
        """The end of the compressed stream."""


def check_compression(kind: Compression) -> None:
    """Raises FlowtopError: this Python cannot compress so."""
    if kind == "zstd" and not _standard_zstd() and importlib.util.find_spec("zstandard") is None:
        raise FlowtopError("cannot compress with zstd: the package zstandard is not installed", exit_code=EXIT_USAGE,
                           hint="install it beside flowtop (pip install zstandard), or use compress=gzip")


def compressor(kind: Literal["gzip", "zstd"], raw: BinaryIO, unix_s: float) -> Compressor:
    """A compressor into `raw`. Call `check_compression` before."""
    if kind == "gzip":
        return cast(Compressor, gzip.GzipFile(fileobj=raw, mode="wb", mtime=int(unix_s)))
    if _standard_zstd():
        from compression.zstd import ZstdFile

        return cast(Compressor, ZstdFile(raw, mode="wb"))
    import zstandard

    return cast(Compressor, zstandard.ZstdCompressor().stream_writer(raw, closefd=False))


def _standard_zstd() -> bool:
    return sys.version_info >= (3, 14)
