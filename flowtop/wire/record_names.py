"""Names of interfaces in Flow Records: which field names which interface."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from flowtop.wire.ipfix import Records
from flowtop.wire.ipfix_template import Template
from flowtop.wire.record_fields import RecordFields

_NUMBERS = frozenset({"ingressInterface", "egressInterface", "ingressPhysicalInterface", "egressPhysicalInterface"})
_NAMES = ("interfaceName", "interfaceDescription")
_LONGEST = 64


def name_fields(template: Template) -> dict[str, str]:
    """By the field with the number of an interface: the field with its name. "" for the Observation Point's.

    A name is of the interface that is before it in the Template (Open vSwitch), else of the ingress interface, else of
    the Observation Point (NetObserv: its records have no numbers). Names are preferred to descriptions.
    """
    names = [name for name, _ in template.named_fields]
    if not any(name in names for name in _NAMES):
        return {}
    found: dict[str, str] = {}
    number = next((name for name in names if name in _NUMBERS), "")
    for name in names:
        base = name.partition("#")[0]
        if name in _NUMBERS:
            number = name
        elif base in _NAMES and (number not in found or (found[number].startswith(_NAMES[1])
                                                          and base == _NAMES[0])):
            found[number] = name
    return found


def interface_names(template: Template, records: Records) -> Iterator[tuple[npt.NDArray[np.uint64] | None,
                                                                            list[str], npt.NDArray[np.intp]]]:
    """For each field with names: the number of each record's interface (None: of the Observation Point), the different
    names, and which of them is each record's, shape (n,). "" is no name."""
    fields = RecordFields(records)
    for number, name in name_fields(template).items():
        if records.dtype[name].kind not in "SO":
            continue
        different, inverse = np.unique(records[name], return_inverse=True)
        numbers = fields.integers((number,)) if number else None
        if number and numbers is None:
            continue
        texts = list(map(plain_name, different.tolist()))
        yield None if numbers is None else numbers.astype(np.uint64), texts, inverse


def plain_name(octets: bytes) -> str:
    """The text of a name, which ends before the first NUL."""
    return octets.partition(b"\0")[0].decode("utf-8", "replace").strip()[:_LONGEST]
