"""Files that are written where somebody else has rights too: none is another than the one that was named."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowtop import files
from flowtop.acting import acting_user, files_as
from flowtop.errors import FlowtopError
from flowtop.export.spool import Spool
from flowtop.files import FileInUse, FileRefused, check_output, open_output, own_descriptor, undo_output

NOBODY = 65_534, 65_533
SECRET = "root's\n"


def written(path: Path, text: str, owner: tuple[int, int] | None = None) -> os.stat_result:
    """Write the file as flowtop does; what fstat says of it."""
    output = open_output(path, lambda: 1_700_000_000.0, owner)
    with os.fdopen(output.descriptor, "w") as file:
        file.write(text)
        return os.fstat(file.fileno())


def is_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes devices, and files of others")


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file of root's that must stay as it is."""
    path = tmp_path / "victim"
    path.write_text(SECRET)
    before = path.stat()
    yield path
    after = path.stat()
    assert path.read_text() == SECRET
    assert (before.st_uid, before.st_mode, before.st_ino) == (after.st_uid, after.st_mode, after.st_ino)


def make_block_device(path: Path) -> None:
    is_root()
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 251))


def make_link_to_device(path: Path) -> None:
    make_block_device(path.with_name("disk"))
    path.symlink_to("disk")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def make_another_users(path: Path) -> None:
    is_root()
    path.write_text("theirs\n")
    os.chown(path, *NOBODY)


@pytest.mark.parametrize(("make", "why"), [
    (make_block_device, "it is a device"), (make_link_to_device, "it is a symbolic link"),
    (lambda path: path.symlink_to("victim"), "it is a symbolic link"),
    (lambda path: path.symlink_to("nothing"), "it is a symbolic link"), (os.mkfifo, "it is a named pipe"),
    (make_socket, "it is a socket"), (make_another_users, "it is user 65534's"),
    (lambda path: path.mkdir(), "it is a directory")])
