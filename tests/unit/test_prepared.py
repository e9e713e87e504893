"""A prepared run is what a start of the command is: a process of its own that says the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.prepared import Flowtop, run_flowtop
from tests.unit.cli.test_reading import CAPTURE, await_open


def test_a_prepared_run_is_as_one_that_is_started(tmp_path: Path) -> None:
    (tmp_path / "x.pcap").write_bytes(CAPTURE)
    env = {"PATH": os.environ["PATH"], "FLOWTOP_SORT": "source", "FLOWTOP_MMDB": "off"}
    for words, status in (["-r", "x.pcap", "-o", "json"], 0), (["-r", "y.pcap"], 66), (["-O"], 2):
        started = subprocess.run([sys.executable, "-P", "-m", "flowtop", "-b", *words], capture_output=True,
                                 check=False, cwd=tmp_path, env=env)
        prepared = run_flowtop("-b", *words, cwd=tmp_path, env=env)
        assert (prepared.stdout, prepared.stderr, prepared.returncode) == (started.stdout, started.stderr, status)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_prepared_run_is_a_child_that_can_be_ended(tmp_path: Path, number: signal.Signals, status: int) -> None:
    os.mkfifo(tmp_path / "pipe")
    with Flowtop("-b", "-o", "json", "-r", tmp_path / "pipe", stdout=subprocess.PIPE) as process:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        await_open(process, tmp_path / "pipe")
        process.send_signal(number)
        output = process.communicate(timeout=60)[0]
    assert stat.rpartition(")")[2].split()[1] == str(os.getpid())
    assert (process.returncode, bool(output)) == (status, number == signal.SIGTERM)
