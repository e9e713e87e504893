"""A settings file that somebody else may have written is not read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from flowtop.cli.settings import read_settings
from flowtop.errors import FlowtopError


def give_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(path, 65_534, 65_534)


@pytest.mark.parametrize(("change", "why"), [
    (give_away, "it is user 65534's"), (lambda path: path.chmod(0o666), "everybody may write it"),
    (lambda path: (path.unlink(), os.mkfifo(path)), "it is not a regular file")])
def test_what_another_may_have_written_is_refused(tmp_path: Path, change: Callable[[Path], object], why: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text("batch = true\n")
    assert read_settings(path, {"batch": "flag"}, must_exist=False)[0] == {"batch": True}
    change(path)
    with pytest.raises(FlowtopError, match=why):
        read_settings(path, {"batch": "flag"}, must_exist=False)


def test_the_settings_of_who_ran_sudo_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    path.write_text("batch = true\n")
    give_away(path)
    monkeypatch.setenv("SUDO_UID", "65534")
    monkeypatch.setenv("SUDO_GID", "65534")
    assert read_settings(path, {"batch": "flag"}, must_exist=True)[0] == {"batch": True}
