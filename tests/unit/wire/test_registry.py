"""The registries of Information Elements: IANA's as of its date, enterprises' names, and the script that refreshes."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from flowtop.model.elements import ELEMENTS, reverse_name
from flowtop.wire import iana
from flowtop.wire.ipfix_template import FieldSpecifier
from flowtop.wire.registry import ENTERPRISES_FILE, IANA_FILE, read_rows, refresh

TYPES = {
    "octetArray", "unsigned8", "unsigned16", "unsigned32", "unsigned64", "signed8", "signed16", "signed32", "signed64",
    "float32", "float64", "boolean", "macAddress", "string", "dateTimeSeconds", "dateTimeMilliseconds",
    "dateTimeMicroseconds", "dateTimeNanoseconds", "ipv4Address", "ipv6Address", "basicList", "subTemplateList",
    "subTemplateMultiList", "unsigned256"}
"""The abstract data types of RFC 7012, RFC 6313 and RFC 9740."""


@pytest.mark.parametrize(("number", "name", "type_"), [
    (1, "octetDeltaCount", "unsigned64"),  # RFC 5102
    (137, "commonPropertiesId", "unsigned64"),
    (292, "subTemplateList", "subTemplateList"),  # RFC 6313
    (313, "ipHeaderPacketSection", "octetArray"),  # RFC 5477
    (434, "mibObjectValueInteger", "signed32"),  # RFC 8038
    (468, "httpUserAgent", "string"),
    (471, "maxSessionEntries", "unsigned32"),  # RFC 8158
    (484, "bgpSourceCommunityList", "basicList"),  # RFC 8549
    (495, "srhActiveSegmentIPv6", "ipv6Address"),  # RFC 9487
    (507, "gtpuTEid", "unsigned32"),
    (515, "ipv6ExtensionHeadersFull", "unsigned256"),  # RFC 9740
    (520, "tcpOptionsFull", "unsigned256"),
    (526, "udpUnsafeOptions", "unsigned64"),  # RFC 9870
    (529, "udpUnsafeExIDList", "basicList"),
])
def test_elements_of_the_documents_that_define_them(number: int, name: str, type_: str) -> None:
    element = iana.registered(number)
    assert element and (element.name, element.type) == (name, type_)
    assert iana.named(name) == element
    reverse = iana.registered(number, 29305)
    assert reverse and reverse.name == f"reverse{name[0].upper()}{name[1:]}"


def test_the_file_is_whole_and_says_its_date() -> None:
    rows = list(read_rows(IANA_FILE))
    numbers = [int(row["number"]) for row in rows]
    assert numbers == sorted(set(numbers)) and len(numbers) >= 500 and max(numbers) >= 529
    assert {row["type"] for row in rows} <= TYPES
    assert len({row["name"] for row in rows}) == len(rows)
    text = files("flowtop.wire.registry").joinpath(IANA_FILE).read_text(encoding="utf-8")
    assert re.search(r"of 20\d\d-\d\d-\d\d\.\n", text)


def test_the_registry_has_what_flowtop_exports() -> None:
    for element in ELEMENTS.values():
        registered = iana.registered(element.number, element.enterprise)
        assert registered and (registered.name, registered.type) == (element.name, element.type)


@pytest.mark.parametrize(("enterprise", "number", "name"), [
    (9, 12_235, "ciscoApplicationHTTPHost"), (637, 91, "aluInsideServiceId"), (2011, 1, "huaweiIngressGponGemPortId"),
    (2636, 137, "juniperCommonPropertiesId"), (3054, 110, "ixiaL7ApplicationID"), (5951, 128, "netscalerRoundTripTime"),
    (6871, 14, "initialTCPFlags"), (6871, 14 | 0x4000, "reverseInitialTCPFlags"), (6876, 880, "vmwareTenantProtocol"),
    (10_704, 2, "barracudaLogOp"), (35_632, 118, "ntopL7Proto"), (0, 33_002, "fwExtEvent"), (0, 40_000, "aaaUsername"),
    (0, 56_701, "paloAltoAppId"), (0, 57_590, "ntopL7Proto"),
])
def test_elements_of_enterprises_have_names(enterprise: int, number: int, name: str) -> None:
    assert FieldSpecifier(number, 4, enterprise).name == name


def test_no_enterprise_has_a_name_of_iana() -> None:
    """The collector reads flows by name: an enterprise's element must not be taken for one of IANA's."""
    reserved = set(iana.names()) | set(map(reverse_name, iana.names()))
    for row in read_rows(ENTERPRISES_FILE):
        assert row["name"].replace("-", "").isidentifier() and row["name"] not in reserved and row["type"] in TYPES, row


XML = """<?xml version='1.0'?>
<registry xmlns="http://www.iana.org/assignments" id="ipfix"><updated>2026-03-04</updated>
 <registry id="ipfix-information-elements">
  <record><name>Reserved</name><elementId>0</elementId></record>
  <record><name>second</name><dataType>string</dataType><elementId>2</elementId></record>
  <record><name>first</name><dataType>unsigned8</dataType><elementId> 1 </elementId></record>
  <record><name>Unassigned</name><elementId>3-32767</elementId></record>
 </registry>
 <registry id="other"><record><name>x</name><dataType>string</dataType><elementId>9</elementId></record></registry>
</registry>"""
CSV = """ElementID,Name,Abstract Data Type,Data Type Semantics,Status,Description,Units,Range,Date
0,Reserved,,,,,,,2013-02-18
1,first,unsigned8,,current,"Two
lines, with a comma",,,2025-01-02
2,second,string,,current,,,,2026-03-04
3-32767,Unassigned,,,,,,,
"""


@pytest.mark.parametrize("text", [XML, CSV])
def test_the_registry_is_refreshed_from_what_iana_publishes(text: str) -> None:
    assert refresh.parse(text) == ("2026-03-04", [(1, "first", "unsigned8"), (2, "second", "string")])
    assert list(refresh.lines(*refresh.parse(text)))[2:] == ["number,name,type", "1,first,unsigned8", "2,second,string"]


@pytest.mark.parametrize("text", ["", "<html>", "<registry/>", "a,b\n1,2\n"])
def test_another_file_is_no_registry(text: str) -> None:
    with pytest.raises(ValueError):
        refresh.parse(text)