def test_what_is_no_file_of_ours_is_refused_and_stays(tmp_path: Path, victim: Path, make, why: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "x.jsonl"
    make(path)
    before = path.lstat()
    for attempt in (check_output, lambda place: written(place, "x")):
        with pytest.raises(FileRefused) as refused:
            attempt(path)
        assert (refused.value.strerror or "").removesuffix("; --allow-special allows that") == why
    assert (before.st_ino, before.st_mode, before.st_uid) == (path.lstat().st_ino, path.lstat().st_mode,
                                                             path.lstat().st_uid)
    assert not (tmp_path / "nothing").exists()
    assert victim.exists()


def test_an_empty_file_that_others_may_read_is_replaced_by_one_they_may_not(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.touch(0o644)
    with path.open() as reader:  # who has it open already keeps it open when its mode is changed
        assert stat.S_IMODE(written(path, "private\n").st_mode) == 0o600
        assert reader.read() == ""
    assert path.read_text() == "private\n"
    assert [*tmp_path.iterdir()] == [path]


def test_an_empty_file_in_which_nothing_was_written_is_empty_again(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.touch()
    output = open_output(path, lambda: 1_700_000_000.0)
    identity = os.fstat(output.descriptor)
    os.write(output.descriptor, b"a header")
    os.close(output.descriptor)
    undo_output(output, identity, path)
    assert path.read_bytes() == b""


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert stat.S_IMODE(written(tmp_path / "x.jsonl", "x").st_mode) == 0o600
    finally:
        os.umask(before)


def test_nothing_is_given_to_a_user_in_a_directory_of_roots(tmp_path: Path) -> None:
    is_root()
    tmp_path.chmod(0o700)
    status = written(tmp_path / "x.jsonl", "x", NOBODY)
    assert (status.st_uid, status.st_gid) == (0, 0)


def test_a_users_file_is_opened_with_the_rights_of_the_user(directory_of_nobody: Path, victim: Path) -> None:
    status = written(directory_of_nobody / "x.jsonl", "x", NOBODY)
    assert (status.st_uid, status.st_gid) == NOBODY
    os.link(victim, directory_of_nobody / "y.jsonl")  # a user may plant names of what it cannot write
    with pytest.raises(FileRefused, match="it is user 0's"):
        written(directory_of_nobody / "y.jsonl", "x", NOBODY)
    locked = directory_of_nobody / "roots"
    locked.mkdir(0o700)
    (directory_of_nobody / "into").symlink_to(locked)
    assert written(directory_of_nobody / "into" / "z", "x", NOBODY).st_uid == 0, "root may, and it stays root's"


def test_the_rights_are_of_one_thread_and_end(directory_of_nobody: Path) -> None:
    seen = []
    with files_as(NOBODY) as acts:
        thread = threading.Thread(target=lambda: seen.append((acting_user(), os.access("/root", os.W_OK))))
        thread.start()
        thread.join()
        assert acts
        assert acting_user() == NOBODY[0]
        with pytest.raises(PermissionError):
            (directory_of_nobody / "x").touch() or os.listdir("/proc/1/fd")  # noqa: PTH208
        status = Path("/proc/thread-self/status").read_text()
        assert "\nGroups:\t \n" in status
    assert seen == [(0, True)]
    assert acting_user() == 0
    assert (directory_of_nobody / "x").stat().st_uid == NOBODY[0]


class Attacker(threading.Thread):
    """Who may write in the directory, and puts a link to the victim in the place of the file all the time."""

    def __init__(self, path: Path, victim: Path) -> None:
        super().__init__(daemon=True)
        self._path, self._victim = path, victim
        self.over = threading.Event()
        self.swaps = 0

    def run(self) -> None:
        link = self._path.with_name("link")
        while not self.over.is_set():
            link.symlink_to(self._victim)
            link.rename(self._path)
            self.swaps += 1
            if self.swaps % 3 == 0:
                self._path.unlink(missing_ok=True)


def test_a_hundred_rotations_never_write_what_an_attacker_links_to(tmp_path: Path, victim: Path) -> None:
    place = tmp_path / "public"
    place.mkdir()
    path = place / "x.jsonl"
    attacker = Attacker(path, victim)
    done, refused, before = 0, 0, sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # between any two calls of the system
    attacker.start()
    try:
        for _ in range(100):
            try:
                status = written(path, "flows\n")
            except (FileRefused, FileInUse, FileNotFoundError):
                refused += 1
            else:
                done += 1
                assert status.st_ino != victim.stat().st_ino
    finally:
        sys.setswitchinterval(before)
        attacker.over.set()
        attacker.join()
    assert done + refused == 100
    assert attacker.swaps
    assert {*tmp_path.iterdir()} == {victim, place}


def test_the_next_file_is_in_the_directory_of_the_first(tmp_path: Path) -> None:
    """Whatever its name leads to by then."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "etc").mkdir()
    path = tmp_path / "logs" / "x.jsonl"
    written(path, "first\n")
    (tmp_path / "logs").rename(tmp_path / "moved")
    (tmp_path / "logs").symlink_to("etc")
    written(path, "second\n")
    assert [*(tmp_path / "etc").iterdir()] == []
    assert sorted(file.read_text() for file in (tmp_path / "moved").iterdir()) == ["first\n", "second\n"]


def test_no_link_of_another_user_chooses_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root writes to a directory in which others may make links, such as theirs; its own links it follows."""
    is_root()
    (tmp_path / "private" / "deep").mkdir(parents=True)
    (tmp_path / "own").symlink_to("./private")
    (tmp_path / "theirs").symlink_to(tmp_path / "private")
    (tmp_path / "over").symlink_to("theirs/deep")
    (tmp_path / "round").symlink_to("round")
    os.lchown(tmp_path / "theirs", 12_345, 12_345)
    written(tmp_path / "own/deep/../a.jsonl", "x")
    written(tmp_path / "own/deep/b.jsonl", "x")
    for way in ("theirs", "theirs/deep", "over"):
        with pytest.raises(FileRefused, match="a link of user 12345 is on its way"):
            written(tmp_path / way / "c.jsonl", "x")
        with pytest.raises(FileRefused):
            check_output(tmp_path / way / "c.jsonl")
    for way, number in (("own/a.jsonl", errno.ENOTDIR), ("round", errno.ELOOP), ("none", errno.ENOENT)):
        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            written(tmp_path / way / "c.jsonl", "x")
    monkeypatch.chdir(tmp_path / "private")
    written(Path("deep/d.jsonl"), "x")
    written(Path("../own/e.jsonl"), "x")
    assert sorted(path.name for path in (tmp_path / "private").rglob("*.jsonl")) == [
        "a.jsonl", "b.jsonl", "d.jsonl", "e.jsonl"]
    monkeypatch.setattr(files, "_special", True)
    written(tmp_path / "over/c.jsonl", "x")
    assert (tmp_path / "private/deep/c.jsonl").exists()


def test_no_link_of_another_user_leads_to_a_descriptor(tmp_path: Path) -> None:
    """Such as to standard output, which may be root's terminal: packets are a stranger's."""
    is_root()
    for name, target in (("stdout", "/dev/stdout"), ("fd", "/dev/fd"), ("number", "/proc/self/fd/1")):
        (tmp_path / name).symlink_to(target)
    assert [own_descriptor(tmp_path / name) for name in ("stdout", "fd/1", "number")] == [1, 1, 1]
    for link in tmp_path.iterdir():
        os.lchown(link, 12_345, 12_345)
    for name in ("stdout", "fd/1", "number"):
        assert own_descriptor(tmp_path / name) is None
        with pytest.raises(FileRefused):
            written(tmp_path / name, "x")


def test_a_directory_that_was_removed_and_made_again_is_written(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "x.jsonl"
    for text in ("first\n", "second\n"):
        path.parent.mkdir()
        written(path, text)
        assert path.read_text() == text
        path.unlink()
        path.parent.rmdir()


def test_a_spool_of_another_user_is_refused(tmp_path: Path) -> None:
    is_root()
    (tmp_path / "spool").mkdir()
    os.chown(tmp_path / "spool", *NOBODY)
    with pytest.raises(FlowtopError, match="user 65534's"):
        Spool(tmp_path / "spool", domain=1, wall=lambda: 0.0)
