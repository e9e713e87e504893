"""Compiled programs that are kept on disk: what bcc made of a source is loaded again without bcc.

Compiling takes a second or two of a processor. A file is used only for exactly what it
was made of: the sources, the options of clang, the kernel, this machine's bcc. It is loaded into the kernel, so only
root may have been able to write it; where that is not sure, nothing is kept.

Only the standard library: the compiling child loads this file (see loader.py).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import resource
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

MOST_FILES = 64
"""Each capture filter is a program of its own; the oldest go first."""

_FORMAT = 1
_MOST_OCTETS = 16 << 20
_INSTRUCTION_OCTETS = 8
_LOAD_CONSTANT = 0x18
"""BPF_LD | BPF_IMM | BPF_DW: takes two instructions, and may name a map."""
_OF_A_MAP = 1
"""BPF_PSEUDO_MAP_FD: the constant is a map's file descriptor."""
_SOCKET_STORAGE = 24
"""BPF_MAP_TYPE_SK_STORAGE, which needs types of its key and value."""
_MAP_FACTS = ("map_type", "key_size", "value_size", "max_entries", "map_flags")
"""As the kernel names them in /proc/self/fdinfo."""


def place(directory: str, source: Path, cflags: Iterable[str], headers: Path | None, bcc: Path | None) -> Path | None:
    """The file for this source and these options; None: nothing is kept.

    Args:
        directory: of kept programs, made if it does not exist; "": nothing is kept.
        source: file in a directory whose sources and headers all count.
        cflags: options of clang.
        headers: see loader.load_programs.
        bcc: the package's __init__.py; its time and size stand for its version.
    """
    if not directory or os.geteuid() != 0:
        return None
    folder = Path(directory)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.lstat()
        digest = hashlib.sha256(json.dumps([
            _FORMAT, source.name, [*cflags], str(headers), *os.uname()[2:], _version(bcc)]).encode())
        for file in sorted(source.parent.rglob("*.[ch]")):
            digest.update(f"\0{file.relative_to(source.parent)}\0".encode())
            digest.update(file.read_bytes())
    except OSError:
        return None
    if not (stat.S_ISDIR(facts.st_mode) and _is_roots(facts)):
        return None
    return folder / f"{digest.hexdigest()}.json"


def _version(bcc: Path | None) -> list[object]:
    if bcc is None:
        return []
    facts = bcc.stat()
    return [str(bcc), facts.st_size, facts.st_mtime_ns]


def _is_roots(facts: os.stat_result) -> bool:
    """Only root can have written it."""
    return facts.st_uid == 0 and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def load(bpf: ModuleType, file: Path, programs: Iterable[str], maps: Iterable[str]) -> dict[str, dict[str, int]] | None:
    """Make the maps of a kept file and load its programs.

    Args:
        bpf: the module of that name.
        file: result of `place`.
        programs, maps: names of those to return.

    Returns:
        File descriptors as loader.load_programs; None: nothing is kept there, it is damaged, or the kernel refuses it.
    """
    image = _read(file)
    if image is None:
        return None
    with suppress(OSError, LookupError, ValueError, TypeError, struct.error), ExitStack() as undo:
        descriptors: dict[str, int] = {}
        for name, facts in image["maps"].items():
            descriptors[name] = _make_map(bpf, name, facts)
            undo.callback(os.close, descriptors[name])
        numbers = [*descriptors.values()]
        loaded = {}
        for name in programs:
            kept = image["programs"][name]
            code = _with_descriptors(bytes.fromhex(kept["code"]), numbers)
            loaded[name] = bpf.load_program(code, kept["type"], name=name, attach_type=max(kept["attach"], 0))
            undo.callback(os.close, loaded[name])
        found = {"programs": loaded, "maps": {name: descriptors[name] for name in maps}}
        undo.pop_all()
        with suppress(OSError):
            os.utime(file)  # used last: kept longest
        return found
    return None


def keep(file: Path, bcc: ModuleType, module: Any, programs: Mapping[str, tuple[int, int]]) -> None:
    """Write what bcc has compiled; does nothing where that is not possible.

    Args:
        file: result of `place`.
        bcc, module: the package, and the BPF object.
        programs: type (enum bpf_prog_type) and attach type (-1: none) by name.
    """
    with suppress(OSError, ValueError):
        maps = {name: bcc.lib.bpf_table_fd(module.module, name.encode()) for name in _tables(bcc, module)}
        numbers = {descriptor: index for index, descriptor in enumerate(maps.values())}
        kept = {}
        for name, (kind, attach_type) in programs.items():
            start = bcc.lib.bpf_function_start(module.module, name.encode())
            code = ctypes.string_at(start, bcc.lib.bpf_function_size(module.module, name.encode()))
            kept[name] = {"type": kind, "attach": attach_type, "code": _with_numbers(code, numbers).hex()}
        _write(file, {"maps": {name: _facts(descriptor) for name, descriptor in maps.items()}, "programs": kept})


