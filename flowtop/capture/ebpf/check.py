"""Check what this host supports: each requirement of capture is tried, if that has no side effect."""

from __future__ import annotations

import errno
import os
import re
import resource
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from flowtop.capture.ebpf import bpf, btf, start
from flowtop.capture.ebpf.attach import ATTACH_VARIABLE, NO_ROOM, attach_type
from flowtop.capture.ebpf.clsact import SHARED_BLOCK, ClsactAttacher, this_process
from flowtop.capture.ebpf.compiler import MINIMUM_KERNEL, NAMES_OCTETS, OWNERS_KERNEL, bcc_found, kernel_release
from flowtop.capture.ebpf.conntrack import TRACKING, dump_translations, tracked_connections
from flowtop.capture.ebpf.interfaces import Links
from flowtop.capture.ebpf.loader import TASK_MEMBERS
from flowtop.capture.ebpf.netlink import RouteSocket
from flowtop.capture.ebpf.owners import other_programs
from flowtop.capture.ebpf.packet_programs import try_ring_buffer
from flowtop.capture.ebpf.points import unobserved
from flowtop.errors import FlowtopError, host_fault, limit_hint
from flowtop.model.kinds import Direction
from flowtop.model.record import Unobserved
from flowtop.owners.cgroups import cgroup2_root, detached_root, is_whole
from flowtop.owners.containers import runtimes
from flowtop.owners.proc import PROC, in_first_namespace, unreadable
from flowtop.text.units import printable

_TCX_KERNEL = (6, 6)
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_FILES = start.most_files(owners=True, names=True)
_TASKS = 8
"""Threads of metering, of the capture, of the owners and of the list of sockets, and the process that makes it; two
helpers, and the process that opens files."""
_MOST_NAMES = 3
_MEMORY_LOCK_REMEDY = "ulimit -l unlimited, or run with sudo"
_JIT = Path("/proc/sys/net/core/bpf_jit_enable")


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Attributes:
        name: what was checked.
        ok: nothing needs to be done.
        detail: the result.
        remedy: what to do; empty if ok.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def report(findings: Sequence[Finding]) -> list[str]:
    """The lines of `flowtop --check`."""
    width, lines = max(len(finding.name) for finding in findings), []
    for finding in findings:
        lines.append(f"{'ok  ' if finding.ok else 'MISS'}  {finding.name.ljust(width)}  {finding.detail}")
        if not finding.ok and finding.remedy:
            lines.append(f"      {' ' * width}  remedy: {finding.remedy}")
    return lines


def check_host() -> tuple[Finding, ...]:
    """Check everything capture needs or can use, in the order of use. Attaches nothing, changes nothing."""
    release = kernel_release()
    with start.limits_raised(release):  # as a capture has it
        return (
            check_kernel(release),
            check_privileges(),
            check_lockdown(),
            check_proc(),
            check_bcc(),
            check_jit(),
            _tried("open files", _open_files, ""),
            _tried("threads", try_threads, ""),
            _tried("compiler", _compiler, ""),
            _tried("map batches", try_batches, "Linux 5.6 or later is needed"),
            _tried("hooks", _hooks, "a kernel with CONFIG_NET_CLS_ACT and CONFIG_NET_CLS_BPF is needed"),
            check_interfaces(),
            _tried("grace period", _grace_period, ""),
            check_packets(),
            check_owners(release),
            check_names(),
            check_processes(),
            check_containers(),
            check_translation(),
            check_memory_lock(release),
        )


def check_kernel(release: tuple[int, int]) -> Finding:
    """Check the version of Linux."""
    return Finding("kernel", release >= MINIMUM_KERNEL, f"Linux {os.uname().release} {os.uname().machine}",
                   "" if release >= MINIMUM_KERNEL else "Linux {}.{} or later is needed".format(*MINIMUM_KERNEL))


def check_privileges(status: Path = Path("/proc/self/status")) -> Finding:
    """Check the capabilities of this process."""
    missing = start.missing_capabilities(status)
    return Finding("privileges", not missing, f"missing: {', '.join(missing)}" if missing else "sufficient",
                   start.HINT if missing else "")


