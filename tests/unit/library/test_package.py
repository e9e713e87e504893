"""The package as an outside user has it: what importing costs, the manual's example, types in an installed wheel."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import flowtop
from tests.unit.library.captures import CLIENT, FLOWS, PACKETS, SERVER, TRACE

REPOSITORY = Path(__file__).parents[3]
PAGE = (REPOSITORY / "flowtop" / "docs" / "library.md").read_text()
EXAMPLE = re.search(r"<!-- example -->\n```python\n(.*?)```", PAGE, re.DOTALL)
HEAVY = {"numpy", "lark", "textual", "rich", "click", "bcc"}


def modules_after(program: str) -> set[str]:
    """Top-level modules that are loaded when the program has run."""
    run = subprocess.run([sys.executable, "-c", f"{program}; import sys; print(*sys.modules)"], cwd=REPOSITORY,
                         capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.split()}


def test_importing_flowtop_loads_nothing_heavy() -> None:
    assert HEAVY & modules_after("import flowtop; flowtop.__version__; flowtop.FlowtopError; dir(flowtop)") == set()


def test_the_library_never_loads_a_screen_a_command_line_or_bcc() -> None:
    names = "; ".join(f"flowtop.{name}" for name in flowtop.__all__)
    assert {"textual", "rich", "click", "bcc"} & modules_after(f"import flowtop; {names}") == set()


def test_every_name_is_there_documented_and_in_the_manual() -> None:
    assert set(flowtop.__all__) <= set(dir(flowtop))
    for name in set(flowtop.__all__) - {"__version__"}:
        found = getattr(flowtop, name)
        assert found.__doc__, name
        assert re.search(rf"\b{name}\b", PAGE), f"{name} is not in library.md"
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        flowtop.colour  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("kind", [flowtop.Row, flowtop.Flow, flowtop.Group, flowtop.Biflow, flowtop.Rows, flowtop.Table,
                                  flowtop.Collector, flowtop.Connection, flowtop.Decoder, flowtop.ipfix.ExportSession,
                                  flowtop.netflow.ExportSession, flowtop.netflow.ExportSession5, flowtop.Sender])
def test_what_a_class_offers_is_documented_and_in_the_manual(kind: type) -> None:
    for name, member in vars(kind).items():
        if not name.startswith("_") and callable(getattr(member, "fget", member)):
            assert member.__doc__, f"{kind.__name__}.{name} has no docstring"
            assert re.search(rf"\b{name}\b", PAGE), f"{kind.__name__}.{name} is not in library.md"


def test_the_manuals_example_does_what_it_says(tmp_path: Path) -> None:
    assert EXAMPLE is not None
    assert len(EXAMPLE[1].splitlines()) <= 20
    (tmp_path / "trace.pcap").write_bytes(TRACE)
    (tmp_path / "example.py").write_text(f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{EXAMPLE[1]}")
    run = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    from_server = FLOWS[SERVER, CLIENT, 6][1]
    protocols = sorted({key[2] for key in FLOWS}, reverse=True,
                       key=lambda number: sum(octets for key, (_, octets) in FLOWS.items() if key[2] == number))
    ways = {(source, destination): sum(octets for key, (_, octets) in FLOWS.items() if key[:2] == (source, destination))
            for source, destination, _ in FLOWS if CLIENT in (source, destination)}
    *lines, server, other = run.stdout.splitlines()
    assert lines == [
        f"{SERVER} 443 {CLIENT} {from_server} 1.0 s",
        *(f"{{'protocolIdentifier': {number}}} {sum(key[2] == number for key in FLOWS)} "
          f"{sum(packet.protocol == number for packet in PACKETS)}" for number in protocols),
        f"{len(PACKETS)} None"]
    assert server in (f"{CLIENT} {ways[CLIENT, SERVER]} {ways[SERVER, CLIENT]}",
                      f"{SERVER} {ways[SERVER, CLIENT]} {ways[CLIENT, SERVER]}"), "no SYN says who began"
    assert other == f"{CLIENT} {ways[CLIENT, '192.0.2.53']} None"


def test_other_programs_of_the_manual_compile() -> None:
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(programs) == 3
    for program in programs:
        compile(program, "library.md", "exec")


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a Python environment in it that has the wheel and nothing else."""
    directory = tmp_path_factory.mktemp("outside")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory / "venv"], check=True)
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory], cwd=REPOSITORY,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    (wheel,) = directory.glob("*.whl")
    (packages,) = (directory / "venv").glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    return directory


def test_the_example_is_typed_for_an_outside_user_and_mistakes_are_found(outside: Path) -> None:
    assert EXAMPLE is not None
    (outside / "example.py").write_text(EXAMPLE[1])
    (outside / "mistakes.py").write_text(
        "import flowtop\n"
        "flowtop.colour\n"
        "table = flowtop.read('x', decapsulate=True)\n"
        "flowtop.read('x').query(biflow=True)[0].source\n"
        "flowtop.read('x').query(group='source')[0].forward\n"
        "number: str = flowtop.read('x').query()[0].bytes\n"
        "flowtop.Collector().receive('text', ('192.0.2.1', 1))\n")
    run = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--python-executable", outside / "venv/bin/python",
                          "--cache-dir", outside / "cache", "example.py", "mistakes.py"], cwd=outside,
                         capture_output=True, text=True, check=False)
    found = re.findall(r"^(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", run.stdout, re.MULTILINE)
    assert found == [("mistakes.py", "2", "attr-defined"), ("mistakes.py", "3", "call-arg"),
                     ("mistakes.py", "4", "attr-defined"), ("mistakes.py", "5", "attr-defined"),
                     ("mistakes.py", "6", "assignment"), ("mistakes.py", "7", "arg-type")], run.stdout + run.stderr
