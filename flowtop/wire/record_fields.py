"""Columns of the Flow Records of one Template, by the names of their elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flowtop.wire.ipfix import Records

Integers = npt.NDArray[np.int64] | npt.NDArray[np.uint64]


class RecordFields:
    """Columns of records by element name, for elements whose length can be read."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._names = frozenset(records.dtype.names or ())
        self.count = len(records)

    def has(self, name: str) -> bool:
        """Whether the Template has the element, and values of it."""
        return name in self._names

    def integers(self, names: Sequence[str]) -> Integers | None:
        """The first of the elements that is present, as integers, shape (n,); also with odd lengths up to 8 octets."""
        for name in names:
            if name not in self._names:
                continue
            column = self._records[name]
            if column.dtype.kind in "ui":
                return column
            if column.dtype.kind == "V" and column.dtype.itemsize <= 8:
                return big_endian(column)
        return None

    def octets(self, names: Sequence[str], length: int) -> npt.NDArray[np.void] | None:
        """The first of the elements that is present with this length, as octets, shape (n,)."""
        for name in names:
            if name in self._names and self._records[name].dtype == np.dtype(f"V{length}"):
                return self._records[name]
        return None


def big_endian(column: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """Octets in network order, up to 8 each, shape (n,), as integers."""
    length = column.dtype.itemsize
    full = np.zeros((len(column), 8), np.uint8)
    full[:, 8 - length:] = np.frombuffer(column.tobytes(), np.uint8).reshape(-1, length)
    return full.view(">u8").ravel().astype(np.uint64)
