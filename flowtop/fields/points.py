"""Fields of the Observation Point: its interface, the direction there, the exporter that reported the flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from flowtop.fields import cell_terms as terms
from flowtop.fields import make
from flowtop.fields.columns import ARROWS, Column, Wording, plain
from flowtop.fields.field import Field, FilterKey, GroupField, Key, Member, stored
from flowtop.model.devices import Device
from flowtop.model.exporters import exporter_of, interface_of, point_elements
from flowtop.model.flows import INTO, OUT_OF, Array, FlowColumns
from flowtop.model.kinds import UNKNOWN_DIRECTION, Direction
from flowtop.model.rows import FlowRow, FlowValues
from flowtop.text import operands, units
from flowtop.text.lookups import Lookups, Texts

_LONGEST_POINT = 80
"""An exporter's address and domain, and an interface."""
_NO_EXPORTER = "this host"


def _exporter_address(name: str) -> str:
    exporter = exporter_of(name)
    return exporter.address if exporter else ""


def _domain_number(name: str) -> str:
    exporter = exporter_of(name)
    return str(exporter.domain) if exporter else ""


def _unnamed(ifindex: int) -> str:
    return f"if{ifindex}"


INTERFACE_NAMES = Texts(lambda lookups: lookups.interfaces, _unnamed, interface_of)
_EXPORTERS = replace(INTERFACE_NAMES, part=_exporter_address)
_DOMAINS = replace(INTERFACE_NAMES, part=_domain_number)


def _point(key: Key, lookups: Lookups) -> str:
    return lookups.interfaces.get(key[0], _unnamed(key[0]))


def _point_element(name: str) -> Member:
    """One of the members that `point_elements` gives."""
    def value(flow: FlowValues, lookups: Lookups) -> str | int | None:
        point = lookups.interfaces.get(flow.ifindex, str(flow.ifindex))
        return point_elements(point, units.printable).get(name)

    return Member(name, value)


# ---- the interface


def _interface(row: FlowRow, _: Wording, lookups: Lookups) -> str:
    return units.printable(INTERFACE_NAMES.text(row.ifindex, lookups), 16) or "-"


def _point_term(key: Key, lookups: Lookups) -> str:
    """`if eth0`; for an exporter's interface with the exporter, because others may use the same interface name."""
    name = _point(key, lookups)
    exporter = exporter_of(name)
    if exporter is None:
        return terms.interface_words(name)
    return (f"exporter {exporter.address} and domain {exporter.domain} and {terms.interface_words(exporter.interface)}"
            if exporter.interface else f"exporter {exporter.address} and domain {exporter.domain}")


def _observed(lookups: Lookups) -> tuple[Array, ...]:
    """The ifindex of each device that is observed."""
    return (np.array(sorted(lookups.devices), np.uint32),)


def _received(columns: FlowColumns) -> Array:
    """Which flows came in at their interface; where it is not reported, they count as such."""
    came_in: Array = columns["direction"] != np.uint8(Direction.EGRESS)
    return came_in


_PASSED = [way + name for name in ("octet_total", "packet_total") for way in (INTO, OUT_OF)]


def _passed(keys: tuple[Array, ...], lookups: Lookups) -> tuple[Array, dict[str, Array]]:
    """See GroupField.passed."""
    passed, interfaces = lookups.passed, keys[0]
    if passed is None or not len(passed):
        return np.zeros(len(interfaces), np.bool_), {name: np.zeros(len(interfaces), np.uint64) for name in _PASSED}
    at = np.minimum(np.searchsorted(passed["ifindex"], interfaces), len(passed) - 1)
    return passed["ifindex"][at] == interfaces, {name: passed[name][at] for name in _PASSED}


_UNKNOWN = -1


def _device_facts(keys: tuple[Array, ...], lookups: Lookups) -> dict[str, Array]:
    """What the kernel counts at the interfaces; of coverage, thousandths of a per cent."""
    devices = [lookups.devices.get(ifindex) for ifindex in keys[0].tolist()]
    if not any(devices):
        return {}
    found = {}
    for fact, (number, _) in _DEVICE_NUMBERS.items():
        found[fact] = np.array([_UNKNOWN if device is None else number(device.now) for device in devices], np.int64)
        found[f"{fact} new"] = np.array([0 if device is None else number(device.now) - number(device.first)
                                         for device in devices], np.int64)
    covered = (None if device is None else device.coverage for device in devices)
    found["coverage"] = np.array([_UNKNOWN if part is None else int(part * 100_000) for part in covered], np.int64)
    return found


