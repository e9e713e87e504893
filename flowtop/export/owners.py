"""The texts of owners that Flow Records on their way to a collector have, kept until they are sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from flowtop.model.owners import TEXTS
from flowtop.model.record import FlowRecords
from flowtop.text.lookups import Lookups
from flowtop.wire.owners import OwnerCodes, Texts

MOST_OWNERS = 131_072
"""Limit of owners; beyond it those that came first are forgotten: their records have the process id alone."""


class OwnerTexts:
    """Texts by owner id, of an export's records. The flow table's own may be forgotten while records wait, and what is
    spooled is sent by a later run.

    Attributes:
        texts: see wire.owners.Texts. It changes: one thread adds, another one reads.
    """

    def __init__(self) -> None:
        self._ids: dict[int, None] = {}
        self.codes = OwnerCodes(MOST_OWNERS)
        self._texts: dict[str, dict[int, str]] = {table: {} for table in TEXTS}

    @property
    def texts(self) -> Texts:
        """The texts, for the exporter's thread."""
        return self._texts

    def note(self, records: FlowRecords, lookups: Lookups) -> None:
        """Keep the texts of these records' owners, as they are now."""
        if not records["owner"].any():
            return
        owners = np.unique(records["owner"]).tolist()
        for owner in owners:
            self._ids[owner] = None
        for table, kept in self._texts.items():
            _copy(owners, lookups.named(table), kept)
        while len(self._ids) > MOST_OWNERS:
            oldest = next(iter(self._ids))
            del self._ids[oldest]
            for kept in self._texts.values():
                kept.pop(oldest, None)

    def restore(self, records: FlowRecords) -> None:
        """Keep the texts of records from a spool, whose owners are of `codes`."""
        self.note(records, Lookups(texts=self.codes.texts))


def _copy(owners: Iterable[int], source: Mapping[int, str], kept: dict[int, str]) -> None:
    for owner in owners:
        text = source.get(owner)
        if text:
            kept[owner] = text
