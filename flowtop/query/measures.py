"""Measures of fields as columns of flows, and how columns combine for several flows together."""

from __future__ import annotations

from flowtop.fields.registry import MEASURES
from flowtop.model.flows import TOGETHER, Array, ColumnsAt, FlowSource, Slots, Together, reports, with_columns


class _Measured:
    """The columns of a source and the measures of fields. A measure is computed at its first use."""

    def __init__(self, source: FlowSource) -> None:
        self.source = source
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

    Those that exporters report are left out as long as none has reported any.
    """
    columns = source.columns
    reported = reports(columns.source.columns if isinstance(columns, _Measured) else columns)
    names = [name for name, measure in MEASURES.items() if reported or not measure.reported]
    if not isinstance(columns, _Measured):
        return {name: columns[name][slots] for name in names}
    some = with_columns(columns.source, ColumnsAt(columns.source.columns, slots), source.visible[slots])
    return {name: MEASURES[name].values(some) for name in names}


def measured(source: FlowSource) -> FlowSource:
    """The source with one more column for each field that has a Measure; its name is the field's id."""
    if not MEASURES or isinstance(source.columns, _Measured):
        return source
    return with_columns(source, _Measured(source), source.visible)


def together(name: str) -> Together:
    """How the column or measure with this name is combined in groups and biflows."""
    measure = MEASURES.get(name)
    return TOGETHER.get(name, "none") if measure is None else measure.together
