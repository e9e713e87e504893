"""Files beside the ordinary: whose they are, links, named pipes, readers that stop reading."""

from __future__ import annotations

import io
import json
import os
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowtop import files
from flowtop.errors import FlowtopError
from flowtop.export import compression
from flowtop.export.opening import open_exporter
from flowtop.export.statistics import ExportState, ExportStatistics
from flowtop.files import recording_owner
from tests.unit.export.flows import flows, until

NOBODY = 65_534


def record(url: str, tmp_path: Path, count: int = 5) -> ExportStatistics:
    exporter = open_exporter(url, tmp_path / "state")
    exporter.start()
    exporter.consume(flows(count))
    return exporter.stop(10.0)


def test_a_recording_belongs_to_the_user_behind_sudo_and_to_nobody_else(
        directory_of_nobody: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    monkeypatch.setenv("SUDO_GID", str(NOBODY))
    record(f"jsonl:{directory_of_nobody}/own.jsonl", tmp_path)
    own = (directory_of_nobody / "own.jsonl").stat()
    assert (own.st_uid, own.st_gid, stat.S_IMODE(own.st_mode)) == (NOBODY, NOBODY, 0o600)


def test_the_owner_is_who_sudo_says_and_only_to_root() -> None:
    behind = {"SUDO_UID": "1000", "SUDO_GID": "100"}
    assert recording_owner(behind, 0) == (1000, 100)
    assert recording_owner(behind, 1000) is None
    assert recording_owner({}, 0) is None
    assert recording_owner(behind | {"SUDO_GID": "-1"}, 0) is None
    assert recording_owner(behind | {"SUDO_UID": "root"}, 0) is None


@pytest.fixture
def special(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with --allow-special."""
    monkeypatch.setattr(files, "_special", True)


@pytest.mark.usefixtures("special")
def test_a_named_pipe_without_a_reader_is_told_and_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    exporter = open_exporter(f"jsonl:{tmp_path}/pipe", tmp_path / "state")
    exporter.start()
    exporter.consume(flows(5))
    until(lambda: exporter.statistics().state is ExportState.WAITING, exporter.statistics)
    figures = exporter.stop(0.1)
    assert (figures.sent_records, figures.not_sent_records) == (0, 5)


@pytest.mark.usefixtures("special")
def test_a_reader_that_stops_reading_gets_whole_lines_and_the_stop_does_not_wait_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    exporter = open_exporter(f"jsonl:{tmp_path}/pipe", tmp_path / "state")
    exporter.start()
    exporter.consume(flows(5_000))  # more than a megabyte: a pipe holds 64 KiB
    os.set_blocking(reader, True)
    first = os.read(reader, 1)
    figures = exporter.stop(0.2)
    assert figures.sent_records + figures.not_sent_records == 5_000 and figures.not_sent_records > 4_000
    octets = first
    while part := os.read(reader, 1 << 16):
        octets += part
    os.close(reader)
    assert octets.endswith(b"\n")
    assert [json.loads(line)["flowId"] for line in octets.splitlines()] == list(range(1, octets.count(b"\n") + 1))


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_compressed_recording_is_what_the_common_tools_unpack(tmp_path: Path, suffix: str) -> None:
    tool = {"gz": "gzip", "zst": "zstd"}[suffix]
    record(f"jsonl:{tmp_path}/flows.{suffix}", tmp_path, 3_000)
    unpacked = subprocess.run([tool, "-dc", tmp_path / f"flows.{suffix}"], capture_output=True, check=True).stdout
    assert [json.loads(line)["flowId"] for line in unpacked.splitlines()] == list(range(1, 3_001))


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="the standard library has zstd")
def test_zstd_that_is_not_installed_is_said_before_anything_starts(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FlowtopError, match="zstandard is not installed") as caught:
        open_exporter(f"jsonl:{tmp_path}/flows.zst", tmp_path / "state")
    assert "compress=gzip" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("few", [1, 1_000, 9_000])
@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_what_a_compressor_held_when_the_disk_was_full_is_not_sent(tmp_path: Path, suffix: str, few: int) -> None:
    """The disk's part is played by a limit on the size of files: writes are cut short at it, then fail."""
    tool = {"gz": "gzip", "zst": "zstd"}[suffix]
    later_s = [0.0]
    exporter = open_exporter(f"jsonl:{tmp_path}/flows.{suffix}", tmp_path / "state",
                             monotonic=lambda: time.monotonic() + later_s[0])
    exporter.start()
    exporter.consume(flows(few))
    until(lambda: exporter.statistics().sent_records == few, exporter.statistics)
    later_s[0] = 2.0  # what is written from now on is flushed
    exporter.consume(flows(1, few + 1))
    until(lambda: exporter.statistics().sent_records == few + 1, exporter.statistics)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        exporter.consume(flows(59_000, few + 2))
        until(lambda: exporter.statistics().state is ExportState.WAITING, exporter.statistics)
        figures = exporter.stop(0.05)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert figures.last_error == "File too large"
    assert figures.sent_records + figures.not_sent_records == few + 59_001
    assert figures.not_sent_records > 0
    unpacked = subprocess.run([tool, "-dc", tmp_path / f"flows.{suffix}"], capture_output=True, check=False).stdout
    assert [json.loads(line)["flowId"] for line in unpacked.splitlines()] == list(range(1, figures.sent_records + 1))
    assert figures.sent_records >= few + 1


def test_the_zstd_command_reads_all_of_a_stream_that_was_cut_at_a_flush(tmp_path: Path) -> None:
    """It holds back what it has decompressed of a frame without an end; how much depends on the sizes."""
    lines = b"".join(b'{"flowId":%d,"padding":"%s"}\n' % (number, b"abc" * 150) for number in range(20_000))
    octets = io.BytesIO()
    writer = compression.compressor("zstd", compression.WholeWriter(lambda part: octets.write(part) and None), 0.0)
    writer.write(lines)
    writer.flush()
    path = tmp_path / "cut.zst"
    path.write_bytes(octets.getvalue() + compression.END_OF_FLUSHED["zstd"])
    assert subprocess.run(["zstd", "-dc", path], capture_output=True, check=True).stdout == lines


def test_a_file_is_put_aside_where_there_are_no_hard_links_too(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*arguments: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "flows.jsonl"
    for texts in (["old\n"], ["old\n", "older\n"]):
        path.write_text(texts[-1])
        exporter = open_exporter(f"jsonl:{path}", tmp_path / "state", wall=lambda: 1_700_000_000.0)
        exporter.start()
        exporter.consume(flows(3))
        assert exporter.stop(10.0).sent_records == 3
        assert len(path.read_text().splitlines()) == 3
        aside = sorted(other for other in tmp_path.glob("flows-*.jsonl"))
        assert sorted(other.read_text() for other in aside) == texts
