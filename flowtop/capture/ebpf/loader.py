"""Finds bcc, and loads the kernel programs: run as a script it is the child process of `compiler.compile_program`.

A process of its own, because libbcc changes the working directory, reads its settings from the environment, writes
its complaints to file descriptor 2 (the screen's) and keeps some tens of megabytes of LLVM. The child hands the file
descriptors of programs and maps to its parent (SCM_RIGHTS) and ends; nothing of this reaches flowtop's process.

Imports nothing of flowtop, so that the child starts without numpy.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import socket
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

PROGRAMS = ("flow_ingress", "flow_egress")
"""tc programs of bpf/flow.bpf.c (BPF_PROG_TYPE_SCHED_CLS)."""

MAPS = ("flows_a", "flows_b", "aggregates_a", "aggregates_b", "rest_a", "rest_b", "control", "inserted", "totals",
        "totals_overflow", "fragments")
"""Maps of bpf/flow.bpf.c."""

_IMPORT_FAULTS = (ImportError, OSError, SyntaxError, AttributeError)
"""What importing a bcc that cannot work here raises; OSError: libbcc.so.0 is missing."""


class BccMissingError(Exception):
    """No usable bcc package; str() is a one-line cause."""


def distribution_directories() -> Iterator[Path]:
    """Where distributions put python3-bpfcc and python3-bcc, whatever Python runs us."""
    yield Path("/usr/lib/python3/dist-packages")
    for root in ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"):
        for name in ("site-packages", "dist-packages"):
            yield from sorted(Path(root).glob(f"python3*/{name}"), reverse=True)


def find_bcc(directories: Iterable[Path] | None = None) -> ModuleType:
    """Import bcc: the plain way, else only that package from `directories` (default: `distribution_directories()`).

    The directories are not left on sys.path: their other packages are made for another Python.

    Raises:
        BccMissingError: bcc or its library is not installed, or what is called bcc is something else.
    """
    cause = "no package named bcc"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bcc's sources hold escapes that newer Pythons warn about
        try:
            module = importlib.import_module("bcc")
        except _IMPORT_FAULTS as error:
            if not isinstance(error, ModuleNotFoundError):
                cause = _one_line(error)
        else:
            if _is_bpf_compiler(module):
                return module
            cause = f"{module.__file__} is another project's package of that name"
        for directory in distribution_directories() if directories is None else directories:
            try:
                found = _import_from(directory)
            except _IMPORT_FAULTS as error:
                cause = _one_line(error)
                continue
            if found is not None:
                return found
    _forget_bcc()
    raise BccMissingError(cause)


def _import_from(directory: Path) -> ModuleType | None:
    """bcc from `directory`, None when there is none."""
    package = directory / "bcc"
    if not (package / "__init__.py").is_file():
        return None
    _forget_bcc()
    spec = importlib.util.spec_from_file_location("bcc", package / "__init__.py",
                                                  submodule_search_locations=[str(package)])
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        _forget_bcc()
        raise
    return module if _is_bpf_compiler(module) else None


def _is_bpf_compiler(module: ModuleType) -> bool:
    return hasattr(getattr(module, "BPF", None), "SCHED_CLS")


def _forget_bcc() -> None:
    """So that the next import looks anew, and finds no half-imported parts."""
    for name in [name for name in sys.modules if name == "bcc" or name.startswith("bcc.")]:
        del sys.modules[name]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class LoadError(Exception):
    """bcc or the kernel refused.

    Attributes:
        stage: "compile" (maps are created there too) or "load".
        errno: of the failed call, 0 when unknown.
    """

    def __init__(self, stage: str, message: str, number: int) -> None:
        super().__init__(message)
        self.stage = stage
        self.errno = number


PACKET_PROGRAMS = ("packets_ingress_ethernet", "packets_egress_ethernet", "packets_ingress_ip", "packets_egress_ip")
"""tc programs of bpf/packets.bpf.c."""
PACKET_MAPS = ("packets", "losses")
"""Maps of bpf/packets.bpf.c that are read."""


def load_programs(bcc: ModuleType, source: Path, cflags: list[str], headers: Path | None,
                  program_names: Iterable[str] = PROGRAMS, map_names: Iterable[str] = MAPS,
                  ) -> dict[str, dict[str, int]]:
    """Compile `source` and load its programs into the kernel.

    Args:
        bcc: as `find_bcc` gives it.
        source: path of flow.bpf.c, or of another source.
        cflags: for clang.
        headers: what bcc shall take for kernel headers; None: let it look for the host's.
        program_names, map_names: of what is wanted of the source.

    Returns:
        File descriptors: {"programs": {name: fd}, "maps": {name: fd}}; open while the BPF object lives, which is kept.

    Raises:
        LoadError: it cannot be compiled or loaded.
    """
    if headers is not None:
        os.environ["BCC_KERNEL_SOURCE"] = str(headers)
    ctypes.set_errno(0)
    try:
        module: Any = bcc.BPF(src_file=str(source).encode(), cflags=cflags)
    except Exception as error:  # bcc raises plain Exception
        raise LoadError("compile", _one_line(error), ctypes.get_errno()) from error
    programs = {}
    for name in program_names:
        ctypes.set_errno(0)
        try:
            programs[name] = module.load_func(name, bcc.BPF.SCHED_CLS).fd
        except Exception as error:
            raise LoadError("load", _one_line(error), ctypes.get_errno()) from error
    maps = {name: bcc.lib.bpf_table_fd(module.module, name.encode()) for name in map_names}
    return {"programs": programs, "maps": maps}


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """What to tell the parent, and the descriptors to hand over, in the order of the names told."""
    try:
        bcc = find_bcc()
        loaded = load_programs(bcc, Path(request["source"]), request["cflags"],
                               Path(request["headers"]) if request["headers"] else None,
                               request["programs"], request["maps"])
    except BccMissingError as error:
        return {"stage": "import", "message": str(error), "errno": 0}, []
    except LoadError as error:
        return {"stage": error.stage, "message": str(error), "errno": error.errno}, []
    names = {kind: list(descriptors) for kind, descriptors in loaded.items()}
    return {"stage": "done", **names}, [fd for descriptors in loaded.values() for fd in descriptors.values()]


def main() -> None:
    """The child: argv[1] is the file descriptor of a socket to the parent, argv[2] the request as JSON."""
    with socket.socket(fileno=int(sys.argv[1])) as parent:
        answer, descriptors = _answer(json.loads(sys.argv[2]))
        sys.stderr.flush()
        socket.send_fds(parent, [json.dumps(answer).encode()], descriptors)
    os._exit(0)  # bcc's exit handlers would only close what ends with the process


if __name__ == "__main__":
    main()
