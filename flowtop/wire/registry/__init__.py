"""The registries of Information Elements as data files: IANA's, and those of enterprises.

Each file begins with lines of `#` that say where its content is from and how old it is.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib.resources import files

IANA_FILE = "iana.csv"
ENTERPRISES_FILE = "enterprises.csv"


def read_rows(name: str) -> Iterator[dict[str, str]]:
    """The rows of a data file of this package, by column."""
    lines = files(__package__ or "").joinpath(name).read_text(encoding="utf-8").splitlines()
    return csv.DictReader(line for line in lines if not line.startswith("#"))