def _tables(bcc: ModuleType, module: Any) -> list[str]:
    bcc.lib.bpf_num_tables.restype, bcc.lib.bpf_num_tables.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    bcc.lib.bpf_table_name.restype = ctypes.c_char_p
    bcc.lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return [bcc.lib.bpf_table_name(module.module, number).decode()
            for number in range(bcc.lib.bpf_num_tables(module.module))]


def _facts(descriptor: int) -> dict[str, int]:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
                 if ":" in line)
    try:
        return {fact: int(lines[fact], 0) for fact in _MAP_FACTS}
    except KeyError as error:
        raise ValueError(f"the kernel does not say a map's {error}") from error


# ---- instructions: a map is named by its descriptor in the kernel, by its place among the maps in the file

def _with_numbers(code: bytes, numbers: Mapping[int, int]) -> bytes:
    """Raises ValueError: it names something else than a map, whose number would be another the next time."""
    def number(source: int, descriptor: int) -> int:
        if source != _OF_A_MAP or descriptor not in numbers:
            raise ValueError(f"constant of kind {source}")
        return numbers[descriptor]

    return _renamed(code, number)


def _with_descriptors(code: bytes, descriptors: list[int]) -> bytes:
    return _renamed(code, lambda _, number: descriptors[number])


def _renamed(code: bytes, name: Any) -> bytes:
    changed = bytearray(code)
    for at in _constants(code):
        source = code[at + 1] >> 4
        if source:
            struct.pack_into("=i", changed, at + 4, name(source, *struct.unpack_from("=i", code, at + 4)))
    return bytes(changed)


def _constants(code: bytes) -> Iterator[int]:
    at = 0
    while at < len(code):
        long = code[at] == _LOAD_CONSTANT
        if long:
            yield at
        at += _INSTRUCTION_OCTETS * (1 + long)


# ---- files

def _read(file: Path) -> Any:
    """What is in the file; None: it is not there, not root's, or damaged."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as opened:
        facts = os.fstat(descriptor)
        if not (stat.S_ISREG(facts.st_mode) and _is_roots(facts)):
            return None
        with suppress(OSError, ValueError):
            digest, _, text = opened.read(_MOST_OCTETS).partition(b"\n")
            if digest.decode() == hashlib.sha256(text).hexdigest():
                return json.loads(text)
    return None


def _write(file: Path, image: Mapping[str, Any]) -> None:
    text = json.dumps(image).encode()
    beside = file.with_suffix(f".{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
        beside.replace(file)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    others = sorted(file.parent.iterdir(), key=lambda each: each.stat().st_mtime_ns, reverse=True)
    for old in others[MOST_FILES:]:
        old.unlink(missing_ok=True)


# ---- the kernel

def _make_map(bpf: ModuleType, name: str, facts: Mapping[str, int]) -> int:
    """Raises OSError, ValueError."""
    def make(types: tuple[int, int, int] = (0, 0, 0)) -> int:
        made: int = bpf.map_create(*(facts[fact] for fact in _MAP_FACTS[:4]), flags=facts["map_flags"], name=name,
                                   types=types)
        return made

    if facts["map_type"] == _SOCKET_STORAGE:
        types = bpf.load_types(_types(facts["value_size"]))
        try:
            return make((types, 1, 2))
        finally:
            os.close(types)
    try:
        return make()
    except PermissionError:  # before Linux 5.11 maps are locked memory, whose limit is low; bcc lifts it too
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return make()


def _types(value_octets: int) -> bytes:
    """Type information for a map of sockets: [1] int, [2] as many of them as the value has room for."""
    if value_octets % 4:
        raise ValueError("a value that is no multiple of an int")
    names = b"\0int\0"
    integer = struct.pack("=IIII", 1, 1 << 24, 4, 1 << 24 | 32)  # signed, 32 bits
    array = struct.pack("=IIIIII", 0, 3 << 24, 0, 1, 1, value_octets // 4)
    section = integer + array
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(section), len(section), len(names)) + section + names
