"""A run gives up its rights before it parses: what /proc says of its threads, and what code inside it can still do."""

from __future__ import annotations

import json
import os
import pty
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import frames as f
from tests.unit.capture.files import writers as w
from tests.unit.cli import exploit
from tests.unit.export.flows import until

FLOWTOP = [sys.executable, "-m", "flowtop"]
T = 1_700_000_000 * w.SECOND
CAPTURE = w.pcap([(T + number * w.SECOND, f.ethernet(f.IPV4, f.ipv4(f.udp(number, 53, bytes(20)), f.UDP)))
                  for number in range(1, 4)], nano=True)
PERSON = 12_345
"""Who runs sudo: nobody's number here."""
SUDO = {"SUDO_UID": str(PERSON), "SUDO_GID": str(PERSON)}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A file that only root can reach: pytest's directories have mode 0700."""
    path = tmp_path / "x.pcap"
    path.write_bytes(CAPTURE)
    return path


@pytest.fixture
def open_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory of the person's, on a path that everybody can walk."""
    with subprocess.Popen(["mktemp", "-d"], stdout=subprocess.PIPE, text=True) as made:
        path = Path(made.communicate()[0].strip())
    os.chown(path, PERSON, PERSON)
    try:
        yield path
    finally:
        for left in path.iterdir():
            left.unlink()
        path.rmdir()


