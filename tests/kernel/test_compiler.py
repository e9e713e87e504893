"""Finding bcc, compiling without a trace in this process, and errors a user can act on."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowtop.capture.ebpf import compiler
from flowtop.capture.ebpf.loader import MAPS, PROGRAMS, WAKE_MAPS
from flowtop.errors import EXIT_FAILURE, EXIT_NO_PERMISSION, EXIT_UNAVAILABLE, FlowtopError
from tests.descriptors import open_descriptors

LOADER = Path(compiler.__file__).with_name("loader.py")


def run_loader_code(code: str, *path: Path) -> list[str]:
    """What a fresh interpreter prints for `code`, which may use `loader`; `path` comes first on sys.path."""
    head = (f"import sys; sys.path[:0] = {[str(entry) for entry in path]!r}\n"
            "import importlib.util\nfrom pathlib import Path\n"
            f"spec = importlib.util.spec_from_file_location('loader', {str(LOADER)!r})\n"
            "loader = importlib.util.module_from_spec(spec); spec.loader.exec_module(loader)\n")
    command = [sys.executable, "-P", "-W", "error", "-c", head + code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


def package(directory: Path, code: str) -> Path:
    """A package named bcc in `directory`."""
    (directory / "bcc").mkdir(parents=True)
    (directory / "bcc" / "__init__.py").write_text(code)
    return directory


class TestFindBcc:
    def test_it_is_the_compiler_and_the_path_stays_as_it_was(self) -> None:
        found = run_loader_code("before = list(sys.path); bcc = loader.find_bcc()\n"
                                "print(bcc.BPF.SCHED_CLS, sys.path == before)")
        assert found == ["3 True"]

    def test_another_package_of_that_name_is_passed_over(self, tmp_path: Path) -> None:
        package(tmp_path, "VERSION = 'byte code compiler of something else'")
        assert run_loader_code("print(loader.find_bcc().BPF.SCHED_CLS)", tmp_path) == ["3"]

    @pytest.mark.parametrize(("code", "cause"), [
        ("", "no package named bcc"),
        ("raise OSError('libbcc.so.0: cannot open shared object file')", "libbcc.so.0: cannot open shared object file"),
        ("raise ImportError('libbcc\\n  is too old')", "libbcc is too old"),
    ])
    def test_missing_says_why_and_forgets_the_half_import(self, tmp_path: Path, code: str, cause: str) -> None:
        directory = package(tmp_path / "dist", code) if code else tmp_path
        said = run_loader_code("sys.path[:] = [p for p in sys.path if 'dist-packages' not in p]\n"
                               f"try: loader.find_bcc([Path({str(directory)!r})])\n"
                               "except loader.BccMissingError as error: print(error, 'bcc' in sys.modules)")
        assert said == [f"{cause} False"]

    def test_the_error_names_the_packages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing() -> None:
            raise compiler.BccMissingError("no package named bcc")

        monkeypatch.setattr(compiler, "find_bcc", missing)
        with pytest.raises(FlowtopError) as caught:
            compiler.import_bcc()
        assert (caught.value.message, caught.value.exit_code) == ("bcc is not installed", EXIT_UNAVAILABLE)
        assert "apt-get install python3-bpfcc" in caught.value.hint
        assert "dnf install python3-bcc" in caught.value.hint


class TestBccFound:
    """What --check says of bcc: it is looked for as the compiler's process does."""

    def test_where_it_is(self) -> None:
        version, _, directory = compiler.bcc_found().partition(" in ")
        assert (Path(directory) / "bcc/__init__.py").is_file()
        assert version[0].isdigit()

    def test_without_memory_for_it_the_limit_is_named(self, tmp_path: Path) -> None:
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec prlimit --as=120000000 {sys.executable} "$@"\n')
        python.chmod(0o755)
        with pytest.raises(FlowtopError) as caught:
            compiler.bcc_found(str(python))
        assert "ulimit -v" in caught.value.hint

    def test_a_process_that_dies_is_told(self) -> None:
        with pytest.raises(FlowtopError, match="the process that looks for it ended with 1"):
            compiler.bcc_found("/bin/false")


