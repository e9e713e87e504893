"""Finds and loads the library, once a process. Where it is not usable, numpy does the same."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
LIBRARY = "native.so"
VARIABLE = "FLOWTOP_NATIVE"
"""Environment variable: `off`: numpy does everything."""


_RESULTS = {
    "sources": ctypes.c_uint32, "layout": ctypes.c_char_p, "hash_keys": None, "find_keys": None,
    "place_entries": ctypes.c_int64, "find_or_insert_keys": ctypes.c_int64, "rewrite_entries": ctypes.c_int64,
    "add_entries": ctypes.c_int64, "sum_entries": None, "close_tick": None,
    "clear_items": ctypes.c_int64, "due_flows": None, "make_records": ctypes.c_int64,
    "group_keys": ctypes.c_int64, "sum_groups": ctypes.c_int64}
"""What each function returns."""


class Choice(NamedTuple):
    """What a process uses.

    Attributes:
        library: None: numpy.
        reason: why, in a few words.
    """

    library: ctypes.CDLL | None
    reason: str


def sources(folder: Path) -> list[Path]:
    """The library's source files, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix in (".c", ".h"))


def checksum(folder: Path) -> int:
    """Of the sources, u32: a library is used if it was built of those beside it."""
    return functools.reduce(lambda so_far, path: zlib.crc32(path.read_bytes(), so_far), sources(folder), 0)


def opened(path: Path, folder: Path) -> ctypes.CDLL:
    """The library at this path. Raises OSError: it is not there, not for this machine, or not of the sources in
    `folder`."""
    library = ctypes.CDLL(str(path))
    try:
        for name, result in _RESULTS.items():
            getattr(library, name).restype = result
        same = library.sources() == checksum(folder)
    except AttributeError:
        same = False
    if not same:
        raise OSError("it is of other sources; python -m flowtop.native.build")
    return library


@functools.cache
def choice() -> Choice:
    """What this process uses. The first call reads files, so make it before the process gives up its rights."""
    if os.environ.get(VARIABLE) == "off":
        return Choice(None, f"{VARIABLE}=off")
    if sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return Choice(None, "for 64-bit little-endian processors only")
    path = FOLDER / LIBRARY
    if not path.exists():
        return Choice(None, "built without a C compiler")
    try:
        return Choice(opened(path, FOLDER), LIBRARY)
    except OSError as error:
        return Choice(None, f"{LIBRARY} cannot be used: {error}")


def loaded() -> ctypes.CDLL | None:
    """The library; None: numpy does it."""
    return choice().library
