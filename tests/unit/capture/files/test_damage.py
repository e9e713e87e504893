"""What is no capture, or not a whole one: one clear line, and what was read before is counted."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowtop.capture.files.capture import FileCapture, FileConfig
from flowtop.errors import EXIT_DAMAGED, EXIT_NO_INPUT, FlowtopError
from tests.kernel import frames as f
from tests.unit.capture.files import writers as w
from tests.unit.capture.files.reading import read

T = 1_700_000_000 * w.SECOND
FRAME = f.ethernet(f.IPV4, f.ipv4(f.udp(1, 2, bytes(50)), f.UDP))
WHOLE = w.pcap([(T, FRAME)] * 3)
WHOLE_NG = w.section() + w.interface() + w.enhanced(T // 1000, FRAME) * 3


@pytest.mark.parametrize(("content", "message", "status"), [
    (b"", "is empty", EXIT_DAMAGED),
    (b"hello, this is text and no capture", "is not a capture file", EXIT_DAMAGED),
    (b"\x1f\x8b", "is cut off: its gzip stream does not end", EXIT_DAMAGED),
    (gzip.compress(b"text", mtime=0), "is not a capture file", EXIT_DAMAGED),
    (gzip.compress(b"", mtime=0), "is empty", EXIT_DAMAGED),
    (WHOLE[:20], "is cut off in its header", EXIT_DAMAGED),
    *((magic.to_bytes(4, order) + WHOLE[4:], f"is in {whose} variant of pcap, which is not supported", EXIT_DAMAGED)
      for magic, whose in ((0xA12B3C4D, "Navtel's"), (0x1C0001AC, "Ixia's hardware"), (0x1C0001AB, "Ixia's software"))
      for order in ("big", "little")),
])
def test_no_capture(tmp_path: Path, content: bytes, message: str, status: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(FlowtopError, match=message) as caught:
        FileCapture(FileConfig(str(path))).open(lambda _: None)
    assert caught.value.exit_code == status
    assert caught.value.message.startswith(str(path))


@pytest.mark.parametrize("name", ["", "missing", "\0"])
def test_nothing_to_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(FlowtopError, match="cannot read") as caught:
        FileCapture(FileConfig(str(tmp_path) + "/" + name)).open(lambda _: None)
    assert caught.value.exit_code == EXIT_NO_INPUT


@pytest.mark.parametrize("whole", [WHOLE, WHOLE_NG])
@pytest.mark.parametrize("cut", [1, 20, 60])
def test_cut_off(tmp_path: Path, whole: bytes, cut: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(whole[:-cut])
    found = read(path)
    assert list(found.flows.values()) == [(2, 2 * 78)]
    assert "is cut off in the middle of a" in found.fault


@pytest.mark.parametrize(("damaged", "message"), [
    (WHOLE + struct.pack("<IIII", 1, 1, 0x7FFFFFFF, 60) + bytes(100), "a record of 2,147,483,647 octets"),
    (WHOLE_NG + struct.pack("<II", 6, 0x7FFFFFF0) + bytes(100), "a block of 2,147,483,632 octets"),
    (WHOLE_NG + struct.pack("<II", 6, 4) + bytes(100), "a block of 4 octets"),
    (WHOLE_NG + w.enhanced(0, FRAME, number=9), "a packet block with inconsistent lengths"),
    (WHOLE_NG + w.block("<", 6, bytes(12) + struct.pack("<II", 500, 500) + bytes(40)), "inconsistent lengths"),
    (WHOLE_NG + w.block("<", 6, b""), "inconsistent lengths"),
    (WHOLE_NG + w.block("<", 1, b""), "an interface description that is too short"),
    (WHOLE_NG + w.block("<", 0x0A0D0D0A, bytes(16)), "a section header of unknown byte order"),
    (gzip.compress(WHOLE, mtime=0)[:-4], "its gzip stream does not end"),
    (gzip.compress(WHOLE, mtime=0) + b"more", "after its gzip stream"),
])
def test_damage_behind_good_packets(tmp_path: Path, damaged: bytes, message: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(damaged)
    found = read(path)
    assert list(found.flows.values()) == [(3, 3 * 78)]
    assert message in found.fault
    assert found.last.source and found.last.source.fault and found.last.source.fault.exit_code == EXIT_DAMAGED


def test_frames_of_an_unknown_link_type_among_others_count_as_ignored(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(WHOLE_NG + w.interface(link_type=147) + w.enhanced(0, FRAME, number=1))
    found = read(path)
    assert list(found.flows.values()) == [(3, 3 * 78)]
    assert found.ignored() == {"other": (1, 92)}
    assert "1 frame of link type 147 (USER0), which is not supported: counted as ignored" in found.fault


@pytest.mark.parametrize(("number", "text"), [
    (7, "7 (ARCNET_BSD)"), (122, "122 (IP_OVER_FC)"), (140, "140 (MTP2)"), (189, "189 (USB_LINUX)"),
    (220, "220 (USB_LINUX_MMAPPED)"), (227, "227 (CAN_SOCKETCAN)"), (253, "253 (NETLINK)"), (65_535, "65535")])
def test_a_file_of_a_link_type_that_is_not_read_is_one_line_and_its_packets_are_ignored(
        tmp_path: Path, number: int, text: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(w.pcap([(T, FRAME)] * 1_200, link_type=number))
    found = read(path)
    assert found.fault == f"x has 1,200 frames of link type {text}, which is not supported: counted as ignored"
    assert (dict(found.flows), found.ignored()) == ({}, {"other": (1_200, 1_200 * 92)})


def test_decompression_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(w.pcap([(T, FRAME)]) + struct.pack("<IIII", 1, 1, 0, 0) * 700_000, 1))
    tracemalloc.start()
    try:
        assert read(path).total("packets") == 700_001
        assert tracemalloc.get_traced_memory()[1] < 200_000_000
    finally:
        tracemalloc.stop()


BASES = [
    WHOLE, WHOLE_NG,
    w.pcap([(T, f.ethernet(f.IPV6, f.ipv6(f.extension(f.FRAGMENT) + f.fragment_header(f.UDP, 7, offset=0, more=True)
                                          + f.udp(1, 2, bytes(16)), f.HOP_BY_HOP)))] * 2),
    w.pcap([(T, f.ethernet(f.VLAN, b"\0\5\x08\0" + f.ipv4(f.udp(1, 2, bytes(8)), f.UDP, more=True)))] * 2),
]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base=st.sampled_from(BASES), data=st.data())
def test_mutated_files_end_in_books_that_balance_or_in_one_line(
        tmp_path: Path, base: bytes, data: st.DataObject) -> None:
    octets = bytearray(base)
    for _ in range(data.draw(st.integers(1, 8))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x"
    path.write_bytes(octets[:data.draw(st.integers(0, len(octets)))])
    try:
        found = read(path)
    except FlowtopError as error:
        assert "\n" not in error.message
    else:
        assert found.total("packets") <= 64


def ipfix_file() -> bytes:
    """A message with a template and two records, and one with a record (RFC 7011, drawn by hand)."""
    fields = ((8, 4), (12, 4), (4, 1), (7, 2), (11, 2), (1, 8), (2, 8), (152, 8), (153, 8))
    template = struct.pack(">HH", 256, len(fields)) + b"".join(struct.pack(">HH", *field) for field in fields)
    record = struct.pack(">4s4sBHHQQQQ", b"\x0a\0\0\1", b"\x0a\0\0\2", 17, 53, 4000, 300, 3, 1_700_000_000_000,
                         1_700_000_001_000)
    out = b""
    for sequence, sets in ((0, ((2, template), (256, record * 2))), (2, ((256, record),))):
        body = b"".join(struct.pack(">HH", id_, 4 + len(octets)) + octets for id_, octets in sets)
        out += struct.pack(">HHIII", 10, 16 + len(body), 1_700_000_002, sequence, 0) + body
    return out


def test_ipfix_records(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(ipfix_file()))
    found = read(path)
    assert dict(found.flows) == {("10.0.0.1", "10.0.0.2", 17, 53, 4000): (9, 900)}
    assert found.fault == ""


def test_ipfix_records_without_template_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x"
    whole = ipfix_file()
    path.write_bytes(whole[-(16 + 4 + 45):])
    assert read(path).fault == "x has 1 sets without template"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_ipfix_files_end_in_books_that_balance_or_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    octets = bytearray(ipfix_file() * 2)
    for _ in range(data.draw(st.integers(1, 8))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x"
    path.write_bytes(octets[:data.draw(st.integers(0, len(octets)))])
    try:
        read(path)
    except FlowtopError as error:
        assert "\n" not in error.message
