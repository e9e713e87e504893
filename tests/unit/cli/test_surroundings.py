"""Odd surroundings: closed standard streams, low limits, refused calls: one right line each, no traceback, no hang."""

from __future__ import annotations

import errno
import itertools
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from flowtop.cli.streams import complain
from tests.kernel import frames as f
from tests.unit.capture.files import writers as w
from tests.unit.cli import refused
from tests.unit.export.flows import until

FLOWS = 40
T = 1_700_000_000 * w.SECOND
CAPTURE = w.pcap([(T + port, f.ethernet(f.IPV4, f.ipv4(f.udp(port, 53, bytes(20)), f.UDP)))
                  for port in range(1, FLOWS + 1)], nano=True)
FLOWTOP = [sys.executable, "-m", "flowtop"]
DUMP = [sys.executable, "-m", "flowtop.cli.dump"]
CLONES = {"x86_64": (56, 435), "aarch64": (220, 435)}.get(platform.machine(), ())
SOCKETPAIR, MEMFD_CREATE, EVENTFD2 = {"x86_64": (53, 319, 290), "aarch64": (199, 279, 19)}.get(
    platform.machine(), (0, 0, 0))


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "x.pcap"
    path.write_bytes(CAPTURE)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "x.ipfix"
    capture = path.with_name("x.pcap")
    capture.write_bytes(CAPTURE)
    subprocess.run([*FLOWTOP, "-b", "-o", "none", "-r", capture, "-e", f"file:{path}"], check=True, timeout=60,
                   capture_output=True)
    return path