class TestCompile:
    def test_nothing_of_this_process_changes(self, capfd: pytest.CaptureFixture[str]) -> None:
        before = Path.cwd(), dict(os.environ), open_descriptors()
        loaded = compiler.compile_program(map_entries=64, coarse_clock=False)
        assert set(loaded.programs) == set(PROGRAMS)
        assert set(loaded.maps) == {*MAPS, *WAKE_MAPS}
        assert not any(os.get_inheritable(fd) for fd in [*loaded.programs.values(), *loaded.maps.values()])
        loaded.close()
        assert (Path.cwd(), dict(os.environ), open_descriptors()) == before
        assert capfd.readouterr() == ("", "")

    def test_one_that_is_killed_says_what_may_help(self, tmp_path: Path) -> None:
        python = tmp_path / "python"
        python.write_text("#!/bin/sh\nkill -9 $$\n")
        python.chmod(0o755)
        with pytest.raises(FlowtopError) as caught:
            compiler.compile_program(map_entries=64, coarse_clock=False, python=str(python))
        assert (caught.value.message, caught.value.exit_code) == (
            "the compiler was killed (out of memory?)", EXIT_FAILURE)
        assert "150 MB" in caught.value.hint

    def test_one_without_memory_says_which_limit_to_raise(self, tmp_path: Path) -> None:
        """As clang ends then."""
        python = tmp_path / "python"
        python.write_text("#!/bin/sh\nulimit -c 0\necho \"  what():  std::bad_alloc\" >&2\nkill -6 $$\n")
        python.chmod(0o755)
        with pytest.raises(FlowtopError) as caught:
            compiler.compile_program(map_entries=64, coarse_clock=False, python=str(python))
        assert caught.value.message == "cannot load the eBPF programs: no memory"
        assert "ulimit -v" in caught.value.hint

    def test_it_needs_no_place_for_temporary_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile._candidate_tempdir_list", list)
        monkeypatch.setattr("tempfile.tempdir", None)
        compiler.compile_program(map_entries=64, coarse_clock=False).close()

    def test_one_that_nobody_waits_for_is_ended_and_leaves_nothing(self) -> None:
        gc.collect()
        before = open_descriptors()
        compilation = compiler.Compilation(map_entries=64, coarse_clock=False)
        compilation.close()
        compilation.close()
        assert open_descriptors() == before
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    def test_no_capabilities_is_no_permission(self, tmp_path: Path) -> None:
        """Root without its capabilities, as in a container."""
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("needs setpriv: apt-get install util-linux")
        bare = tmp_path / "python"
        bare.write_text(f'#!/bin/sh\nexec {setpriv} --bounding-set=-all --inh-caps=-all {sys.executable} "$@"\n')
        bare.chmod(0o755)
        with pytest.raises(FlowtopError, match="operation not permitted") as caught:
            compiler.compile_program(map_entries=64, coarse_clock=False, python=str(bare))
        assert caught.value.exit_code == EXIT_NO_PERMISSION
        assert "sudo" in caught.value.hint

    def test_more_entries_than_memory(self) -> None:
        with pytest.raises(FlowtopError, match="no memory for maps of 2147483648 flows") as caught:
            compiler.compile_program(map_entries=1 << 31, coarse_clock=False)
        assert "--map-entries" in caught.value.hint

    def test_a_source_that_does_not_compile_is_told_in_one_line(
            self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        broken = tmp_path / "bpf"
        shutil.copytree(compiler.source_directory(), broken)
        with (broken / "flow.bpf.c").open("a") as source:
            source.write("int unfinished(\n")
        monkeypatch.setattr(compiler, "source_directory", lambda: broken)
        with pytest.raises(FlowtopError, match="error: expected") as caught:
            compiler.compile_program(map_entries=64, coarse_clock=False)
        assert "\n" not in caught.value.message
        assert caught.value.exit_code == EXIT_FAILURE
        assert capfd.readouterr() == ("", "")

    def test_bcc_never_searches_for_headers_that_are_not_installed(self, tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
        """It takes /tmp/kheaders-RELEASE for them, which anybody can have made (CVE-2024-2314; Debian's bcc removes it
        by a shell): what is there would be compiled into what root loads."""
        monkeypatch.setenv(compiler.KEPT_VARIABLE, "")
        monkeypatch.setattr(compiler, "_MODULES", tmp_path)
        source = tmp_path / "x.c"
        source.write_text("#include <linux/missing.h>\n")
        started: list[str] = []

        class Child(compiler._Child):
            def __init__(self, python: str, directory: Path, request: dict[str, Any]) -> None:
                started.append(request["headers"])
                super().__init__(python, directory, request)

        monkeypatch.setattr(compiler, "_Child", Child)
        with closing(compiler.Build(str(source), [], ["x"], [], ("", ""))) as build, pytest.raises(
                FlowtopError, match=r"missing\.h"):
            build.result()
        assert started == [str(compiler.source_directory() / "headers")]

    def test_the_hosts_headers_are_those_that_root_installed(self, tmp_path: Path) -> None:
        assert compiler.host_headers(tmp_path) is None
        kernel = tmp_path / os.uname().release
        (kernel / "build/include/linux").mkdir(parents=True)
        assert compiler.host_headers(tmp_path) is None, "bcc looks elsewhere if this file is missing"
        (kernel / "build/include/linux/kconfig.h").touch()
        assert compiler.host_headers(tmp_path) == kernel / "build"
        (kernel / "source").mkdir()
        assert compiler.host_headers(tmp_path) is None, "bcc looks only there"

    def test_a_child_that_dies_is_told(self) -> None:
        with pytest.raises(FlowtopError, match="compiler process ended with status 1"):
            compiler.compile_program(map_entries=64, coarse_clock=False, python="/bin/false")


def test_kernel_release_is_a_version() -> None:
    assert ".".join(map(str, compiler.kernel_release())) == ".".join(os.uname().release.split("-")[0].split(".")[:2])
