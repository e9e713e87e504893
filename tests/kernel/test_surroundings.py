"""The directory flowtop is started in and the environment have no part in the programs it loads into the kernel."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowtop.capture.ebpf.compiler import KEPT_VARIABLE, kernel_release
from tests.kernel.netns import PATIENCE_S, Lab, eventually
from tests.kernel.test_command import Command
from tests.unit.cli import refused

FLOWTOP = Path(sys.executable).with_name("flowtop")
POISON = '#error "planted"\n'
FOLDER_VARIABLES = ("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH", "COMPILER_PATH",
                    "BCC_KERNEL_SOURCE", "BCC_KERNEL_MODULES_DIR", "PYTHONPATH", "TMPDIR", "HOME", "XDG_CONFIG_HOME")
"""Variables that lead clang, bcc, Python or flowtop to a folder."""
ASKED_FOR = re.compile(r'"([^"]*\.h)"')


def capture_once(tmp_path: Path, *prefix: str, cwd: Path | None = None, environment: dict[str, str] | None = None,
                 ) -> subprocess.CompletedProcess[str]:
    """A capture of loopback, with packets written too: both programs of bpf/ are compiled, as none are kept."""
    words = [*prefix, str(FLOWTOP), "-b", "-o", "json", "-c", "1", "-d", "0.1", "-i", "lo",
             "-w", str(tmp_path / "packets.pcapng")]
    return subprocess.run(words, cwd=cwd, env={**os.environ, KEPT_VARIABLE: "", **(environment or {})},
                          capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def assert_captured(done: subprocess.CompletedProcess[str]) -> None:
    """It ended well and said one thing: how many packets it wrote."""
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"flowtop: .* packets? written\n", done.stderr), done.stderr
    assert "totals" in json.loads(done.stdout)


def headers_asked_for(trace: str) -> set[str]:
    """Every name by which an included file of `trace` could be found in some folder: all tails of its path."""
    tails = set()
    for path in ASKED_FOR.findall(trace):
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        tails |= {"/".join(parts[start:]) for start in range(len(parts))}
    return tails


def plant(folder: Path, names: set[str]) -> None:
    """Files that no program compiles with, by all of `names`."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(POISON)


@pytest.fixture(scope="module")
def asked_for(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What clang looks for, found or not, while it compiles all of bpf/."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace: apt-get install strace")
    folder = tmp_path_factory.mktemp("traced")
    done = capture_once(folder, strace, "-f", "-e", "trace=file", "-s", "4096", "-o", str(folder / "trace"), cwd=folder)
    assert done.returncode == 0, done.stderr
    names = headers_asked_for((folder / "trace").read_text(errors="replace"))
    assert {"counters.h", "parse.h", "packets.h", "linux/types.h", "linux/version.h", "bcc/proto.h"} <= names
    return names


def test_no_header_of_the_working_directory_is_compiled(asked_for: set[str], tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    plant(planted, asked_for)
    assert_captured(capture_once(tmp_path, cwd=planted, environment={"TMPDIR": str(planted), "HOME": str(planted)}))


def test_no_header_of_a_folder_in_the_environment_is_compiled(asked_for: set[str], tmp_path: Path) -> None:
    """A folder for each variable: one that stands twice on clang's path is looked into at the later place only."""
    planted = {variable: tmp_path / "planted" / variable for variable in FOLDER_VARIABLES}
    for folder in planted.values():
        plant(folder, asked_for)
    assert_captured(capture_once(tmp_path, environment={variable: str(path) for variable, path in planted.items()}))


def test_a_python_package_that_the_environment_names_is_not_loaded_by_the_compiler(tmp_path: Path) -> None:
    package = tmp_path / "planted" / "bcc"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"open({str(tmp_path / 'was here')!r}, 'w')\n")
    done = capture_once(tmp_path, cwd=tmp_path / "planted", environment={"PYTHONPATH": str(tmp_path / "planted")})
    assert_captured(done)
    assert not (tmp_path / "was here").exists()


