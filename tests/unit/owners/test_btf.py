"""Offsets of the kernel's structures: as bpftool prints them, and from types made up here."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from flowtop.capture.ebpf.btf import VMLINUX, member_offsets
from flowtop.capture.ebpf.loader import TASK_MEMBERS

STRINGS = b"\0task\0pid\0inner\0deep\0bits\0int\0"


def at(name: str) -> int:
    return STRINGS.index(b"\0" + name.encode() + b"\0") + 1


def btf(types: bytes, magic: int = 0xEB9F) -> bytes:
    header = struct.pack("=HBBIIIII", magic, 1, 0, 24, 0, len(types), len(types), len(STRINGS))
    return header + types + STRINGS


def structure(name: int, members: list[tuple[int, int, int]], *, flagged: bool = False) -> bytes:
    return struct.pack("=III", name, flagged << 31 | 4 << 24 | len(members), 64) + b"".join(
        struct.pack("=III", *member) for member in members)


INTEGER = struct.pack("=IIII", at("int"), 1 << 24, 4, 32)
UNNAMED = structure(0, [(at("deep"), 1, 32)])
TASK = structure(at("task"), [(at("pid"), 1, 64), (0, 2, 128)])


def test_members_and_those_of_unnamed_members(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(btf(INTEGER + UNNAMED + TASK))
    assert member_offsets("task", ("pid", "deep"), path) == {"pid": 8, "deep": 20}


def test_bit_fields_have_no_offset(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(btf(INTEGER + structure(at("task"), [(at("bits"), 1, 3 << 24 | 8), (at("pid"), 1, 96)],
                                             flagged=True)))
    assert member_offsets("task", ("pid",), path) == {"pid": 12}
    with pytest.raises(ValueError, match="has no bits"):
        member_offsets("task", ("bits",), path)


@pytest.mark.parametrize("data", [b"", b"\0" * 10, btf(INTEGER, magic=0x9FEB), btf(INTEGER), btf(TASK[:-20])[:40],
                                  btf(INTEGER + UNNAMED + TASK)[:70]])
def test_what_is_damaged_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"."):
        member_offsets("task", ("pid",), path)


@pytest.mark.skipif(not VMLINUX.exists() or shutil.which("bpftool") is None, reason="needs BTF and bpftool")
def test_offsets_in_this_kernel_are_bpftools() -> None:
    printed = subprocess.run(["bpftool", "btf", "dump", "file", str(VMLINUX), "format", "raw"], capture_output=True,
                             text=True, check=True).stdout
    task = re.search(r"STRUCT 'task_struct'.*?(?=\n\[)", printed, re.DOTALL)
    assert task is not None
    expected = {name: int(found[1]) // 8 for name in TASK_MEMBERS
                if (found := re.search(rf"'{name}' .*bits_offset=(\d+)", task[0]))}
    assert len(expected) == len(TASK_MEMBERS)
    assert member_offsets("task_struct", TASK_MEMBERS) == expected
