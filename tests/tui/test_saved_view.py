"""What the reader changed is kept: by the user it belongs to, and nowhere that user could not write."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtop.errors import FlowtopError
from flowtop.fields.arrangement import Arrangement
from flowtop.fields.registry import COLUMNS
from flowtop.tui.saved import SavedView, ViewFile, opening_looks, parse_view, view_file, view_text

VIEW = SavedView("dark", Arrangement(("rate", "source"), frozenset({"vlan"}), frozenset({"flags"}), (("source", 30),)))
ME = (os.geteuid(), os.getegid())
STRANGER = (65534, 65534)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")

_ids = st.sampled_from(list(COLUMNS))


@given(st.builds(SavedView, st.sampled_from(["terminal", "dark", "light", "contrast"]), st.builds(
    Arrangement, st.lists(_ids, unique=True).map(tuple), st.frozensets(_ids), st.frozensets(_ids),
    st.dictionaries(_ids, st.integers(1, 60)).map(lambda widths: tuple(widths.items())))))
def test_what_is_written_is_what_is_read(view: SavedView) -> None:
    assert parse_view(view_text(view)) == view


@pytest.mark.parametrize("text", ["", "theme = 3", 'theme = "mauve"', "order = 1", "hidden = [1, [2]]", "widths = 4",
                                  '[widths]\nsource = "wide"', "[widths]\nsource = 0\nrate = 61", "later = true"])
def test_what_another_version_wrote_is_passed_over(text: str) -> None:
    assert parse_view(text) == SavedView()


def test_it_is_kept_and_read_again_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    file = ViewFile(tmp_path / "state" / "flowtop", ME)
    assert file.read() == SavedView(), "nothing kept yet"
    for view in (VIEW, SavedView("light")):
        file.write(view)
        assert file.read() == view
    written = tmp_path / "state" / "flowtop" / "view.toml"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert [path.name for path in written.parent.iterdir()] == ["view.toml"]


@pytest.mark.parametrize("make", [
    lambda path: path.symlink_to("/etc/hostname"), lambda path: os.mkfifo(path), lambda path: path.mkdir(),
    lambda path: path.write_bytes(b"\xff\xfe"), lambda path: path.write_text("theme = "),
    lambda path: path.write_bytes(b"#" * 70_000),
])
def test_what_is_not_such_a_file_is_said_and_the_screen_opens_all_the_same(make: object, tmp_path: Path) -> None:
    folder = tmp_path / ".local" / "state" / "flowtop"
    folder.mkdir(parents=True)
    make(folder / "view.toml")  # type: ignore[operator]
    with pytest.raises(FlowtopError, match=r"view\.toml"):
        ViewFile(folder, ME).read()
    looks = opening_looks({"HOME": str(tmp_path)}, ME[0], hosts=False, services=False, theme=None)
    assert looks.theme == "terminal" and "view.toml" in looks.complaint


def test_an_option_wins_over_what_was_kept(tmp_path: Path) -> None:
    ViewFile(tmp_path / ".local" / "state" / "flowtop", ME).write(VIEW)
    environment = {"HOME": str(tmp_path)}
    looks = opening_looks(environment, ME[0], hosts=True, services=False, theme=None)
    assert (looks.theme, looks.columns, looks.hosts) == ("dark", VIEW.columns, True)
    assert opening_looks(environment, ME[0], hosts=False, services=False, theme="contrast").theme == "contrast"


def test_where_it_is_kept(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    mine = view_file(home, ME[0], None)
    assert mine is not None and mine.folder == tmp_path / ".local" / "state" / "flowtop"
    elsewhere = view_file(home | {"XDG_STATE_HOME": "/elsewhere"}, ME[0], None)
    assert elsewhere is not None and elsewhere.folder == Path("/elsewhere/flowtop")
    assert view_file({"HOME": "/nowhere/at/all"}, ME[0], None) is None
    assert view_file(home, ME[0], (999_999, 999_999)) is None, "nobody has that number"


@as_root
def test_root_in_a_home_that_is_another_users_keeps_nothing(tmp_path: Path) -> None:
    os.chown(tmp_path, *STRANGER)
    assert view_file({"HOME": str(tmp_path)}, 0, None) is None


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can reach, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@as_root
def test_behind_sudo_it_is_written_with_the_rights_of_who_typed_it(place: Path) -> None:
    home, forbidden = place / "home", place / "forbidden"
    home.mkdir()
    forbidden.mkdir()
    os.chown(home, *STRANGER)
    file = ViewFile(home / "flowtop", STRANGER, other=True)
    file.write(VIEW)
    written = (home / "flowtop" / "view.toml").stat()
    assert (written.st_uid, written.st_gid) == STRANGER
    assert file.read() == VIEW
    (home / "planted").symlink_to(forbidden)
    with pytest.raises(FlowtopError, match=r"(?i)permission denied"):
        ViewFile(home / "planted" / "flowtop", STRANGER, other=True).write(VIEW)
    assert list(forbidden.iterdir()) == []


@as_root
def test_a_file_that_its_owner_could_not_have_written_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "view.toml").write_text(view_text(VIEW))
    with pytest.raises(FlowtopError, match="owner"):
        ViewFile(tmp_path, STRANGER, other=True).read()
