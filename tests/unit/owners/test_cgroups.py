"""Units by the paths that systemd makes (systemd.slice(5), sd_pid_get_unit(3)), and paths by the kernel's ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowtop.owners.cgroups import CgroupPaths, cgroup2_root, slice_of, unit_of

UNITS = {
    "/system.slice/ssh.service": "ssh.service",
    "/system.slice/system-getty.slice/getty@tty1.service": "getty@tty1.service",
    "/user.slice/user-1000.slice/session-3.scope": "session-3.scope",
    "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox.scope": "app-firefox.scope",
    "/user.slice/user-1000.slice/user@1000.service/init.scope": "init.scope",
    "/user.slice/user-1000.slice/user@1000.service": "user@1000.service",
    "/system.slice/docker-0123456789ab.scope": "docker-0123456789ab.scope",
    "/system.slice/nginx.service/workers": "nginx.service",
    "/system.slice/_cpu.service": "cpu.service",
    "/init.scope": "init.scope",
    "/kubepods.slice/kubepods-besteffort.slice": "",
    "/": "",
    "": "",
}


@pytest.mark.parametrize("path", UNITS)
def test_unit_of_a_path(path: str) -> None:
    assert unit_of(path) == UNITS[path]


def test_slice_of_a_path() -> None:
    assert slice_of("/user.slice/user-1000.slice") == "user-1000.slice"
    assert slice_of("/docker/0123") == ""


def test_a_cgroup_is_found_by_the_inode_of_its_directory_and_known_when_it_is_gone(tmp_path: Path) -> None:
    now = [0.0]
    paths = CgroupPaths(tmp_path, lambda: now[0])
    group = tmp_path / "system.slice" / "a.service"
    group.mkdir(parents=True)
    number = group.stat().st_ino
    assert paths.path(number) == "/system.slice/a.service"
    group.rmdir()
    now[0] = 100
    assert paths.path(number) == "/system.slice/a.service"
    assert paths.path(tmp_path.stat().st_ino) == "/"


def test_unknown_ids_do_not_make_it_walk_again_and_again(tmp_path: Path) -> None:
    now = [0.0]
    paths = CgroupPaths(tmp_path, lambda: now[0])
    assert paths.path(1) == ""
    late = tmp_path / "late"
    late.mkdir()
    assert paths.path(late.stat().st_ino) == ""
    now[0] = 5.1
    assert paths.path(late.stat().st_ino) == "/late"


def test_the_mount_that_is_not_hidden_is_found(tmp_path: Path) -> None:
    hidden, unified = tmp_path / "hidden", tmp_path / "with a space"
    for directory in (hidden, unified):
        directory.mkdir()
    (unified / "cgroup.procs").touch()
    mounts = tmp_path / "mountinfo"
    escaped = str(unified).replace(" ", "\\040")
    mounts.write_text(f"25 20 0:22 / /proc rw shared:1 - proc proc rw\n"
                      f"30 25 0:26 / {hidden} rw - cgroup2 none rw\n31 25 0:26 / {escaped} rw - cgroup2 none rw\n")
    assert cgroup2_root(mounts) == unified
    (unified / "cgroup.procs").unlink()
    assert cgroup2_root(mounts) is None


def test_without_proc_there_is_no_root(tmp_path: Path) -> None:
    assert cgroup2_root(tmp_path / "mountinfo") is None
