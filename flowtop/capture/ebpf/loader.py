"""Find bcc and load the kernel programs; as a script, this is the child process of `compiler.compile_program`.

It is a separate process because libbcc changes the working directory, reads settings from the environment, writes
errors to file descriptor 2 (the screen) and keeps tens of megabytes of LLVM. The child sends the file descriptors of
programs and maps to its parent (SCM_RIGHTS) and exits, so flowtop's process is not affected.

It does not import flowtop, so that the child starts without numpy.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import mmap
import os
import socket
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

PROGRAMS = ("flow_ingress", "flow_egress")
"""tc programs of bpf/flow.bpf.c (BPF_PROG_TYPE_SCHED_CLS)."""

MAPS = ("flows_a", "flows_b", "aggregates_a", "aggregates_b", "rest_a", "rest_b", "control", "inserted", "totals",
        "totals_overflow", "fragments")
"""Maps of bpf/flow.bpf.c."""

WAKE_MAPS = ("half_full",)
"""Map of bpf/flow.bpf.c with -DFLOW_WAKE."""

OWNER_PROGRAMS = {
    "owner_create": ("CGROUP_SOCK", 2),
    "owner_connect4": ("CGROUP_SOCK_ADDR", 10),
    "owner_connect6": ("CGROUP_SOCK_ADDR", 11),
    "owner_sendmsg4": ("CGROUP_SOCK_ADDR", 14),
    "owner_sendmsg6": ("CGROUP_SOCK_ADDR", 15),
    "owner_peer4": ("CGROUP_SOCK_ADDR", 29),
    "owner_peer6": ("CGROUP_SOCK_ADDR", 30),
}
"""Programs of bpf/flow.bpf.c for hooks of cgroups, with -DFLOW_OWNERS: program type, and enum bpf_attach_type."""

OWNER_MAPS = ("processes", "claims", "processes_written")
"""Maps of bpf/flow.bpf.c that flowtop reads, with -DFLOW_OWNERS."""

NAME_PROGRAM = "names_seen"
"""tc program of bpf/flow.bpf.c that the others call, with -DFLOW_NAMES."""

NAME_MAPS = ("names", "names_lost", "names_programs")
"""Maps of bpf/flow.bpf.c that flowtop reads or fills, with -DFLOW_NAMES."""

_IMPORT_FAULTS = (ImportError, OSError, SyntaxError, AttributeError)
"""Exceptions of importing an unusable bcc; OSError if libbcc.so.0 is missing."""


class BccMissingError(Exception):
    """No usable bcc package; str() is the cause in one line."""


def distribution_directories() -> Iterator[Path]:
    """Directories where distributions install python3-bpfcc and python3-bcc, for any version of Python."""
    yield Path("/usr/lib/python3/dist-packages")
    for root in ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"):
        for name in ("site-packages", "dist-packages"):
            yield from sorted(Path(root).glob(f"python3*/{name}"), reverse=True)


def find_bcc(directories: Iterable[Path] | None = None) -> ModuleType:
    """Import bcc normally, else only this package from `directories` (default: `distribution_directories()`).

    The directories are not added to sys.path, since their other packages are for another Python.

    Raises:
        BccMissingError: bcc or its library is not installed, or another package is called bcc.
    """
    cause = "no package named bcc"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bcc's sources have escapes that newer versions of Python warn about
        try:
            module = importlib.import_module("bcc")
        except _IMPORT_FAULTS as error:
            if not isinstance(error, ModuleNotFoundError):
                cause = _one_line(error)
        else:
            if _is_bpf_compiler(module):
                return module
            cause = f"{module.__file__} is a different package named bcc"
        for directory in distribution_directories() if directories is None else directories:
            try:
                imported = _import_from(directory)
            except _IMPORT_FAULTS as error:
                cause = _one_line(error)
                continue
            if imported is not None:
                return imported
    _forget_bcc()
    raise BccMissingError(cause)


def _import_from(directory: Path) -> ModuleType | None:
    """Import bcc from `directory`; None if it is not there."""
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
    """Remove bcc from sys.modules, so that the next import starts from the beginning."""
    for name in [name for name in sys.modules if name == "bcc" or name.startswith("bcc.")]:
        del sys.modules[name]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class LoadError(Exception):
    """bcc or the kernel refused the program.

    Attributes:
        stage: "compile" (which also creates the maps) or "load".
        errno: of the failed call, 0 if unknown.
    """

    def __init__(self, stage: str, message: str, number: int) -> None:
        super().__init__(message)
        self.stage = stage
        self.errno = number


PACKET_PROGRAMS = ("packets_ingress_ethernet", "packets_egress_ethernet", "packets_ingress_ip", "packets_egress_ip")
"""tc programs of bpf/packets.bpf.c."""
PACKET_MAPS = ("packets", "losses")
"""Maps of bpf/packets.bpf.c that flowtop reads."""


class Sources(NamedTuple):
    """What to compile, and with what.

    Attributes:
        source: path of flow.bpf.c or another source.
        headers: directory that bcc uses as kernel headers; None: let it search for the host's.
        kept: directory of compiled programs, see kept.py; "": none.
    """

    source: Path
    headers: Path | None
    kept: str = ""


def load_programs(sources: Sources, cflags: list[str], program_names: Iterable[str] = PROGRAMS,
                  map_names: Iterable[str] = MAPS) -> dict[str, dict[str, int]]:
    """Load programs into the kernel: kept ones, else compiled now.

    Args:
        sources: what to compile.
        cflags: options of clang.
        program_names, map_names: programs and maps to return.

    Returns:
        File descriptors: {"programs": {name: fd}, "maps": {name: fd}}; the BPF object that owns them stays open.

    Raises:
        LoadError: compiling or loading failed.
        BccMissingError: see find_bcc.
    """
    kept = _beside("kept")
    place = kept.place(sources.kept, sources.source, cflags, sources.headers, _bcc_file())
    if place is not None:
        again: dict[str, dict[str, int]] | None = kept.load(_beside("bpf"), place, program_names, map_names)
        if again is not None:
            return again
    bcc = find_bcc()
    if sources.headers is not None:
        os.environ["BCC_KERNEL_SOURCE"] = str(sources.headers)
    ctypes.set_errno(0)
    try:
        module: Any = bcc.BPF(src_file=str(sources.source).encode(), cflags=cflags)
    except Exception as error:  # bcc raises plain Exception
        raise LoadError("compile", _one_line(error), ctypes.get_errno()) from error
    programs, kinds = {}, {}
    for name in program_names:
        ctypes.set_errno(0)
        try:
            kind, attach_type = OWNER_PROGRAMS.get(name, ("SCHED_CLS", -1))
            kinds[name] = getattr(bcc.BPF, kind), attach_type
            programs[name] = module.load_func(name, kinds[name][0], attach_type=attach_type).fd
        except Exception as error:
            raise LoadError("load", _one_line(error), ctypes.get_errno()) from error
    if place is not None:
        kept.keep(place, bcc, module, kinds)
    maps = {name: bcc.lib.bpf_table_fd(module.module, name.encode()) for name in map_names}
    return {"programs": programs, "maps": maps}


def _bcc_file() -> Path | None:
    """Where bcc's package would be imported from, without importing it."""
    with suppress(*_IMPORT_FAULTS, ValueError):
        specification = importlib.util.find_spec("bcc")
        if specification is not None and specification.origin:
            return Path(specification.origin)
    return next((file for directory in distribution_directories()
                 if (file := directory / "bcc" / "__init__.py").is_file()), None)


