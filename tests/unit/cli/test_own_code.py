"""Code that root runs and others may change is found, wherever on the way to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowtop.cli.own_code import writable_code

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of root's")

ANOTHER = 12345
"""User and group that no account has."""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory as of an installation by root: a package of two levels, kernel programs, an environment."""
    top = tmp_path / "opt"
    for directory in ("lib/flowtop/cli", "lib/bpf", "bin"):
        (top / directory).mkdir(parents=True)
    for file in ("lib/flowtop/__init__.py", "lib/flowtop/cli/main.py", "lib/bpf/flow.bpf.c", "bin/flowtop"):
        (top / file).write_text("")
        (top / file).chmod(0o644)
    for directory in (top, *(path for path in top.rglob("*") if path.is_dir())):
        directory.chmod(0o755)
    return top


def found(installed: Path) -> str | None:
    """The first fault, below the directory."""
    path = writable_code(str(installed / "lib" / "flowtop"), [str(installed / "bin"), str(installed / "bin/flowtop")])
    return None if path is None else os.path.relpath(path, installed)


def test_what_only_root_may_write_is_good(installed: Path) -> None:
    assert found(installed) is None


@pytest.mark.parametrize("where", [".", "lib", "lib/flowtop", "lib/flowtop/cli", "lib/flowtop/cli/main.py",
                                   "lib/flowtop/__init__.py", "lib/bpf", "lib/bpf/flow.bpf.c", "bin", "bin/flowtop"])
@pytest.mark.parametrize("how", ["everybody", "group", "owner"])
def test_each_way_to_change_it_is_found(installed: Path, where: str, how: str) -> None:
    path = installed / where
    if how == "owner":
        os.chown(path, ANOTHER, 0)
    elif how == "group":
        os.chown(path, 0, ANOTHER)
        path.chmod(path.stat().st_mode | 0o020)
    else:
        path.chmod(path.stat().st_mode | 0o002)
    assert found(installed) == where


def test_a_directory_for_all_is_safe_on_the_way_if_sticky_but_holds_no_modules(installed: Path) -> None:
    installed.chmod(0o1777)
    assert found(installed) is None
    installed.chmod(0o755)
    (installed / "lib" / "flowtop").chmod(0o1777)
    assert found(installed) == "lib/flowtop"


def test_the_groups_of_root_and_of_nobody_are_no_others(installed: Path) -> None:
    (installed / "bin").chmod(0o775)
    assert found(installed) is None, "root's own group"


def test_a_link_leads_to_what_counts_and_counts_itself(installed: Path) -> None:
    other = installed / "other"
    other.mkdir(mode=0o755)
    (installed / "bin" / "flowtop").rename(other / "flowtop")
    link = installed / "bin" / "flowtop"
    link.symlink_to(other / "flowtop")
    assert found(installed) is None
    os.chown(link, ANOTHER, 0, follow_symlinks=False)
    assert found(installed) == "bin/flowtop"
    os.chown(link, 0, 0, follow_symlinks=False)
    other.chmod(0o757)
    assert found(installed) == "other"
