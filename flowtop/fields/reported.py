"""Fields that only exporters report: interfaces in and out, routing, NAT, VRF, application, events, sampling."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from flowtop.fields import make
from flowtop.fields.columns import Column, Wording
from flowtop.fields.field import Detail, DetailFormatter, Field, FilterKey, GroupField, Key, Known, Measure, Member
from flowtop.fields.points import INTERFACE_NAMES
from flowtop.model.flows import Array, FlowColumns, address_words, egress_ifindex, ingress_ifindex
from flowtop.model.kinds import IpVersion
from flowtop.model.reported import (
    APPLICATION_IDS,
    APPLICATIONS,
    INTERFACE_NUMBERS,
    VRF_IDS,
    VRFS,
    absent,
    plain_address,
)
from flowtop.model.rows import FlowRow, FlowValues
from flowtop.text import operands, quantities
from flowtop.text.lookups import Lookups, Texts

_COLLECTOR: tuple[Known, ...] = ("collector",)
_PRIORITY = 14
"""Of the columns: they are the first to be left out."""
_UNSIGNED32 = operands.ReadInteger(0, (1 << 32) - 1)

FIREWALL_EVENTS = {"ignore": 0, "created": 1, "deleted": 2, "denied": 3, "alert": 4, "updated": 5}
"""firewallEvent (IE 233)."""
NAT_EVENTS = {
    "nat-create": 1, "nat-delete": 2, "addresses-exhausted": 3, "nat44-create": 4, "nat44-delete": 5, "nat64-create": 6,
    "nat64-delete": 7, "nat44-bib-create": 8, "nat44-bib-delete": 9, "nat64-bib-create": 10, "nat64-bib-delete": 11,
    "ports-exhausted": 12, "quota-exceeded": 13, "binding-create": 14, "binding-delete": 15, "port-block-allocate": 16,
    "port-block-release": 17, "threshold-reached": 18,
}
"""natEvent (IE 230), RFC 8158 section 4.3; `nat44-create` is "NAT44 session create", and so on."""


def of_records(name: str) -> Callable[[FlowColumns], Array]:
    """The member of Flow Records, 0 where they do not have it."""
    def values(records: FlowColumns) -> Array:
        try:
            return records[name]
        except (KeyError, ValueError):  # narrow records, also behind ColumnsAt
            ids = records["flow_id"]
            return absent(name, len(ids)) if np.ndim(ids) else np.zeros_like(ids)  # a single record
    return values


def _reported(made: Field, term: Callable[[FlowRow, Lookups], str] | None = None) -> Field:
    """The field as one of exporters' reports: shown and measured only when there are some."""
    assert made.column and made.measure
    column = replace(made.column, of_reports=True, term=term or made.column.term)
    return made.but(column=column, biflow_columns=(column,), measure=replace(made.measure, reported=True),
                    group=made.group and replace(made.group, of_exporters=True),
                    detail=made.detail and replace(made.detail, line=made.detail.line.replace("_", " "), of_way=False,
                                                   optional=True, rank=8))


def _number(name: str, header: str, doc: str, json: str, word: str, *, read: Callable[[str], float] = _UNSIGNED32,
            expected: str = "a whole number", text: Callable[[int], str] = str, width: int = 6, group: bool = True,
            example: str = "") -> Field:
    """A number that is in REPORTED_DTYPE as it is; 0: not reported."""
    made = make.numeric(
        name, header, doc, json=json, values=lambda source: source.columns[name], records=of_records(name), text=text,
        width=width, priority=_PRIORITY, word=word, read=read, expected=expected, example=example or f"{word} 1",
        group=group, zero_unknown=True, known=_COLLECTOR)
    return _reported(made, lambda row, _: f"{word} {text(row.more[name])}" if row.more.get(name) else "")


# ---- interfaces


