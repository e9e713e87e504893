"""The directories of a user, one without a home among them."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from flowtop.files import home_directory, user_directory
from tests.unit.cli.test_reading import CAPTURE

NOBODY = 54321
"""A user id without an entry in passwd(5)."""


def test_directories_come_from_xdg_then_home_then_passwd() -> None:
    assert user_directory("config", {"XDG_CONFIG_HOME": "/c", "HOME": "/h"}, 0) == Path("/c/flowtop")
    assert user_directory("state", {"XDG_CONFIG_HOME": "/c", "HOME": "/h"}, 0) == Path("/h/.local/state/flowtop")
    assert user_directory("config", {"XDG_CONFIG_HOME": "", "HOME": "/h"}, 0) == Path("/h/.config/flowtop")
    assert home_directory({}, 0) == Path(pwd.getpwuid(0).pw_dir)


def test_a_user_id_without_an_entry_has_none() -> None:
    assert home_directory({}, NOBODY) is None
    assert user_directory("config", {}, NOBODY) is None
    assert user_directory("state", {}, NOBODY) is None
    assert user_directory("state", {"XDG_STATE_HOME": "/s"}, NOBODY) == Path("/s/flowtop")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_file_is_read_by_a_user_without_home_and_passwd_entry() -> None:
    python = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "env", "-u", "HOME",
              "-u", "XDG_CONFIG_HOME", "-u", "XDG_STATE_HOME", sys.executable]
    if subprocess.run([*python, "-c", "import flowtop.cli.main"], capture_output=True, check=False).returncode:
        pytest.skip("that user may not read this checkout")
    done = subprocess.run([*python, "-m", "flowtop", "-b", "-r", "-", "-o", "csv"], input=CAPTURE, capture_output=True,
                          timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout.splitlines()) > 1
