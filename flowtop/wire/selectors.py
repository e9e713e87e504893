"""Sampled flows, passed on as they were sampled: counters as the exporter counted them, `selectorId`, and a Selector
Report in Options Data that says what to multiply them by (RFC 5476 section 6.5.2, RFC 5477 section 8.2).

The selectors of all relayed exporters share one numbering, as most collectors look them up by the address that Messages
come from. A selector keeps its exporter's id unless another selector has it already; the exporter's own id, if it has
reported one, is in `selectorName`: `sampler 5`. Records have `samplingInterval` too, so that Options that get lost over
UDP change nothing; both say the same, and collectors apply one of them.

Where counters are no multiple of the interval (it has changed within the flow, or a part of the flow is a duplicate),
they stay multiplied, and their selector is 1 in 1.

Collectors that were tried: nfcapd 1.7.1 looks for a selector in the flows' Observation Domain, with its id outside the
scope, in the first record of a Set, and with samplingInterval; nfacctd 1.7.7 takes selectorId in 8 octets only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from flowtop.model.record import FlowRecords
from flowtop.wire.ipfix import RecordSet, encode_records, template_sets
from flowtop.wire.ipfix_template import Template, field

MAX_SELECTORS = 1_024
"""Limit of selectors per Transport Session. Flows of further ones have their counters multiplied, without selector."""
_FIRST_FREE_ID = 1 << 16
_COUNT_BASED = 1
"""selectorAlgorithm. Which one an exporter used is not kept: for the interval, all are alike."""
SELECTORS = Template(271, (
    field("observationDomainId"), field("selectorId"), field("samplingInterval"), field("selectorAlgorithm"),
    field("samplingPacketInterval"), field("samplingPacketSpace"), field("selectorName", 24)), 1)
_NAME = re.compile(r"sampler (\d{1,10})|no sampler id")


class Selectors:
    """The selectors of one Transport Session."""

    def __init__(self) -> None:
        self._ids: dict[tuple[int, int], int] = {}  # by the exporter's id (0: none) and interval (0: not known)
        self._free = _FIRST_FREE_ID

    def __len__(self) -> int:
        return len(self._ids)

    def applied(self, records: FlowRecords) -> FlowRecords:
        """RELAYED_RECORD_DTYPE as it goes into messages: with ids of selectors, and counters as they were sampled."""
        sampler, interval = records["sampler"], records["sampling_interval"]
        if not (sampler.any() or interval.any()):
            return records
        found = records.copy()
        divisor = np.maximum(interval, 1).astype(np.uint64)
        parts = [records[name] // divisor for name in ("packet_delta", "octet_delta")]
        whole = (interval > 1) & (parts[0] * divisor == records["packet_delta"])
        whole &= parts[1] * divisor == records["octet_delta"]
        left = np.where(whole, interval, np.minimum(interval, 1))
        pairs, inverse = np.unique(sampler.astype(np.uint64) << np.uint64(32) | left, return_inverse=True)
        found["sampler"] = np.array([self._id(pair >> 32, pair & 0xFFFF_FFFF) for pair in pairs.tolist()],
                                    np.uint32)[inverse.reshape(-1)]
        whole &= found["sampler"] != 0
        for name, part in zip(("packet_delta", "octet_delta"), parts, strict=True):
            found[name] = np.where(whole, part, records[name])
        found["unscaled_interval"] = np.where(whole, interval, 0)
        found["sampling_interval"] = np.where(whole, 0, interval)
        return found

    def _id(self, sampler: int, interval: int) -> int:
        """The id of a selector; 0: it needs none, or there are too many."""
        if not sampler and interval <= 1:
            return 0
        known = self._ids.get((sampler, interval))
        if known is None and len(self._ids) < MAX_SELECTORS:
            taken = set(self._ids.values())
            known = sampler
            if not sampler or sampler in taken:
                while self._free in taken:
                    self._free += 1
                known = self._free
            self._ids[sampler, interval] = known
        return known or 0

    def reports(self, domain: int, since: int = 0) -> list[RecordSet]:
        """Sets that announce the selectors, but not the first `since`, for the Observation Domain of the flows.

        The first ones are preceded by their Options Template.
        """
        new = list(self._ids.items())[since:]
        if not new:
            return []
        rows = [(domain, id_, interval, _COUNT_BASED, min(interval, 1), max(interval - 1, 0),
                 f"sampler {sampler}" if sampler else "no sampler id") for (sampler, interval), id_ in new]
        return [*([] if since else template_sets([SELECTORS])), *(encode_records(SELECTORS, [row]) for row in rows)]


def original_samplers(ids: np.ndarray[tuple[int], np.dtype[np.uint32]], names: Iterable[str]) -> dict[int, int]:
    """By the selectors' ids in relayed records, the ids that their exporters reported; 0 for none.

    Args:
        ids: shape (n,).
        names: the `selectorName` of each; those of other relays are passed over.
    """
    matches = ((id_, _NAME.fullmatch(name)) for id_, name in zip(ids.tolist(), names, strict=True))
    return {id_: min(int(match[1] or 0), 0xFFFF_FFFF) for id_, match in matches if match}
