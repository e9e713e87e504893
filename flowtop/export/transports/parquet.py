"""Write Flow Records to Parquet files, with the keys of JSON as typed columns. A file is written at once, complete."""

from __future__ import annotations

import importlib.util
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.export.context import ExportContext
from flowtop.export.url import ExportUrl
from flowtop.fields.records import flow_types, plain_records
from flowtop.files import open_output, undo_output
from flowtop.model.elements import ELEMENTS
from flowtop.model.record import FLOW_RECORD_DTYPE, FlowRecords, joined

MOST_RECORDS = 100_000
"""Records of a file: they are in memory until it is complete."""
_TOGETHER = 64
"""Batches that are joined: each has about a hundred columns, and may have few records."""
_TICK_S = 1.0


def check_parquet() -> None:
    """Raises FlowtopError if the package that writes Parquet is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise FlowtopError("cannot write Parquet: the package pyarrow is not installed", exit_code=EXIT_USAGE,
                           hint="install it beside flowtop (pip install pyarrow), or use csv: or jsonl:")


class ParquetTransport:
    """Keeps records until a file is complete, then writes it. An existing file is renamed, not overwritten.

    A file without its last octets cannot be read, so none is ever in parts on disk for longer than a write takes.

    Args:
        url: of kind parquet.
        owner: user and group as whom files are opened, see files.open_output; None: as this process.
        most_records: of a file.
    """

    def __init__(self, url: ExportUrl, owner: tuple[int, int] | None = None, most_records: int = MOST_RECORDS) -> None:
        self._path = Path(url.path)
        self._rotate_s = url.rotate_s
        self._owner = owner
        self._most = most_records
        self._held: list[FlowRecords] = []
        self._unsent: FlowRecords = np.empty(0, FLOW_RECORD_DTYPE)
        self._batches: list[Any] = []
        self._count = self._octets = 0
        self._written = False

    @property
    def retry_s(self) -> float:
        """Seconds between attempts, for example if the disk is full."""
        return 5.0

    @property
    def file_octets(self) -> int:
        """Octets of the file written last."""
        return self._octets

    def open(self, context: ExportContext) -> None:
        """Begin to keep records."""
        self._began_at = context.monotonic()

    def send(self, records: FlowRecords, context: ExportContext) -> None:
        """Keep records; write them when they are enough for a file. Raises OSError."""
        self._unsent = records
        while len(self._unsent):
            part, rest = np.split(self._unsent, [self._most - self._count])
            self._keep(part, context)
            self._held.append(part)
            self._count += len(part)
            self._unsent = rest
            if self._count == self._most:
                self._write(context)

    def _keep(self, records: FlowRecords, context: ExportContext) -> None:
        import pyarrow as pa

        plain = list(plain_records(records, context.metering().lookups))  # now: names are forgotten
        schema = _schema()
        self._batches.append(pa.Table.from_arrays(
            [_array([record.get(name) for record in plain], schema.field(name).type) for name in schema.names],
            schema=schema))
        if len(self._batches) > _TOGETHER:
            self._batches = [pa.concat_tables(self._batches).combine_chunks()]

    def tick(self, context: ExportContext) -> float:
        """Write a file when it is time to."""
        if self._rotate_s is not None and self._count and context.monotonic() - self._began_at >= self._rotate_s:
            self._write(context)
        return _TICK_S

    def finish(self, context: ExportContext) -> None:
        """Write what is left; a file without records if there were none at all. Raises OSError."""
        if self._count or not self._written:
            self._write(context)

    def abandon(self) -> tuple[FlowRecords, int]:
        """The records that are in no file."""
        left = [*self._held, *([self._unsent] if len(self._unsent) else [])]
        self._unsent = self._unsent[:0]
        self._forget()
        return joined(left) if left else np.empty(0, FLOW_RECORD_DTYPE), 0

    def _forget(self) -> None:
        self._held, self._batches, self._count = [], [], 0

    def _write(self, context: ExportContext) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.concat_tables(self._batches) if self._batches else _schema().empty_table()
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        octets = sink.getvalue().to_pybytes()
        output = open_output(self._path, context.wall, self._owner)
        identity = os.fstat(output.descriptor)
        try:
            with os.fdopen(output.descriptor, "wb") as file:
                file.write(octets)
                file.flush()
                if output.regular:
                    os.fsync(output.descriptor)
        except OSError:
            with suppress(OSError):
                undo_output(output, identity, self._path, self._owner)
            raise
        context.wrote(self._count, len(octets))
        self._octets, self._written = len(octets), True
        self._forget()
        self._began_at = context.monotonic()


def _array(values: list[Any], type_: Any) -> Any:
    """A column. Octets of a text that are no UTF-8 are shown as escapes: texts are from strangers."""
    import pyarrow as pa

    try:
        return pa.array(values, type_)
    except UnicodeEncodeError:
        return pa.array([text and text.encode("utf-8", "backslashreplace").decode() for text in values], type_)


def _schema() -> Any:
    """Columns of all keys, those of times as timestamps; unsigned Information Elements may use all of their 64 bits."""
    import pyarrow as pa

    types = {int: pa.int64(), bool: pa.bool_(), str: pa.string(), datetime: pa.timestamp("ms", "UTC")}
    return pa.schema([(name, pa.uint64() if kind is int and name in ELEMENTS else types[kind])
                      for name, kind in flow_types().items()])
