"""Programs that are kept compiled: the same programs and maps as bcc loads, nothing that others wrote."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flowtop.capture.ebpf import compiler, kept
from flowtop.capture.ebpf.compiler import FlowProgram, compile_program
from flowtop.capture.ebpf.loader import PROGRAMS
from tests.descriptors import open_descriptors
from tests.kernel.netns import PATIENCE_S, run

pytestmark = pytest.mark.skipif(shutil.which("bpftool") is None, reason="needs bpftool")

@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory for kept programs."""
    directory = tmp_path / "cache"
    monkeypatch.setenv(compiler.KEPT_VARIABLE, str(directory))
    return directory


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A file of kept programs, and what bpftool says of the programs that were compiled."""
    directory = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(compiler.KEPT_VARIABLE, str(directory))
        with loaded() as program:
            [file] = directory.iterdir()
            return file, all_facts(program)


def put(file: Path, cache: Path) -> Path:
    """The same file in an empty directory of kept programs."""
    cache.mkdir(mode=0o700)
    return Path(shutil.copy(file, cache))


@contextmanager
def loaded(**options: Any) -> Iterator[FlowProgram]:
    program = compile_program(map_entries=64, coarse_clock=True, **options)
    try:
        yield program
    finally:
        program.close()


def program_facts(descriptor: int) -> tuple[Any, ...]:
    """What bpftool says of a program: the tag is a digest of its instructions, without the maps' numbers."""
    [number] = [line.split()[1] for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
                if line.startswith("prog_id:")]
    facts = json.loads(run("bpftool", "-j", "prog", "show", "id", number))
    maps = sorted(map_facts_of(each) for each in facts.get("map_ids", []))
    return facts["type"], facts["name"], facts["tag"], facts["gpl_compatible"], maps


def map_facts_of(number: int) -> tuple[Any, ...]:
    facts = json.loads(run("bpftool", "-j", "map", "show", "id", str(number)))
    return tuple(facts[name] for name in ("name", "type", "flags", "bytes_key", "bytes_value", "max_entries"))


def all_facts(program: FlowProgram) -> dict[str, Any]:
    return {name: program_facts(descriptor) for name, descriptor in program.programs.items()}


@pytest.mark.parametrize("options", [{}, {"owners": True}, {"names": True}, {"owners": True, "names": True},
                                     {"decap": True}, {"expression": "key->protocol == 6"}])
def test_what_is_kept_is_what_bcc_loads(cache: Path, options: dict[str, Any]) -> None:
    with loaded(**options) as first:
        assert not first.owners_refused and not first.names_refused
        [file] = cache.iterdir()
        written = file.stat()
        assert oct(cache.stat().st_mode)[-3:] == "700" and oct(written.st_mode)[-3:] == "600"
        with loaded(**options) as again:
            assert all_facts(again) == all_facts(first)
            assert {name: map_facts(descriptor) for name, descriptor in again.maps.items()} == {
                name: map_facts(descriptor) for name, descriptor in first.maps.items()}
        assert [*cache.iterdir()] == [file] and file.stat().st_ino == written.st_ino, "not compiled again"


def map_facts(descriptor: int) -> list[str]:
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    return [line for line in text.splitlines() if line.startswith(("map_type", "key_", "value_", "max_", "map_flags"))]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_once_it_is_kept_bcc_and_the_compiler_are_not_even_opened(
        cache: Path, compiled: tuple[Path, dict[str, Any]]) -> None:
    file = put(compiled[0], cache)
    done = subprocess.run(["strace", "-f", "-e", "trace=openat", sys.executable, "-c", LOAD], capture_output=True,
                          text=True, timeout=PATIENCE_S, check=True)
    assert "libbcc" not in done.stderr and "libLLVM" not in done.stderr
    assert str(file) in done.stderr, "the trace is one of the child too"
    file.unlink()
    done = subprocess.run(["strace", "-f", "-e", "trace=openat", sys.executable, "-c", LOAD], capture_output=True,
                          text=True, timeout=PATIENCE_S, check=True)
    assert "libbcc" in done.stderr


LOAD = ("from flowtop.capture.ebpf.compiler import compile_program\n"
        "compile_program(map_entries=64, coarse_clock=True).close()\n")


def not_used_cases() -> dict[str, Callable[[Path], None]]:
    """Places and files that somebody else than root has, or could have, written."""
    def owner(path: Path) -> None:
        os.chown(path, 65534, 65534)

    def link(path: Path) -> None:
        aside = path.parent / "aside"
        path.rename(aside)
        path.symlink_to(aside)

    cases: dict[str, Callable[[Path], None]] = {}
    for name, change in (("owner", owner), ("link", link), ("group", lambda path: path.chmod(0o720)),
                         ("others", lambda path: path.chmod(0o702))):
        cases[f"directory {name}"] = lambda file, change=change: change(file.parent)  # type: ignore[misc]
        cases[f"file {name}"] = lambda file, change=change: change(file)  # type: ignore[misc]
    return cases


