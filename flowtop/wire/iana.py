"""The IANA IPFIX registry: names, numbers and types of Information Elements, to decode other exporters' Templates.

Elements that flowtop exports are in flowtop/model/elements.py, with units and meaning; this is the whole registry, and
what is known of enterprises' elements (flowtop/wire/registry). A file is read when the first element is looked up.
Reverse elements (RFC 5103) are derived from the forward ones.
"""

from __future__ import annotations

from functools import cache

from flowtop.model.elements import Element, reverse_name
from flowtop.wire.registry import ENTERPRISES_FILE, IANA_FILE, read_rows

REVERSE_ENTERPRISE = 29305
"""Private enterprise number of reverse elements (RFC 5103)."""
CERT_ENTERPRISE = 6871
CERT_REVERSE = 0x4000
"""Bit in the numbers of reverse elements of CERT."""
FIRST_VENDOR_TYPE = 0x8000
"""NetFlow 9 field types from here on belong to the exporter's vendor; IPFIX has enterprise numbers instead."""


@cache
def _registry() -> dict[int, Element]:
    return {int(row["number"]): Element(row["name"], int(row["number"]), row["type"]) for row in read_rows(IANA_FILE)}


@cache
def _enterprises() -> dict[tuple[int, int], Element]:
    return {(int(row["enterprise"]), int(row["number"])): Element(
        row["name"], int(row["number"]), row["type"], enterprise=int(row["enterprise"]))
        for row in read_rows(ENTERPRISES_FILE)}


def registered(number: int, enterprise: int = 0) -> Element | None:
    """The known element; with REVERSE_ENTERPRISE the reverse of IANA's. None if unknown.

    Enterprise 0 with a number from FIRST_VENDOR_TYPE on is a vendor's field type of NetFlow 9.
    """
    if enterprise == REVERSE_ENTERPRISE or (not enterprise and number < FIRST_VENDOR_TYPE):
        element = _registry().get(number)
        return element if element is None or not enterprise else _reverse(element, number, enterprise)
    element = _enterprises().get((enterprise, number))
    if element is None and enterprise == CERT_ENTERPRISE and number & CERT_REVERSE:
        forward = _enterprises().get((enterprise, number ^ CERT_REVERSE))
        return None if forward is None else _reverse(forward, number, enterprise)
    return element


def _reverse(element: Element, number: int, enterprise: int) -> Element:
    return Element(reverse_name(element.name), number, element.type, enterprise=enterprise)


@cache
def _registry_by_name() -> dict[str, Element]:
    return {element.name: element for element in _registry().values()}


def names() -> list[str]:
    """Every name of the registry."""
    return list(_registry_by_name())


def named(name: str) -> Element | None:
    """The registry's entry of that name; of a reverse element (RFC 5103) the derived one. None: there is none."""
    element = _registry_by_name().get(name)
    if element is not None or not name.startswith("reverse"):
        return element
    forward = name.removeprefix("reverse")
    element = _registry_by_name().get(forward[:1].lower() + forward[1:])
    return None if element is None else registered(element.number, REVERSE_ENTERPRISE)
