"""The same with flowtop's own library and with numpy alone, in turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from flowtop.native import library

WAYS = ("c", "numpy") if library.loaded() else ("numpy",)


@contextmanager
def way(name: str) -> Iterator[None]:
    """What is made meanwhile does its work in this way, one of WAYS, for ever."""
    with mock.patch.object(library, "loaded", return_value=library.loaded() if name == "c" else None):
        yield
