"""`-w`: which packets are written, what limits them, and what becomes of a file that cannot be written."""

from __future__ import annotations

import os
import re
import resource
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowtop.errors import FlowtopError
from flowtop.files import put_aside, put_back
from flowtop.filters.filter import compile_filter
from flowtop.recording.recorder import Recorder, RecordingLimits
from tests.kernel import frames as f
from tests.prepared import run_flowtop
from tests.unit.capture.files import writers as w
from tests.unit.packets import EVERYTHING, blocks, packets, write_packets

T = 1_700_000_000 * w.SECOND


def frame(port: int, octets: int = 32) -> bytes:
    return f.ethernet(f.IPV4, f.ipv4(f.udp(port, 53, bytes(octets)), f.UDP))


SOURCE = [(T + number * 100_000_001, frame(1 + number % 3, 32 + 100 * number)) for number in range(9)]
"""Ports 1, 2, 3 by turns."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "x.pcap"
    path.write_bytes(w.pcap([*SOURCE, (T + 2 * w.SECOND, f.ethernet(f.ARP, bytes(46)))], nano=True))
    return path


def run(*options: str, environment: dict[str, str] | None = None, before: Callable[[], None] | None = None,
        ) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | (environment or {})
    if before is None:
        return run_flowtop(*options, env=environment)
    return subprocess.run([sys.executable, "-m", "flowtop", *options], capture_output=True, timeout=60, check=False,
                          env=environment, preexec_fn=before)


def test_every_packet_of_a_flow_is_written_as_it_was_and_what_is_in_no_flow_is_not(
        source: Path, tmp_path: Path) -> None:
    figures = write_packets(source, tmp_path / "y.pcapng")
    octets = (tmp_path / "y.pcapng").read_bytes()
    assert packets(octets) == [(0, time_ns, len(octets), octets) for time_ns, octets in SOURCE]
    assert [kind for kind, _ in blocks(octets)] == [0x0A0D0D0A, 1, *[6] * 9, 5]
    assert (figures.written, figures.dropped, figures.capped, figures.state) == (9, 0, 0, "ended")
    assert figures.octets == len(octets)
    assert stat.S_IMODE((tmp_path / "y.pcapng").stat().st_mode) == 0o600


def test_a_snap_length_cuts_the_frame_and_not_its_length(source: Path, tmp_path: Path) -> None:
    write_packets(source, tmp_path / "y.pcapng", limits=RecordingLimits(snap=101, per_flow=0, most_octets=0))
    octets = (tmp_path / "y.pcapng").read_bytes()
    assert packets(octets) == [(0, time_ns, len(octets), octets[:101]) for time_ns, octets in SOURCE]
    description = blocks(octets)[1][1]
    assert struct.unpack_from("<HHI", description) == (1, 0, 101)


def test_each_flow_has_its_share_and_the_rest_is_counted(source: Path, tmp_path: Path) -> None:
    figures = write_packets(source, tmp_path / "y.pcapng", "not port 3", RecordingLimits(262_144, 2, 0))
    found = [octets for *_, octets in packets((tmp_path / "y.pcapng").read_bytes())]
    assert found == [SOURCE[number][1] for number in (0, 1, 3, 4)]
    assert (figures.written, figures.capped, figures.filter) == (4, 2, "not port 3")


def test_a_file_stays_below_its_size_and_ends_whole(source: Path, tmp_path: Path) -> None:
    whole = write_packets(source, tmp_path / "whole.pcapng").octets
    figures = write_packets(source, tmp_path / "y.pcapng", limits=RecordingLimits(262_144, 0, whole // 2))
    octets = (tmp_path / "y.pcapng").read_bytes()
    taken = packets(octets)
    assert taken == packets((tmp_path / "whole.pcapng").read_bytes())[:len(taken)]
    assert 0 < len(taken) < 9
    next_octets = 44 + -(-len(SOURCE[len(taken)][1]) // 4) * 4
    assert len(octets) <= whole // 2 < len(octets) + next_octets, "no room for the next one"
    assert (figures.state, figures.written, figures.capped) == ("full", len(taken), 9 - len(taken))
    assert figures.full_ns == SOURCE[len(taken)][0]


def test_of_a_file_that_is_read_all_is_counted_that_comes_after_the_size_is_reached(
        source: Path, tmp_path: Path) -> None:
    """Rounds of 0.1 s hold one packet each."""
    figures = write_packets(source, tmp_path / "y.pcapng", "not port 3", RecordingLimits(262_144, 0, 600), tick_s=0.1)
    assert (figures.state, figures.written + figures.capped) == ("full", 6)
    assert 0 < figures.written < 5
    done = run("-b", "-o", "none", "-r", str(source), "-w", str(tmp_path / "z.pcapng"), "--write-total", "600",
               "not port 3")
    assert done.stderr.decode() == (
        f"flowtop: {tmp_path}/z.pcapng: {figures.written} packets written, {figures.capped} beyond --write-per-flow or "
        "--write-total, the file was full at 2023-11-14T22:13:20Z\n")


@pytest.mark.parametrize("interfaces", [1, 2, 7])
def test_descriptions_and_statistics_of_interfaces_are_part_of_the_size(tmp_path: Path, interfaces: int) -> None:
    source = tmp_path / "x.pcapng"
    source.write_bytes(w.section() + b"".join(w.interface(name=f"eth{number}") for number in range(interfaces))
                       + b"".join(w.enhanced(T // 1000, frame(1), number=number % interfaces) for number in range(70)))
    figures = write_packets(source, tmp_path / "y.pcapng", limits=RecordingLimits(256, 0, 5000))
    packet = 44 + -(-len(frame(1)) // 4) * 4
    assert 5000 - packet < (tmp_path / "y.pcapng").stat().st_size <= 5000
    assert figures.written + figures.capped == 70


def test_what_only_the_flow_table_knows_is_asked_of_it_when_it_knows(source: Path, tmp_path: Path) -> None:
    """Rounds of 0.3 s hold three packets, one of each port: at the first nobody has had more than one."""
    write_packets(source, tmp_path / "y.pcapng", "port 2 and packets > 1", tick_s=0.3)
    assert [octets for *_, octets in packets((tmp_path / "y.pcapng").read_bytes())] == [SOURCE[4][1], SOURCE[7][1]]


def test_the_link_type_and_name_of_each_interface_stay(tmp_path: Path) -> None:
    ip = f.ipv4(f.udp(7, 53, bytes(8)), f.UDP)
    source = tmp_path / "x.pcapng"
    source.write_bytes(
        w.section() + w.interface(name="eth0") + w.interface(name="tun0", link_type=101, resolution=9)
        + w.enhanced(T, ip, number=1, flags=2) + w.enhanced(T, ip, number=1, flags=1)
        + w.enhanced(T // 1000, f.ethernet(f.IPV4, ip), number=0))
    write_packets(source, tmp_path / "y.pcapng")
    found = blocks((tmp_path / "y.pcapng").read_bytes())
    described = [(struct.unpack_from("<H", body)[0], body[12:16]) for kind, body in found if kind == 1]
    assert described == [(1, b"eth0"), (101, b"tun0")]
    assert [(interface, octets) for interface, _, _, octets in packets((tmp_path / "y.pcapng").read_bytes())] == [
        (1, ip), (1, ip), (0, f.ethernet(f.IPV4, ip))]
    assert [struct.unpack_from("<HHI", body, len(body) - 12) for kind, body in found if kind == 6] == [
        (2, 4, 2), (2, 4, 1), (2, 4, 0)], "sent; received; and nobody said"


@pytest.mark.parametrize(("text", "decap", "wanted"), [
    ("net 192.168.0.0/16", True, [0, 1]),
    ("vni 42", True, [0]),
    ("packets > 1", True, [0]),
    ("not tunnel", True, [2]),
    ("net 192.168.0.0/16", False, []),
    ("port 4789", False, [0]),
])
def test_packets_in_tunnels_are_those_of_the_flow_inside_and_written_with_the_tunnel(
        source: Path, tmp_path: Path, text: str, decap: bool, wanted: list[int]) -> None:
    inside = [f.ipv4(f.udp(port, 53), f.UDP, source="192.168.0.1", destination="192.168.0.2") for port in (7, 8)]
    vxlan = f.udp(9, 4789, f.vxlan(42, f.ethernet(f.IPV4, inside[0])))
    frames = [f.ethernet(f.IPV4, packet) for packet in (
        f.ipv4(vxlan, f.UDP), f.ipv4(f.gre(f.IPV4, inside[1], key=7), f.GRE), f.ipv4(f.udp(7, 53), f.UDP))]
    source.write_bytes(w.pcap([(T, frames[0]), *((T + w.SECOND, frame) for frame in frames)]))
    write_packets(source, tmp_path / "y.pcapng", text, decap=decap)
    found = [octets for *_, octets in packets((tmp_path / "y.pcapng").read_bytes())]
    assert found == [frames[number] for number in (0, 0, 1, 2) if number in wanted]


def test_a_file_of_before_is_put_aside_by_the_command_and_refused_by_the_screen(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "y.pcapng"
    target.write_text("old")
    write_packets(source, target)
    assert len(packets(target.read_bytes())) == 9
    assert [path.read_text() for path in tmp_path.glob("y-*.pcapng")] == ["old"]
    with pytest.raises(FlowtopError, match=r"y.pcapng exists already"):
        Recorder(EVERYTHING).begin(str(target), [], new=True)


def test_one_recording_at_a_time(tmp_path: Path) -> None:
    recorder = Recorder()
    recorder.begin(str(tmp_path / "a.pcapng"), [], new=True)
    with pytest.raises(FlowtopError, match="packets are being written already"):
        recorder.begin(str(tmp_path / "b.pcapng"), [], new=True)
    assert recorder.end() is not None
    recorder.begin(str(tmp_path / "b.pcapng"), [compile_filter("tcp")], new=True)
    figures = recorder.end()
    assert figures is not None
    assert (figures.path, figures.filter) == (str(tmp_path / "b.pcapng"), "tcp")


@pytest.mark.parametrize("seconds", [3, 0])
def test_a_disk_that_is_full_has_what_there_is_room_for_and_a_status(
        source: Path, tmp_path: Path, seconds: int) -> None:
    """Packet by packet, or all of them at once."""
    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))

    target = tmp_path / "y.pcapng"
    source.write_bytes(w.pcap([(T + number * seconds * w.SECOND, frame(1, 400)) for number in range(9)]))
    done = run("-b", "-o", "none", "-r", str(source), "-w", str(target), before=little_room)
    assert [octets for *_, octets in packets(target.read_bytes())] == [frame(1, 400)[:256]] * 4
    assert done.stderr.decode() == f"flowtop: {target}: 4 packets written, then it failed: file too large\n"
    assert done.returncode == 74


def test_what_standard_output_had_before_stays_when_the_disk_is_full(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "y"
    target.write_bytes(bytes(1000))
    done = subprocess.run(f"ulimit -f 2; {sys.executable} -m flowtop -b -r {source} -w - >> {target}", shell=True,
                          capture_output=True, timeout=60, check=False, executable="/bin/bash")
    octets = target.read_bytes()
    assert octets[:1000] == bytes(1000)
    assert 1 <= len(packets(octets[1000:])) < 9
    assert b"then it failed: file too large" in done.stderr


def test_standard_output_and_a_reader_that_goes_away(source: Path) -> None:
    done = run("-b", "-r", str(source), "-w", "-", "port 1")
    assert [octets for *_, octets in packets(done.stdout)] == [SOURCE[number][1][:256] for number in (0, 3, 6)]
    assert (done.returncode, done.stderr) == (0, b"flowtop: standard output: 3 packets written\n")
    source.write_bytes(w.pcap([(T + number * 3 * w.SECOND, frame(1, 400)) for number in range(2000)]))
    gone = subprocess.run(f"{sys.executable} -m flowtop -b -r {source} -w - | head -c 1000", shell=True,
                          capture_output=True, timeout=60, check=False)
    assert len(gone.stdout) == 1000
    line = re.fullmatch(rb"flowtop: standard output: (\d+) packets written, then its reader closed it\n", gone.stderr)
    assert line
    assert 2 <= int(line[1]) < 2000, "what is whole in 1000 octets, and what is in the pipe"


@pytest.mark.parametrize(("options", "message"), [
    (("-b", "-w", "/nowhere/y.pcapng"), "cannot write /nowhere/y.pcapng: no such file or directory"),
    (("-b", "-w", "/tmp"), "cannot write /tmp: it is a directory"),
    (("-b", "-w", "/dev/full"), "cannot write /dev/full: no space left on device"),
    (("-b", "-w", "-", "-o", "json"), "-o json and -w - both write to standard output"),
    (("-b", "-w", "-", "-e", "jsonl:-"), "-e jsonl:- and -w - both write to standard output"),
    (("-w", "-"), "-w -: standard output belongs to the screen"),
    (("-b", "-w", "y", "--write-total", "much"),
     "Invalid value for '--write-total': \"much\" is not a size; for example 4096, 100M, 1.5Gi"),
])
def test_what_cannot_be_written_is_told_before_anything_begins(
        source: Path, options: tuple[str, ...], message: str) -> None:
    done = run("-r", str(source), *options)
    assert (done.stdout, done.returncode) == (b"", 2)
    assert done.stderr.decode().splitlines()[0] == f"flowtop: {message}"


@pytest.mark.parametrize(("read", "status"), [("nosuch.pcap", 66), ("text.pcap", 65), ("x.ipfix", 2)])
def test_a_run_that_could_not_begin_leaves_the_file_of_before_where_it_was(
        source: Path, tmp_path: Path, read: str, status: int) -> None:
    (tmp_path / "text.pcap").write_text("no capture\n" * 9)
    if read == "x.ipfix":
        assert run("-b", "-o", "none", "-r", str(source), "-e", f"file:{tmp_path}/x.ipfix").returncode == 0
    (tmp_path / "old.pcapng").write_text("old")
    (tmp_path / "empty.pcapng").touch()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for written in ("old", "empty", "new"):
        done = run("-b", "-o", "none", "-r", f"{tmp_path}/{read}", "-w", f"{tmp_path}/{written}.pcapng")
        assert done.returncode == status
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_that_came_meanwhile_is_not_replaced_by_what_was_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "y.pcapng"
    path.write_text("old")
    aside = put_aside(path, 1_700_000_000.0)
    path.write_text("new")
    put_back(aside, path)
    assert (path.read_text(), aside.read_text()) == ("new", "old")
    path.unlink()
    put_back(aside, path)
    assert (path.read_text(), aside.exists()) == ("old", False)


@pytest.mark.parametrize("other", ["x.pcap", "./x.pcap", "link.pcap"])
def test_what_is_read_is_not_put_aside_to_be_written(source: Path, tmp_path: Path, other: str) -> None:
    (tmp_path / "link.pcap").symlink_to(source)
    before = source.read_bytes()
    for option in (("-w", f"{tmp_path}/{other}"), ("-e", f"csv:{tmp_path}/{other}")):
        done = run("-b", "-o", "none", "-r", str(source), *option)
        assert (done.returncode, done.stderr.decode().splitlines()[0]) == (
            2, f"flowtop: {' '.join(option)}: this is the file that -r reads")
    assert source.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.pcap", "x.pcap"]


def test_exporters_have_no_packets(tmp_path: Path) -> None:
    done = run("-b", "-l", "0", "-w", str(tmp_path / "y.pcapng"))
    assert (done.returncode, done.stderr.decode().splitlines()[0]) == (
        2, "flowtop: -w needs packets: exporters send flow records only")
    assert not (tmp_path / "y.pcapng").exists()


def test_a_file_of_flow_records_has_none_either(source: Path, tmp_path: Path) -> None:
    recorded = tmp_path / "x.ipfix"
    assert run("-b", "-o", "none", "-r", str(source), "-e", f"file:{recorded}").returncode == 0
    done = run("-b", "-o", "none", "-r", str(recorded), "-w", str(tmp_path / "y.pcapng"))
    assert (done.returncode, done.stderr.decode().splitlines()[0]) == (
        2, "flowtop: there are no packets in this file, only flow records")
    assert not (tmp_path / "y.pcapng").exists()


def test_behind_sudo_the_file_belongs_to_the_user(source: Path, directory_of_nobody: Path) -> None:
    target = directory_of_nobody / "y.pcapng"
    run("-b", "-o", "none", "-r", str(source), "-w", str(target),
        environment={"SUDO_UID": "65534", "SUDO_GID": "65533"})
    assert (target.stat().st_uid, target.stat().st_gid) == (65534, 65533)