def status_of(pid: int) -> list[dict[str, str]]:
    """/proc/PID/task/TID/status of each thread."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            found.append(dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines()))
    return found


def assert_confined(pid: int, uid: int, *, bounded: bool = True) -> None:
    """Each thread. `bounded`: also what it could have gained by programs, had it not no_new_privs."""
    for status in status_of(pid):
        held = {name: status[name].strip() for name in (
            "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")}
        none = "0" * 16
        assert held == {"Uid": "\t".join([str(uid)] * 4), "Gid": "\t".join([str(uid)] * 4), "Groups": "",
                        "CapInh": none, "CapPrm": none, "CapEff": none, "CapAmb": none,
                        "CapBnd": none if bounded else held["CapBnd"],
                        "NoNewPrivs": "1", "Seccomp": "2"}, status["Name"]


@contextmanager
def running(words: list[Any], environment: dict[str, str] | None = None, **streams: Any,
            ) -> Iterator[subprocess.Popen[bytes]]:
    # Without HOME of this user: nothing of it is read or written.
    with subprocess.Popen([*map(str, words)], env={**os.environ, **(environment or {})}, **streams) as process:
        try:
            yield process
        finally:
            process.kill()


@as_root
@pytest.mark.parametrize("behind", [None, PERSON], ids=["root", "sudo"])
def test_every_thread_of_a_collector_with_exports_has_no_rights(tmp_path: Path, open_directory: Path,
                                                              behind: int | None) -> None:
    place = tmp_path if behind is None else open_directory
    words = [*FLOWTOP, "-b", "-o", "json", "-d", "0.1", "-l", "udp://127.0.0.1:0", "-l", "tcp://127.0.0.1:0",
             "-e", f"jsonl:{place}/x.jsonl", "-e", "ipfix://127.0.0.1:9"]
    with running(words, SUDO if behind else None, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        user = behind or 65_534
        assert said["confinement"]["uid"] == user and said["confinement"]["missing"] == []
        assert_confined(process.pid, user)
        assert len(status_of(process.pid)) >= 5, "main, metering, capture and two exports"
        assert Path(f"/proc/{process.pid}/maps").stat().st_uid == 0, "it is not dumpable"
        limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
        assert next(line for line in limits if line.startswith("Max core")).split()[4:6] == ["0", "0"]
    assert (place / "x.jsonl").stat().st_uid == (behind or 0)


@as_root
def test_every_thread_of_a_screen_has_no_rights(capture: Path) -> None:
    ours, theirs = pty.openpty()
    words = [*FLOWTOP, "-r", capture, "--names", "hosts", "--state-directory", capture.parent / "state"]
    with running(words, {"TERM": "xterm-256color", "HOME": str(capture.parent)}, stdin=theirs, stdout=theirs,
                 stderr=theirs) as process:
        os.close(theirs)
        sent = bytearray()
        os.set_blocking(ours, False)

        def listed() -> bool:
            with suppress(BlockingIOError, OSError):
                sent.extend(os.read(ours, 65_536))
            return b"x.pcap" in sent and b":53" in sent

        until(listed, lambda: bytes(sent[-2000:]))
        assert_confined(process.pid, 65_534)
        assert len(status_of(process.pid)) >= 4
        os.write(ours, b"q")
    os.close(ours)


@as_root
@pytest.mark.parametrize("confined", [True, False])
@pytest.mark.parametrize("mode", ["file", "collector", "sudo"])
def test_code_in_the_parsing_process_can_do_nothing(tmp_path: Path, open_directory: Path, capture: Path, mode: str,
                                                    confined: bool) -> None:
    """Without confinement, the same code in the same place can: else this proves nothing."""
    report = tmp_path / "report"
    outside = "/var/tmp/" + tmp_path.name
    place = open_directory if mode == "sudo" else tmp_path
    with (socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as service,
          socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver):
        receiver.bind(("127.0.0.1", 0))
        service.bind(f"{outside}.socket")
        service.listen()
        Path(f"{outside}.socket").chmod(0o777)
        steps: list[list[Any]] = [
            ["read", "/etc/shadow"], ["read", str(capture)], ["write", outside], ["execute"], ["exec"],
            ["fork"], ["load"], ["unix", f"{outside}.socket"],
            ["tcp", server.getsockname()[1]], ["packets"], ["protocol"],
            ["other tcp", server.getsockname()[1], "mptcp"], ["other tcp", server.getsockname()[1], "fast open"],
            ["set user id", f"{place}/tool"], ["trace", os.getpid()], ["signal", os.getpid()],
            ["namespace"], ["helper", outside], ["write", f"{place}/.profile"], ["read", f"{place}/.profile"],
            ["helper", f"{place}/.profile"]]
        (place / ".profile").touch()  # the directory of an export may be a home directory
        os.chown(place / ".profile", place.stat().st_uid, place.stat().st_gid)
        if mode == "file":
            steps.append(["udp", receiver.getsockname()[1]])
        plan = {"report": str(report), "steps": steps, **(
            {"module": "flowtop.capture.collector.capture", "class": "CollectorCapture"} if mode == "collector" else
            {"module": "flowtop.capture.files.capture", "class": "FileCapture"})}
        source = ["-l", "udp://127.0.0.1:0", "-c", "1", "-d", "0.1"] if mode == "collector" else ["-r", capture]
        done = subprocess.run(
            [sys.executable, exploit.__file__, json.dumps(plan), "-b", *source, "-e", f"file:{place}/out.ipfix",
             *([] if confined else ["--no-confine"])], capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, **(SUDO if mode == "sudo" else {}), "PYTHONPATH": str(Path.cwd())})
    assert done.returncode == 0, done.stderr
    outcome = {step[0] + str(step[1:]): came for step, came in json.loads(report.read_text())}
    made = Path(outside).exists()
    for left in (outside, f"{outside}.socket"):
        Path(left).unlink(missing_ok=True)
    assert outcome.pop("exec[]") == ("EPERM" if confined else "ENOENT")
    if confined:
        assert set(outcome.values()) <= {"EPERM", "EACCES", "ENOENT"} and not made, outcome
        assert "ENOENT" not in outcome.values(), "there is a helper"
        assert done.stderr.startswith(f"flowtop: export file:{place}/out.ipfix: "), "it goes on as ever"
    else:
        refused = {step for step, came in outcome.items() if came != "done"}
        assert all(step.startswith("helper") for step in refused) and made, refused


@as_root
def test_files_in_roots_directories_are_roots_and_are_rotated(tmp_path: Path, capture: Path) -> None:
    """Only a process of root's can rename and make files there."""
    (tmp_path / "x.jsonl").write_text("of an earlier run\n")
    done = subprocess.run([*FLOWTOP, "-b", "-o", "json", "-r", capture, "-w", tmp_path / "x.pcapng",
                           "-e", f"jsonl:{tmp_path}/x.jsonl?rotate-size=4k"], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["confinement"]["uid"] == 65_534
    others = [path for path in tmp_path.iterdir() if path.name.startswith("x-")]
    assert [path.read_text() for path in others] == ["of an earlier run\n"]
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 3
    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {0}
    assert [oct((tmp_path / name).stat().st_mode & 0o777) for name in ("x.jsonl", "x.pcapng")] == ["0o600"] * 2


@as_root
def test_what_is_opened_for_a_run_that_is_not_root_any_more_is_fixed_before(tmp_path: Path) -> None:
    """Its first requests are those of a run; the others are what somebody would ask who has taken it over."""
    (tmp_path / "here" / ".hidden").mkdir(parents=True)
    (tmp_path / "there").mkdir()
    (tmp_path / "here" / "way").symlink_to(tmp_path / "there")
    (tmp_path / "here" / "kept.csv").write_text("of somebody")
    (tmp_path / "here" / "settings.json").write_text("{}")
    (tmp_path / "here" / "link.csv").symlink_to("kept.csv")
    script = f"""
import os, sys
from pathlib import Path
from flowtop.files import delegate_to, open_output, undo_output
from flowtop.confine.writer import Permitted, start_writer
here = Path(sys.argv[1])
writer = start_writer(Permitted(frozenset([str(here.parent / "named.x")]), (here,), None))
def attempt(name, new=True):
    try:
        output = writer.open_output(here / name, 0.0, new=new)
    except OSError as error:
        return error.strerror.split(":")[0]
    os.write(output.descriptor, b"x")
    return output
delegate_to(writer)
first = attempt("new.csv")
print("made", first.made, (here / "new.csv").read_text())
print("named", attempt("../named.x", new=False))
print(*[attempt(name, new=False) for name in (
    "settings.json", "link.csv", ".bashrc", ".hidden/x.csv", "way/x.csv", "../x.csv", "x.service", "../../x.csv")],
    sep="|")
os.close(first.descriptor)
print("again", attempt("new.csv", new=False).aside is not None)
folder = writer.make_directory(here / "bundle")
os.seteuid({PERSON})
inside = Path("/proc/self/fd", str(folder))
output = open_output(inside / "x.txt", lambda: 0.0, new=True)
os.write(output.descriptor, b"of a bundle")
undone = open_output(inside / "y.txt", lambda: 0.0, new=True)
status = os.fstat(undone.descriptor)
os.close(undone.descriptor)
undo_output(undone, status, inside / "y.txt")
for name in ("../z.txt", "x.txt"):
    try:
        open_output(inside / name, lambda: 0.0, new=True)
    except OSError as error:
        print(type(error).__name__)
os.seteuid(0)
writer.release_directory(folder)
bundle = here / "bundle"
print(os.listdir(bundle), oct(bundle.stat().st_mode & 0o777), bundle.stat().st_uid, (bundle / "x.txt").stat().st_uid)
(here / "new-settings.d").mkdir()
writer.undo_output(first, os.fstat(output.descriptor), here / "new.csv")
print((here / "new-settings.d").is_dir())
status = os.fstat(os.open(here / "kept.csv", os.O_RDONLY))
writer.undo_output(first, status, here / "kept.csv")
print((here / "kept.csv").read_text())
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "here"], capture_output=True, text=True, timeout=60,
                          check=False)
    refused = "not one of the files that were named at the start"
    lines = done.stdout.splitlines()
    assert [lines[0], *lines[2:]] == ["made True x", "|".join([refused] * 8), "again True", "PermissionError",
                                      "FileExistsError", "['x.txt'] 0o700 0 0", "True", "of somebody"], done.stderr
    assert lines[1] == f"named {refused}", "a name is what was typed, not what it leads to"


@as_root
def test_behind_sudo_nothing_is_written_where_that_user_may_not(tmp_path: Path, capture: Path) -> None:
    done = subprocess.run([*FLOWTOP, "-b", "-r", capture, "-e", f"file:{tmp_path}/x.ipfix"], capture_output=True,
                          text=True, timeout=60, check=False, env={**os.environ, **SUDO})
    assert done.returncode == 2 and "ermission denied" in done.stderr
    assert not (tmp_path / "x.ipfix").exists()


@as_root
def test_strict_does_not_run_where_a_part_is_missing(capture: Path) -> None:
    """seccomp(2) is refused, as in a container of an old runtime."""
    from tests.unit.cli import refused

    number = 317 if os.uname().machine == "x86_64" else 277
    words = [sys.executable, refused.__file__, "1", str(number), *FLOWTOP, "-b", "-o", "json", "-r", capture]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(done.stdout)["confinement"]["missing"] == ["no seccomp: Operation not permitted"]
    done = subprocess.run([*words, "--confine", "strict"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (69, "") and "no seccomp" in done.stderr


@as_root
def test_an_old_kernel_leaves_the_one_capability_that_draining_needs() -> None:
    """As capability(7) numbers them: BPF is 39. It is another user that has it, and no program inherits it."""
    script = ("from flowtop.confine.account import Account, give_up_privileges; give_up_privileges("
              f"Account({PERSON}, {PERSON}), 1 << 39); print(open('/proc/self/status').read())")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    status = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if line)
    assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0000008000000000"}
    assert status["Uid"].split() == [str(PERSON)] * 4


def test_which_kernels_leave_a_capability(tmp_path: Path) -> None:
    from flowtop.cli.confining import kept_capability

    setting = tmp_path / "unprivileged_bpf_disabled"
    for disabled, release, kept in (("2", (5, 19), 0), ("2", (5, 10), 1 << 39), ("1", (5, 7), 1 << 21),
                                    ("0", (5, 10), 0)):
        setting.write_text(f"{disabled}\n")
        assert kept_capability(release, 39, 21, setting) == kept


@pytest.mark.parametrize(("user", "said"), [("root", "that is root"), ("0", "that is root"),
                                            ("no-such-account", "there is no such account")])
def test_an_account_that_is_none_or_has_rights_is_refused(user: str, said: str) -> None:
    from flowtop.confine.account import choose_account
    from flowtop.errors import FlowtopError

    with pytest.raises(FlowtopError, match=said):
        choose_account(user, {}, 0)
    with pytest.raises(FlowtopError, match="needs root"):
        choose_account(user, {}, PERSON)


@as_root
def test_the_account_that_is_named_is_used(capture: Path) -> None:
    entry = pwd.getpwnam("daemon")
    done = subprocess.run([*FLOWTOP, "-b", "-o", "json", "-r", capture, "--user", "daemon"], capture_output=True,
                          text=True, timeout=60, check=False)
    assert json.loads(done.stdout)["confinement"]["uid"] == entry.pw_uid, done.stderr


@as_root
def test_what_shows_a_file_of_exports_is_confined(tmp_path: Path) -> None:
    """It waits for more of its input, so that one can look."""
    os.mkfifo(tmp_path / "x")
    with running([sys.executable, "-m", "flowtop.cli.dump", tmp_path / "x"], stdout=subprocess.PIPE,
                 stderr=subprocess.PIPE) as process:
        with (tmp_path / "x").open("wb", buffering=0) as pipe:
            pipe.write(b"\0\x0a\0")
            until(lambda: status_of(process.pid)[0]["Seccomp"].strip() == "2", lambda: "seccomp")
            assert_confined(process.pid, 65_534)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 65, errors


@as_root
def test_a_helper_has_a_list_of_system_calls_where_landlock_is_refused_at_last() -> None:
    """The other filter is the test's own."""
    from tests.unit.cli import refused

    script = """
from pathlib import Path
import os
from flowtop.confine.writer import Permitted, start_writer
writer = start_writer(Permitted(frozenset(["/tmp/named.jsonl"])))
try:
    writer.check_output(Path("/etc/other"))
except OSError:
    (child,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    print(next(line for line in Path(f"/proc/{child}/status").read_text().splitlines() if "filters" in line))
"""
    for numbers in ("446", "444"):
        done = subprocess.run([sys.executable, refused.__file__, "1", numbers, sys.executable, "-c", script],
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.split() == ["Seccomp_filters:", "2"], done.stderr


@as_root
def test_a_state_directory_that_has_other_files_is_not_given_away(tmp_path: Path, capture: Path) -> None:
    """It might be /etc. What flowtop as root left in its own is given, but no file that is also elsewhere."""
    from flowtop.cli.confining import _give, _has_only_ours
    from flowtop.confine.account import Account

    state, words = tmp_path / "state", [*FLOWTOP, "-b", "-o", "none", "-r", capture, "-e", "ipfix+tcp://127.0.0.1:9"]
    state.mkdir(0o755)
    (state / "passwd").touch()
    done = subprocess.run([*words, "--state-directory", state], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "has other files" in done.stderr
    assert state.stat().st_uid == 0
    (state / "passwd").rename(tmp_path / "passwd")
    (state / "spool-x").mkdir()
    (state / "spool-x" / "1").touch()
    (state / "spool-x" / "2").hardlink_to(tmp_path / "passwd")
    (state / "spool-x" / "3").symlink_to(tmp_path / "passwd")
    (state / "spool-y").symlink_to(tmp_path)
    directory = os.open(state, os.O_RDONLY)
    assert _has_only_ours(directory)
    _give(directory, Account(PERSON, PERSON))
    os.close(directory)
    assert [path.lstat().st_uid for path in (state, state / "spool-x", state / "spool-x/1", state / "spool-x/2",
                                             state / "spool-x/3", tmp_path, tmp_path / "passwd")] == [
        PERSON, PERSON, PERSON, 0, 0, 0, 0]
    state.chmod(0o777)
    directory = os.open(state, os.O_RDONLY)
    assert not _has_only_ours(directory)
    os.close(directory)