def _beside(name: str) -> ModuleType:
    """A module of this directory, by its path as this file is."""
    specification = importlib.util.spec_from_file_location(f"flowtop_{name}", Path(__file__).with_name(f"{name}.py"))
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look there
    specification.loader.exec_module(module)
    return module


def load_with_owners(sources: Sources, cflags: list[str], program_names: Iterable[str],
                     map_names: Iterable[str]) -> dict[str, dict[str, int]]:
    """As `load_programs`, with the programs and maps that find the process of a socket.

    Raises:
        OwnersRefusedError: the kernel does not have what they need.
    """
    try:
        offsets = _task_offsets()
    except (OSError, ValueError) as error:
        raise OwnersRefusedError(f"no type information of the kernel: {_one_line(error)}") from error
    flags = [f"-DTASK_{name.upper()}={offset}" for name, offset in offsets.items()]
    try:
        return load_programs(sources, [*cflags, "-DFLOW_OWNERS", *flags], (*program_names, *OWNER_PROGRAMS),
                             (*map_names, *OWNER_MAPS))
    except LoadError as error:
        raise OwnersRefusedError(str(error)) from error


class OwnersRefusedError(Exception):
    """The kernel does not have what the programs that find the process of a socket need; str() is the cause."""


def _task_offsets() -> dict[str, int]:
    """Offsets of the members of struct task_struct that bpf/owner.h reads. Raises OSError, ValueError."""
    found: dict[str, int] = _beside("btf").member_offsets("task_struct", TASK_MEMBERS)
    return found