_DEVICE_NUMBERS: dict[str, tuple[Callable[[Device], int], str]] = {
    "errors": (lambda device: device.in_errors + device.out_errors,
               "Errors that the device has counted, in and out, as in `ip -s link`; + those since the start."),
    "drops": (lambda device: device.in_dropped + device.out_dropped,
              "Packets that the device has dropped, in and out, as in `ip -s link`; + those since the start."),
    "queue_drops": (lambda device: device.queue_drops,
                    "Packets that its queue has dropped, as in `tc -s qdisc`; + those since the start."),
}


def _device_column(fact: str, header: str) -> Column:
    def text(row: FlowRow, _: Wording, __: Lookups) -> str:
        number, new = row.more.get(fact, _UNKNOWN), row.more.get(f"{fact} new", 0)
        if number == _UNKNOWN:
            return ""
        return f"{units.count(number)} +{units.count(new)}" if new > 0 else units.count(number)

    return Column(fact, header, 9, _DEVICE_NUMBERS[fact][1], text, (plain(fact),), 3, lambda _, __: "", "right",
                  descending_first=True, rank=2)


def _coverage_text(row: FlowRow, _: Wording, __: Lookups) -> str:
    part = row.more.get("coverage", _UNKNOWN)
    return "" if part == _UNKNOWN else f"{part // 1000}.{part % 1000 // 10:02} %"


_DEVICE_COLUMNS = (
    _device_column("errors", "ERRORS"), _device_column("drops", "DROPS"), _device_column("queue_drops", "Q-DROPS"),
    Column("coverage", "SEEN", 8, "Of the packets that the device has counted, the part that was seen.", _coverage_text,
           (plain("coverage"),), 3, lambda _, __: "", "right", rank=2))


def _interface_field() -> Field:
    made = make.text(
        "interface", "IF", "Interface of the Observation Point.", json="interfaceName", texts=INTERFACE_NAMES,
        stored="ifindex", width=4, priority=1, word="if", expected="an interface's name, such as eth0 or veth*",
        example="if veth*", of_aggregates=True)
    assert made.column and made.key and made.group
    column = replace(made.column, text=_interface, term=terms.interface_term)
    return made.but(
        column=column, biflow_columns=(replace(column, priority=3),),
        key=replace(made.key, doc="Interface name; * matches any text, ? one character, [ab] one of these."),
        group=replace(
            made.group, rank=2, alike=None,  # two interfaces that had the same name at different times are two groups
            text=lambda key, lookups: units.printable(_point(key, lookups), _LONGEST_POINT), term=_point_term,
            facts=_device_facts, every=_observed, passed=_passed, inward=_received, columns=_DEVICE_COLUMNS,
            values=lambda key, lookups: point_elements(_point(key, lookups), units.printable),
            members=("interfaceName", "exporterIPv4Address", "exporterIPv6Address", "observationDomainId"),
            texts=replace(INTERFACE_NAMES, part=str)),
        members=(replace(_point_element("interfaceName"), rank=2),), detail=None)


# ---- the direction


_DIRECTION_DOC = "← ingress, → egress, at that interface; - not reported by the exporter."
_DIRECTION_COLUMN = Column("direction", "D", 1, _DIRECTION_DOC, lambda row, _, __: ARROWS[row.direction],
                           (plain("direction"),), 1, terms.direction_term)
