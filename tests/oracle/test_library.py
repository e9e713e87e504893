"""The library against tools that nobody here wrote: tables of captures, and collectors of one's own Templates."""

from __future__ import annotations

import io
import json
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import flowtop
from flowtop import ipfix, netflow
from tests.oracle.collectors import ipfix_dump, nfdump_records, tshark_file, tshark_records
from tests.oracle.exports_data import GROUPS, export_files, tshark_exports
from tests.oracle.test_read import CAPTURES, EXPECTED, NOT_ETHERNET, corrected, expected_table, names

NOW_S = 1_700_000_000.0
RECORDS = [{"sourceIPv4Address": f"10.0.0.{number}", "destinationIPv4Address": "192.0.2.1",
            "sourceTransportPort": 1_000 + number, "destinationTransportPort": 443, "protocolIdentifier": 6,
            "flowStartMilliseconds": 1_699_999_990_000 + number, "flowEndMilliseconds": 1_699_999_999_000 + number,
            "octetDeltaCount": 100 * number, "packetDeltaCount": number} for number in range(1, 101)]
FIELDS = [name if name != "packetDeltaCount" else (name, 4) for name in RECORDS[0]]


@pytest.mark.skipif(not EXPECTED.exists(), reason=f"needs the capture files in {CAPTURES}")
@pytest.mark.parametrize("name", names())
def test_a_capture_read_is_the_table_tshark_has_of_it(name: str) -> None:
    if name == NOT_ETHERNET:
        pytest.skip("tshark takes its addresses for MACs: see shared/data")
    expected = json.loads(EXPECTED.read_text())[name]
    table = flowtop.read(CAPTURES / name)
    found: defaultdict[tuple[Any, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for flow in table.query():
        both = flow.icmp
        port = flow.destination_port if both is None else both[0] * 256 + both[1]
        key = flow.source, flow.destination, flow.protocol, flow.source_port, port
        found[key] = found[key][0] + flow.packets, found[key][1] + flow.bytes
    assert dict(found) == corrected(name, expected_table(expected["outer"]))
    assert (table.books.observed_packets, table.fault) == (expected["packets"], None)


def test_own_templates_are_read_by_ipfix_dump_without_a_complaint(tmp_path: Path) -> None:
    template = ipfix.template(300, [*FIELDS, "interfaceName", (32_473, 7, 4)])
    options = ipfix.template(301, [("observationDomainId", 4), ("exportedFlowRecordTotalCount", 8)], scope=1)
    session = ipfix.ExportSession([template, options], domain=9, datagram=False, max_octets=1_400, clock=lambda: NOW_S)
    records = [record | {"interfaceName": "eth0" * number, "ie32473.7": number}
               for number, record in enumerate(RECORDS, 1)]
    messages = session.messages(template, records[:60]) + session.messages(options, [(9, 60)])
    messages += session.messages(template, records[60:])
    found, complaints = ipfix_dump(b"".join(messages), tmp_path)
    assert complaints == ""
    values = [dict(values) for id_, values in found if id_ == 300]
    assert [(row["sourceIPv4Address"], row["octetDeltaCount"], row["packetDeltaCount"], row["interfaceName"])
            for row in values] == [(record["sourceIPv4Address"], str(record["octetDeltaCount"]),
                                    str(record["packetDeltaCount"]), record["interfaceName"]) for record in records]
    assert [dict(values)["exportedFlowRecordTotalCount"] for id_, values in found if id_ == 301] == ["60"]
    seen, complaints_of_tshark = tshark_file(tmp_path / "messages.ipfix")
    assert complaints_of_tshark == []
    assert [fields[-1][1] for id_, fields in seen if id_ == 300] == [struct.pack(">I", n) for n in range(1, 101)]


def test_tshark_sees_no_gap_in_datagrams_with_templates_again_and_again(tmp_path: Path) -> None:
    template = ipfix.template(300, FIELDS)
    session = ipfix.ExportSession([template], refresh_messages=4, clock=lambda: NOW_S)
    messages = [message for record in RECORDS for message in session.messages(template, [record])]
    assert session.statistics.announcements > 20
    records, complaints = tshark_records(messages, tmp_path)
    assert (len(records), complaints) == (len(RECORDS), [])


def test_nfcapd_takes_ipfix_of_an_own_template_and_sees_no_gap(tmp_path: Path) -> None:
    template = ipfix.template(300, FIELDS)
    session = ipfix.ExportSession([template], refresh_messages=5, clock=lambda: NOW_S)
    check_nfdump(session.messages(template, RECORDS), tmp_path)


def with_uptime(session: netflow.ExportSession | netflow.ExportSession5) -> list[dict[str, Any]]:
    """The records with times as NetFlow tells them."""
    return [{name: value for name, value in record.items() if "Milliseconds" not in name} | {
        "flowStartSysUpTime": session.uptime_ms(int(record["flowStartMilliseconds"])),
        "flowEndSysUpTime": session.uptime_ms(int(record["flowEndMilliseconds"]))} for record in RECORDS]


def test_nfcapd_takes_netflow_9_of_an_own_template_and_sees_no_gap(tmp_path: Path) -> None:
    session = netflow.ExportSession(boot_s=NOW_S - 1_000, refresh_messages=3, clock=lambda: NOW_S)
    records = with_uptime(session)
    template = netflow.template(300, [(name, 4) if "SysUpTime" in name or "Delta" in name else name
                                      for name in records[0]])
    messages = session.messages(template, records)
    check_nfdump(messages, tmp_path)
    assert tshark_records(messages, tmp_path)[1] == []


def test_nfcapd_takes_netflow_5_and_sees_no_gap(tmp_path: Path) -> None:
    session = netflow.ExportSession5(boot_s=NOW_S - 1_000, clock=lambda: NOW_S)
    check_nfdump(session.messages(with_uptime(session)), tmp_path)


def check_nfdump(messages: list[bytes], directory: Path) -> None:
    """nfcapd takes the messages and nfdump tells RECORDS of them."""
    found, gaps = nfdump_records(messages, directory)
    assert gaps == 0
    assert sorted((row["src4_addr"], row["src_port"], row["dst_port"], row["in_packets"], row["in_bytes"],
                   row["first"][-6:], row["last"][-6:]) for row in found) == sorted(
        (record["sourceIPv4Address"], record["sourceTransportPort"], 443, record["packetDeltaCount"],
         record["octetDeltaCount"], f"{record['flowStartMilliseconds'] / 1000 % 60:06.3f}",
         f"{record['flowEndMilliseconds'] / 1000 % 60:06.3f}") for record in RECORDS)


@pytest.mark.parametrize("device", sorted(GROUPS))
def test_devices_exports_decode_to_as_many_records_as_tshark_reads(device: str, tmp_path: Path) -> None:
    datagrams = [message.octets for octets in export_files(GROUPS[device])
                 for message in flowtop.read_exports(io.BytesIO(octets))]
    seen = tshark_exports(datagrams, tmp_path)
    decoder = flowtop.Decoder()
    messages = [decoder.decode(octets, device) for octets in datagrams]
    assert [(message.version, message.sequence) for message in messages] == [
        (message.version, message.sequence) for message in seen]
    assert [len(message.records) for message in messages] == [len(message.records) for message in seen]
    packets = [record["packetDeltaCount"] for message in messages for record in message.records
               if "packetDeltaCount" in record]
    assert packets == [int.from_bytes(fields["cflow.packets"][0], "big") for message in seen
                       for _, _, fields in message.records if "cflow.packets" in fields]
