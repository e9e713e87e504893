"""What --check says of the ways to find processes: each lack in words, and none of them stops a capture."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowtop.capture.ebpf import check
from flowtop.capture.ebpf.btf import VMLINUX
from flowtop.capture.ebpf.check import check_containers, check_owners, check_processes, check_translation
from flowtop.model.owners import OwnerStatistics
from flowtop.owners.proc import may_have_files


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
def test_cgroups(tmp_path: Path, mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_own_mount(root: Path | None) -> str:
        monkeypatch.setattr(check, "detached_root", lambda: root)
        return check_owners((6, 1), mountinfo=mounts).detail

    assert with_own_mount(None) == (f"hooks of cgroups at {tmp_path / 'unified'}; outside of this container only from "
                                    "/proc: it needs --cgroupns=host")
    monkeypatch.setattr(check, "is_whole", lambda root: True)
    assert with_own_mount(None) == f"hooks of cgroups at {tmp_path / 'unified'}"
    mounts.write_text("")
    assert with_own_mount(tmp_path / "unified") == "hooks of cgroups by a mount of flowtop's own"
    assert with_own_mount(None).endswith("cgroup v2 is not mounted, and cannot be")


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
    assert OwnerStatistics("cgroup v2 is not mounted, and cannot be", 1, 1234, 1, 20, "not permitted").faults == (
        "owners only from /proc: cgroup v2 is not mounted, and cannot be", "not readable: 1 process",
        "missed: 1,234 processes",
        "no names: 1 container", "not joined: 20 of containers", "NAT not known: not permitted")


def test_files_of_runtimes(tmp_path: Path) -> None:
    assert check_containers(tmp_path).detail == "no runtime's files are there"
    (tmp_path / "var/lib/docker/containers/4f5e").mkdir(parents=True)
    (tmp_path / "var/log/pods/shop_api_1").mkdir(parents=True)
    (tmp_path / "var/lib/containers/storage/overlay-containers").mkdir(parents=True)  # of nothing
    assert check_containers(tmp_path).detail == "names from files of Docker, the kubelet"


def test_address_translation(tmp_path: Path) -> None:
    def refused() -> None:
        raise PermissionError(1, "Operation not permitted")

    tracking = tmp_path / "nf_conntrack_count"
    assert check_translation(tracking).detail == "no connections are tracked"
    tracking.write_text("0\n")
    assert check_translation(tracking).detail == "no connections are tracked"
    tracking.write_text("3\n")
    assert check_translation(tracking, refused).detail == "both sides are not joined: operation not permitted"
    assert check_translation(tracking, list).detail == "both sides are joined"


@pytest.mark.parametrize(("stat", "expected"), [
    ("10 (a) b) S 1 1 1 0 -1 4194560 0", True), ("11 (kthreadd) S 0 0 0 0 -1 2129984 0", False),
    ("12 (gone) Z 1 1 1 0 -1 4194560 0", False), ("13 (ending) R 1 1 1 0 -1 4194564 0", False), ("", False)])
def test_processes_without_files_are_no_lack_of_rights(stat: str, *, expected: bool) -> None:
    """Flags of proc_pid_stat(5), field 9: 4194560 is a usual process, 0x00200000 a thread of the kernel, 4 one that is
    ending. Of these, and of one that has ended, the kernel refuses to tell the open files even to root."""
    assert may_have_files(stat) == expected
