"""What exporters say in a dozen ways, as flows: times, reverse halves, ICMP, interfaces, mixed addresses."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from flowtop.model.kinds import Kind
from flowtop.wire.data_set import decode_data_set
from flowtop.wire.flow_records import CollectedRows, ExportTimes, collect_rows
from flowtop.wire.flow_templates import AGGREGATE, IPV4_FRAGMENT, PROFILES, flow_templates
from flowtop.wire.ipfix_template import FieldSpecifier, Template

EXPORT_MS = 1_700_000_000_000
BOOT_MS = EXPORT_MS - 3_600_000
REVERSE = 29305


def rows_of(fields: list[tuple[Any, ...]], *records: bytes, boot_ms: int = BOOT_MS) -> CollectedRows:
    """Records of a Template with these (element, length[, enterprise])."""
    template = Template(256, tuple(FieldSpecifier(*field) for field in fields))
    found = decode_data_set(template, b"".join(records)).records
    assert len(found) == len(records)
    return collect_rows(template, found, ExportTimes(np.full(len(found), EXPORT_MS), np.full(len(found), boot_ms)))


COUNTED: list[tuple[Any, ...]] = [(1, 4), (2, 4)]
UNKNOWN = 2
"""In the place of flowDirection (IE 61), which knows 0 and 1: it is not told."""
ONE = struct.pack(">II", 100, 1)


def ntp(ms: int) -> bytes:
    return struct.pack(">II", ms // 1000 + 2_208_988_800, (ms % 1000 << 32) // 1000 + 1)


@pytest.mark.parametrize(("fields", "octets", "start_ms", "end_ms"), [
    ([(152, 8), (153, 8)], struct.pack(">QQ", EXPORT_MS - 9, EXPORT_MS - 1), EXPORT_MS - 9, EXPORT_MS - 1),
    ([(150, 4), (151, 4)], struct.pack(">II", 1_699_999_990, 1_699_999_999), EXPORT_MS - 10_000, EXPORT_MS - 1000),
    ([(154, 8), (155, 8)], ntp(EXPORT_MS - 1500) + ntp(EXPORT_MS - 250), EXPORT_MS - 1500, EXPORT_MS - 250),
    ([(156, 8), (157, 8)], ntp(EXPORT_MS - 1500) + ntp(EXPORT_MS - 250), EXPORT_MS - 1500, EXPORT_MS - 250),
    ([(158, 4), (159, 4)], struct.pack(">II", 2_000_000, 1_000_000), EXPORT_MS - 2000, EXPORT_MS - 1000),
    ([(22, 4), (21, 4)], struct.pack(">II", 1000, 3000), BOOT_MS + 1000, BOOT_MS + 3000),
    ([(22, 4), (21, 4), (160, 8)], struct.pack(">IIQ", 1000, 3000, 5_000_000), 5_001_000, 5_003_000),
    ([(152, 8), (161, 4)], struct.pack(">QI", EXPORT_MS - 9000, 4000), EXPORT_MS - 9000, EXPORT_MS - 5000),
    ([(153, 8), (162, 4)], struct.pack(">QI", EXPORT_MS - 1000, 4_000_000), EXPORT_MS - 5000, EXPORT_MS - 1000),
    ([(323, 8)], struct.pack(">Q", EXPORT_MS - 77), EXPORT_MS - 77, EXPORT_MS - 77),
    ([], b"", EXPORT_MS, EXPORT_MS),
    ([(153, 8)], struct.pack(">Q", EXPORT_MS - 5), EXPORT_MS - 5, EXPORT_MS - 5),
    ([(152, 8), (153, 8)], struct.pack(">QQ", EXPORT_MS, EXPORT_MS - 9), EXPORT_MS - 9, EXPORT_MS - 9),
])
def test_times_in_every_unit(fields: list[tuple[int, int]], octets: bytes, start_ms: int, end_ms: int) -> None:
    rows = rows_of([*COUNTED, *fields], ONE + octets).rows
    assert (int(rows["start_ms"][0]), int(rows["end_ms"][0])) == (start_ms, end_ms)


def test_uptime_wraps_after_49_days() -> None:
    boot_ms = EXPORT_MS - 50  # the exporter's uptime has wrapped 50 ms ago
    rows = rows_of([*COUNTED, (22, 4), (21, 4)], ONE + struct.pack(">II", (1 << 32) - 20, 30), boot_ms=boot_ms).rows
    assert (int(rows["start_ms"][0]), int(rows["end_ms"][0])) == (boot_ms - 20, boot_ms + 30)


def test_without_a_boot_time_uptime_says_nothing() -> None:
    rows = rows_of([*COUNTED, (22, 4), (21, 4)], ONE + struct.pack(">II", 1, 2), boot_ms=-1).rows
    assert int(rows["start_ms"][0]) == EXPORT_MS


def test_a_bidirectional_record_is_two_flows() -> None:
    fields: list[tuple[Any, ...]] = [
        (8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (10, 4), (14, 4), (6, 1), (5, 1), (1, 4), (2, 4),
        (1, 4, REVERSE), (2, 4, REVERSE), (6, 1, REVERSE), (5, 1, REVERSE)]
    record = struct.pack(">4s4sHHBIIBBIIIIBB", b"\1\2\3\4", b"\5\6\7\7", 1000, 443, 6, 11, 12, 2, 8, 500, 5, 900, 7, 18,
                         16)
    silent = struct.pack(">4s4sHHBIIBBIIIIBB", b"\1\2\3\4", b"\5\6\7\7", 1001, 443, 6, 11, 12, 2, 8, 40, 1, 0, 0, 0, 0)
    found = rows_of(fields, record, silent)
    forward, unanswered, reverse = found.rows
    assert [int(forward[n]) for n in ("source_port", "destination_port", "octets", "packets", "tcp_control_bits", "tos",
                                      "direction", "ifindex")] == [1000, 443, 500, 5, 2, 8, UNKNOWN, 11]
    assert [int(reverse[n]) for n in ("source_port", "destination_port", "octets", "packets", "tcp_control_bits", "tos",
                                      "direction", "ifindex")] == [443, 1000, 900, 7, 18, 16, UNKNOWN, 11]
    assert bytes(reverse["source_address"])[:4] == bytes(forward["destination_address"])[:4] == b"\5\6\7\7"
    assert int(unanswered["octets"]) == 40 and found.sources.tolist() == [0, 1, 0] and found.unusable == 0


@pytest.mark.parametrize(("told", "back"), [(0, 1), (1, 0), (7, UNKNOWN)])
def test_the_way_back_passes_in_the_other_direction(told: int, back: int) -> None:
    fields: list[tuple[Any, ...]] = [(8, 4), (12, 4), (61, 1), (1, 4), (1, 4, REVERSE)]
    rows = rows_of(fields, struct.pack(">4s4sBII", b"\1\2\3\4", b"\5\6\7\7", told, 500, 900)).rows
    assert [int(direction) for direction in rows["direction"]] == [min(told, UNKNOWN), back]


def test_initiator_and_responder_counters_are_two_flows() -> None:
    rows = rows_of([(8, 4), (12, 4), (231, 4), (232, 4)], struct.pack(">4s4sII", b"\1\2\3\4", b"\5\6\7\7", 10, 20)).rows
    assert [(bytes(row["source_address"])[:4], int(row["octets"])) for row in rows] == [
        (b"\1\2\3\4", 10), (b"\5\6\7\7", 20)]


@pytest.mark.parametrize(("fields", "octets"), [
    ([(4, 1), (7, 2), (11, 2)], struct.pack(">BHH", 1, 9, 0x0800)),
    ([(4, 1), (7, 2), (11, 2), (32, 2)], struct.pack(">BHHH", 1, 0, 0, 0x0800)),
    ([(4, 1), (176, 1), (177, 1)], struct.pack(">BBB", 1, 8, 0)),
    ([(4, 1), (139, 2)], struct.pack(">BH", 58, 0x0800)),
    ([(4, 1), (178, 1), (179, 1)], struct.pack(">BBB", 58, 8, 0)),
])
def test_icmp_type_and_code_stand_for_the_destination_port(fields: list[tuple[int, int]], octets: bytes) -> None:
    row = rows_of([*COUNTED, *fields], ONE + octets).rows[0]
    assert (int(row["source_port"]), int(row["destination_port"])) == (0, 0x0800)


@pytest.mark.parametrize(("fields", "octets", "point"), [
    ([(10, 2), (14, 2)], (3, 4), (3, UNKNOWN)), ([(10, 2), (14, 2)], (0, 4), (4, UNKNOWN)),
    ([(14, 2), (58, 2)], (4, 0), (4, UNKNOWN)), ([(10, 2), (14, 2)], (0, 0), (0, UNKNOWN)),
])
def test_the_observation_point_is_the_interface_in_the_flows_direction(
    fields: list[tuple[int, int]], octets: tuple[int, int], point: tuple[int, int],
) -> None:
    row = rows_of([*COUNTED, *fields], ONE + struct.pack(">HH", *octets)).rows[0]
    assert (int(row["ifindex"]), int(row["direction"])) == point
    told = {interface for (element, _), interface in zip(fields, octets, strict=True) if element in (10, 14)} - {0}
    assert {int(row["other_ifindex"])} - {0} == told - {point[0]}
    for direction, interface in ((0, 3), (1, 4), (255, 3)):
        row = rows_of([*COUNTED, (10, 2), (14, 2), (61, 1)], ONE + struct.pack(">HHB", 3, 4, direction)).rows[0]
        assert (int(row["ifindex"]), int(row["direction"])) == (interface, min(direction, UNKNOWN))
        assert int(row["other_ifindex"]) == 3 + 4 - interface


def test_a_template_with_both_versions_holds_one_in_each_record() -> None:
    fields = [*COUNTED, (8, 4), (12, 4), (27, 16), (28, 16)]
    four = ONE + b"\1\2\3\4\5\6\7\7" + bytes(32)
    six = ONE + bytes(8) + b"\x20\1" + bytes(13) + b"\1" + b"\x20\1" + bytes(13) + b"\2"
    rows = rows_of(fields, four, six).rows
    assert rows["ip_version"].tolist() == [4, 6]
    assert bytes(rows["source_address"][0]) == b"\1\2\3\4" + bytes(12)
    assert bytes(rows["destination_address"][1]) == b"\x20\1" + bytes(13) + b"\2"


def test_a_record_without_addresses_stands_for_many_flows() -> None:
    row = rows_of([*COUNTED, (10, 4)], ONE + struct.pack(">I", 3)).rows[0]
    assert (int(row["kind"]), int(row["protocol"])) == (Kind.AGGREGATE, 255)


@pytest.mark.parametrize(("id_", "kind"), [(IPV4_FRAGMENT, Kind.FRAGMENT), (AGGREGATE, Kind.AGGREGATE)])
@pytest.mark.parametrize("profile", PROFILES)
def test_flowtops_own_kinds_come_back(id_: int, kind: Kind, profile: str) -> None:
    template = flow_templates(PROFILES[profile]).flows[id_]
    records = np.zeros(1, template.dtype)
    records["octetDeltaCount"] = 1
    times = ExportTimes(np.zeros(1, np.int64), np.zeros(1, np.int64))
    assert int(collect_rows(template, records, times).rows["kind"][0]) == kind


def test_octets_of_odd_lengths_are_numbers_all_the_same() -> None:
    row = rows_of([(1, 3), (2, 5), (4, 2), (58, 4)], b"\0\1\0" + b"\0\0\0\0\2" + b"\0\6" + b"\0\0\0\7").rows[0]
    assert [int(row[name]) for name in ("octets", "packets", "protocol", "vlan_id")] == [256, 2, 6, 7]


def test_records_without_counters_are_unusable() -> None:
    found = rows_of([(8, 4), (12, 4)], bytes(8), bytes(8))
    assert len(found.rows) == 0 and found.unusable == 2


VXLAN, NVGRE, GRE = 4, 2, 2
"""record.Tunnel; NVGRE (RFC 7637) is GRE."""
SEGMENT, KEY, POINT = 351, 296, 138
"""layer2SegmentId, greKey, observationPointId."""


@pytest.mark.parametrize(("fields", "octets", "tunnel"), [
    ([(SEGMENT, 8)], struct.pack(">Q", 0x01 << 56 | 4242), (VXLAN, 4242)),
    ([(SEGMENT, 8)], struct.pack(">Q", 0x02 << 56 | 0xFFFFFF), (NVGRE, 0xFFFFFF)),
    ([(SEGMENT, 8)], struct.pack(">Q", 0x01 << 56), (VXLAN, 0)),
    ([(SEGMENT, 8)], struct.pack(">Q", 77), (VXLAN, 77)),
    ([(SEGMENT, 4)], struct.pack(">I", 77), (VXLAN, 77)),
    ([(SEGMENT, 3)], b"\0\0\x4d", (VXLAN, 77)),
    ([(SEGMENT, 8)], bytes(8), (0, 0)),
    ([(SEGMENT, 8)], b"\xff" * 8, (0, 0)),
    ([(SEGMENT, 8)], struct.pack(">Q", 0x03 << 56 | 5), (0, 0)),
    ([(KEY, 4)], struct.pack(">I", 2**32 - 1), (GRE, 2**32 - 1)),
    ([(KEY, 4)], bytes(4), (0, 0)),
    ([(KEY, 4), (SEGMENT, 8)], struct.pack(">IQ", 9, 0x01 << 56 | 5), (VXLAN, 5)),
    ([(KEY, 4), (SEGMENT, 8)], struct.pack(">IQ", 9, 0), (GRE, 9)),
    ([(POINT, 8)], struct.pack(">Q", 4 * 2**32 + 100), (0, 0)),
])
def test_what_carried_a_flow_is_known_by_standard_elements(
    fields: list[tuple[int, int]], octets: bytes, tunnel: tuple[int, int],
) -> None:
    row = rows_of([*COUNTED, *fields], ONE + octets).rows[0]
    assert (int(row["tunnel"]), int(row["tunnel_id"])) == tunnel


def test_the_way_back_is_in_the_same_tunnel() -> None:
    fields: list[tuple[Any, ...]] = [(8, 4), (12, 4), (SEGMENT, 8), (1, 4), (1, 4, REVERSE)]
    rows = rows_of(fields, struct.pack(">4s4sQII", b"\1\2\3\4", b"\5\6\7\7", 0x01 << 56 | 5, 500, 900)).rows
    assert [(int(row["tunnel"]), int(row["tunnel_id"]), int(row["octets"])) for row in rows] == [
        (VXLAN, 5, 500), (VXLAN, 5, 900)]


@pytest.mark.parametrize(("point", "tunnel"), [
    (4 * 2**32 + 100, (4, 100)), (2 * 2**32 + 2**32 - 1, (2, 2**32 - 1)), (1 * 2**32, (1, 0)),
    (6 * 2**32 + 16, (6, 16)), (7 * 2**32 + 3, (7, 3)), (100, (0, 0)), (8 * 2**32, (0, 0)), (2**64 - 1, (0, 0)),
])
@pytest.mark.parametrize("profile", PROFILES)
def test_flowtops_own_tunnels_come_back_and_a_forged_one_is_none(
    point: int, tunnel: tuple[int, int], profile: str,
) -> None:
    for template in flow_templates(PROFILES[profile]).tunnelled.values():
        records = np.zeros(1, template.dtype)
        records["octetDeltaCount"], records["observationPointId"] = 1, point
        row = collect_rows(template, records, ExportTimes(np.zeros(1, np.int64), np.zeros(1, np.int64))).rows[0]
        assert (int(row["tunnel"]), int(row["tunnel_id"])) == tunnel
        ported = "sourceTransportPort" in template.names
        assert int(row["kind"]) == (Kind.FLOW if ported else Kind.FRAGMENT)
