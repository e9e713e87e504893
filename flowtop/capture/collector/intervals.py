"""Sampling intervals from the parameters in Options or records: RFC 5477, RFC 7014, and NetFlow 9's elements.

An interval is N of "1 in N packets". 0 stands for none: nothing about it, or an interval of 0. NaN is sampling with an
interval that is not known: an algorithm without its parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from flowtop.wire.ipfix import Records
from flowtop.wire.record_fields import big_endian

HIGHEST_INTERVAL = 1 << 32

Intervals = npt.NDArray[np.float64]
"""Shape (n,), see above."""


class SelectorAlgorithm(IntEnum):
    """selectorAlgorithm and flowSelectorAlgorithm: the IANA registry of PSAMP parameters."""

    COUNT = 1
    TIME = 2
    N_OUT_OF_N = 3
    PROBABILITY = 4
    PROPERTY = 5
    HASH_BOB = 6
    HASH_IPSX = 7
    HASH_CRC = 8


_HASHES = (SelectorAlgorithm.HASH_BOB, SelectorAlgorithm.HASH_IPSX, SelectorAlgorithm.HASH_CRC)
QUANTITIES = frozenset((
    "samplingInterval", "samplerRandomInterval", "samplingPacketInterval", "samplingPacketSpace",
    "samplingTimeInterval", "samplingTimeSpace", "samplingSize", "samplingPopulation", "samplingProbability",
    "hashOutputRangeMin", "hashOutputRangeMax", "hashSelectedRangeMin", "hashSelectedRangeMax", "samplingFlowInterval",
    "samplingFlowSpacing", "flowSamplingTimeInterval", "flowSamplingTimeSpacing"))
"""Elements from which an interval is computed."""
_NETFLOW = frozenset(("samplingInterval", "samplerRandomInterval", "samplingAlgorithm", "samplerMode"))
_PARAMETERS = QUANTITIES | {"samplingAlgorithm", "samplerMode", "selectorAlgorithm", "flowSelectorAlgorithm"}


def intervals_of(records: Records) -> Intervals | None:
    """The sampling interval in each record of Options or flows, shape (n,); None: no element of sampling is in them.

    selectorAlgorithm decides which parameters count; without it, or if its own are missing, those that are there do.
    Packets of selected flows (RFC 7014) count for both selections.
    """
    names = _PARAMETERS.intersection(records.dtype.names or ())
    if not names:
        return None
    parameters = _Parameters({name: _floats(records[name]) for name in names}, len(records))
    if names <= _NETFLOW:
        return parameters.of_netflow()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return parameters.intervals()


def interval_of(values: Mapping[str, Any]) -> float | None:
    """The same of one record by the elements that NetFlow 9 has; None: it needs `intervals_of`, as others are in it.

    Args:
        values: by element name; integers as int.
    """
    names = _PARAMETERS.intersection(values)
    if not names or not names <= _NETFLOW:
        return None
    known = {name: value if isinstance(value, int) else 0 for name in names for value in (values[name],)}
    quantities = [value if 1 <= value < HIGHEST_INTERVAL else 0 for name in ("samplingInterval",
                  "samplerRandomInterval") if (value := known.get(name)) is not None]
    if quantities:
        return float(next((value for value in quantities if value > 1), max(quantities)))
    return np.nan if any(value > 0 for value in known.values()) else 0.0


def has_parameters(names: Iterable[str]) -> bool:
    """Whether elements of sampling are among these."""
    return not _PARAMETERS.isdisjoint(names)


@dataclass(frozen=True, slots=True)
class _Parameters:
    """Columns of parameters, each of shape (count,)."""

    columns: Mapping[str, Intervals]
    count: int

    def intervals(self) -> Intervals:
        """See intervals_of."""
        packets = self._packets()
        flows = self._flows()
        product = np.where(packets == 0, 1, packets) * np.where(flows == 0, 1, flows)
        return np.where((packets == 0) & (flows == 0), 0, np.minimum(product, HIGHEST_INTERVAL))

    def of_netflow(self) -> Intervals:
        """Intervals by the elements that NetFlow 9 has; NaN for a mode of sampling without an interval.

        Of two elements, one that is 1 may be there for nothing.
        """
        quantities = [_interval(self.columns[name]) for name in ("samplingInterval", "samplerRandomInterval")
                      if name in self.columns]
        if quantities:
            return _first(*(np.where(values > 1, values, 0) for values in quantities), *quantities)
        sampled = (self["samplingAlgorithm"] > 0) | (self["samplerMode"] > 0)
        return np.where(sampled, np.nan, 0.0)

    def _packets(self) -> Intervals:
        """Intervals of packet selection."""
        algorithm = self["selectorAlgorithm"]
        shared = self._shared_are_of_flows()
        sizes, probability, hashed = (np.where(shared, 0, values) for values in self._shared())
        counted, timed = self._systematic("samplingPacketInterval", "samplingPacketSpace"), self._systematic(
            "samplingTimeInterval", "samplingTimeSpace", alone=0)
        own = _by_algorithm(algorithm, counted, timed, sizes, probability, hashed)
        netflow = self.of_netflow()
        simple = np.where(np.isnan(netflow), 0, netflow)
        if "samplingPacketSpace" in self.columns:
            found = _first(own, simple, sizes, probability, counted, timed, hashed)
        else:
            found = _first(own, simple, sizes, probability, timed, hashed, counted)
        unexplained = (algorithm > 0) | np.isnan(netflow)
        return np.where(unexplained & (found == 0), np.nan, found)

    def _flows(self) -> Intervals:
        """Intervals of flow selection."""
        algorithm = self["flowSelectorAlgorithm"]
        counted, timed = self._systematic("samplingFlowInterval", "samplingFlowSpacing"), self._systematic(
            "flowSamplingTimeInterval", "flowSamplingTimeSpacing", alone=0)
        shared = self._shared_are_of_flows()
        sizes, probability, hashed = (np.where(shared, values, 0) for values in self._shared())
        found = _first(_by_algorithm(algorithm, counted, timed, sizes, probability, hashed), counted, timed, sizes,
                       probability, hashed)
        return np.where((algorithm > 0) & (found == 0), np.nan, found)

    def _shared_are_of_flows(self) -> npt.NDArray[np.bool_]:
        """Whether the parameters that both kinds of selection use are those of the selection of flows."""
        flows: npt.NDArray[np.bool_] = (self["flowSelectorAlgorithm"] > 0) & (self["selectorAlgorithm"] == 0)
        return flows

    def _shared(self) -> tuple[Intervals, Intervals, Intervals]:
        """Intervals of random n-out-of-N, probabilistic and hash-based selection."""
        probability = self["samplingProbability"]
        hashed = np.zeros(self.count)
        if "hashOutputRangeMax" in self.columns and "hashSelectedRangeMax" in self.columns:
            outputs = self["hashOutputRangeMax"] - self["hashOutputRangeMin"] + 1
            hashed = _interval(outputs / (self["hashSelectedRangeMax"] - self["hashSelectedRangeMin"] + 1))
        return (_interval(self["samplingPopulation"] / self["samplingSize"]),
                _interval(1 / np.where(probability > 0, probability, np.inf)), hashed)

    def _systematic(self, taken: str, space: str, alone: int = 1) -> Intervals:
        """Intervals of systematic selection: so many are taken, then so many are not.

        Exporters that send no space use the number that is taken for N of "1 in N".

        Args:
            taken, space: elements.
            alone: number that is taken where only the space is reported; 0: not known.
        """
        if space not in self.columns:
            return _interval(self[taken])
        number = self[taken] if taken in self.columns else np.full(self.count, float(alone))
        return _interval((number + self[space]) / number)

    def __getitem__(self, name: str) -> Intervals:
        column = self.columns.get(name)
        return np.zeros(self.count) if column is None else column


def _interval(values: Intervals) -> Intervals:
    """Values that can be an interval; 0 for the others."""
    return np.where((values >= 1) & (values < HIGHEST_INTERVAL), values, 0)


def _first(*choices: Intervals) -> Intervals:
    """Of each record the first of the values that is not 0."""
    found = choices[0]
    for values in choices[1:]:
        found = np.where(found == 0, values, found)
    return found


def _by_algorithm(algorithm: Intervals, counted: Intervals, timed: Intervals, sizes: Intervals, probability: Intervals,
                  hashed: Intervals) -> Intervals:
    """The interval by the parameters that belong to the algorithm; filters by property select all they are about."""
    choices = {SelectorAlgorithm.COUNT: counted, SelectorAlgorithm.TIME: timed, SelectorAlgorithm.N_OUT_OF_N: sizes,
               SelectorAlgorithm.PROBABILITY: probability, SelectorAlgorithm.PROPERTY: np.ones(len(algorithm)),
               **dict.fromkeys(_HASHES, hashed)}
    return np.select([algorithm == int(which) for which in choices], list(choices.values()), 0.0)


def _floats(column: npt.NDArray[Any]) -> Intervals:
    """A column as float64; 0 for what is no number."""
    if column.dtype.kind == "f":
        values = column.astype(np.float64)
        return np.where(np.isfinite(values), values, 0)
    return numbers(column).astype(np.float64)


def numbers(column: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """A column as integers; 0 for other types."""
    if column.dtype.kind == "V" and column.dtype.itemsize <= 8:
        return big_endian(column)
    if column.dtype.kind in "ui":
        return column.astype(np.uint64)
    return np.zeros(len(column), np.uint64)
