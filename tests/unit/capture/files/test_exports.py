"""`-r FILE --collect`: the flows in the export messages of a capture. Counts are those that the test wrote."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import flowtop
from flowtop.cli.sources import FileSource, choose_source
from flowtop.errors import FlowtopError
from tests.kernel import frames as f
from tests.prepared import run_flowtop
from tests.unit.capture.collector import test_sflow as sflow
from tests.unit.capture.collector.exports import FLOW, flow, ipfix, set_of, template
from tests.unit.capture.files import writers as w
from tests.unit.capture.files.test_messages import segment
from tests.unit.cli.command_line import options
from tests.unit.wire.test_datagrams import flowset, v5, v5_record, v9

AT_S = 1_700_000_000
TEMPLATE = template(256, FLOW)
TEMPLATE9 = flowset(0, 256, len(FLOW), *(word for field in FLOW for word in field))


def records(first: int, count: int) -> bytes:
    """A Data Set of flows `first`...: 2 packets and 300 octets each."""
    return set_of(256, b"".join(flow(number) for number in range(first, first + count)))


def sent(octets: bytes, exporter: str = "192.0.2.1", port: int = 2055, source_port: int = 5000) -> bytes:
    """An Ethernet frame with a datagram."""
    if ":" in exporter:
        return f.ethernet(f.IPV6, f.ipv6(f.udp(source_port, port, octets), f.UDP, source=exporter,
                                         destination="2001:db8::2"))
    return f.ethernet(f.IPV4, f.ipv4(f.udp(source_port, port, octets), f.UDP, source=exporter))


def in_fragments(octets: bytes, exporter: str = "192.0.2.1") -> list[bytes]:
    content = f.udp(5000, 2055, octets)
    return [f.ethernet(f.IPV4, f.ipv4(content[at:at + 1480], f.UDP, source=exporter, identification=9, offset=at,
                                      more=at + 1480 < len(content))) for at in range(0, len(content), 1480)]


def round_of(path: Path, *arguments: str, stdin: bytes = b"", status: int = 0) -> dict[str, Any]:
    """The one round of `flowtop -b -r path --collect`."""
    done = subprocess.run([sys.executable, "-m", "flowtop", "-b", "-o", "json", "-r", path, "--collect", *arguments],
                          input=stdin, capture_output=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def capture(path: Path, frames: Sequence[bytes], link_type: int = 1) -> Path:
    path.write_bytes(w.pcap([(AT_S * w.SECOND + number * 1_000_000, frame) for number, frame in enumerate(frames)],
                            link_type=link_type))
    return path


def books(table: flowtop.Table) -> tuple[int, int, int]:
    """Flows, packets, octets."""
    rows = table.query()
    return len(rows), sum(row.packets for row in rows), sum(row.bytes for row in rows)


@pytest.mark.parametrize("exporter", ["192.0.2.1", "2001:db8::77"])
def test_the_exporter_is_the_sender(exporter: str, tmp_path: Path) -> None:
    path = capture(tmp_path / "x", [sent(ipfix(TEMPLATE, records(0, 5)), exporter), sent(b"other", port=53)])
    found = round_of(path)
    name = "exporterIPv6Address" if ":" in exporter else "exporterIPv4Address"
    assert {(one[name], one["observationDomainId"], one["packetTotalCount"], one["octetTotalCount"])
            for one in found["flows"]} == {(exporter, 7, 2, 300)} and len(found["flows"]) == 5
    assert {one["flowEndMilliseconds"] for one in found["flows"]} == {1_699_999_999_000}  # as reported
    assert (found["collecting"]["messages"], found["collecting"]["records"]) == (1, 5)
    assert found["totals"]["accountedPackets"] == found["totals"]["observedPackets"] == 10


def test_several_exporters_and_sessions_are_kept_apart(tmp_path: Path) -> None:
    other = template(256, [(8, 4), (12, 4), (2, 8), (1, 8)])
    short = set_of(256, b"\x0a\0\0\1\x0a\0\0\2" + struct.pack(">QQ", 7, 999))
    path = capture(tmp_path / "x", [
        sent(ipfix(TEMPLATE)), sent(ipfix(other), "192.0.2.9"), sent(ipfix(records(0, 3))),
        sent(ipfix(short), "192.0.2.9"), sent(ipfix(records(3, 2)))])
    found = round_of(path)
    sums: dict[str, int] = {}
    for one in found["flows"]:
        sums[one["exporterIPv4Address"]] = sums.get(one["exporterIPv4Address"], 0) + one["octetTotalCount"]
    assert sums == {"192.0.2.1": 5 * 300, "192.0.2.9": 999} and found["collecting"]["exporters"] == 2


VERSIONS = {
    "NetFlow 5": ([v5(2, v5_record() * 2)], (1, 12, 14)),
    "NetFlow 9": ([v9(flowset(0, 256, 4, 8, 4, 12, 4, 2, 4, 1, 4)), v9(flowset(256, octets=struct.pack(
        ">IIII", 1, 2, 3, 400)), sequence=8)], (1, 3, 400)),
    "IPFIX, data first": ([ipfix(records(0, 4)), ipfix(TEMPLATE)], (4, 8, 1200)),
    "sFlow": ([sflow.datagram(sflow.sample(sflow.raw_header(sflow.frame(200)), interval=100))], (1, 100, 20_000)),
    "all": ([ipfix(TEMPLATE, records(0, 4)), v5(2, v5_record() * 2)], (5, 20, 1214))}


@pytest.mark.parametrize(("datagrams", "expected"), VERSIONS.values(), ids=VERSIONS.keys())
@pytest.mark.parametrize("port", [2055, 31_337])
def test_every_kind_at_any_port(datagrams: list[bytes], expected: tuple[int, int, int], port: int,
                                tmp_path: Path) -> None:
    path = capture(tmp_path / "x", [sent(octets, port=port) for octets in datagrams])
    found = books(flowtop.read(path, collect=True, idle_timeout=90, dedupe="off"))
    if "sFlow" not in str(datagrams) and expected[1] != 100:
        assert found == expected
    assert found[:2] == expected[:2]


@pytest.mark.parametrize("which", ["all", "first", "middle", "last"])
def test_fragments(which: str, tmp_path: Path) -> None:
    fragments = in_fragments(ipfix(TEMPLATE, records(0, 80)))
    assert len(fragments) == 3
    if which != "all":
        del fragments[{"first": 0, "middle": 1, "last": -1}[which]]
    table = flowtop.read(capture(tmp_path / "x", [*fragments[::-1], sent(ipfix(TEMPLATE, records(500, 1)))]),
                         collect=True)
    incomplete = table.collecting.incomplete_messages if table.collecting else None
    assert incomplete == (which in ("middle", "last")), "a later fragment alone may be of anything"
    if which == "all":
        assert books(table) == (81, 162, 81 * 300)
    else:
        assert books(table)[0] >= 1


@pytest.mark.parametrize("size", [7, 100, 1448])
def test_ipfix_over_tcp_and_a_new_connection_without_templates(size: int, tmp_path: Path) -> None:
    stream = ipfix(TEMPLATE, records(0, 30)) + ipfix(records(30, 30), sequence=30)
    packets = [segment(b"", 0, f.SYN)] + [segment(stream[at:at + size], 1 + at) for at in range(0, len(stream), size)]
    packets += [segment(b"", 70_000, f.SYN), segment(ipfix(records(100, 5)), 70_001)]
    table = flowtop.read(capture(tmp_path / "x", packets, link_type=101), collect=True)
    assert books(table) == (60, 120, 60 * 300)
    assert table.collecting and table.collecting.dropped_sets + table.collecting.waiting_sets == 1


SLL = struct.pack(">HHH8sH", 0, 1, 6, bytes(8), 0x0800)
SLL2 = struct.pack(">HHIHBB8s", 0x0800, 0, 3, 1, 0, 6, bytes(8))
TAGGED = f.DESTINATION_MAC + f.SOURCE_MAC + struct.pack(">HHHHH", 0x88A8, 7, 0x8100, 8, 0x0800)


@pytest.mark.parametrize(("link_type", "head"), [
    (1, TAGGED), (113, SLL), (276, SLL2), (101, b""), (228, b""), (0, struct.pack("<I", 2))])
def test_any_link_type(link_type: int, head: bytes, tmp_path: Path) -> None:
    packet = sent(ipfix(TEMPLATE, records(0, 5)))[14:]
    assert books(flowtop.read(capture(tmp_path / "x", [head + packet], link_type), collect=True)) == (5, 10, 1500)


def carried(octets: bytes, exporter: str = "192.0.2.1") -> dict[str, bytes]:
    """A datagram as its frame, and in tunnels and behind tags."""
    packet = f.ipv4(f.udp(5000, 2055, octets), f.UDP, source=exporter)
    inner = f.ethernet(f.IPV4, packet)
    return {
        "vlan": f.ethernet(f.IPV4, packet, tags=((f.VLAN, 7),)),
        "two vlans": f.ethernet(f.IPV4, packet, tags=((f.SERVICE_VLAN, 7), (f.VLAN, 8))),
        "mpls": f.ethernet(0x8847, f.mpls((17, 18), packet)),
        "pppoe": f.ethernet(0x8864, f.pppoe(7, 0x21, packet)),
        "vxlan": f.ethernet(f.IPV4, f.ipv4(f.udp(1, 4789, f.vxlan(7, inner)), f.UDP)),
        "vxlan over IPv6": f.ethernet(f.IPV6, f.ipv6(f.udp(1, 4789, f.vxlan(7, inner)), f.UDP)),
        "geneve": f.ethernet(f.IPV4, f.ipv4(f.udp(1, 6081, f.geneve(7, 0x6558, inner)), f.UDP)),
        "gre": f.ethernet(f.IPV4, f.ipv4(f.gre(f.IPV4, packet), f.GRE)),
        "erspan": f.ethernet(f.IPV4, f.ipv4(f.gre(0x88BE, f.erspan2(3, inner), sequence=1), f.GRE)),
        "ip": f.ethernet(f.IPV4, f.ipv4(packet, f.IPIP)),
        "vxlan in gre": f.ethernet(f.IPV4, f.ipv4(f.gre(f.IPV4, f.ipv4(
            f.udp(1, 4789, f.vxlan(7, inner)), f.UDP)), f.GRE)),
    }


@pytest.mark.parametrize("name", carried(b""))
def test_exports_in_tunnels_are_found_in_their_order(name: str, tmp_path: Path) -> None:
    """The Template is in a tunnel, data follow outside and inside."""
    first, second = ipfix(TEMPLATE, records(0, 5)), ipfix(records(5, 3), sequence=5)
    frames = [carried(first)[name], sent(second), carried(ipfix(records(8, 2), sequence=8))[name]]
    table = flowtop.read(capture(tmp_path / "x", frames), collect=True)
    assert books(table) == (10, 20, 3_000)
    assert table.collecting and (table.collecting.waiting_sets, table.collecting.lost_records) == (0, 0)
    assert {row.as_dict()["exporterIPv4Address"] for row in table.query()} == {"192.0.2.1"}
    assert [message.sender for message in flowtop.read_exports(tmp_path / "x")] == [("192.0.2.1", 5000)] * 3


def test_pcapng_and_standard_input(tmp_path: Path) -> None:
    frame = sent(ipfix(TEMPLATE, records(0, 5)))
    ng = w.section() + w.interface(name="eth0") + w.enhanced(AT_S * 1_000_000, frame)
    (tmp_path / "x").write_bytes(ng)
    assert books(flowtop.read(tmp_path / "x", collect=True)) == (5, 10, 1500)
    found = round_of(Path("-"), stdin=ng)
    assert found["totals"]["accountedPackets"] == 10 and found["collecting"]["records"] == 5


def test_more_than_one_batch_of_records_comes_through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("flowtop.capture.collector.process.MAX_PENDING", 50)
    frames = [sent(ipfix(TEMPLATE, records(20 * number, 20), sequence=20 * number)) for number in range(40)]
    table = flowtop.read(capture(tmp_path / "x", frames), collect=True)
    assert books(table) == (800, 1600, 800 * 300)
    assert table.collecting and table.collecting.lost_records == 0


def test_what_cannot_be_read_is_counted_and_is_the_status(tmp_path: Path) -> None:
    path = capture(tmp_path / "x", [sent(ipfix(TEMPLATE, records(0, 5))), sent(b"\0\x0a\0\x20" + bytes(5))])
    found = round_of(path, status=65)
    assert sum(found["collecting"]["refused"].values()) == 1 and len(found["flows"]) == 5


def test_a_capture_without_exports_says_so(tmp_path: Path) -> None:
    table = flowtop.read(capture(tmp_path / "x", [sent(b"other", port=53)]), collect=True)
    assert table.fault is not None and "contains no flow export" in table.fault.message
    assert "--collect" in table.fault.hint, "nothing of it is counted"


@pytest.mark.parametrize("cut", [5, 100])
def test_a_capture_that_is_cut_off_is_read_as_far_as_it_goes(cut: int, tmp_path: Path) -> None:
    path = capture(tmp_path / "x", [sent(ipfix(TEMPLATE, records(0, 5))), sent(ipfix(records(5, 5), sequence=5))])
    path.write_bytes(path.read_bytes()[:-cut])
    table = flowtop.read(path, collect=True)
    assert books(table) == (5, 10, 1500) and table.fault is not None and "cut off" in table.fault.message


def unzipped(octets: bytes) -> bytes:
    """What can be decompressed of a gzip stream that is cut off."""
    return zlib.decompressobj(wbits=31).decompress(octets)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.99])
def test_a_gzipped_file_of_raw_datagrams_is_read_up_to_the_cut(share: float, tmp_path: Path) -> None:
    """The last datagram's whole records are read too, as its header counts 18 of them with the Template."""
    datagrams = [octets[:2] + struct.pack(">H", 18) + octets[4:] for octets in (
        v9(TEMPLATE9, records(17 * number, 17), sequence=number) for number in range(400))]
    zipped = gzip.compress(b"".join(datagrams))
    path = tmp_path / "x"
    path.write_bytes(zipped[:int(share * len(zipped))])
    left, whole = len(unzipped(path.read_bytes())), len(datagrams[0])
    cut = max(left % whole - (whole - len(records(0, 17))) - 4, 0) // (len(records(0, 1)) - 4)
    table = flowtop.read(path, collect=True)
    assert books(table) == tuple(scale * (left // whole * 17 + cut) for scale in (1, 2, 300))
    assert table.fault is not None and "is cut off" in table.fault.message


def test_fragments_before_the_cut_of_a_gzipped_capture_are_told(tmp_path: Path) -> None:
    first, *_ = in_fragments(ipfix(TEMPLATE, records(100, 60)))
    path = capture(tmp_path / "x", [sent(ipfix(TEMPLATE, records(0, 5))), first])
    path.write_bytes(gzip.compress(path.read_bytes())[:-9])
    table = flowtop.read(path, collect=True)
    assert table.collecting is not None and table.collecting.incomplete_messages == 1
    assert table.fault is not None and "is cut off" in table.fault.message
    assert books(table)[0] >= 5


@pytest.mark.parametrize(("start", "program"), [
    (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh9", "bzip2"), (b"\x04\x22\x4d\x18", "lz4")])
def test_other_compression_is_named(start: bytes, program: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(start + bytes(100))
    with pytest.raises(FlowtopError, match=f"is compressed with {program}") as raised:
        flowtop.read(tmp_path / "x")
    assert raised.value.hint is not None and raised.value.hint.startswith(f"{program} -dc ")
    with pytest.raises(FlowtopError, match=f"is compressed with {program}"):
        list(flowtop.read_exports(tmp_path / "x"))


def test_frames_of_unread_link_types_are_said(tmp_path: Path) -> None:
    order = "<"
    content = (w.section() + w.interface() + w.interface(link_type=189) + w.enhanced(1, sent(ipfix(
        TEMPLATE, records(0, 5))), order) + b"".join(w.enhanced(2, bytes(64), order, number=1) for _ in range(3)))
    (tmp_path / "x").write_bytes(content)
    table = flowtop.read(tmp_path / "x", collect=True)
    said = "has 3 frames of link type 189 (USB_LINUX), which is not supported"
    assert books(table)[0] == 5 and table.fault is not None and said in table.fault.message
    found = []
    with pytest.raises(FlowtopError, match="3 frames of link type 189"):
        found += iter(flowtop.read_exports(tmp_path / "x"))
    only = capture(tmp_path / "y", [bytes(64)], link_type=189)
    table = flowtop.read(only, collect=True)
    assert table.fault is not None
    assert "contains no flow export, and has 1 frame of link type 189" in table.fault.message


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("kind", [1, 2])
def test_old_sflow_is_refused_and_not_overlooked(version: int, kind: int, tmp_path: Path) -> None:
    """As RFC 3176 begins: version, kind of address, address, sequence number, uptime, samples."""
    octets = struct.pack(">II", version, kind) + bytes(4 if kind == 1 else 16) + struct.pack(">III", 1, 1000, 0)
    path = capture(tmp_path / "x", [sent(octets, port=6343)] * 3)
    assert round_of(path, status=65)["collecting"]["refused"] == {"version": 3}
    done = run_flowtop(path, module="flowtop.cli.dump")
    assert done.returncode == 65 and done.stdout.count(f"sFlow version {version} is not read".encode()) == 3


@pytest.mark.parametrize("collect", [True, False])
@pytest.mark.parametrize("datagrams", [
    [v9(flowset(0, 256, 4, 8, 4, 12, 4, 2, 4, 1, 4)), v9(flowset(256, octets=struct.pack(">IIII", 1, 2, 3, 400))),
     v9(flowset(256, octets=struct.pack(">IIII", 1, 3, 3, 400)))],
    [v5(1, v5_record()), ipfix(TEMPLATE, records(0, 4)), v5(1, v5_record())]])
def test_a_file_of_raw_datagrams_is_read_too(datagrams: list[bytes], collect: bool, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"".join(datagrams))
    assert books(flowtop.read(tmp_path / "x", collect=collect)) == (
        (2, 6, 800) if datagrams[0][1] == 9 else (5, 20, 1214))


def test_defaults_are_those_of_a_collector() -> None:
    source = choose_source(options("-b", "-r", "x", "--collect"))
    assert isinstance(source, FileSource)
    table = source.pipeline_config().table
    assert (table.idle_timeout_s, table.dedupe, source.options.sort) == (90, "off", "rate")


@pytest.mark.parametrize("arguments", [
    ("--collect",), ("-l", "2055", "--collect"),
    ("-b", "-r", "x", "--collect", "-w", "y")])
def test_what_needs_packets_or_a_file_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(FlowtopError):
        options(*arguments)
