"""Make iana.csv from IANA's registry: `python -m flowtop.wire.registry.refresh ipfix.xml` (or its CSV, or a URL).

https://www.iana.org/assignments/ipfix/ipfix.xml and .../ipfix-information-elements.csv are the originals.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen
from xml.etree import ElementTree

from flowtop.wire.registry import IANA_FILE

_SPACE = "{http://www.iana.org/assignments}"
_ELEMENTS = "ipfix-information-elements"


class Registered(NamedTuple):
    """One Information Element of the registry."""

    number: int
    name: str
    type: str


def parse(text: str) -> tuple[str, list[Registered]]:
    """The date of a registry in IANA's XML or CSV, as YYYY-MM-DD, and its elements by number.

    Numbers that are reserved, unassigned or without a type are left out. CSV has no date: it is the newest element's.

    Raises ValueError: the text is not such a registry.
    """
    date, found = _of_xml(text) if text.lstrip().startswith("<") else _of_csv(text)
    elements = sorted(Registered(int(number), name, type_) for number, name, type_ in found
                      if number.isdigit() and name.isidentifier() and type_)
    if not elements:
        raise ValueError("no Information Elements in this file")
    return date, elements


def _of_xml(text: str) -> tuple[str, list[tuple[str, str, str]]]:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"not IANA's XML: {error}") from error
    registries = [part for part in root.iter(f"{_SPACE}registry") if part.get("id") == _ELEMENTS]
    records = [record for part in registries for record in part.findall(f"{_SPACE}record")]
    return root.findtext(f"{_SPACE}updated", "").strip(), [
        (_text(record, "elementId"), _text(record, "name"), _text(record, "dataType")) for record in records]


def _text(record: ElementTree.Element, tag: str) -> str:
    return (record.findtext(f"{_SPACE}{tag}") or "").strip()


def _of_csv(text: str) -> tuple[str, list[tuple[str, str, str]]]:
    rows = list(csv.DictReader(io.StringIO(text)))
    return max((row.get("Date") or "" for row in rows), default=""), [
        ((row.get("ElementID") or "").strip(), (row.get("Name") or "").strip(),
         (row.get("Abstract Data Type") or "").strip()) for row in rows]


def lines(date: str, elements: list[Registered]) -> Iterator[str]:
    """The lines of iana.csv."""
    yield f"# The IANA registry of IPFIX Information Elements (https://www.iana.org/assignments/ipfix) of {date}."
    yield "# Made by python -m flowtop.wire.registry.refresh; reserved and unassigned numbers are left out."
    yield ",".join(Registered._fields)
    for element in elements:
        yield f"{element.number},{element.name},{element.type}"


def main(arguments: list[str]) -> int:
    """Write iana.csv from the file or URL given; 2 if there is none."""
    if len(arguments) != 1:
        print("usage: python -m flowtop.wire.registry.refresh FILE|URL", file=sys.stderr)
        return 2
    source = arguments[0]
    if "://" in source:
        with urlopen(source, timeout=60) as answer:
            text = answer.read().decode()
    else:
        text = Path(source).read_text(encoding="utf-8")
    date, elements = parse(text)
    Path(__file__).with_name(IANA_FILE).write_text("".join(f"{line}\n" for line in lines(date, elements)),
                                                   encoding="utf-8")
    print(f"{len(elements)} elements of {date}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