@pytest.mark.parametrize("case", not_used_cases())
def test_what_others_may_have_written_is_not_loaded(
        cache: Path, compiled: tuple[Path, dict[str, Any]], case: str) -> None:
    file, right = put(compiled[0], cache), compiled[1]
    rewrite(file, first_program_passes_all)
    with loaded() as poisoned:
        assert all_facts(poisoned) != right, "what only root can write is loaded, or this test shows nothing"
    not_used_cases()[case](file)
    with loaded() as program:
        assert all_facts(program) == right


def rewrite(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what is in the file, with a right digest."""
    image = json.loads(file.read_bytes().partition(b"\n")[2])
    change(image)
    text = json.dumps(image).encode()
    file.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def first_program_passes_all(image: dict[str, Any]) -> None:
    image["programs"][PROGRAMS[0]]["code"] = "b7000000ffffffff" + "9500000000000000"  # r0 = -1; exit


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda file: file.write_bytes(b""),  # type: ignore[dict-item,return-value]
    "cut": lambda file: os.truncate(file, file.stat().st_size // 2),
    "a bit": lambda file: file.write_bytes(  # type: ignore[dict-item,return-value]
        (text := file.read_bytes())[:2000] + bytes([text[2000] ^ 1]) + text[2001:]),
    "no JSON": lambda file: rewrite_text(file, b"[[[["),
    "another shape": lambda file: rewrite_text(file, b'{"maps": {"flows_a": {}}, "programs": 7}'),
    "a list": lambda file: rewrite_text(file, b"[1]"),
    "refused by the kernel": lambda file: rewrite(file, lambda image: image["programs"][PROGRAMS[0]].update(
        code="9500000000000000")),  # exit without a result
    "a map that is none": lambda file: rewrite(file, lambda image: image["maps"]["flows_a"].update(map_type=9999)),
    "a map left out": lambda file: rewrite(file, lambda image: image["maps"].popitem()),
    "half an instruction": lambda file: rewrite(file, lambda image: image["programs"][PROGRAMS[0]].update(code="18")),
}


def rewrite_text(file: Path, text: bytes) -> None:
    file.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_compiled_anew_and_replaced(
        cache: Path, compiled: tuple[Path, dict[str, Any]], damage: str) -> None:
    file, right = put(compiled[0], cache), compiled[1]
    before, descriptors = file.read_bytes(), open_descriptors()
    DAMAGES[damage](file)
    with loaded() as program:
        assert all_facts(program) == right
    assert file.read_bytes() == before
    assert not open_descriptors() - descriptors


def test_another_source_option_or_compiler_is_another_program(tmp_path: Path) -> None:
    directory = tmp_path / "bpf"
    shutil.copytree(compiler.source_directory(), directory)
    bcc = tmp_path / "bcc.py"
    bcc.write_text("")
    source, cache = directory / "flow.bpf.c", str(tmp_path / "cache")

    def place(flags: list[str] | None = None, headers: Path | None = None) -> Path | None:
        return kept.place(cache, source, flags or [], headers, bcc)

    places = {first := place()}
    assert first is not None and place() == first
    places |= {place(["-DX"]), place(headers=directory)}
    (directory / "headers" / "more.h").write_text("int x;\n")
    places.add(place())
    source.write_text(source.read_text() + "\n")
    places.add(place())
    bcc.write_text("newer")
    places.add(place())
    assert None not in places and len(places) == 6


def test_where_nothing_may_be_kept_each_start_compiles(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(compiler.KEPT_VARIABLE, "")
    with loaded():
        assert not cache.exists()
    monkeypatch.setenv(compiler.KEPT_VARIABLE, "/proc/no/such")
    with loaded() as program:
        assert set(program.programs) == set(PROGRAMS)


def test_a_user_who_is_not_root_keeps_nothing(cache: Path) -> None:
    code = ("from pathlib import Path\nfrom flowtop.capture.ebpf import kept\n"
            f"print(kept.place({str(cache)!r}, Path('x'), [], None, None))")
    done = subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", code],
                          capture_output=True, text=True, check=False, timeout=PATIENCE_S,
                          env={"PYTHONPATH": str(Path(compiler.__file__).parents[3])})
    if "PermissionError" in done.stderr or "ModuleNotFoundError" in done.stderr:
        pytest.skip("not readable by another user")
    assert (done.stdout, cache.exists()) == ("None\n", False), done.stderr


def test_the_oldest_go_when_there_are_too_many(cache: Path) -> None:
    cache.mkdir(mode=0o700)
    for number in range(kept.MOST_FILES + 5):
        path = cache / f"{number:064}.json"
        path.write_text("")
        os.utime(path, (number, number))
    with loaded():
        pass
    names = {path.name for path in cache.iterdir()}
    assert len(names) == kept.MOST_FILES
    assert f"{5:064}.json" not in names and f"{6:064}.json" in names