@pytest.fixture(scope="module")
def checked() -> subprocess.CompletedProcess[bytes]:
    """`flowtop --check` with all three streams."""
    return subprocess.run([*FLOWTOP, "--check"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)


def run(words: Sequence[str | Path], before: Callable[[], None] | None = None, status: int | None = None,
        ) -> tuple[int, str, str]:
    """Its exit status and what it wrote; no traceback, and at most two lines: an error and a hint, or what was done."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
                          preexec_fn=before)
    assert "Traceback" not in done.stderr and "report this" not in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr
    assert status is None or done.returncode == status, done.stderr
    return done.returncode, done.stdout, done.stderr


def closed(*descriptors: int) -> Callable[[], None]:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)
    return close


COMBINATIONS = [closes for count in range(4) for closes in itertools.combinations(range(3), count)]


@pytest.mark.parametrize("closes", COMBINATIONS, ids=str)
class TestClosedStreams:
    def test_rounds(self, capture: Path, closes: tuple[int, ...]) -> None:
        status, output, errors = run([*FLOWTOP, "-b", "-o", "json", "-r", capture], closed(*closes))
        assert (status, output.count("\n")) == ((2, 0) if 1 in closes else (0, 1))
        said = "" if 1 not in closes or 2 in closes else (
            "flowtop: standard output is closed\nhint: -b writes there\n")
        assert errors == said

    def test_exports(self, capture: Path, closes: tuple[int, ...]) -> None:
        """They get no number of a standard stream: nothing that is written there ends in them."""
        flows, packets = capture.with_name("x.jsonl"), capture.with_name("x.pcapng")
        status, output, errors = run([*FLOWTOP, "-b", "-o", "none", "-r", capture, "-e", f"jsonl:{flows}",
                                      "-w", packets], closed(*closes))
        assert (status, output) == (0, "")
        assert errors.count("\n") == (0 if 2 in closes else 2)
        assert flows.read_text().count("\n") == FLOWS
        assert packets.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a" and b"flowtop:" not in packets.read_bytes()

    def test_exporters(self, closes: tuple[int, ...]) -> None:
        status, output, errors = run([*FLOWTOP, "-b", "-o", "json", "-l", "udp://127.0.0.1:0", "-c", "1", "-d", "0.1"],
                                     closed(*closes))
        assert (status, output.count("\n")) == ((2, 0) if 1 in closes else (0, 1)), errors

    def test_the_screen(self, closes: tuple[int, ...]) -> None:
        run([*FLOWTOP, "-l", "udp://127.0.0.1:0"], closed(*closes), status=2)

    def test_dump(self, exported: Path, closes: tuple[int, ...]) -> None:
        status, output, errors = run([*DUMP, exported], closed(*closes))
        assert (status, bool(output)) == ((2, False) if 1 in closes else (0, True)), errors
        if closes == (1,):
            assert errors == "flowtop-dump: standard output is closed\nhint: flowtop-dump writes there\n"

    def test_check(self, checked: subprocess.CompletedProcess[bytes], closes: tuple[int, ...]) -> None:
        """Its status is an answer too."""
        done = subprocess.run([*FLOWTOP, "--check"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
                              check=False, preexec_fn=closed(*closes))
        assert done.returncode == checked.returncode
        assert done.stderr == checked.stderr == b""
        assert done.stdout == (b"" if 1 in closes else checked.stdout)


def limited(kind: int, amount: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (amount, amount))


def read_to_lines(capture: Path) -> tuple[list[str | Path], Path]:
    flows = capture.with_name("x.jsonl")
    return [*FLOWTOP, "-b", "-o", "none", "-r", capture, "-e", f"jsonl:{flows}"], flows


def assert_read_or_said(capture: Path, before: Callable[[], None], remedy: str) -> bool:
    """Every flow is in the file, or the error names the limit to raise. Returns whether it worked."""
    words, flows = read_to_lines(capture)
    status, _, errors = run(words, before)
    if status:
        assert remedy in errors.splitlines()[-1], errors
    else:
        assert flows.read_text().count("\n") == FLOWS
    return not status


@pytest.mark.parametrize("count", [5, 6, 8, 10])
def test_few_open_files(capture: Path, count: int) -> None:
    """With 4 Python itself does not start where a package has put code into a .pth file."""
    worked = assert_read_or_said(capture, limited(resource.RLIMIT_NOFILE, count), "ulimit -n")
    assert worked or count < 10
    assert not (worked and count == 5), "else this test proves nothing"


@pytest.mark.parametrize("mebibytes", [60, 100, 140, 200])
def test_little_memory(capture: Path, mebibytes: int) -> None:
    """200,000 KiB are enough to read a file: no library makes threads of its own, each with its stack."""
    worked = assert_read_or_said(capture, limited(resource.RLIMIT_AS, mebibytes << 20), "ulimit -v")
    assert worked or mebibytes < 200
    assert not (worked and mebibytes == 60), "else this test proves nothing"


@pytest.mark.parametrize("what", ["exports", "packets", "exporters"])
def test_no_threads(capture: Path, what: str) -> None:
    """As with `ulimit -u`, which root is not bound by: clone is refused, as it is there."""
    words: list[str | Path] = [*FLOWTOP, "-b", "-o", "json", "-c", "1", "-d", "0.1", "-l", "udp://127.0.0.1:0"]
    if what != "exporters":
        words, _ = read_to_lines(capture)
    if what == "packets":
        words = [*words[:-2], "-w", "/dev/null"]
    _, _, errors = run([sys.executable, refused.__file__, str(errno.EAGAIN), ",".join(map(str, CLONES)), *words])
    first, hint = errors.splitlines()
    assert first.startswith("flowtop: cannot ") and first.endswith("can't start new thread")
    assert "ulimit -u" in hint


@pytest.mark.parametrize("calls", [(SOCKETPAIR,), (MEMFD_CREATE,), (SOCKETPAIR, MEMFD_CREATE)], ids=str)
def test_reading_needs_neither_memfd_nor_socketpair(capture: Path, calls: tuple[int, ...]) -> None:
    words, flows = read_to_lines(capture)
    run([sys.executable, refused.__file__, str(errno.EPERM), ",".join(map(str, calls)), *words], status=0)
    assert flows.read_text().count("\n") == FLOWS


def test_without_events_it_says_what_was_refused(capture: Path) -> None:
    words, _ = read_to_lines(capture)
    _, _, errors = run([sys.executable, refused.__file__, str(errno.EPERM), str(EVENTFD2), *words])
    assert errors.splitlines()[0].endswith("operation not permitted")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_without_proc(capture: Path) -> None:
    words, flows = read_to_lines(capture)
    hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    run([*hidden, *words], status=0)
    assert flows.read_text().count("\n") == FLOWS
    status, output, _ = run([*hidden, *FLOWTOP, "--check"])
    assert status == 1
    lines = output.splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("MISS  /proc"))
    assert "remedy: mount -t proc" in lines[place + 1]


def test_exports_go_on_when_the_terminal_of_the_run_is_gone(capture: Path) -> None:
    """`flowtop -b -o none -e ... & disown`: the shell's end takes the terminal away, and sends it no signal."""
    words, flows = read_to_lines(capture)
    words[words.index(capture)] = "-"
    master, slave = os.openpty()
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=slave, stderr=slave, start_new_session=True) as process:
        assert process.stdin is not None
        process.stdin.write(CAPTURE[:400])
        process.stdin.flush()
        until(flows.exists, lambda: None)
        os.close(slave)
        os.close(master)
        process.stdin.write(CAPTURE[400:])
        process.stdin.close()
        assert process.wait(60) == 0, "the last line has nowhere to go, which is no fault of the run"
    assert flows.read_text().count("\n") == FLOWS


def test_two_exports_write_one_device(capture: Path) -> None:
    run([*FLOWTOP, "-b", "-o", "none", "-r", capture, "-e", "jsonl:/dev/null", "-e", "csv:/dev/null"], status=0)


@pytest.mark.parametrize(("name", "shown"), [
    ("a\x1b]0;title\x07b", r"a\x1b]0;title\x07b"), ("a\x9b2Jb", r"a\x9b2Jb"), ("a\rb\x7f", r"a\rb\x7f"),
    ("a\u202eb", r"a\u202eb"), ("größe 大 é", "größe 大 é"), ("os\udcff", r"os\udcff")])
def test_a_message_does_not_control_the_terminal(capfd: pytest.CaptureFixture[str], name: str, shown: str) -> None:
    """A file of `-r *` may have been named by somebody else."""
    complain("flowtop", f"cannot read {name}", f"the hint of {name}")
    assert capfd.readouterr().err == f"flowtop: cannot read {shown}\nhint: the hint of {shown}\n"
