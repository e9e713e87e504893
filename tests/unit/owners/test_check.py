"""What --check says of the ways to find processes: each lack in words, and none of them stops a capture."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowtop.capture.ebpf.btf import VMLINUX
from flowtop.capture.ebpf.check import check_owners, check_processes
from flowtop.model.owners import OwnerStatistics


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    directory = tmp_path / "unified"
    directory.mkdir()
    (directory / "cgroup.procs").touch()
    made = tmp_path / "mountinfo"
    made.write_text(f"30 25 0:26 / {directory} rw - cgroup2 none rw\n")
    return made


def test_an_old_kernel(mounts: Path) -> None:
    found = check_owners((5, 15), mountinfo=mounts)
    assert found.ok
    assert found.detail == "only from /proc, so processes that end soon are missed: the hooks need Linux 6.1"


def test_a_kernel_without_type_information(tmp_path: Path, mounts: Path) -> None:
    found = check_owners((6, 1), tmp_path / "vmlinux", mounts)
    assert found.detail.startswith("only from /proc, so processes that end soon are missed: the kernel has no type")


@pytest.mark.skipif(not VMLINUX.exists(), reason="needs BTF")
def test_cgroups(tmp_path: Path, mounts: Path) -> None:
    assert check_owners((6, 1), mountinfo=mounts).detail == f"hooks of cgroups at {tmp_path / 'unified'}"
    mounts.write_text("")
    assert check_owners((6, 1), mountinfo=mounts).detail.endswith("cgroup v2 is not mounted")


def test_processes_that_are_hidden_or_in_another_namespace(tmp_path: Path) -> None:
    assert check_processes(tmp_path).detail == "those of other users are hidden (hidepid)"
    (tmp_path / "1").mkdir()
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").symlink_to("pid:[4026532000]")
    assert check_processes(tmp_path).detail.startswith("only those of this PID namespace")
    (tmp_path / "self/ns/pid").unlink()
    (tmp_path / "self/ns/pid").symlink_to("pid:[4026531836]")
    assert check_processes(tmp_path).detail == "readable"


def test_what_is_missing_in_words() -> None:
    assert OwnerStatistics().faults == ()
    assert OwnerStatistics("cgroup v2 is not mounted", 1, 1234).faults == (
        "owners only from /proc: cgroup v2 is not mounted", "not readable: 1 process", "missed: 1,234 processes")