def _interface(name: str, header: str, doc: str, json: str, word: str, codes: Callable[[FlowColumns], Array]) -> Field:
    """The interface on one side; its number in JSON is the exporter's own."""
    def records(columns: FlowColumns) -> Array:
        return codes(_Completed(columns))

    def number(code: int, lookups: Lookups) -> int | None:
        text = lookups.named(INTERFACE_NUMBERS).get(code, "")
        return int(text) if text else None

    made = make.text(
        name, header, doc, json=json, texts=_INTERFACE_NAMES, codes=lambda source: codes(source.columns),
        records=records, width=6, priority=_PRIORITY, word=word, example=f"{word} Gi*",
        expected="an interface's name, such as eth0 or veth*", known=_COLLECTOR)
    assert made.column and made.group
    column = replace(made.column, of_exporters=True)

    def value(flow: FlowValues, lookups: Lookups) -> int | None:
        return number(flow.more.get(name, 0), lookups)

    def values(key: Key, lookups: Lookups) -> dict[str, int]:
        found = number(key[0], lookups)
        return {} if found is None else {json: found}

    return made.but(column=column, biflow_columns=(column,), members=(Member(json, value, doc, of_packets=True),),
                    group=_with_unknown(replace(made.group, of_exporters=True, values=values, keys=lambda columns: (
                        codes(columns),)), word), detail=None)


_INTERFACE_NAMES = replace(INTERFACE_NAMES, missing=lambda ifindex: f"if{ifindex}" if ifindex else "")


def _with_unknown(group: GroupField, word: str) -> GroupField:
    """The group field of a text, with a filter for flows that have none."""
    return replace(group, term=lambda key, lookups: group.term(key, lookups) or f"not {word} ?*")


class _Completed:
    """Columns of Flow Records with an `other_ifindex`; 0 where they have none."""

    def __init__(self, columns: FlowColumns) -> None:
        self._columns = columns

    def __getitem__(self, name: str) -> Array:
        try:
            return self._columns[name]
        except (KeyError, ValueError):
            return np.zeros(np.shape(self._columns["flow_id"]), np.uint32)


# ---- texts


def _text(name: str, header: str, doc: str, json: str, word: str, table: str, *, expected: str, width: int = 8,
          ids: tuple[str, str] | None = None) -> Field:
    """A text by the code in REPORTED_DTYPE; `ids`: JSON key and table of its number, if it has one of its own."""
    def missing(_: int) -> str:
        return ""

    made = make.text(
        name, header, doc, json=json, texts=Texts(lambda lookups: lookups.named(table), missing),
        codes=lambda source: source.columns[name], records=of_records(name), width=width, priority=_PRIORITY,
        word=word, expected=expected, known=_COLLECTOR)
    assert made.group
    made = made.but(group=_with_unknown(made.group, word))
    if ids is None:
        return _reported(made)
    key, id_table = ids

    def value(flow: FlowValues, lookups: Lookups) -> str | int | None:
        found = lookups.named(id_table).get(flow.more.get(name, 0))
        return int(found) if found and id_table == VRF_IDS else found

    def named(flow: FlowValues, lookups: Lookups) -> str | int | float | None:
        text = made.members[0].value(flow, lookups)
        return None if text == lookups.named(id_table).get(flow.more.get(name, 0)) else text  # no name is known

    return _reported(made.but(members=(replace(made.members[0], value=named), Member(key, value, "", of_packets=True))))


# ---- addresses


def _address_text(raw: object) -> str:
    """Text of an address of REPORTED_DTYPE; "" for none, and for groups, which have 0."""
    if not isinstance(raw, bytes) or not any(raw):
        return ""
    octets, version = plain_address(raw)
    return socket.inet_ntop(socket.AF_INET if version == IpVersion.V4 else socket.AF_INET6, octets)


def _of_words(key: Key) -> str:
    return _address_text(key[0].to_bytes(8, "big") + key[1].to_bytes(8, "big"))