def test_it_starts_in_a_directory_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = capture_once(tmp_path, "sh", "-c", f'rmdir {gone} && exec "$@"', "sh", cwd=gone)
    assert_captured(done)


def test_it_starts_in_a_directory_that_its_user_may_not_read(tmp_path: Path) -> None:
    """As behind sudo in a home on NFS or sshfs: the right to look past file modes is taken away."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    os.chown(closed, 54321, 54321)
    without = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps",
               "-dac_override,-dac_read_search")
    shut = subprocess.run([*without, "ls", "."], cwd=closed, capture_output=True, check=False)
    assert shut.returncode != 0, "else this test proves nothing"
    done = capture_once(tmp_path, *without, cwd=closed)
    assert_captured(done)


@pytest.mark.parametrize("closed", [(2,), (0, 1), (0, 2), (0, 1, 2)])
def test_it_captures_with_standard_descriptors_closed(tmp_path: Path, closed: tuple[int, ...]) -> None:
    """As daemons' children start. The next descriptors opened would have these numbers."""
    out, packets = tmp_path / "flows.jsonl", tmp_path / "packets.pcapng"
    words = [str(FLOWTOP), "-b", "-o", "none", "-c", "1", "-d", "1", "-i", "lo", "-e", f"jsonl:{out}", "-w",
             str(packets)]
    shut = " ".join(f"{descriptor}>&-" for descriptor in closed)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        running = subprocess.Popen(["sh", "-c", f'exec "$@" {shut}', "sh", *words], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_S
        while running.poll() is None and time.monotonic() < deadline:
            sender.sendto(b"x", ("127.0.0.1", 9))
            time.sleep(0.02)
        status = running.wait(1)
    assert status == 0
    assert any(json.loads(line)["destinationTransportPort"] == 9 for line in out.read_text().splitlines())
    assert packets.read_bytes()[:4] == bytes.fromhex("0a0d0d0a")


def files(count: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


HIDDEN = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh")
REFUSED = (sys.executable, refused.__file__, str(errno.EPERM))
SOCKETPAIR, MEMFD_CREATE, BPF = {"x86_64": ("53", "319", "321"), "aarch64": ("199", "279", "280")}.get(
    platform.machine(), ("", "", ""))


@pytest.mark.parametrize(("prefix", "before", "remedy"), [
    ((), files(8), "ulimit -n"), ((), files(12), "ulimit -n"), ((), files(16), "ulimit -n"),
    ((), files(20), "ulimit -n"), ((), files(32), "ulimit -n"), ((), files(80), None),
    ((), lambda: resource.setrlimit(resource.RLIMIT_AS, (200_000 << 10, 200_000 << 10)), "ulimit -v"),
    ((*REFUSED, SOCKETPAIR), None, "flowtop --check"), ((*REFUSED, MEMFD_CREATE), None, "flowtop --check"),
    ((*REFUSED, BPF), None, "CAP_BPF"), (HIDDEN, None, "mount -t proc"),
], ids=["8 files", "12 files", "16 files", "20 files", "32 files", "80 files", "memory", "socketpair",
        "memfd", "bpf", "no proc"])
def test_a_capture_works_as_check_says_or_says_in_two_lines_what_to_do(
        prefix: tuple[str, ...], before: Callable[[], None] | None, remedy: str | None) -> None:
    live, check = (subprocess.run([*prefix, str(FLOWTOP), *words], capture_output=True, text=True, check=False,
                                  timeout=PATIENCE_S, preexec_fn=before, env={**os.environ, KEPT_VARIABLE: ""})
                   for words in (("-b", "-o", "json", "-c", "1", "-d", "0.1", "-i", "lo"), ("--check",)))
    assert (live.returncode == 0) == (check.returncode == 0) == (remedy is None), (live, check)
    if remedy is None:
        assert "totals" in json.loads(live.stdout) and live.stderr == ""
        return
    message, hint = live.stderr.splitlines()
    assert message.startswith("flowtop: cannot ") and hint.startswith("hint: ") and remedy in hint, live.stderr
    assert "MISS" in check.stdout and check.stderr == ""


def soft_files(count: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, 4096))


def test_check_agrees_with_a_capture_at_the_least_limit_of_open_files(tmp_path: Path) -> None:
    """In a namespace with one interface. There the capture has all that it has without a limit."""
    def run(before: Callable[[], None], *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", str(FLOWTOP),
                               *words], preexec_fn=before, capture_output=True, text=True, check=False,
                              timeout=PATIENCE_S)

    too_low, enough = 32, 160
    while enough - too_low > 1:
        middle = (too_low + enough) // 2
        if run(files(middle), "--check").returncode:
            too_low = middle
        else:
            enough = middle
    words = ("-b", "-o", "json", "-c", "1", "-d", "0.1", "-i", "lo")
    refused = run(files(too_low), *words)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == ("flowtop: cannot capture: too many open files\n"
                              "hint: raise the limit of open files: ulimit -n 1024\n")
    captured = run(files(enough), *words)
    assert (captured.returncode, captured.stderr) == (0, "")
    told = json.loads(captured.stdout)
    assert told["owners"]["hooksRefused"] == "" and "notObserved" not in told


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be(tmp_path: Path) -> None:
    """TCX takes two links an interface: 1,024 are not enough for 500 containers."""
    done = subprocess.run([str(FLOWTOP), "-b", "-o", "json", "-c", "1", "-d", "0.1", "-i", "lo"], capture_output=True,
                          text=True, check=False, timeout=PATIENCE_S, preexec_fn=soft_files(20))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["owners"]["hooksRefused"] == ""


