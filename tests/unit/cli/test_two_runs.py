"""Two runs that are told to write one file: the second is refused, and no record that a run calls sent is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel import frames as f
from tests.prepared import Flowtop
from tests.unit.capture.files import writers as w
from tests.unit.export.flows import until

FLOWS = 40
T = 1_700_000_000 * w.SECOND
CAPTURE = w.pcap([(T + port, f.ethernet(f.IPV4, f.ipv4(f.udp(port, 53, bytes(20)), f.UDP)))
                  for port in range(1, FLOWS + 1)], nano=True)


@contextmanager
def run(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run that reads a capture from a pipe and has written it when the pipe is closed; killed in the end."""
    with Flowtop("-b", "-o", "none", "-r", "-", *options,
                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, list[str]]:
    _, errors = process.communicate(CAPTURE, timeout=60)
    return process.returncode, errors.decode().splitlines()


def open_in(process: subprocess.Popen[bytes], path: Path) -> bool:
    """Whether the process has the file open."""
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            if link.readlink() == path:
                return True
        except OSError:
            continue
    return False


@pytest.mark.parametrize("before", ["nothing", "an empty file", "records"])
@pytest.mark.parametrize("option", ["-e file:x.ipfix", "-e jsonl:x.jsonl", "-e csv:x.csv", "-e jsonl:x.jsonl.gz",
                                    "-e jsonl:x.jsonl?rotate-size=4k", "-w x.pcapng"])
def test_the_second_run_of_one_file_is_refused_with_one_right_line_and_the_first_writes_on(
        tmp_path: Path, option: str, before: str) -> None:
    flag, _, where = option.partition(" ")
    kind, colon, name = where.rpartition(":")
    path = tmp_path / name.partition("?")[0]
    if before != "nothing":
        path.write_text("" if before == "an empty file" else "of an earlier run\n")
    word = f"{kind}{colon}{tmp_path}/{name}"
    with run(flag, word) as first:
        until(lambda: open_in(first, path), lambda: None)
        with run(flag, word) as second:
            status, lines = ended(second)
        assert (status, lines) == (2, [f"flowtop: cannot write {path}: something else is writing it",
                                       "hint: use another file, or end that first"])
        status, lines = ended(first)
    assert status == 0 and len(lines) == 1 and f"{FLOWS} " in lines[0], lines
    aside = [other for other in tmp_path.iterdir() if other.read_bytes() == b"of an earlier run\n"]
    assert len(aside) == (before == "records")
    if path.suffix == ".jsonl":
        records = [json.loads(line) for other in {*tmp_path.iterdir()} - {*aside}
                   for line in other.read_text().splitlines()]
        assert sorted(record["sourceTransportPort"] for record in records) == list(range(1, FLOWS + 1))


def test_a_killed_run_leaves_nothing_that_locks_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with run("-e", f"jsonl:{path}") as first:
        until(lambda: open_in(first, path), lambda: None)
        first.send_signal(signal.SIGKILL)
        first.wait()
    with run("-e", f"jsonl:{path}") as second:
        assert ended(second)[0] == 0
    assert [other.name for other in tmp_path.iterdir()] == ["x.jsonl"]
    assert path.read_text().count("\n") == FLOWS


@pytest.mark.parametrize("count", [2, 5])
def test_runs_that_begin_at_once_say_what_each_of_them_did_not_write(tmp_path: Path, count: int) -> None:
    """Whichever is first: the records in the file are those that a run calls sent."""
    path = tmp_path / "x.jsonl"
    processes = [Flowtop("-b", "-o", "none", "-r", "-", "-e", f"jsonl:{path}", "--export-timeout", "0.1",
                         stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(count)]
    results = [ended(process) for process in processes]
    said = 0
    for status, lines in results:
        if f"{FLOWS} flow records sent" in lines[0]:
            said += FLOWS
            assert status == 0
        else:
            assert status in (2, 74) and "something else is writing it" in lines[0], lines
    assert said >= FLOWS
    assert sum(other.read_text().count("\n") for other in tmp_path.iterdir()) == said


@pytest.mark.parametrize("name", ["{0}/x", "{0}/./x", "{0}/link"])
@pytest.mark.parametrize("before", ["nothing", "records"])
def test_one_run_does_not_write_flows_and_packets_to_one_file(tmp_path: Path, name: str, before: str) -> None:
    path = tmp_path / "x"
    (tmp_path / "link").symlink_to("x")
    if before == "records":
        path.write_text("of an earlier run\n")
    with run("-e", f"jsonl:{path}", "-w", name.format(tmp_path)) as process:
        status, lines = ended(process)
    assert (status, lines) == (2, [f"flowtop: -w {name.format(tmp_path)}: -e jsonl:{path} writes this file",
                                   "hint: name another file"])
    assert path.exists() == (before == "records")
    assert {other.name for other in tmp_path.iterdir()} <= {"x", "link"}


@pytest.mark.parametrize("option", ["-e jsonl:", "-w "])
@pytest.mark.parametrize("device", ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_devices_and_descriptors_are_written_as_before_by_any_number_of_runs(option: str, device: str) -> None:
    words = f"{option}{device}".split(" ")
    with run(*words) as first, run(*words) as second:
        for process in (first, second):
            output, errors = process.communicate(CAPTURE, timeout=60)
            assert process.returncode == 0, errors
            assert bool(output) == (device != "/dev/null")


@pytest.mark.parametrize("option", ["-e jsonl:", "-w "])
def test_a_descriptor_of_a_file_is_written_where_it_stands(tmp_path: Path, option: str) -> None:
    """`>>`: a path of its own would begin at the start, or rename a link like /dev/stdout."""
    link, path = tmp_path / "stdout", tmp_path / "x"
    link.symlink_to("/proc/self/fd/1")
    path.write_text("of before\n")
    with path.open("ab") as output:
        done = subprocess.run([sys.executable, "-m", "flowtop", "-b", "-o", "none", "-r", "-",
                               *f"{option}{link}".split(" ")], input=CAPTURE, stdout=output, stderr=subprocess.PIPE,
                              timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes().startswith(b"of before\n") and path.stat().st_size > 1_000
    assert link.is_symlink() and sorted(other.name for other in tmp_path.iterdir()) == ["stdout", "x"]


@pytest.mark.parametrize("option", ["-e jsonl:", "-w "])
def test_a_named_pipe_is_for_its_reader(tmp_path: Path, option: str) -> None:
    """The octets fit in the pipe."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with run(*f"{option}{tmp_path}/pipe".split(" ")) as process:
            status, lines = ended(process)
        assert (status, lines[0]) == (
            2, f"flowtop: cannot write {tmp_path}/pipe: it is a named pipe; --allow-special allows that")
        with run("--allow-special", *f"{option}{tmp_path}/pipe".split(" ")) as process:
            status, lines = ended(process)
        assert status == 0, lines
        assert len(os.read(reader, 1 << 16)) > 1_000
    finally:
        os.close(reader)
