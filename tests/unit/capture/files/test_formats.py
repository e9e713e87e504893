"""Every container and link type gives the same flows; times, names and directions are those in the file."""

from __future__ import annotations

import fcntl
import gzip
import io
import os
import struct
import threading
from pathlib import Path

import pytest

from flowtop.capture.files.capture import FileConfig
from tests.kernel import frames as f
from tests.unit.capture.files import writers as w
from tests.unit.capture.files.reading import read
from tests.unit.descriptors import many_descriptors

T = 1_700_000_000 * w.SECOND
PACKET4 = f.ipv4(f.udp(53, 4000, bytes(30)), f.UDP)
PACKET6 = f.ipv6(f.tcp(443, 5000, f.SYN | f.ECE, b"x"), f.TCP)
FRAMES = [(T, f.ethernet(f.IPV4, PACKET4)), (T + 1_000_001_000, f.ethernet(f.IPV6, PACKET6))]
FLOWS = {("10.0.0.1", "10.0.0.2", 17, 53, 4000): (1, 58), ("2001:db8::1", "2001:db8::2", 6, 443, 5000): (1, 61)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.pcap"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_pcap(path: Path, order: str, nano: bool) -> None:
    path.write_bytes(w.pcap(FRAMES, order=order, nano=nano))
    found = read(path)
    assert (dict(found.flows), found.fault) == (FLOWS, "")
    assert [facts["first_ns"] for facts in found.facts.values()] == [T, T + 1_000_001_000]
    assert found.last.interfaces == {1: "x.pcap"}


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng(path: Path, order: str) -> None:
    ticks = [time_ns // 1000 for time_ns, _ in FRAMES]
    path.write_bytes(
        w.section(order) + w.block(order, 0x0BAD, bytes(21)) + w.interface(order, name="eth0")
        + w.enhanced(ticks[0], FRAMES[0][1], order) + w.block(order, 5, bytes(40))
        + w.enhanced(ticks[1], FRAMES[1][1], order, comments=[b"hello"], flags=2))
    found = read(path)
    assert (dict(found.flows), found.fault) == (FLOWS, "")
    assert [(facts["first_ns"], facts["direction"]) for facts in found.facts.values()] == [
        (T, 0), (T + 1_000_001_000, 1)]
    assert found.last.attached == ("eth0",)


@pytest.mark.parametrize(("resolution", "ticks"), [
    (9, T), (3, T // 1_000_000), (0, T // w.SECOND), (10, T * 10), (0x80 | 10, T // w.SECOND << 10),
    (0x80 | 32, T // w.SECOND << 32)])
def test_times_of_any_resolution(path: Path, resolution: int, ticks: int) -> None:
    path.write_bytes(w.section() + w.interface(resolution=resolution) + w.enhanced(ticks, FRAMES[0][1]))
    assert next(iter(read(path).facts.values()))["first_ns"] == T


def test_time_offset_of_an_interface(path: Path) -> None:
    path.write_bytes(w.section() + w.interface(offset_s=3600) + w.enhanced(T // 1000, FRAMES[0][1]))
    assert next(iter(read(path).facts.values()))["first_ns"] == T + 3600 * w.SECOND


def test_many_sections_are_read_together_each_with_its_own_interfaces(path: Path) -> None:
    """A section of one packet cost 2.4 ms: as much as a thousand packets together."""
    frame, at_us = FRAMES[0][1], T // 1000
    path.write_bytes(b"".join(
        w.section() + w.interface(name="a", resolution=6 + 3 * (number % 2)) + w.interface(name=f"b{number % 3}")
        + w.enhanced(at_us * (1_000 if number % 2 else 1), frame) + w.enhanced(at_us, frame, number=1)
        for number in range(200)))
    found = read(path)
    [batch] = [batch for batch in found.batches if len(batch.keys)]
    assert found.fault == "" and sum(map(len, (batch.keys for batch in found.batches))) == 4
    packets = {batch.interfaces[int(key["ifindex"])]: int(counters["packets"])
               for key, counters in zip(batch.keys, batch.counters, strict=True)}
    assert packets == {"a": 200, "b0": 67, "b1": 67, "b2": 66}
    assert {facts["first_ns"] for facts in found.facts.values()} == {T}


def test_a_packet_of_an_interface_of_another_section_is_damage(path: Path) -> None:
    frame, at_us = FRAMES[0][1], T // 1000
    path.write_bytes(w.section() + w.interface() + w.interface(name="other") + w.enhanced(at_us, frame, number=1)
                     + w.section() + w.interface() + w.enhanced(at_us, frame) + w.enhanced(at_us, frame, number=1))
    found = read(path)
    assert found.total("packets") == 2 and "inconsistent" in found.fault


def test_sections_of_both_byte_orders_and_interfaces_of_several_link_types(path: Path) -> None:
    path.write_bytes(
        w.section("<") + w.interface("<", name="eth0") + w.interface("<", name="tun0", link_type=101)
        + w.enhanced(T // 1000, PACKET4, "<", number=1) + w.enhanced(T // 1000, FRAMES[1][1], "<")
        + w.section(">") + w.interface(">", name="tun0", link_type=101, resolution=9) + w.enhanced(T, PACKET4, ">"))
    found = read(path)
    assert dict(found.flows) == FLOWS | {("10.0.0.1", "10.0.0.2", 17, 53, 4000): (2, 116)}
    assert found.last.interfaces == {1: "eth0", 2: "tun0"}
    assert [facts["ifindex"] for facts in found.facts.values()] in ([1, 2], [2, 1])


def test_simple_packets_have_the_time_of_the_one_before(path: Path) -> None:
    path.write_bytes(w.section() + w.interface(snap=64) + w.enhanced(T // 1000, FRAMES[0][1]) + w.simple(FRAMES[1][1]))
    assert [facts["first_ns"] for facts in read(path).facts.values()] == [T, T]


def test_blocks_longer_than_memory_are_skipped(path: Path) -> None:
    huge = struct.pack("<II", 0x0BAD, 12 + (20 << 20)) + bytes(20 << 20) + struct.pack("<I", 12 + (20 << 20))
    path.write_bytes(w.section() + w.interface() + huge + w.enhanced(T // 1000, FRAMES[0][1]) + huge
                     + w.enhanced(T // 1000, FRAMES[1][1]))
    assert dict(read(path).flows) == FLOWS


@pytest.mark.parametrize("members", [1, 2])
def test_gzip(path: Path, members: int) -> None:
    data = w.pcap(FRAMES)
    parts = [data] if members == 1 else [data[:50], data[50:]]
    path.write_bytes(b"".join(map(gzip.compress, parts)) + bytes(512))
    found = read(path)
    assert (dict(found.flows), found.fault) == (FLOWS, "")


def cooked(ethertype: int, packet_type: int = 0) -> bytes:
    return struct.pack(">HHH6sxxH", packet_type, 1, 6, f.SOURCE_MAC, ethertype)


def cooked2(ethertype: int, packet_type: int = 0) -> bytes:
    return struct.pack(">HHIHBB6sxx", ethertype, 0, 7, 1, packet_type, 6, f.SOURCE_MAC)


LINKS = [
    (113, cooked(f.IPV4), cooked(f.IPV6)), (276, cooked2(f.IPV4), cooked2(f.IPV6)),
    (12, b"", b""), (14, b"", b""), (101, b"", b""),
    (0, struct.pack("<I", 2), struct.pack("<I", 30)), (0, struct.pack(">I", 2), struct.pack(">I", 24)),
    (108, struct.pack(">I", 2), struct.pack(">I", 28)),
]


@pytest.mark.parametrize(("link_type", "head4", "head6"), LINKS)
def test_link_types(path: Path, link_type: int, head4: bytes, head6: bytes) -> None:
    path.write_bytes(w.pcap([(T, head4 + PACKET4), (T, head6 + PACKET6)], link_type=link_type))
    assert dict(read(path).flows) == FLOWS


def test_links_of_one_ip_version(path: Path) -> None:
    for link_type, packet, key in ((228, PACKET4, 0), (229, PACKET6, 1)):
        path.write_bytes(w.pcap([(T, packet)], link_type=link_type))
        assert dict(read(path).flows) == dict([list(FLOWS.items())[key]])


@pytest.mark.parametrize(("link_type", "head"), [(113, cooked), (276, cooked2)])
def test_cooked_captures_know_what_was_sent(path: Path, link_type: int, head: type[object]) -> None:
    path.write_bytes(w.pcap([(T, head(f.IPV4, 4) + PACKET4), (T, head(f.IPV6, 1) + PACKET6)], link_type=link_type))
    facts = read(path).facts
    assert [facts[key]["direction"] for key in FLOWS] == [1, 0]
    assert facts[next(iter(FLOWS))]["macs"] == f.SOURCE_MAC + bytes(6)


@pytest.mark.parametrize("high", [False, True])
def test_a_pipe_is_read_as_it_comes(high: bool) -> None:
    """Whatever the number of its descriptor: select cannot wait for those from 1,024 on."""
    low, outlet = os.pipe()
    data = w.pcap(FRAMES * 50)
    with many_descriptors() as number:
        inlet = fcntl.fcntl(low, fcntl.F_DUPFD, number if high else 0)
        os.close(low)
        read_as_it_comes(data, inlet, outlet)


def read_as_it_comes(data: bytes, inlet: int, outlet: int) -> None:

    def write() -> None:
        with io.FileIO(outlet, "w") as pipe:
            for at in range(0, len(data), 37):
                pipe.write(data[at:at + 37])

    thread = threading.Thread(target=write)
    thread.start()
    found = read("-", FileConfig("-", descriptor=inlet))
    thread.join()
    os.close(inlet)
    assert dict(found.flows) == {key: (50 * packets, 50 * octets) for key, (packets, octets) in FLOWS.items()}
