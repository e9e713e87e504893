"""The import rule: one way through the layers, and each heavy or privileged library in one place only."""

from __future__ import annotations

import ast
import functools
import os
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "flowtop"

HOME_OF = {"bcc": "capture/ebpf/", "textual": "tui/", "click": "cli/"}
"""The only place, below flowtop/, that may import this library."""

HEAVY = {"bcc", "numpy", "rich", "textual"}


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of root's pyproject.toml against root's flowtop package."""
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()",
         "--config", str(root / "pyproject.toml"), "--no-cache", "--no-logo"],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False,
    )


FORBIDDEN = [
    ("model/record.py", "textual"),
    ("model/record.py", "flowtop.metering"),
    ("query/query.py", "bcc"),
    ("query/query.py", "flowtop.metering"),
    ("metering/__init__.py", "flowtop.export"),
    ("capture/protocol.py", "flowtop.query.query"),
    ("capture/ebpf/maps.py", "flowtop.capture.files.octets"),
    ("errors.py", "click"),
    ("wire/__init__.py", "flowtop.tui"),
    ("cli/help.py", "flowtop.docs"),
    ("docs/generate.py", "click"),
]
CIRCLES = {
    "flowtop.fields": ("fields/columns.py", "flowtop.fields.groups"),  # two modules of a package
    "flowtop.capture": ("capture/packets/link.py", "flowtop.capture.files.octets"),  # two parts of a package
    "flowtop.tui": ("tui/state/viewport.py", "flowtop.tui.widgets.header"),
}
"""By the package they are in."""


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the contracts say of a copy of the package with all these imports, each at the end of its module."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, root / "flowtop", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", root)
    for module, imported in (*FORBIDDEN, *CIRCLES.values()):
        with (root / "flowtop" / module).open("a") as source:
            source.write(f"\nimport {imported}\n")
    result = lint_imports(root)
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stdout


def test_the_contracts_hold() -> None:
    result = lint_imports(REPOSITORY)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("module", "imported"), FORBIDDEN)
def test_the_contracts_notice_a_forbidden_import(complaints: str, module: str, imported: str) -> None:
    importer = f"flowtop/{module}".removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert f"- {importer} -> {imported} (" in complaints.replace("-   ", "- ")


@functools.cache
def importers() -> dict[str, set[str]]:
    """By the first word of an import, those inside functions too: the files, below the package."""
    found = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for name in imports(path):
            found[name].add(path.relative_to(PACKAGE).as_posix())
    return found


def imports(path: Path) -> Iterator[str]:
    """The first words of every absolute import in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module" and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield argument.value.split(".")[0]


@pytest.mark.parametrize("package", CIRCLES)
def test_the_contracts_notice_a_circle(complaints: str, package: str) -> None:
    assert f"No cycles are allowed in {package}." in complaints


@pytest.mark.parametrize("library", HOME_OF)
def test_a_library_is_imported_in_its_home_only(library: str) -> None:
    files = importers()[library]
    assert files, f"nothing imports {library} any more: drop it from HOME_OF"
    assert {path for path in files if not path.startswith(HOME_OF[library])} == set()


def test_every_top_level_module_has_its_layer() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    named = {name.strip().removeprefix("flowtop.") for layer in layers for name in layer.split("|")}
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    modules |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert modules - {"__init__", "__main__"} <= named


def run_flowtop(*arguments: str) -> tuple[int, set[str], str]:
    """Run the command itself; its exit status, every module it imported, and what it wrote for the user."""
    # In a network namespace of its own, where that is possible, nothing of this host is watched.
    isolated = ["unshare", "--net"] if os.geteuid() == 0 and shutil.which("unshare") else []
    result = subprocess.run(
        [*isolated, sys.executable, "-X", "importtime", "-m", "flowtop", *arguments],
        cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )
    timings, narration = [], []
    for line in result.stderr.splitlines():
        (timings if line.startswith("import time:") else narration).append(line)
    modules = {line.rpartition("|")[2].strip() for line in timings}
    return result.returncode, modules, result.stdout + "\n".join(narration)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("help",), ("help", "keys")])
def test_a_quick_answer_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    status, modules, output = run_flowtop(*arguments)
    assert status == 0, output
    assert {"flowtop.cli.main", "click"} <= modules
    assert {name for name in modules if name.split(".")[0] in HEAVY} == set()


def test_a_headless_run_never_loads_the_screen() -> None:
    status, modules, output = run_flowtop("-b", "-c", "1", "-d", "0.1", "-i", "lo", "-o", "json")
    # 69 and 77: no bcc or no root here. Everything a headless run imports has been imported by then.
    assert status in ((0,) if os.environ.get("FLOWTOP_REQUIRE_KERNEL") == "1" else (0, 69, 77)), output
    assert {"flowtop.output.batch", "flowtop.pipeline.pipeline", "flowtop.capture.ebpf.capture"} <= modules
    assert {name for name in modules if name.split(".")[0] in ("textual", "rich")} == set()
    assert not any(name.startswith("flowtop.tui") for name in modules)
