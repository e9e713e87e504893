"""The last line of a run says what did not arrive, and what may have arrived twice; its status agrees."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel import frames as f
from tests.prepared import Flowtop, run_flowtop
from tests.unit.capture.files import writers as w
from tests.unit.export.flows import until

T = 1_700_000_000 * w.SECOND
BATCH = ["-b", "-o", "none"]


def capture(flows: int) -> bytes:
    return w.pcap([(T + port, f.ethernet(f.IPV4, f.ipv4(f.udp(port, 53, bytes(20)), f.UDP)))
                   for port in range(1, flows + 1)], nano=True)


def last_line(errors: bytes) -> str:
    lines = errors.decode().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


NOBODY_LISTENS = """
ip link set lo up
"$@"
status=$?
cat /proc/net/snmp /proc/net/snmp6
exit $status
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
@pytest.mark.parametrize("url", ["ipfix://127.0.0.1:4739", "ipfix://[::1]:4739", "jsonl+udp://127.0.0.1:5170",
                                 "ipfix://127.0.0.1:4739?profile=nfdump"])
def test_datagrams_to_a_port_where_nobody_listens_are_counted_as_the_kernel_counts_them(
        tmp_path: Path, url: str) -> None:
    """Nothing else is sent in the namespace: its counters are about these datagrams."""
    path = tmp_path / "x.pcap"
    path.write_bytes(capture(300))
    done = subprocess.run(["unshare", "--net", "sh", "-c", NOBODY_LISTENS, "sh", sys.executable, "-m", "flowtop",
                           *BATCH, "-r", path, "-e", url], capture_output=True, timeout=60, check=False)
    names, values = (line.split()[1:] for line in done.stdout.decode().splitlines() if line.startswith("Udp:"))
    refused = int(dict(zip(names, values, strict=True))["NoPorts"])
    refused += int(re.search(rb"Udp6NoPorts\s+(\d+)", done.stdout)[1])  # type: ignore[index]
    assert refused > 3
    assert last_line(done.stderr) == (f"flowtop: export {url}: 300 flow records sent, blocked: port unreachable, "
                                      f"{refused} datagrams REFUSED")
    assert done.returncode == 74


@pytest.mark.parametrize("octets", [1, 3_000, 40_000])
def test_what_the_reader_of_a_pipe_left_in_it_is_not_sent(tmp_path: Path, octets: int) -> None:
    """More lines than a pipe holds; the lines that are whole in what was read are the ones that were sent."""
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "x.pcap"
    path.write_bytes(capture(400))
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with Flowtop(*BATCH, "-r", path, "-e", f"jsonl:{tmp_path}/pipe", "--export-timeout", "4.5", "--allow-special",
                 stderr=subprocess.PIPE) as process:
        read = b""

        def enough() -> bool:
            nonlocal read
            try:
                read += os.read(reader, octets - len(read))
            except BlockingIOError:
                return False
            return len(read) == octets

        until(enough, lambda: read)
        os.close(reader)
        _, errors = process.communicate(timeout=60)
    whole, part = read.count(b"\n"), bool(read) and not read.endswith(b"\n")
    twice = ", 1 may arrive twice" if part else ""
    line = last_line(errors)
    assert re.fullmatch(rf"flowtop: export jsonl:.*/pipe: {whole} flow records sent{twice}, {400 - whole} NOT SENT, "
                        r"(its reader closed it|nothing reads it)", line), line
    assert process.returncode == 74


def test_what_a_killed_run_had_begun_to_send_from_its_spool_may_arrive_twice_and_the_next_run_says_so(
        tmp_path: Path) -> None:
    """They are more than both ends of a connection hold, so it is killed in the middle of one of its files."""
    path, state, flows = tmp_path / "x.pcap", tmp_path / "state", 60_000
    path.write_bytes(capture(flows))
    with socket.socket() as placeholder:  # bound, not listening: nobody answers
        placeholder.bind(("127.0.0.1", 0))
        url = f"ipfix+tcp://127.0.0.1:{placeholder.getsockname()[1]}?reconnect=100ms"
        words = [*BATCH, "-e", url, "--state-directory", state, "--export-timeout", "1"]
        done = run_flowtop(*words, "-r", path)
        assert f"{flows} spooled for the next run" in last_line(done.stderr)
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)  # it gets the first messages, not all
        placeholder.listen()
        placeholder.settimeout(60)
        with Flowtop(*words, "-r", "-", stdin=subprocess.PIPE, stderr=subprocess.PIPE) as killed:
            connection, _ = placeholder.accept()
            with connection:
                assert connection.recv(2048, socket.MSG_WAITALL)
                killed.send_signal(signal.SIGKILL)
                killed.communicate()
        with Flowtop(*words, "-r", "-", "--export-timeout", "20", stdin=subprocess.PIPE,
                     stderr=subprocess.PIPE) as last:
            connection, _ = placeholder.accept()
            with connection:
                assert last.stdin is not None
                last.stdin.write(capture(1))
                last.stdin.close()
                last.stdin = None
                while connection.recv(1 << 16):
                    pass
            _, errors = last.communicate(timeout=60)
    found = re.fullmatch(r"flowtop: export \S+: (\d+) flow records sent, (\d+) may arrive twice", last_line(errors))
    assert found is not None, errors
    sent, twice = int(found[1]), int(found[2])
    assert 0 < twice < sent <= flows + 1
    assert last.returncode == 0
