"""What `pip install` gets: the wheel and the sdist hold all that runs and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import flowtop

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def build(source: Path, kind: str, into: Path) -> Path:
    """Build one distribution of a source tree without touching the network."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(into)],
                   cwd=source, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    (built,) = into.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build(REPOSITORY, "wheel", tmp_path_factory.mktemp("wheel")))


def source_files(folder: str) -> set[str]:
    """Every source file below a folder of the checkout, relative to it."""
    root = REPOSITORY / folder
    return {path.relative_to(root).as_posix() for path in root.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}


def test_the_wheel_ships_the_kernel_programs(wheel: zipfile.ZipFile) -> None:
    shipped = {name.removeprefix("flowtop/_bpf/") for name in wheel.namelist() if name.startswith("flowtop/_bpf/")}
    assert "flow.bpf.c" in shipped
    assert shipped == source_files("bpf")


def test_the_wheel_ships_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    rest = {name for name in wheel.namelist() if not name.startswith("flowtop/_bpf/") and ".dist-info/" not in name}
    assert rest == {f"flowtop/{name}" for name in source_files("flowtop")}


def test_the_wheel_brings_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    info = {name.split("/", 1)[1]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "flowtop = flowtop.cli.main:main" in wheel.read(info["entry_points.txt"]).decode()
    assert wheel.read(info["licenses/LICENSE"]) == (REPOSITORY / "LICENSE").read_bytes()


def test_the_wheel_asks_for_these_dependencies_and_never_for_bcc(wheel: zipfile.ZipFile) -> None:
    metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    required = HeaderParser().parsestr(wheel.read(metadata).decode()).get_all("Requires-Dist") or []
    names = {re.split(r"[^A-Za-z0-9-]", line)[0] for line in required if "extra ==" not in line}
    assert names == {"textual", "rich", "click", "numpy", "lark"}


def test_the_sdist_builds_the_same_wheel(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    sdist = build(REPOSITORY, "sdist", tmp_path / "sdist")
    subprocess.run(["tar", "-xf", str(sdist), "-C", str(tmp_path)], check=True)
    (source,) = tmp_path.glob("flowtop-*")
    rebuilt = zipfile.ZipFile(build(source, "wheel", tmp_path / "wheel"))
    assert sorted(rebuilt.namelist()) == sorted(wheel.namelist())


def test_the_version_is_one() -> None:
    assert PROJECT["version"] == flowtop.__version__