def check_proc(path: Path = Path("/proc/self")) -> Finding:
    """Check that /proc is there: flowtop's hooks carry the number of its process, as /proc shows it."""
    found = path.is_symlink() or path.exists()
    return Finding("/proc", found, "mounted" if found else "not mounted", "" if found else start.PROC_HINT)


def check_lockdown(path: Path = _LOCKDOWN) -> Finding:
    """Check kernel lockdown: at level "confidentiality" the kernel refuses parts of eBPF even to root."""
    if not path.exists():
        return Finding("lockdown", True, "not supported by this kernel")
    text = path.read_text(encoding="ascii").strip()
    match = re.search(r"\[(\w+)\]", text)
    level = match[1] if match else text
    fatal = level == "confidentiality"
    return Finding("lockdown", not fatal, level, "boot with lockdown=integrity or without lockdown" if fatal else "")


def check_bcc() -> Finding:
    """Check the bcc package and its library, in a process like the compiler's."""
    try:
        return Finding("bcc", True, bcc_found())
    except FlowtopError as error:
        return Finding("bcc", False, error.message, error.hint)
    except OSError as error:
        return Finding("bcc", False, (error.strerror or str(error)).lower(), limit_hint(str(error)))


def check_jit(path: Path = _JIT) -> Finding:
    """Check the eBPF just-in-time compiler; without it each packet costs several times more."""
    try:
        enabled = path.read_text(encoding="ascii").strip() != "0"
    except OSError as error:
        return Finding("JIT", True, f"unknown: {error.strerror}")
    return Finding("JIT", enabled, "on" if enabled else "off", "" if enabled else "sysctl net.core.bpf_jit_enable=1")


def check_packets(attempt: Callable[[], None] | None = None) -> Finding:
    """Check ring buffers, which only writing packets needs.

    Args:
        attempt: makes a ring buffer, or raises OSError.
    """
    try:
        (attempt or try_ring_buffer)()
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            return Finding("packets (-w)", False, (error.strerror or str(error)).lower(),
                           start.HINT if start.may_raise_memory_lock() else _MEMORY_LOCK_REMEDY)
        return Finding("packets (-w)", True, "not available: ring buffers need Linux 5.8")
    return Finding("packets (-w)", True, "ring buffer")


def check_names(attempt: Callable[[], None] | None = None, packages: Callable[[str], object] = find_spec) -> Finding:
    """Check what reading names in packets needs. Capture does not need it.

    Args:
        attempt: makes a ring buffer, or raises OSError.
        packages: gives None for a package that is not installed.
    """
    try:
        (attempt or (lambda: try_ring_buffer(NAMES_OCTETS)))()
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS):
            return Finding("names seen", True, "not available: ring buffers need Linux 5.8")
        return Finding("names seen", True, f"not available: {(error.strerror or str(error)).lower()}")
    if packages("cryptography") is None:
        return Finding("names seen", True, "in DNS, TLS and HTTP; of QUIC with the package cryptography: "
                                           "pip install 'flowtop[quic]'")
    return Finding("names seen", True, "in DNS, TLS, HTTP and QUIC")


def check_owners(release: tuple[int, int] | None = None, types: Path = btf.VMLINUX,
                 mountinfo: Path = Path("/proc/self/mountinfo")) -> Finding:
    """Check what the programs that find the process of each socket need. Without them capture works, and processes are
    looked for in /proc.

    Args:
        release: version of Linux; None: the running one.
        types: type information of the kernel.
        mountinfo: proc_pid_mountinfo(5).
    """
    without = "only from /proc, so processes that end soon are missed: "
    release = release or kernel_release()
    if release < OWNERS_KERNEL:
        return Finding("owners", True, f"{without}the hooks need Linux {OWNERS_KERNEL[0]}.{OWNERS_KERNEL[1]}")
    try:
        btf.member_offsets("task_struct", TASK_MEMBERS, types)
    except (OSError, ValueError) as error:
        return Finding("owners", True, f"{without}the kernel has no type information ({error})")
    mounted = cgroup2_root(mountinfo)
    root = mounted or detached_root()
    if root is None:
        return Finding("owners", True, f"{without}cgroup v2 is not mounted, and cannot be")
    try:
        beside, exclusive = other_programs(root)
    except OSError:  # for lack of rights, which is said above
        beside, exclusive = [], []
    if exclusive:
        return Finding("owners", True, f"{without}{', '.join(exclusive)} at {root} allows no other program")
    shared = f", beside {', '.join(beside)}" if beside else ""
    place = "by a mount of flowtop's own" if mounted is None else f"at {root}"
    rest = "" if is_whole(root) else "; outside of this container only from /proc: it needs --cgroupns=host"
    return Finding("owners", True, f"hooks of cgroups {place}{shared}{rest}")


