"""What `pip install` gets: the wheel and the sdist hold all that runs and nothing else."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import flowtop
from flowtop.capture.ebpf.launch import LOADER_KEEPS, LOOKER_KEEPS
from flowtop.cli.main import command
from flowtop.cli.run_options import run_options
from flowtop.export.url import parse_export_url
from flowtop.native.library import LIBRARY, checksum, opened

REPOSITORY = Path(__file__).parents[2]
DATA = f"flowtop-{flowtop.__version__}.data/data/share/"
"""What is installed below share/."""
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
BUILD: list[str] = PYPROJECT["build-system"]["requires"]


def build(source: Path, kind: str, into: Path, umask: int = -1) -> Path:
    """Build one distribution of a source tree without touching the network."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(into)], umask=umask,
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
    rest = {name for name in wheel.namelist() if not name.startswith(("flowtop/_bpf/", DATA))
            and ".dist-info/" not in name}
    assert rest == {f"flowtop/{name}" for name in source_files("flowtop") if not name.startswith("packaging/")} | {
        f"flowtop/native/{LIBRARY}"}


def test_the_wheel_has_a_library_for_this_machine_that_works(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    assert wheel.filename is not None
    assert Path(wheel.filename).name == f"flowtop-{flowtop.__version__}-py3-none-linux_{platform.machine()}.whl"
    found = opened(Path(wheel.extract(f"flowtop/native/{LIBRARY}", tmp_path)), REPOSITORY / "flowtop" / "native")
    assert found.sources() == checksum(REPOSITORY / "flowtop" / "native")


def test_without_a_compiler_there_is_a_wheel_for_any_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    pure = build(REPOSITORY, "wheel", tmp_path)
    assert pure.name == f"flowtop-{flowtop.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(pure).namelist()
    assert "flowtop/native/keys.c" in names and f"flowtop/native/{LIBRARY}" not in names


def test_the_library_is_hardened_and_says_nothing_of_its_builder(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    path = wheel.extract(f"flowtop/native/{LIBRARY}", tmp_path)
    made = subprocess.run(["readelf", "-Wld", path], capture_output=True, text=True, check=True).stdout
    assert str(REPOSITORY).encode() not in Path(path).read_bytes()
    assert "GNU_RELRO" in made and "BIND_NOW" in made and "TEXTREL" not in made
    assert re.search(r"GNU_STACK .* RW ", made) and "RWE" not in made


def test_the_wheel_ships_the_manual(wheel: zipfile.ZipFile) -> None:
    assert {"flowtop/docs/quick-start.md", "flowtop/docs/filters.md"} <= set(wheel.namelist())


def test_the_wheel_installs_man_pages_and_completions(wheel: zipfile.ZipFile) -> None:
    assert {name.removeprefix(DATA) for name in wheel.namelist() if name.startswith(DATA)} == {
        "man/man1/flowtop.1", "man/man1/flowtop-dump.1", "man/man7/flowtop-filter.7",
        "bash-completion/completions/flowtop", "bash-completion/completions/flowtop-dump",
        "zsh/site-functions/_flowtop", "zsh/site-functions/_flowtop-dump",
        "fish/vendor_completions.d/flowtop.fish", "fish/vendor_completions.d/flowtop-dump.fish"}


@pytest.mark.parametrize(("name", "words"), [
    ("man/man1/flowtop.1", ["NAME", "SYNOPSIS", "flowtop help [TOPIC]", "--interface NAME", "KEYS", "Ctrl-C",
                            "EXIT STATUS", "FLOWTOP_DELAY=2", "delay = 2", "flowtop-filter(7)"]),
    ("man/man1/flowtop-dump.1", ["flowtop-dump [OPTIONS] FILE", "--output [text|json]"]),
    ("man/man7/flowtop-filter.7", ["host ADDRESS", "rate >= 1Mbit", "!~", "DIFFERENCES FROM TCPDUMP"]),
])
def test_a_man_page_renders_without_a_warning(wheel: zipfile.ZipFile, tmp_path: Path, name: str,
                                              words: list[str]) -> None:
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("man is not installed")
    page = tmp_path / Path(name).name
    page.write_bytes(wheel.read(DATA + name))
    done = subprocess.run(["man", "--warnings=w", "-l", str(page)], capture_output=True, text=True, check=True,
                          env=os.environ | {"MANWIDTH": "100", "LC_ALL": "C.UTF-8", "MANPAGER": "cat"})
    shown = " ".join(re.sub(".\b", "", done.stdout).split())
    assert done.stderr == ""
    for word in words:
        assert word in shown
    assert "`" not in shown and "**" not in shown, "no Markdown is left"


@pytest.mark.parametrize("program", ["flowtop", "flowtop-dump"])
def test_the_bash_completion_completes(wheel: zipfile.ZipFile, tmp_path: Path, program: str) -> None:
    script = tmp_path / program
    script.write_bytes(wheel.read(f"{DATA}bash-completion/completions/{program}"))
    subprocess.run(["bash", "-n", str(script)], check=True)
    command = Path(sys.executable).with_name(program)
    if not command.exists():
        pytest.skip("the commands are not installed beside this Python")
    asked = f'''. {script}; COMP_WORDS=({program} --outp); COMP_CWORD=1
        _{program.replace("-", "_")}_completion {command}; echo "${{COMPREPLY[@]}}"'''
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--output"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_completions_are_whole_where_these_shells_are(wheel: zipfile.ZipFile, tmp_path: Path,
                                                                   shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    for name in wheel.namelist():
        if name.startswith(f"{DATA}{shell}/"):
            script = tmp_path / Path(name).name
            script.write_bytes(wheel.read(name))
            subprocess.run([shell, "-n", str(script)], check=True)


def test_a_build_needs_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c",
         "from flowtop.docs.build_hook import installed_files; installed_files()"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert {"hatchling", "click", "markdown_it"} <= modules
    assert modules & {"numpy", "textual", "rich", "bcc", "lark"} == set()


def test_the_wheel_brings_the_command(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert "flowtop = flowtop.cli.main:main" in wheel.read(name).decode()


LICENCES = {
    "LICENSE": "Apache License",
    "bpf/LICENSE-GPL-2.0": "GNU GENERAL PUBLIC LICENSE\n Version 2, June 1991",
    "bpf/LICENSE-BSD-2-Clause": "Redistributions in binary form must reproduce the above copyright notice",
    "flowtop/packaging/debian/copyright": "Copyright: 2026 The flowtop authors",
}
"""Each file, and words by which its text is known; the last one names holders."""


def without_indents(text: str) -> str:
    return re.sub(r"[ \t]+", " ", text)


def test_the_wheel_brings_every_licence_and_says_which_hold(wheel: zipfile.ZipFile) -> None:
    info = {name.split("/", 1)[1]: name for name in wheel.namelist() if ".dist-info/" in name}
    metadata = HeaderParser().parsestr(wheel.read(info["METADATA"]).decode())
    assert metadata["License-Expression"] == "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)"
    assert sorted(metadata.get_all("License-File") or []) == sorted(LICENCES)
    for name, words in LICENCES.items():
        text = wheel.read(info[f"licenses/{name}"]).decode()
        assert words in without_indents(text)
        assert text == (REPOSITORY / name).read_text()


def test_every_kernel_source_names_its_licence() -> None:
    sources = list((REPOSITORY / "bpf").rglob("*.[ch]"))
    assert sources
    assert [path.name for path in sources
            if "SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)" not in path.read_text().splitlines()[0]] == []


def test_every_other_c_source_names_its_licence() -> None:
    sources = list((REPOSITORY / "flowtop").rglob("*.[ch]"))
    assert sources
    assert [path.name for path in sources
            if path.read_text().splitlines()[0] != "// SPDX-License-Identifier: Apache-2.0"] == []


def test_the_wheel_asks_for_these_dependencies_and_never_for_bcc(wheel: zipfile.ZipFile) -> None:
    metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    required = HeaderParser().parsestr(wheel.read(metadata).decode()).get_all("Requires-Dist") or []
    names = {re.split(r"[^A-Za-z0-9-]", line)[0] for line in required if "extra ==" not in line}
    assert names == {"textual", "rich", "click", "numpy", "lark", "maxminddb", "dnspython"}


def test_who_builds_it_elsewhere_gets_the_same_octets(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """From the sdist, in another directory, with other times and another umask; both as in this checkout."""
    sdist = build(REPOSITORY, "sdist", tmp_path / "sdist")
    subprocess.run(["tar", "-xmf", str(sdist), "-C", str(tmp_path)], umask=0o077, check=True)
    (source,) = tmp_path.glob("flowtop-*")
    assert [name for name in LICENCES if not (source / name).is_file()] == []
    assert wheel.filename is not None
    again = build(source, "wheel", tmp_path / "again", umask=0o077)
    assert zipfile.ZipFile(again).namelist() == wheel.namelist()
    assert again.read_bytes() == Path(wheel.filename).read_bytes()
    assert build(source, "sdist", tmp_path / "again", umask=0o077).read_bytes() == sdist.read_bytes()


# ---- what is fetched

def locked(name: str) -> dict[str, list[Requirement]]:
    """The requirements of a lock file by name of package. Each has a hash, and nothing else is in it."""
    found: dict[str, list[Requirement]] = {}
    for entry in re.split(r"\n(?!\s)", (REPOSITORY / "flowtop" / "packaging" / name).read_text().strip()):
        text, *hashes = entry.replace("\\\n", " ").split(" --hash=")
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", value) for value in hashes), text
        requirement = Requirement(text.strip())
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def test_every_dependency_has_an_upper_bound() -> None:
    groups = [PROJECT["dependencies"], BUILD, *PROJECT["optional-dependencies"].values()]
    unbounded = [text for group in groups for text in group
                 if not any(bound.operator == "<" for bound in Requirement(text).specifier)]
    assert unbounded == []


LOCKS = {"requirements.txt": PROJECT["dependencies"] + BUILD,
         "requirements-test.txt": PROJECT["dependencies"] + BUILD + PROJECT["optional-dependencies"]["test"]}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_one_version_within_the_bounds_of_each(name: str, machine: str, python: str) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine,
            "sys_platform": "linux", "platform_system": "Linux"}
    packages = locked(name)
    for text in LOCKS[name]:
        asked = Requirement(text)
        chosen = [requirement for requirement in packages.get(canonicalize_name(asked.name), [])
                  if requirement.marker is None or requirement.marker.evaluate(here)]
        assert len(chosen) == 1, text
        (pin,) = chosen[0].specifier
        assert pin.operator == "==" and asked.specifier.contains(pin.version), text


def test_the_locks_agree() -> None:
    tested = locked("requirements-test.txt")
    assert {name: tested.get(name) for name in locked("requirements.txt")} == locked("requirements.txt")


def test_the_version_is_one() -> None:
    assert PROJECT["version"] == flowtop.__version__


# ---- the Debian package

DEBIAN = REPOSITORY / "flowtop" / "packaging" / "debian"
CAPABILITIES = {2: "CAP_DAC_READ_SEARCH", 12: "CAP_NET_ADMIN", 19: "CAP_SYS_PTRACE", 21: "CAP_SYS_ADMIN",
                24: "CAP_SYS_RESOURCE", 38: "CAP_PERFMON", 39: "CAP_BPF"}
"""As in linux/capability.h."""


def unit_settings() -> dict[str, list[str]]:
    """Words of each setting of the service."""
    lines = (DEBIAN / "flowtop.flowtop-export@.service").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition("=") for line in lines if "=" in line)}


def test_the_service_may_do_what_the_helpers_need_and_has_the_command_line_of_the_manual() -> None:
    settings = unit_settings()
    kept = {CAPABILITIES[number] for number in (*LOADER_KEEPS, *LOOKER_KEEPS)}
    # To become another user, without groups and capabilities, and to give it its spools.
    assert set(settings["CapabilityBoundingSet"]) == kept | {"CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_CHOWN"}
    program, *arguments = settings["ExecStart"]
    assert program == "/usr/bin/flowtop"
    # The settings that are its example.
    at = arguments.index("--config") + 1
    arguments[at] = str(DEBIAN / "main.toml")
    chosen = run_options(command.make_context("flowtop", arguments))
    assert chosen.batch and chosen.output == "none" and chosen.interface == ("eth0",)
    for url in chosen.export:
        parse_export_url(url)
    state = {"/var/lib/" + directory for directory in settings["StateDirectory"]}
    assert {*settings["WorkingDirectory"], str(chosen.state_directory)} == state


def test_the_service_is_little_exposed() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = DEBIAN / "flowtop.flowtop-export@.service"
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=40", str(unit)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1:]
