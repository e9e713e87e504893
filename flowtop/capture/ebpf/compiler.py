"""Compile the kernel programs of bpf/ with bcc and load them: `compile_program` returns their file descriptors.

bcc runs in a child process (see loader.py), so this process keeps its working directory, environment and terminal.

The child's output is loaded into the kernel, so it must not read a file or variable that another user can set. bcc puts
the working directory first on clang's include path, before every -I, and clang reads CPATH and similar variables.
Therefore the child runs in bpf/, where the sources are, with a fixed environment.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.loader import FIND, MAPS, PROGRAMS, WAKE_MAPS, BccMissingError, find_bcc
from flowtop.errors import EXIT_FAILURE, EXIT_NO_PERMISSION, EXIT_UNAVAILABLE, FlowtopError, host_fault, limit_hint
from flowtop.model.tunnel_ports import TunnelPorts

MINIMUM_KERNEL = (5, 7)
"""First Linux whose __sk_buff has everything that bpf/parse.h reads (gso_size); some vendors backport it."""

COARSE_CLOCK_KERNEL = (5, 11)
"""First Linux with bpf_ktime_get_coarse_ns."""

RING_BUFFER_KERNEL = (5, 8)
"""First Linux with BPF_MAP_TYPE_RINGBUF."""

OWNERS_KERNEL = (6, 1)
"""First Linux on which the programs that find the process of a socket were tried."""

NAMES_OCTETS = 2 << 20
"""Of the ring buffer for packets that tell a name."""
_PAGE = 4096

KEPT = "/var/cache/flowtop"
"""Directory of compiled programs, see kept.py."""
KEPT_VARIABLE = "FLOWTOP_PROGRAM_CACHE"
"""Environment variable: another such directory; empty: none, each start compiles."""

_ANSWER_OCTETS = 65536
_MOST_DESCRIPTORS = 64
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
"""Complete environment of the child."""
_MODULES = Path("/lib/modules")
_INSTALL_HINT = "apt-get install python3-bpfcc (Debian, Ubuntu) or dnf install python3-bcc (Fedora)"


def kernel_release() -> tuple[int, int]:
    """Version of the running Linux, (major, minor)."""
    match = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def import_bcc() -> ModuleType:
    """Import bcc from where the distribution installed it, for any Python.

    Raises:
        FlowtopError: bcc or its library libbcc.so.0 is not installed (EXIT_UNAVAILABLE).
    """
    try:
        return find_bcc()
    except BccMissingError as error:
        raise bcc_missing(str(error)) from error


def bcc_found(python: str = sys.executable) -> str:
    """Version and place of the bcc that the compiler's process uses, which has more memory left than this one.

    Raises:
        FlowtopError: as import_bcc.
    """
    done = subprocess.run([python, "-I", str(Path(__file__).with_name("loader.py")), FIND], cwd=source_directory(),
                          env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                          check=False)
    if done.returncode or not done.stdout:
        lines = done.stderr.strip().splitlines() or [f"the process that looks for it ended with {done.returncode}"]
        raise bcc_missing(lines[-1])
    found = json.loads(done.stdout)
    if "cause" in found:
        raise bcc_missing(found["cause"])
    return f"{found['version']} in {found['directory']}"


@dataclass(frozen=True, slots=True)
class FlowProgram:
    """Programs and maps of bpf/flow.bpf.c, loaded into the kernel but not attached.

    Attributes:
        programs: file descriptor by function name: flow_ingress, flow_egress, and OWNER_PROGRAMS.
        maps: file descriptor by map name.
        map_entries: capacity of flows_a and of flows_b.
        owners_refused: why OWNER_PROGRAMS are not among the programs although they were asked for; "": they are, or
            were not.
        names_refused: the same for NAME_PROGRAM.
    """

    programs: dict[str, int]
    maps: dict[str, int]
    map_entries: int
    owners_refused: str = ""
    names_refused: str = ""

    def close(self) -> None:
        """Close every descriptor; the kernel frees what is not attached. A second call does nothing."""
        for descriptors in (self.programs, self.maps):
            while descriptors:
                os.close(descriptors.popitem()[1])


def source_directory() -> Path:
    """The directory bpf/: inside the installed package, or beside the package in a checkout.

    Raises:
        FlowtopError: it does not exist.
    """
    package = Path(__file__).resolve().parents[2]
    for directory in (package / "_bpf", package.parent / "bpf"):
        if (directory / "flow.bpf.c").is_file():
            return directory
    raise FlowtopError("flowtop's kernel programs are missing from its installation", hint="reinstall flowtop")


def host_headers(modules: Path) -> Path | None:
    """Where bcc finds the headers of the running kernel; None: they are not installed. Then it must not search: it
    takes /tmp/kheaders-RELEASE, which anybody can have made, and root would load what it compiles with that.

    Args:
        modules: directory of modules and headers, by release.
    """
    kernel = modules / os.uname().release
    headers = kernel / ("source" if (kernel / "source").is_dir() else "build")
    return headers if (headers / "include/linux/kconfig.h").is_file() else None


class Build:
    """Compiles and loads one source of bpf/ in a child process. Takes up to a few seconds.

    Prints nothing. Tries without the host's kernel headers first, then with them if they are installed.

    Args:
        source: file name.
        cflags: options of clang.
        programs, maps: names of the functions and maps to return.
        contents: for the error if memory is too small: a description of what the maps hold, and a hint.
        python: interpreter of the child process.
        owners: also OWNER_PROGRAMS and OWNER_MAPS; if the kernel refuses them, the rest without them.
        names: also NAME_PROGRAM and NAME_MAPS: options of clang for them; likewise. Empty: without them.

    Attributes:
        refused: why it refused "owners" or "names"; empty: it did not. Valid after `result`.
    """

    def __init__(self, source: str, cflags: Sequence[str], programs: Sequence[str], maps: Sequence[str],
                 contents: tuple[str, str], python: str = sys.executable, *, owners: bool = False,
                 names: Sequence[str] = ()) -> None:
        directory = source_directory()
        self._contents = contents
        self._python = python
        self._directory = directory
        self._request = {"source": str(directory / source), "cflags": [f"-I{directory}", *cflags],
                         "headers": str(directory / "headers"), "programs": list(programs), "maps": list(maps),
                         "owners": owners, "names": list(names), "kept": os.environ.get(KEPT_VARIABLE, KEPT)}
        self.refused: Mapping[str, str] = {}
        self._child = _Child(python, directory, self._request)

    def result(self) -> tuple[dict[str, int], dict[str, int]]:
        """Wait for the file descriptors of programs and maps, by name. Called once.

        Raises:
            FlowtopError: bcc is missing or the kernel too old (EXIT_UNAVAILABLE), no permission (EXIT_NO_PERMISSION),
                or another fault of bcc or the kernel (EXIT_FAILURE).
        """
        answer, descriptors, log = self._child.answer()
        if answer["stage"] == "compile" and "fatal error" in log and host_headers(_MODULES) is not None:
            second, descriptors, second_log = _Child(
                self._python, self._directory, {**self._request, "headers": ""}).answer()
            if second["stage"] == "done":  # else report the first error
                answer, log = second, second_log
        if answer["stage"] == "done" and len(descriptors) < len(answer["programs"]) + len(answer["maps"]):
            _close(descriptors)  # the kernel passes on no more than this process may open
            answer, log = {"stage": "load", "message": os.strerror(errno.EMFILE), "errno": errno.EMFILE}, ""
        if answer["stage"] != "done":
            raise _refusal(answer, log, self._contents)
        self.refused = answer["refused"]
        remaining = iter(descriptors)
        programs = {name: next(remaining) for name in answer["programs"]}
        return programs, {name: next(remaining) for name in answer["maps"]}

    def fileno(self) -> int:
        """Readable when the child has answered, for poll(2)."""
        return self._child.fileno()

    def close(self) -> None:
        """End the child if it still runs. Descriptors returned by `result` remain open."""
        self._child.close()


def decap_flags(decap: bool, ports: TunnelPorts | None) -> list[str]:
    """Options of clang for decapsulation.

    Args:
        decap: packets in tunnels belong to their inner flow.
        ports: of tunnels, in addition to the standard ones.
    """
    if not decap:
        return []
    if not ports:
        return ["-DFLOW_DECAP"]
    tests = "".join(f"(port) == {int(port)} ? {int(tunnel)} : " for port, tunnel in sorted(ports.items()))
    return ["-DFLOW_DECAP", f"-DFLOW_ADDED_TUNNEL(port)=({tests}0)"]


class Compilation:
    """A Build of bpf/flow.bpf.c with `map_entries` flows per side.

    Args:
        map_entries: capacity of each of the two flow maps.
        coarse_clock: use bpf_ktime_get_coarse_ns (Linux 5.11) for time stamps instead of bpf_ktime_get_ns.
        expression: C expression of one line over `key`, a pointer to struct flow_key: only flows for which it is not 0
            are counted. Empty: all flows. Must not be text from users: see flowtop/filters/kernel.py.
        decap: count packets in tunnels by their inner flow; the outer flow is counted in entries of Kind.PARENT.
        tunnel_ports: UDP ports of tunnels, in addition to the standard ones.
        owners: find the process of each flow's socket, if the kernel can; see FlowProgram.owners_refused.
        names: copy packets that tell a name, if the kernel can; see FlowProgram.names_refused.
        python: interpreter of the child process.

    Attributes:
        build: of the source.
    """

    def __init__(self, *, map_entries: int, coarse_clock: bool, expression: str = "", decap: bool = False,
                 tunnel_ports: TunnelPorts | None = None, owners: bool = False, names: bool = False,
                 python: str = sys.executable) -> None:
        cflags = [f"-DFLOW_MAP_ENTRIES={map_entries}", *decap_flags(decap, tunnel_ports)]
        if not coarse_clock:
            cflags.append("-DFLOW_FINE_CLOCK")
        if bpf.xfrm_supported():
            cflags.append("-DFLOW_XFRM")
        if expression:
            cflags.append(f"-DFLOW_FILTER(key)={expression}")
        wakes = kernel_release() >= RING_BUFFER_KERNEL
        if wakes:
            cflags.append("-DFLOW_WAKE")
        self._map_entries = map_entries
        self.build = Build("flow.bpf.c", cflags, PROGRAMS, [*MAPS, *(WAKE_MAPS if wakes else ())],
                            (f"maps of {map_entries} flows", "choose fewer with --map-entries"), python, owners=owners,
                            names=[f"-DFLOW_NAMES={NAMES_OCTETS // _PAGE}"] if names else [])

    def result(self) -> FlowProgram:
        """Wait for the programs. Called once. Raises FlowtopError like Build.result."""
        programs, maps = self.build.result()
        refused = self.build.refused
        return FlowProgram(programs, maps, self._map_entries, refused.get("owners", ""), refused.get("names", ""))

    def close(self) -> None:
        """See Build.close."""
        self.build.close()


def compile_program(*, map_entries: int, coarse_clock: bool, expression: str = "", decap: bool = False,
                    tunnel_ports: TunnelPorts | None = None, owners: bool = False, names: bool = False,
                    python: str = sys.executable) -> FlowProgram:
    """Start a Compilation and wait for its result."""
    with closing(Compilation(map_entries=map_entries, coarse_clock=coarse_clock, expression=expression, decap=decap,
                             tunnel_ports=tunnel_ports, owners=owners, names=names, python=python)) as compilation:
        return compilation.result()


class _Child:
    """A running loader.py process.

    Args:
        python: interpreter.
        directory: working directory, see the module's docstring.
        request: what loader.py shall compile.
    """

    def __init__(self, python: str, directory: Path, request: dict[str, Any]) -> None:
        loader = str(Path(__file__).with_name("loader.py"))
        try:
            self._start(python, directory, loader, request)
        except OSError as error:
            raise host_fault("cannot start the compiler", error) or error from error

    def _start(self, python: str, directory: Path, loader: str, request: dict[str, Any]) -> None:
        """Raises OSError; then nothing is left open."""
        with ExitStack() as undo:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.enter_context(self._socket)
            undo.enter_context(theirs)
            self._log = undo.enter_context(open(os.memfd_create("flowtop-compiler"), "w+b"))  # noqa: PTH123 - a descriptor
            # In a session of its own, so that Ctrl-C at the terminal reaches only this process.
            self._process = subprocess.Popen(
                [python, "-I", loader, str(theirs.fileno()), json.dumps(request)], pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,
                cwd=directory, env=_ENVIRONMENT)
            theirs.close()
            undo.pop_all()

    def fileno(self) -> int:
        """The socket of the answer."""
        return self._socket.fileno()

    def answer(self) -> tuple[dict[str, Any], list[int], str]:
        """The child's answer, the descriptors it sent, and the output of bcc and clang."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self._socket, _ANSWER_OCTETS, _MOST_DESCRIPTORS)
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)  # recv_fds ignores MSG_CMSG_CLOEXEC
            status = self._process.wait()
            self._log.seek(0)
            text = self._log.read().decode(errors="replace")
        finally:
            self.close()
        if not message:
            if status == -signal.SIGKILL:
                return {"stage": "killed", "message": "", "errno": 0}, [], text
            failure = "no memory" if limit_hint(text) else f"the compiler process ended with status {status}"
            return {"stage": "compile", "message": failure, "errno": 0}, [], text
        return json.loads(message), list(descriptors), text

    def close(self) -> None:
        """End the child if it still runs. A second call does nothing."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._socket.close()
        self._log.close()


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _refusal(answer: dict[str, Any], log: str, contents: tuple[str, str]) -> FlowtopError:
    """The error to show for a child's failure."""
    if answer["stage"] == "import":
        return bcc_missing(answer["message"])
    if answer["stage"] == "killed":
        return FlowtopError("the compiler was killed (out of memory?)",
                            hint="compiling needs about 150 MB; raise the memory limit", exit_code=EXIT_FAILURE)
    number = answer["errno"]
    limit = limit_hint(answer["message"]) or limit_hint(log) if number != errno.ENOMEM else ""
    if limit and not ("could not open bpf map" in log and "Cannot allocate memory" in log):
        return FlowtopError(f"cannot load the eBPF programs: {_cause(answer['message'], log)}", hint=limit)
    if number == errno.EPERM or "Operation not permitted" in log or "super-user" in answer["message"]:
        return FlowtopError(
            "cannot load the eBPF programs: operation not permitted",
            hint="run with sudo, or give python CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; "
                 "a container also needs them from its host, and a locked-down kernel refuses root too",
            exit_code=EXIT_NO_PERMISSION)
    cause = _cause(answer["message"], log)
    release = kernel_release()
    if release < MINIMUM_KERNEL:
        return FlowtopError(
            f"Linux {release[0]}.{release[1]} cannot run the eBPF programs: {cause}",
            hint=f"Linux {MINIMUM_KERNEL[0]}.{MINIMUM_KERNEL[1]} or later is needed", exit_code=EXIT_UNAVAILABLE)
    if "could not open bpf map" in log and re.search(r"Cannot allocate memory|Argument list too long", log):
        what, hint = contents
        return FlowtopError(f"no memory for {what}", hint=hint, exit_code=EXIT_FAILURE)
    return FlowtopError(f"cannot load the eBPF programs: {cause}",
                        hint="run flowtop --check to see what this host supports", exit_code=EXIT_FAILURE)


def _cause(message: str, log: str) -> str:
    """The most informative line of `log`, else bcc's message."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for mark in ("Too many open files", "error:", "could not open", "invalid", "Permission denied"):
        for line in lines:
            if mark in line:
                return line
    return message


def bcc_missing(cause: str) -> FlowtopError:
    """The error to show when bcc cannot be imported: it is not there, or its libraries do not fit in a limit."""
    if limit := limit_hint(cause):
        return FlowtopError(f"cannot load bcc: {cause}", hint=limit, exit_code=EXIT_UNAVAILABLE)
    return FlowtopError("bcc is not installed" if cause == "no package named bcc" else f"bcc is not installed: {cause}",
                        hint=_INSTALL_HINT, exit_code=EXIT_UNAVAILABLE)
