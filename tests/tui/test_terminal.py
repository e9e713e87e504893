"""The screen on a real pseudo-terminal: it leaves in order however its terminal goes."""

from __future__ import annotations

import base64
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowtop.tui.terminal import character_set

APP = """
import signal, sys, threading, time
from flowtop.tui.app import FlowtopApp
from tests.tui.fake_source import FakeSource, random_flows

class Ticking(FakeSource):
    def start(self, listener):
        super().start(listener)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while not self.stopped:
            self.tick([row._replace(octet_rate=row.octet_rate + 1000) for row in self.flows])
            time.sleep(0.02)

    def stop(self):
        super().stop()
        with open(sys.argv[1], "w") as file:
            file.write(f"stopped {self.stopped}")

app = FlowtopApp(lambda: Ticking(random_flows(300)))
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN if sys.argv[2] == "ignore" else lambda *_: app.request_quit())
app.run()
sys.exit(app.return_code)
"""


@contextmanager
def child(note: Path, signals: str = "handle", errors: Path | None = None,
          environment: Mapping[str, str] | None = None, seen: list[bytes] | None = None) -> Iterator[tuple[int, int]]:
    """(pid, master) of the app on a pseudo-terminal, once it shows flows; killed if it is still there in the end.

    Args:
        errors: where standard error goes to instead.
        environment: variables of the locale and the terminal, instead of all that there are.
        seen: gets what has been written until then.
    """
    pid, master = pty.fork()
    if not pid:
        if errors is not None:
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
        os.environ["TERM"] = "xterm-256color"
        if environment is not None:
            for name in ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONUTF8", "PYTHONIOENCODING", "NO_COLOR"):
                os.environ.pop(name, None)
            os.environ.update(environment)
        os.execv(sys.executable, [sys.executable, "-c", APP, str(note), signals])
    try:
        written = read_until(master, b"of 300")
        if seen is not None:
            seen.append(written)
        yield pid, master
    finally:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def read_until(master: int, words: bytes) -> bytes:
    """Read what the app writes until these words come."""
    output = b""
    deadline = time.monotonic() + 60
    while words not in output:
        ready, _, _ = select.select([master], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, output[-500:]
        output += os.read(master, 65536)
    return output


def exit_status(pid: int, master: int | None) -> int:
    """The child's exit status; reads on meanwhile, as a terminal does, when there is a master."""
    deadline = time.monotonic() + 60
    while (ended := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None:
        assert time.monotonic() < deadline, "still running"
        if master is not None and select.select([master], [], [], 0.05)[0]:
            try:
                os.read(master, 65536)
            except OSError:
                master = None
        time.sleep(0.01)
    assert ended.si_code == os.CLD_EXITED, ended
    return ended.si_status


@pytest.mark.parametrize("errors", ["file", "/dev/null"])
def test_with_standard_error_redirected_the_screen_is_on_the_terminal(tmp_path: Path, errors: str) -> None:
    note, path = tmp_path / "note", Path("/dev/null") if errors.startswith("/") else tmp_path / errors
    with child(note, errors=path) as (pid, master):
        os.write(master, b"q")
        read_until(master, b"\x1b[?1049l")
        assert exit_status(pid, master) == 0
        assert note.read_text() == "stopped 1"
        os.close(master)
    assert path.read_bytes() == b"", "nothing of the screen"


@pytest.mark.parametrize(("environment", "charset", "terminal"), [
    ({}, "ascii", "xterm-256color"), ({"LC_ALL": "C"}, "ascii", "linux"), ({"LANG": "C"}, "ascii", "vt100"),
    ({"LANG": "en_US.ISO-8859-1"}, "latin-1", "dumb"), ({"LANG": "C.UTF-8"}, "utf-8", "screen"),
    ({"LANG": "C", "LC_ALL": "C.UTF-8"}, "utf-8", "dumb"),
])
def test_symbols_are_ascii_where_the_character_set_is_not_utf8(
        tmp_path: Path, environment: dict[str, str], charset: str, terminal: str) -> None:
    seen: list[bytes] = []
    with child(tmp_path / "note", environment=environment | {"TERM": terminal}, seen=seen) as (pid, master):
        os.write(master, b"?")
        seen.append(read_until(master, b"Esc closes"))
        os.write(master, b"?q")
        assert exit_status(pid, master) == 0
    text = b"".join(seen).decode(charset)
    assert ("\u256d" in text) == ("\u2193" in text) == (charset == "utf-8"), "a box, and an arrow"
    assert "\\u" not in text and "\\x" not in text
    if charset != "utf-8":
        plain = re.sub(r"\x1b\[[0-9;?>$]*[a-zA-Z]", "", text)
        assert text.isascii() and "Tab next page . ^ v PgUp" in plain and "+-" in plain


@pytest.mark.parametrize(("environment", "utf8_mode", "charset"), [
    ({}, True, "ascii"), ({"LC_CTYPE": "C.UTF-8"}, True, "ascii"),
    ({"LC_CTYPE": "C.UTF-8", "LANG": "C"}, True, "ascii"),
    ({"LC_CTYPE": "C.UTF-8"}, False, "utf-8"), ({"LANG": "en_US.UTF-8"}, False, "utf-8"),
    ({"LANG": "de_DE.utf8"}, False, "utf-8"), ({"LC_ALL": "POSIX", "LANG": "C.UTF-8"}, True, "ascii"),
    ({"LANG": "de_DE"}, False, "iso8859-1"), ({"LANG": "de_DE@euro"}, False, "iso8859-15"),
    ({"LANG": "ru_RU.KOI8-R"}, False, "koi8-r"), ({"LC_ALL": "", "LANG": "C.UTF-8"}, False, "utf-8"),
    ({"LANG": "C", "PYTHONUTF8": "1"}, True, "utf-8"), ({"LANG": "xx_XX.nonsense"}, False, "ascii"),
])
def test_the_character_set_is_that_of_the_locale(environment: dict[str, str], utf8_mode: bool, charset: str) -> None:
    assert character_set(environment, utf8_mode=utf8_mode) == charset


@pytest.mark.parametrize("signals", ["handle", "ignore"])
def test_a_vanished_terminal_ends_the_screen_after_a_last_drain(tmp_path: Path, signals: str) -> None:
    note = tmp_path / "note"
    with child(note, signals) as (pid, master):
        os.close(master)
        assert exit_status(pid, None) == 0
        assert note.read_text() == "stopped 1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_screen_after_a_last_drain(tmp_path: Path, number: int) -> None:
    note = tmp_path / "note"
    with child(note) as (pid, master):
        os.kill(pid, number)
        assert exit_status(pid, master) == 0
        assert note.read_text() == "stopped 1"
        os.close(master)


def test_nothing_is_left_on_the_alternate_screen(tmp_path: Path) -> None:
    """tmux puts what is there into the shell's screen when its window has been resized meanwhile."""
    with child(tmp_path / "note") as (pid, master):
        os.write(master, b"q")
        _, cleared, after = read_until(master, b"\x1b[?1049l").rpartition(b"\x1b[2J")
        left = re.sub(rb"\x1b\[[?<=>]?[0-9;]*[a-zA-Z]", b"", after.partition(b"\x1b[?1049l")[0])
        assert cleared and not left, "nothing is painted after it"
        assert exit_status(pid, master) == 0


@pytest.mark.parametrize("key", [b"q", b"\x03", b"\x1b[21~"])
def test_a_key_ends_the_screen_and_gives_the_terminal_back(tmp_path: Path, key: bytes) -> None:
    note = tmp_path / "note"
    with child(note) as (pid, master):
        os.write(master, key)
        read_until(master, b"\x1b[?1049l")
        assert exit_status(pid, master) == 0
        assert note.read_text() == "stopped 1"
        os.close(master)


def test_ctrl_z_stops_it_with_the_terminal_given_back_and_it_goes_on_when_told(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with child(note) as (pid, master):
        os.write(master, b"\x1a")
        read_until(master, b"\x1b[?1049l")
        stopped = os.waitid(os.P_PID, pid, os.WSTOPPED)
        assert stopped is not None
        assert stopped.si_code == os.CLD_STOPPED
        os.kill(pid, signal.SIGCONT)
        read_until(master, b"of 300")
        os.write(master, b"q")
        assert exit_status(pid, master) == 0
        assert note.read_text() == "stopped 1"
        os.close(master)


@pytest.mark.parametrize("numbers", [
    (signal.SIGCONT,), (signal.SIGSTOP, signal.SIGCONT),
    (signal.SIGCONT, signal.SIGCONT, signal.SIGSTOP, signal.SIGCONT)], ids=["cont", "stop-cont", "several"])
def test_it_goes_on_after_a_stop_that_was_not_announced(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    """With one reader of keys, and with the terminal's own settings in the end."""
    note = tmp_path / "note"
    with child(note) as (pid, master):
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
        for number in numbers:
            os.kill(pid, number)
            if number == signal.SIGSTOP:
                assert os.waitid(os.P_PID, pid, os.WSTOPPED)
            else:
                read_until(master, b"of 300")
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) == threads
        os.write(master, b"q")
        read_until(master, b"\x1b[?1049l")
        assert exit_status(pid, master) == 0
        assert note.read_text() == "stopped 1"
        assert termios.tcgetattr(master)[3] & (termios.ICANON | termios.ECHO) == termios.ICANON | termios.ECHO
        os.close(master)


def test_first_frame_needs_neither_numpy_nor_bcc_nor_netlink() -> None:
    code = """
import sys
import termios
from flowtop.tui.app import FlowtopApp
from flowtop.errors import FlowtopError

class Watched(FlowtopApp):
    def on_splash_painted(self):
        print(sorted({"numpy", "bcc", "pyroute2", "click", "lark"} & sys.modules.keys()))

def open_source():
    raise FlowtopError("enough seen")

Watched(open_source).run(headless=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "[]" in done.stdout + done.stderr, done


@pytest.mark.parametrize("octets", [b"\xff", b"\xe9t\xe9", b"\xc3\x28", b"\x80" * 50])
def test_octets_that_are_no_utf8_are_keys_that_mean_nothing(tmp_path: Path, octets: bytes) -> None:
    note = tmp_path / "note"
    with child(note) as (pid, master):
        os.write(master, octets)
        time.sleep(0.3)
        os.write(master, b"q")
        assert exit_status(pid, master) == 0
        assert note.read_text() == "stopped 1"


def test_a_flow_is_handed_to_the_terminals_clipboard(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with child(note) as (pid, master):
        os.write(master, b"jct")
        sent = read_until(master, b"\x1b]52;c;").partition(b"\x1b]52;c;")[2]
        if b"\x07" not in sent:
            sent += read_until(master, b"\x07")
        sent = sent.partition(b"\x07")[0]
        assert re.fullmatch(r"(tcp|udp) and src host [\d.]+ and src port \d+ and dst host [\d.]+ and dst port \d+",
                            base64.b64decode(sent, validate=True).decode())
        os.write(master, b"q")
        assert exit_status(pid, master) == 0


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGUSR1, signal.SIGXCPU, signal.SIGRTMIN, signal.SIGHUP,
                                    signal.SIGTERM])
@pytest.mark.parametrize("early", [False, True])
def test_a_signal_to_the_command_gives_the_terminal_back_as_it_was(number: int, early: bool) -> None:
    """Also as soon as it is handled, when the screen has not begun."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    words = [sys.executable, "-m", "flowtop", "-l", "udp://127.0.0.1:0"]
    with subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                          env=os.environ | {"TERM": "xterm-256color"}) as process:
        output = b""
        try:
            if early:
                while not handled(process.pid, number):
                    assert process.poll() is None
                    time.sleep(0.001)
            else:
                output = read_until(master, b"\x1b[?1049h")
                output += read_until(master, b"quit")
            process.send_signal(number)
            output += read_until(master, b"\x1b[?1049l")
            while process.poll() is None:
                if select.select([master], [], [], 0.05)[0]:
                    output += os.read(master, 65536)
        finally:
            process.kill()
    assert process.returncode == 0
    assert termios.tcgetattr(slave) == before
    for mode in (b"1049", b"1000", b"1003", b"1006", b"2004"):  # alternate screen, mouse, bracketed paste
        assert output.rfind(b"\x1b[?%sl" % mode) > output.rfind(b"\x1b[?%sh" % mode)
    os.close(slave)
    os.close(master)


def handled(pid: int, number: int) -> bool:
    """Whether the process has a handler of this signal (proc_pid_status(5))."""
    mask = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return mask is not None and bool(int(mask[1], 16) >> (number - 1) & 1)