def check_processes(proc: Path = PROC) -> Finding:
    """Check whether the open files of other processes can be read, to find whose their older sockets are. Capture does
    not need it."""
    if not (proc / "1").exists():
        detail = "those of other users are hidden (hidepid)"
    elif not in_first_namespace(proc):
        detail = "only those of this PID namespace are known; a container needs --pid=host"
    elif names := unreadable(proc):
        shown = ", ".join(printable(name) for name in names[:_MOST_NAMES])
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        able = start.CAP_SYS_PTRACE in start.effective_capabilities(proc / "self/status")
        remedy = "they have other rights than flowtop" if able else "root, or CAP_SYS_PTRACE, may"
        detail = f"the open files of {shown}{more} cannot be read; {remedy}"
    else:
        detail = "readable"
    return Finding("processes", True, detail)


def check_containers(root: Path = Path("/")) -> Finding:
    """Check which runtimes' files are there, and whether they can be read. Capture does not need it."""
    found, faults = runtimes(root)
    detail = f"names from files of {', '.join(found)}" if found else "no runtime's files are there"
    return Finding("containers", True, "; ".join((detail, *faults)))


def check_translation(tracking: Path = TRACKING, attempt: Callable[[], object] | None = None) -> Finding:
    """Check whether address translation (NAT) can be read. Capture does not need it.

    Args:
        tracking: file with the number of connections that are tracked.
        attempt: reads the translations, or raises OSError.
    """
    if not tracked_connections(tracking):
        return Finding("NAT", True, "no connections are tracked")
    try:
        (attempt or (lambda: list(dump_translations())))()
    except OSError as error:
        return Finding("NAT", True, f"both sides are not joined: {(error.strerror or str(error)).lower()}")
    return Finding("NAT", True, "both sides are joined")


def check_memory_lock(release: tuple[int, int]) -> Finding:
    """Check RLIMIT_MEMLOCK, if the kernel charges maps to it."""
    if release >= start.UNCHARGED_RELEASE:
        return Finding("memory lock limit", True, "not charged by this kernel")
    if start.may_raise_memory_lock():
        return Finding("memory lock limit", True, "will be raised")
    return Finding("memory lock limit", False, "too low for the maps, and cannot be raised",
                   _MEMORY_LOCK_REMEDY)


def _tried(name: str, attempt: Callable[[], str], remedy: str) -> Finding:
    try:
        return Finding(name, True, attempt())
    except OSError as error:
        fault = host_fault(name, error) if limit_hint(str(error)) else None
        if fault is not None:
            return Finding(name, False, (error.strerror or str(error)).lower(), fault.hint)
        refused = error.errno in (errno.EPERM, errno.EACCES)
        return Finding(name, False, (error.strerror or str(error)).lower(), start.HINT if refused else remedy)


def try_batches() -> str:
    """Move two entries out of a hash map with BPF_MAP_LOOKUP_AND_DELETE_BATCH.

    Raises:
        OSError: the kernel refused, or returned other data than was written.
    """
    map_fd = bpf.map_create(bpf.MAP_TYPE_HASH, 4, 4, 64)
    try:
        written = {3: 30, 4: 40}
        for key, value in written.items():
            bpf.map_update(map_fd, struct.pack("=I", key), struct.pack("=I", value))
        keys, values = np.zeros(64, "u4"), np.zeros(64, "u4")
        moved, _ = bpf.lookup_and_delete_batch(map_fd, bpf.BatchCursor(), keys.ctypes.data, values.ctypes.data, 64)
    finally:
        os.close(map_fd)
    if dict(zip(keys[:moved].tolist(), values[:moved].tolist(), strict=True)) != written:
        raise OSError(errno.EIO, "the kernel returned other entries than were written")
    return "work"


