"""Option types for durations, sizes and counts: the grammar of flowtop.text.quantities, in a range."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

from flowtop.text import quantities
from flowtop.text.quantities import QuantityError


class Factor(click.FloatRange):
    """A factor in a range; "nan" compares with nothing and is in none."""

    name = "factor"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click.ParamType."""
        factor = float(super().convert(value, param, ctx))
        if math.isnan(factor):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return factor


class Duration(click.FloatRange):
    """Seconds in a range: `500ms`, `1h30m`; a number without a unit is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click.ParamType."""
        seconds = _read(self, quantities.seconds, value, param, ctx)
        try:
            return float(super().convert(seconds, param, ctx))
        except click.BadParameter:
            self.fail(f'"{value}" is not in the range from {self.min:g} to {self.max:g} seconds.', param, ctx)


class Size(click.IntRange):
    """Octets in a range, fractions dropped: `100M`, `1.5Gi`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See click.ParamType."""
        octets = _read(self, quantities.octets, value, param, ctx)
        if 0 < octets < 1:  # 0 has a meaning of its own
            self.fail(f'"{value}" is less than one octet.', param, ctx)
        return int(super().convert(int(octets), param, ctx))


class Count(click.IntRange):
    """A whole number in a range: `500`, `10k`, `1.5M`."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See click.ParamType."""
        number = _read(self, quantities.count, value, param, ctx)
        if number != int(number):
            self.fail(f"{value!r} is not a whole number.", param, ctx)
        return int(super().convert(int(number), param, ctx))


def _read(kind: click.ParamType[Any], read: Callable[[str], float], value: Any, param: click.Parameter | None,
          ctx: click.Context | None) -> float:
    """The value of a text; a number, as the settings file may have it, is written out first."""
    text = value if isinstance(value, str) else repr(value)
    try:
        return read(text)
    except QuantityError as error:
        if text.lstrip().startswith("-"):
            kind.fail(f'"{text.strip()}" is negative; {error.hint}.', param, ctx)
        kind.fail(f"{error}.", param, ctx)