_DIRECTION = Field(
    "direction", _DIRECTION_DOC, column=_DIRECTION_COLUMN,
    key=FilterKey(
        "dir", "Direction at the interface; unknown: the exporter does not report it.", "dir out", "in, out or unknown",
        operands.ReadChoice((("in", Direction.INGRESS), ("out", Direction.EGRESS), ("ingress", Direction.INGRESS),
                              ("egress", Direction.EGRESS), ("unknown", UNKNOWN_DIRECTION))),
        *stored("direction"), choices=("in", "out", "unknown"), packet="direction", of_aggregates=True),
    group=GroupField(
        "direction", "D", 1, _DIRECTION_DOC, lambda columns: (columns["direction"],),
        text=lambda key, _: ARROWS[key[0]], term=lambda key, _: terms.direction_words(key[0]),
        values=lambda key, _: {} if key[0] == UNKNOWN_DIRECTION else {"flowDirection": key[0]},
        members=("flowDirection",), rank=3),
    members=(Member("flowDirection",
                    lambda flow, _: None if flow.direction == UNKNOWN_DIRECTION else flow.direction, rank=3),))


# ---- exporters


def _exporter_term(key: Key, lookups: Lookups) -> str:
    """`exporter 192.0.2.1`; for flows that no exporter reported: `not exporter ?*`."""
    exporter = exporter_of(_point(key, lookups))
    return f"exporter {exporter.address}" if exporter else "not exporter ?*"


def _domain_term(key: Key, lookups: Lookups) -> str:
    exporter = exporter_of(_point(key, lookups))
    return f"exporter {exporter.address} and domain {exporter.domain}" if exporter else "not exporter ?*"


def _domain_of(ifindex: int, lookups: Lookups) -> tuple[str, int] | None:
    exporter = exporter_of(lookups.interfaces.get(ifindex, ""))
    return exporter and exporter[:2]


def _domain_text(key: Key, lookups: Lookups) -> str:
    exporter = exporter_of(_point(key, lookups))
    return f"{exporter.address} {exporter.domain}" if exporter else _NO_EXPORTER


def _exporter_values(key: Key, lookups: Lookups, *left_out: str) -> dict[str, Any]:
    values = point_elements(_point(key, lookups), units.printable)
    return {name: value for name, value in values.items() if name not in left_out}


def _exporter_field() -> Field:
    made = make.text(
        "exporter", "EXPORTER", "With -l: the exporter that reported the flow.", json="exporterIPv4Address",
        texts=_EXPORTERS, stored="ifindex", width=9, priority=2, example="exporter 192.0.2.*",
        expected="an exporter's address, such as 192.0.2.1", of_aggregates=True, known=("collector",))
    assert made.column and made.key and made.group
    column = replace(made.column, term=terms.exporter_term, of_exporters=True)
    return made.but(
        column=column, biflow_columns=(column,),
        key=replace(made.key, doc=f"{made.doc[:-1]}; * matches any text, ? one character."),
        group=replace(
            made.group, rank=2, width=15, of_exporters=True, term=_exporter_term,
            text=lambda key, lookups: _EXPORTERS.text(key[0], lookups) or _NO_EXPORTER,
            values=lambda key, lookups: _exporter_values(key, lookups, "interfaceName", "observationDomainId"),
            members=("exporterIPv4Address", "exporterIPv6Address")),
        members=(replace(_point_element("exporterIPv4Address"), rank=28),
                 replace(_point_element("exporterIPv6Address"), rank=29)), detail=None)


def _domain_field() -> Field:
    made = make.text(
        "domain", "DOMAIN", "With -l: the exporter's Observation Domain or Source ID.", json="observationDomainId",
        texts=_DOMAINS, stored="ifindex", width=8, priority=9, example="domain 7",
        expected="an Observation Domain, such as 7", align="right", of_aggregates=True, known=("collector",))
    assert made.column and made.group
    column = replace(made.column, term=terms.domain_term, of_exporters=True)
    return made.but(
        column=column, biflow_columns=(column,),
        group=replace(
            made.group, rank=2, width=17, of_exporters=True,
            doc="With -l: the exporter, and its Observation Domain or Source ID.", text=_domain_text,
            term=_domain_term, alike=_domain_of, texts=replace(_DOMAINS, part=str),
            values=lambda key, lookups: _exporter_values(key, lookups, "interfaceName"),
            members=("exporterIPv4Address", "exporterIPv6Address", "observationDomainId")),
        members=(replace(_point_element("observationDomainId"), rank=30),), detail=None)


FIELDS = (_interface_field(), _DIRECTION, _exporter_field(), _domain_field())
