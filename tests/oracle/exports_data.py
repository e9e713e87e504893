"""Export datagrams of real devices (shared test data), and what tshark reads in them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.oracle.collectors import ENVIRONMENT, needs, write_pcap

DATA = Path(__file__).parents[3] / "shared" / "data"

GROUPS: dict[str, tuple[str, ...]] = {
    "barracuda": ("ipfix_test_barracuda_tpl", "ipfix_test_barracuda_data256"),
    "ixia256": ("ipfix_test_ixia_tpldata256",),
    "ixia271": ("ipfix_test_ixia_tpldata271",),
    "yaf": ("ipfix_test_yaf_tpls_option_tpl", "ipfix_test_yaf_tpl45841", "ipfix_test_yaf_data45841"),
    "ipfix": ("ipfix",),
    "netflow5": ("netflow5",),
    "mx80": ("netflow5_test_juniper_mx80",),
    "0length": ("netflow9_test_0length_fields_tpl_data",),
    "1941K9": ("netflow9_test_cisco_1941K9",),
    "aci": ("netflow9_test_cisco_aci_tpl256-258", "netflow9_test_cisco_aci_data256"),
    "asa": ("netflow9_test_cisco_asa_1_tpl", "netflow9_test_cisco_asa_1_data"),
    "asr9k": ("netflow9_test_cisco_asr9k_opttpl256", "netflow9_test_cisco_asr9k_opttpl257",
              "netflow9_test_cisco_asr9k_tpl260", "netflow9_test_cisco_asr9k_data260"),
    "nbar": ("netflow9_test_cisco_nbar_opttpl260", "netflow9_test_cisco_nbar_tpl262",
             "netflow9_test_cisco_nbar_data262"),
}
"""Datagrams of one device, Templates first; every good file is in one of them."""
BROKEN = ("netflow5_test_invalid01", "netflow5_test_invalid02")


def data_directory() -> Path:
    """Where the files are; skips the test where they are not."""
    if not (DATA / "netflow").is_dir():
        pytest.skip(f"no datagrams of devices: {DATA} (shared/data) is not there")
    return DATA


def export_files(names: Sequence[str]) -> list[bytes]:
    """The files' octets."""
    directory = data_directory() / "netflow"
    return [(directory / f"{name}.dat").read_bytes() for name in names]


@dataclass
class TsharkMessage:
    """What tshark reads in one datagram.

    Attributes:
        version: 5, 9 or 10.
        sequence: of the header.
        templates: (id, number of fields) in order.
        records: (Set ID, octets, {tshark's field name: its octets, in order of the record}) in order.
    """

    version: int
    sequence: int
    templates: list[tuple[int, int]] = field(default_factory=list)
    records: list[tuple[int, bytes, dict[str, list[bytes]]]] = field(default_factory=list)


def tshark_exports(datagrams: Sequence[bytes], directory: Path) -> list[TsharkMessage]:
    """What tshark reads in datagrams, one session's."""
    path = directory / "datagrams.pcap"
    write_pcap(path, datagrams)
    run = subprocess.run([needs("tshark"), "-r", path, "-T", "pdml", "-J", "cflow"], capture_output=True, check=True,
                         env=ENVIRONMENT)
    return [_message(proto) for proto in ElementTree.fromstring(run.stdout).iterfind(".//proto[@name='cflow']")]


def _message(proto: ElementTree.Element) -> TsharkMessage:
    named = {element.get("name", ""): element.get("show", "") for element in proto}
    message = TsharkMessage(int(named["cflow.version"]), int(named["cflow.sequence"]))
    for part in proto:
        show = part.get("show", "")
        if re.match(r"pdu \d+", show):
            message.records.append((5, *_record(part)))
        elif found := re.match(r"(?:Flow)?Set \d+ \[id=(\d+)\]", show):
            for inner in part:
                if inner.get("show", "").startswith("Flow "):
                    message.records.append((int(found[1]), *_record(inner)))
                elif announced := re.match(r"(?:Options )?Template \(Id = (\d+)\D+(\d+)(?:\D+(\d+))?\)",
                                           inner.get("show", "")):
                    message.templates.append((int(announced[1]), int(announced[2]) + int(announced[3] or 0)))
    return message


def _record(flow: ElementTree.Element) -> tuple[bytes, dict[str, list[bytes]]]:
    fields: dict[str, list[bytes]] = {}
    for element in flow.iter("field"):
        name = element.get("name", "")
        if name.startswith("cflow.") and int(element.get("size", 0)):
            fields.setdefault(name, []).append(bytes.fromhex(element.get("unmaskedvalue") or element.get("value", "")))
    return bytes.fromhex(flow.get("value", "")), fields