@pytest.mark.skipif(kernel_release() < (6, 6), reason="filters need no open files")
def test_interfaces_beyond_the_limit_of_open_files_are_said_and_observed_when_there_is_room(tmp_path: Path) -> None:
    """And the rest goes on, and is exact."""
    with Lab() as lab:
        near = lab.namespace()
        names = {f"{end}{number}" for number in range(5) for end in "vp"}
        for number in range(5):
            near.ip(f"link add v{number} type veth peer name p{number}")
        for name in names:
            near.ip(f"link set {name} up")
        command = Command(near, tmp_path, "-b", "-o", "json", "-d", "0.1", prefix=("prlimit", "--nofile=72"))
        try:
            command.await_rounds(2)
            gaps = {one["interface"]: one["reason"] for one in command.rounds()[-1]["notObserved"]}
            assert 0 < len(gaps) < len(names) and set(gaps.values()) == {"cannot attach: Too many open files"}
            assert not {"v0", "p0"} & gaps.keys(), "else this test proves nothing"
            near.ip("link del v0")
            eventually(lambda: len(command.rounds()[-1].get("notObserved", ())) < len(gaps), "others are observed")
            near.run("ping", "-q", "-c", "3", "-i", "0.1", "127.0.0.1")
            status = command.end(signal.SIGTERM)
        finally:
            command.process.kill()
            command.process.wait()
        last = command.rounds()[-1]
        assert (status, last["totals"]["lostPackets"]) == (0, 0)
        echoes = [flow for flow in last["flows"] if flow.get("protocolIdentifier") == socket.IPPROTO_ICMP]
        assert sum(flow["packetTotalCount"] for flow in echoes) == 12, "twice on loopback, there and back"


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_capture_with_a_closed_stream_compiles_and_records(tmp_path: Path, stream: int) -> None:
    """The compiler's process gets a socket and a log that are no standard streams."""
    done = subprocess.run([str(FLOWTOP), "-b", "-o", "none", "-c", "1", "-d", "0.1", "-i", "lo", "-e",
                           f"jsonl:{tmp_path}/x.jsonl"], capture_output=True, text=True, check=False,
                          timeout=PATIENCE_S, preexec_fn=lambda: os.close(stream))
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == (stream != 2)
