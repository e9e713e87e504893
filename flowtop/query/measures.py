"""Measures of fields as columns of flows, and how columns combine for several flows together."""

from __future__ import annotations

from flowtop.fields.networks import NetworkColumns, RemoteEnds, networked
from flowtop.fields.registry import MEASURES
from flowtop.model.flows import (
    TOGETHER,
    Array,
    ColumnsAt,
    FlowColumns,
    FlowSource,
    Slots,
    Subset,
    Together,
    reports,
    with_columns,
)
from flowtop.text.lookups import NO_LOOKUPS, Here, Lookups, Networks


class _Measured:
    """The columns of a source and the measures of fields. A measure is computed at its first use."""

    def __init__(self, source: FlowSource, networks: Networks | None, here: Here | None,
                 ends: RemoteEnds | None) -> None:
        columns = networked(source.columns, networks, here)
        self.source = with_columns(source, columns if ends is None else ends.fill(columns), source.visible)
        self.networks, self.here = networks, here
        self._made: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        measure = MEASURES.get(name)
        if measure is None:
            return self.source.columns[name]
        if name not in self._made:
            self._made[name] = measure.values(self.source)
        return self._made[name]


def measures_at(source: FlowSource, slots: Slots) -> dict[str, Array]:
    """Every measure of the flows in these slots, by field id. For a `measured` source only these are computed.

    Those that exporters report are left out as long as none has reported any, those of databases without databases.
    """
    columns = source.columns
    reported = reports(columns.source.columns if isinstance(columns, _Measured) else columns)
    networks, here = about_addresses(columns)
    names = [name for name, measure in MEASURES.items()
             if (reported or not measure.reported) and (networks is not None or not measure.of_networks)]
    if not isinstance(columns, _Measured):
        return {name: columns[name][slots] for name in names}
    there = networked(ColumnsAt(columns.source.columns, slots), networks, here)
    some = with_columns(columns.source, there, source.visible[slots])
    return {name: MEASURES[name].values(some) for name in names}


def columns_at(source: FlowSource, slots: Slots, *, ascending: bool = True) -> FlowColumns:
    """The columns at these slots; `ascending`: in order, each once. Of a `measured` source, measures are computed for
    these alone: the columns of the whole source would compute them for all of its flows."""
    columns, make = source.columns, Subset if ascending else ColumnsAt
    if not isinstance(columns, _Measured):
        return make(columns, slots)
    there = networked(make(columns.source.columns, slots), columns.networks, columns.here)
    return _Measured(with_columns(columns.source, there, source.visible[slots]), columns.networks, columns.here, None)


def about_addresses(columns: FlowColumns) -> tuple[Networks | None, Here | None]:
    """What the columns of a `measured` source ask about addresses: databases of networks, and those of this host."""
    return (columns.networks, columns.here) if isinstance(columns, _Measured | NetworkColumns) else (None, None)


def measured(source: FlowSource, lookups: Lookups = NO_LOOKUPS, ends: RemoteEnds | None = None) -> FlowSource:
    """The source with one more column for each field that has a Measure; its name is the field's id.

    Args:
        lookups: has what is known about addresses.
        ends: kept from call to call; None: nothing is.
    """
    if not MEASURES or isinstance(source.columns, _Measured):
        return source
    return with_columns(source, _Measured(source, lookups.networks, lookups.here, ends), source.visible)


def together(name: str) -> Together:
    """How the column or measure with this name is combined in groups and biflows."""
    measure = MEASURES.get(name)
    return TOGETHER.get(name, "none") if measure is None else measure.together