def _compiler() -> str:
    """What the compiler's process and its answer need. Raises OSError."""
    with ExitStack() as opened:
        for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET):
            opened.enter_context(end)
        opened.callback(os.close, os.memfd_create("flowtop-check"))
        opened.callback(os.close, os.eventfd(0))
    return "can be started"


def try_threads() -> str:
    """Start as many threads as a capture has threads and child processes at once. Raises OSError: a limit is lower."""
    over = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(_TASKS):
            thread = threading.Thread(target=over.wait, name="check")
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error
    finally:
        over.set()
        for thread in started:
            thread.join()
    return "can be started"


def _open_files() -> str:
    """The limit of open files. Raises OSError: it is too low."""
    start.try_files(_FILES)
    return f"{resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,} at once"


def check_interfaces() -> Finding:
    """Check what of the interfaces that are up has no hook, or other programs before flowtop's."""
    gaps: list[Unobserved] = []
    beside: list[str] = []
    try:
        with closing(RouteSocket()) as route:
            up = [interface for interface in Links(route).list() if interface.up]
            clsact = None if _by_tcx() else ClsactAttacher(route, this_process())
            for interface in up:
                if interface.layer is None:
                    beside.append(Unobserved(interface.name, interface.refusal).text)
                elif clsact is None:
                    gaps += unobserved(interface.name, _full_hooks(interface.index))
                else:
                    gaps += unobserved(interface.name, clsact.unseen(interface.index))
                    beside += [
                        f"{direction.name.lower()} of {interface.name}: what {', '.join(dict.fromkeys(ahead))} ends is "
                        "not observed" for direction, ahead in clsact.foremost(interface.index).items() if ahead]
    except OSError as error:
        return Finding("interfaces", False, (error.strerror or str(error)).lower(), start.HINT)
    if clsact is None:
        try:
            start.try_files(_FILES + start.HOOKS * (len(up) - 1))
        except OSError as error:
            return Finding("interfaces", False, f"{len(up)} up: {(error.strerror or str(error)).lower()}",
                           limit_hint(str(error)))
    texts = [*(gap.text for gap in gaps), *beside]
    detail = "; ".join(texts) if texts else f"{len(up)} up, all can be observed"
    if not gaps:
        return Finding("interfaces", True, detail)
    if clsact is None:
        return Finding("interfaces", False, detail, "detach one of the programs: bpftool net lists them")
    remedy = "replace the ingress qdisc by clsact, which takes the same filters"
    if any(SHARED_BLOCK in gap.reason for gap in gaps):
        remedy = "give the interface filters of its own: a clsact qdisc without blocks"
    return Finding("interfaces", False, detail, f"{remedy}; or use Linux {_TCX_KERNEL[0]}.{_TCX_KERNEL[1]}")


def _by_tcx() -> bool:
    program_fd = bpf.load_pass_program()
    try:
        return os.environ.get(ATTACH_VARIABLE) != "clsact" and bpf.tcx_supported(program_fd)
    finally:
        os.close(program_fd)


def _full_hooks(ifindex: int) -> dict[Direction, str]:
    return {direction: NO_ROOM for direction in Direction
            if len(bpf.tcx_programs(ifindex, attach_type(direction))) >= bpf.TCX_MOST}


def _hooks() -> str:
    program_fd = bpf.load_pass_program()
    try:
        if bpf.tcx_supported(program_fd):
            return "TCX links"
    finally:
        os.close(program_fd)
    return "clsact filters (TCX links need Linux {}.{})".format(*_TCX_KERNEL)


def _grace_period() -> str:
    return "membarrier" if bpf.membarrier_supported() else "map replacement (membarrier is not available)"