TASK_MEMBERS = ("flags", "tgid", "group_leader", "real_parent", "start_boottime", "comm")


def load_with_names(sources: Sources, cflags: list[str], program_names: Iterable[str], map_names: Iterable[str], *,
                    owners: bool, names: list[str]) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """As `load_programs`, with what else is asked for, as far as the kernel takes it.

    Args:
        owners: also what finds the process of a socket.
        names: options of clang for the program that copies packets that tell a name; none: without it.

    Returns:
        File descriptors, and why "owners" or "names" are not among them, if they were refused.
    """
    refused: dict[str, str] = {}
    for with_names in (True, False) if names else (False,):
        flags, programs, maps = cflags, tuple(program_names), tuple(map_names)
        if with_names:
            flags, programs, maps = [*cflags, *names], (*programs, NAME_PROGRAM), (*maps, *NAME_MAPS)
        if owners and "owners" not in refused:
            try:
                return load_with_owners(sources, flags, programs, maps), refused
            except OwnersRefusedError as error:
                refused["owners"] = str(error)
        try:
            return load_programs(sources, flags, programs, maps), refused
        except LoadError as error:
            if not with_names:
                raise
            refused = {"names": str(error)}  # owners are tried again: it may have been the names
    raise AssertionError("the last attempt returns or raises")


FIND = "find"
_COMPILING_OCTETS = 40 << 20
"""Address space that clang takes once bcc is loaded."""


def _found() -> dict[str, str]:
    """Version and directory of bcc, or the cause why it cannot be used."""
    with suppress(OSError, ValueError):  # as before compiling: it takes memory
        _task_offsets()
    for name in ("kept", "bpf"):
        _beside(name)
    try:
        bcc = find_bcc()
        mmap.mmap(-1, _COMPILING_OCTETS).close()
    except BccMissingError as error:
        return {"cause": str(error)}
    except OSError as error:  # a limit of memory
        return {"cause": f"{error.strerror}: compiling needs {_COMPILING_OCTETS >> 20} MiB more"}
    return {"version": getattr(bcc, "__version__", "unknown version"), "directory": str(Path(bcc.__path__[0]).parent)}


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """The answer to the parent, and the descriptors to send, in the order of the names in the answer."""
    sources = Sources(Path(request["source"]), Path(request["headers"]) if request["headers"] else None,
                      request["kept"])
    try:
        loaded, refused = load_with_names(sources, request["cflags"], request["programs"], request["maps"],
                                          owners=request["owners"], names=request["names"])
    except BccMissingError as error:
        return {"stage": "import", "message": str(error), "errno": 0}, []
    except LoadError as error:
        return {"stage": error.stage, "message": str(error), "errno": error.errno}, []
    names = {kind: list(named) for kind, named in loaded.items()}
    descriptors = [fd for named in loaded.values() for fd in named.values()]
    return {"stage": "done", "refused": refused, **names}, descriptors


def main() -> None:
    """Run the child: argv[1] is the descriptor of a socket to the parent, argv[2] the request as JSON.

    With FIND instead it says on standard output which bcc it would use, or why none, and then in JSON.
    """
    if sys.argv[1:] == [FIND]:
        print(json.dumps(_found()), flush=True)
        os._exit(0)
    with socket.socket(fileno=int(sys.argv[1])) as parent:
        answer, descriptors = _answer(json.loads(sys.argv[2]))
        sys.stderr.flush()
        socket.send_fds(parent, [json.dumps(answer).encode()], descriptors)
    os._exit(0)  # skip bcc's exit handlers: the process's end closes everything


if __name__ == "__main__":
    main()
