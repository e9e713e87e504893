"""Fields' own numbers among the columns of flows, and what several flows together have of a column."""

from __future__ import annotations

from flowtop.fields.registry import MEASURES
from flowtop.model.flows import TOGETHER, Array, ColumnsAt, FlowSource, Slots, Together, with_columns


class _Measured:
    """A source's columns, and with them the measures of fields, worked out when they are first asked for."""

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
    """Every measure of the flows in these slots, by field id; of a `measured` source, worked out for these alone."""
    columns = source.columns
    if not isinstance(columns, _Measured):
        return {name: columns[name][slots] for name in MEASURES}
    some = with_columns(columns.source, ColumnsAt(columns.source.columns, slots), source.visible[slots])
    return {name: measure.values(some) for name, measure in MEASURES.items()}


def measured(source: FlowSource) -> FlowSource:
    """The source with a column more for each field that has a Measure, named by the field's id. Answers read these."""
    if not MEASURES or isinstance(source.columns, _Measured):
        return source
    return with_columns(source, _Measured(source), source.visible)


def together(name: str) -> Together:
    """What groups and biflows have of the column, or the measure, of that name."""
    measure = MEASURES.get(name)
    return TOGETHER.get(name, "none") if measure is None else measure.together