def _address(name: str, header: str, doc: str, json: str, word: str, *, port: str = "") -> Field:
    """An address of REPORTED_DTYPE; `json` with a place for the IP version; `port`: the member with its port."""
    def text(row: FlowRow, _: Wording, __: Lookups) -> str:
        address, number = _address_text(row.more.get(name)), row.more.get(port) if port else 0
        if not address or not number:
            return address
        return f"[{address}]:{number}" if ":" in address else f"{address}:{number}"

    def term(row: FlowRow, _: Lookups) -> str:
        address = _address_text(row.more.get(name))
        return f"{word} {address}" if address else ""

    def member(version: int) -> Member:
        def value(flow: FlowValues, _: Lookups) -> str | None:
            address = _address_text(flow.more.get(name))
            return address if address and (":" in address) == (version == IpVersion.V6) else None

        return Member(json.format(version), value, doc, of_packets=True)

    def values(key: Key, _: Lookups) -> dict[str, str]:
        address = _of_words(key)
        return {json.format(IpVersion.V6 if ":" in address else IpVersion.V4): address} if address else {}

    column = Column(name, header, max(len(header), 9), doc, text,
                    (lambda columns: address_words(columns, name)[0], lambda columns: address_words(columns, name)[1]),
                    _PRIORITY, term, of_reports=True, of_addresses=True)

    def detail(row: FlowRow, formatter: DetailFormatter) -> str:
        return text(row, formatter.wording, formatter.lookups)

    return Field(
        name, doc, column=column, biflow_columns=(column,),
        key=FilterKey(word, doc, f"{word} 192.0.2.0/24", "an address or network such as 192.0.2.1 or 10/8",
                      quantities.count, lambda source: source.columns[name], of_records(name), "address"),
        group=GroupField(name, header, 15, doc, lambda columns: address_words(columns, name), parts=2,
                         text=lambda key, _: _of_words(key) or "-",
                         term=lambda key, _: f"{word} {_of_words(key)}" if _of_words(key) else
                         f"not {word} 0.0.0.0/0 and not {word} ::/0",
                         values=values, members=tuple(json.format(version) for version in IpVersion),
                         of_exporters=True),
        members=tuple(member(version) for version in IpVersion),
        detail=Detail(word.replace("_", " "), detail, of_way=False, optional=True, rank=8),
        measure=Measure(lambda source: source.columns[name], "none", of_records(name), reported=True),
        known=_COLLECTOR)


# ---- the rest


def _mask(side: str) -> Field:
    """The prefix length of one end's route."""
    made = _number(
        f"{side}_mask", {"source": "SMASK", "destination": "DMASK"}[side],
        f"With -l: prefix length of the {side}'s route.", f"{side}IPv4PrefixLength",
        {"source": "src_mask", "destination": "dst_mask"}[side], read=operands.ReadInteger(0, 128),
        expected="a prefix length, 0 to 128", width=5, group=False)

    def member(version: int) -> Member:
        def value(flow: FlowValues, _: Lookups) -> int | None:
            return (flow.more.get(f"{side}_mask") or None) if flow.ip_version == version else None

        return Member(f"{side}IPv{version}PrefixLength", value, made.doc, of_packets=True)

    return made.but(members=tuple(member(version) for version in IpVersion))


def _label_and_one(columns: FlowColumns) -> Array:
    """The label + 1; 0: none. Label 0 (explicit null) is a label."""
    entry = columns["mpls_top_label"].astype(np.uint32)
    return np.where(entry != 0, (entry >> np.uint32(4)) + np.uint32(1), np.uint32(0))


def _mpls_label() -> Field:
    def records(columns: FlowColumns) -> Array:
        return _label_and_one(_CompletedLabel(columns))

    doc = "With -l: label at the top of the MPLS stack."
    made = make.numeric(
        "mpls_label", "LABEL", doc, json="mplsTopLabel", values=lambda source: _label_and_one(source.columns),
        records=records, text=lambda number: str(number - 1), width=7, priority=_PRIORITY, read=operands.ReadInteger(
            0, (1 << 20) - 1), expected="a label, 0 to 1048575", example="mpls_label 24000", group=True,
        zero_unknown=True, known=_COLLECTOR)
    assert made.key and made.group

    def label(flow: FlowValues, _: Lookups) -> int | None:
        number = flow.more.get("mpls_label")
        return number - 1 if number else None

    return _reported(made.but(
        key=replace(made.key, flows=lambda source: make.where_known(_label_and_one(source.columns)) - 1,
                    records=lambda columns: make.where_known(records(columns)) - 1),
        group=replace(made.group, keys=lambda columns: (_label_and_one(columns),),
                      term=lambda key, _: f"mpls_label {key[0] - 1}" if key[0] else "not mpls_label >= 0",
                      values=lambda key, _: {"mplsTopLabel": key[0] - 1} if key[0] else {}),
        members=(Member("mplsTopLabel", label, doc, of_packets=True, holds=int),)),
        lambda row, _: f"mpls_label {row.more['mpls_label'] - 1}" if row.more.get("mpls_label") else "")


class _CompletedLabel:
    def __init__(self, columns: FlowColumns) -> None:
        self._columns = columns

    def __getitem__(self, name: str) -> Array:
        return of_records(name)(self._columns)


def _event(name: str, header: str, doc: str, json: str, word: str, names: Mapping[str, int]) -> Field:
    """An event: its number in JSON, its name elsewhere."""
    by_number = {number: text for text, number in names.items()}
    made = _number(name, header, doc, json, word, read=operands.named(dict(names), 0, 255),
                   expected=f"an event such as {next(iter(list(names)[1:]))}, or its number",
                   text=lambda number: by_number.get(number, str(number)), width=len(header),
                   example=f"{word} {list(names)[3]}")
    assert made.key and made.group and made.column
    return made.but(
        key=replace(made.key, choices=tuple(names)),
        group=replace(made.group, width=max(map(len, (header, *names)))),
        column=replace(made.column, align="left", width=max(len(header), 9)))


def _port(side: str, word: str) -> Field:
    made = _number(f"post_nat_{side}_port", "NAT PORT", f"With -l: {side} port after address translation.",
                   f"postNAPT{side.capitalize()}TransportPort", word, read=operands.ReadInteger(0, 65535),
                   expected="a port, 0 to 65535", group=False)
    return made.but(column=None, biflow_columns=(), detail=None)  # shown with the address


def _sampling() -> Field:
    return _number(
        "sampling_interval", "SAMPLED", "With -l: one in this many packets was sampled; counters are multiplied by it.",
        "samplingInterval", "sampling", read=quantities.count, expected="a number such as 100, 10k", width=7,
        example="sampling >= 1000")


_FIELDS = (
    _interface("ingress", "IN IF", "With -l: the exporter's interface where the flow came in.", "ingressInterface",
               "in_if", ingress_ifindex),
    _interface("egress", "OUT IF", "With -l: the exporter's interface where the flow leaves.", "egressInterface",
               "out_if", egress_ifindex),
    _number("source_as", "SRC AS", "With -l: autonomous system of the source.", "bgpSourceAsNumber", "src_as",
            expected="an AS number, such as 64500", width=6, example="src_as 64500"),
    _number("destination_as", "DST AS", "With -l: autonomous system of the destination.", "bgpDestinationAsNumber",
            "dst_as", expected="an AS number, such as 64500", width=6, example="dst_as 64500"),
    _text("application", "APPLICATION", "With -l: application, by name or `engine:selector` (RFC 6759).",
          "applicationName", "app", APPLICATIONS, expected="an application's name, such as http or *dns*", width=11,
          ids=("applicationId", APPLICATION_IDS)),
    _event("firewall_event", "FIREWALL", "With -l: what the firewall reports: created, deleted, denied, ...",
           "firewallEvent", "fw_event", FIREWALL_EVENTS),
    _number("firewall_extended_event", "FW EXT", "With -l: Cisco ASA's extended firewall event.",
            "firewallExtendedEvent", "fw_ext_event", group=False),
    _address("post_nat_source", "NAT SRC", "With -l: source address after translation.",
             "postNATSourceIPv{}Address", "nat_src", port="post_nat_source_port"),
    _port("source", "nat_src_port"),
    _address("post_nat_destination", "NAT DST", "With -l: destination address after translation.",
             "postNATDestinationIPv{}Address", "nat_dst", port="post_nat_destination_port"),
    _port("destination", "nat_dst_port"),
    _event("nat_event", "NAT EVENT", "With -l: event of address translation (RFC 8158).", "natEvent", "nat_event",
           NAT_EVENTS),
    _address("next_hop", "NEXT HOP", "With -l: next hop's address.", "ipNextHopIPv{}Address", "next_hop"),
    _address("bgp_next_hop", "BGP HOP", "With -l: next hop of BGP.", "bgpNextHopIPv{}Address", "bgp_next_hop"),
    _mask("source"),
    _mask("destination"),
    _text("ingress_vrf", "VRF IN", "With -l: VRF where the flow came in, by name or number.", "VRFname", "in_vrf", VRFS,
          expected="a VRF's name or number", ids=("ingressVRFID", VRF_IDS)),
    _text("egress_vrf", "VRF OUT", "With -l: VRF where the flow leaves, by name or number.", "egressVRFname", "out_vrf",
          VRFS, expected="a VRF's name or number", ids=("egressVRFID", VRF_IDS)),
    _mpls_label(),
    _number("sampler", "SAMPLER", "With -l: the sampler or selector that chose the packets.", "selectorId", "sampler"),
    _sampling(),
)

FIELDS = tuple(made.but(members=tuple(replace(member, of_reports=True) for member in made.members)) for made in _FIELDS)
