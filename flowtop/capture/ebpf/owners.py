"""Owners of this host's flows: hooks of cgroups attached, the kernel's notes of processes drained, sockets joined.

The kernel writes an owner id into flows (bpf/owner.h); here is who that is. Sockets that were there before the hooks,
and all of them on a kernel that refuses the hooks, are found by `flowtop.owners.sockets`.
"""

from __future__ import annotations

import math
import os
import select
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.addresses import LocalAddresses
from flowtop.capture.ebpf.compiler import FlowProgram
from flowtop.capture.ebpf.conntrack import Translations
from flowtop.capture.ebpf.interfaces import Links
from flowtop.capture.ebpf.loader import OWNER_PROGRAMS
from flowtop.capture.ebpf.netlink import DumpInterruptedError, RouteSocket
from flowtop.capture.ebpf.packet_owners import PacketOwners
from flowtop.capture.ebpf.rights import HelpersScan, Rights
from flowtop.capture.ebpf.ring import ONE_PAGE, Ring
from flowtop.model.kinds import ICMP_ECHO, Direction, Kind, Protocol, TcpBits, Tunnel
from flowtop.model.owners import (
    ANY_ADDRESS_BIT,
    FORWARDED,
    KERNEL,
    LISTED_BIT,
    NO_OWNER,
    SENDER_BIT,
    Ids,
    OwnerStatistics,
    are_processes,
    pid_of,
)
from flowtop.model.record import CONVERSATION_BYTES, FLOW_KEY_DTYPE
from flowtop.model.translations import TRANSLATIONS, TranslationTexts
from flowtop.owners.book import Owner, OwnerBook, user_name
from flowtop.owners.cgroups import CgroupPaths, cgroup2_root, detached_root, is_whole
from flowtop.owners.containers import ContainerNames
from flowtop.owners.conversations import Senders, Sides, Words, conversations_of, ends_of, words_of
from flowtop.owners.proc import TICK_NS
from flowtop.owners.socket_list import SocketList
from flowtop.owners.sockets import NOBODY_YET, Scan, SocketTable

PROCESS_DTYPE = np.dtype([
    ("start_ns", "u8"),
    ("cgroup_id", "u8"),
    ("pid", "u4"),
    ("parent_pid", "u4"),
    ("uid", "u4"),
    ("pad", "u4"),
    ("comm", "S16"),
])
"""struct process of bpf/owner.h, 48 bytes."""

_ENDING_S = 0.5
"""How long an end waits for an answer of the helper that is on its way."""
_AGAIN_S = 0.01
"""Minimum pause between two looks at new processes: what is in /proc of one that lives 50 ms is read."""
_LOOK_S = 0.25
"""Between two looks at those that may have changed, at names of containers, and at address translations."""
_SCAN_PAUSE_S, _SCAN_REST = 2.0, 20
"""Minimum pause between two scans of sockets, in seconds, and in units of the time that the last one took."""
_SCAN_NICE = 10
"""Of scans but the first one: nobody waits for them at the start, and no tick should."""
_MOST_COOKIES = 65_536
_TO_ELSEWHERE = ("veth", "netkit")
_MOST_SOUGHT, _SOUGHT_AGAIN_S = 4_096, 60.0
"""Ends in containers for which sockets were listed, and after what time that is done again."""
_U32 = struct.Struct("=I")


def other_programs(root: Path) -> tuple[list[str], list[str]]:
    """Programs of others on the hooks of OWNER_PROGRAMS at a cgroup: those that allow others beside them, and those
    that do not, by name, else by number. Raises OSError: the kernel does not say."""
    beside: list[str] = []
    exclusive: list[str] = []
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _, attach_type in OWNER_PROGRAMS.values():
            numbers, shared = bpf.cgroup_programs(directory, attach_type)
            (beside if shared else exclusive).extend(
                bpf.program_name(number) or f"program {number}" for number in numbers)
    finally:
        os.close(directory)
    return list(dict.fromkeys(beside)), list(dict.fromkeys(exclusive))


class OwnerHooks:
    """The programs of OWNER_PROGRAMS, attached to the root of cgroup v2 beside those of others.

    They are links: the kernel detaches them when this process ends, however it ends.

    Args:
        programs: file descriptor by name.
        root: where cgroup v2 is mounted.

        attach: attaches those of OWNER_PROGRAMS, in their order, to the directory, and returns the links; None: this
            process does it.

    Raises OSError: the kernel refuses one of them, for example as another program is attached exclusively; then none
    is attached.
    """

    def __init__(self, programs: Mapping[str, int], root: Path,
                 attach: Callable[[Sequence[int], int], list[int]] | None = None) -> None:
        self._links = ExitStack()
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if attach is not None:
                for link in attach([programs[name] for name in OWNER_PROGRAMS], directory):
                    self._links.callback(os.close, link)
                return
            for name, (_, attach_type) in OWNER_PROGRAMS.items():
                self._links.callback(os.close, bpf.link_create_cgroup(programs[name], directory, attach_type))
        except OSError:
            self._links.close()
            raise
        finally:
            os.close(directory)

    def close(self) -> None:
        """Detach all."""
        self._links.close()


def _exclusive(root: Path) -> str:
    """Which programs do not allow others beside them; "": there are none, or it is not known."""
    try:
        _, exclusive = other_programs(root)
    except OSError:
        return ""
    return f"{', '.join(exclusive)} allows no other program" if exclusive else ""


class ProcessNotes:
    """The kernel's notes of processes that use sockets.

    Args:
        maps: file descriptors by name: processes, claims, processes_written.
    """

    def __init__(self, maps: Mapping[str, int]) -> None:
        self._processes_fd = maps["processes"]
        self._ids = np.empty(1024, np.uint64)
        self._processes = np.empty(1024, PROCESS_DTYPE)
        self._words = np.zeros(2, np.uint64)
        self._claims = [bpf.RepeatedLookup(maps["claims"], _U32.pack(index), self._words[index:].ctypes.data)
                        for index in range(2)]
        self._taken = 0
        self._lock = threading.Lock()
        self._written = Ring(maps["processes_written"], ONE_PAGE)
        self.written_fd = maps["processes_written"]

    def close(self) -> None:
        """Unmap what is mapped."""
        self._written.close()

    def awaken(self) -> None:
        """Have `written_fd` be readable again only when a process is noted after this. One thread."""
        self._written.take(ONE_PAGE)

    @property
    def missed(self) -> int:
        """Processes that could not be noted, as too many were since the last `take`."""
        with self._lock:
            return self._count(1)

    def _count(self, index: int) -> int:
        self._claims[index].read()
        return int(self._words[index])

    def take(self) -> list[tuple[int, Owner]]:
        """Remove the notes from the kernel and return them, with their owner ids. Any thread."""
        found: list[tuple[int, Owner]] = []
        with self._lock:
            count = self._count(0)  # before looking: what is added meanwhile is seen the next time
            if count == self._taken:
                return found
            self._taken = count
            cursor, code = bpf.BatchCursor(), 0
            while code != bpf.END:
                if code == bpf.NO_ROOM:
                    self._ids = np.empty(2 * len(self._ids), np.uint64)
                    self._processes = np.empty(len(self._ids), PROCESS_DTYPE)
                moved, code = bpf.lookup_and_delete_batch(
                    self._processes_fd, cursor, self._ids.ctypes.data, self._processes.ctypes.data, len(self._ids))
                found += zip(self._ids[:moved].tolist(), map(_owner, self._processes[:moved].tolist()), strict=True)
        return found


def _owner(values: tuple[int, int, int, int, int, int, bytes]) -> Owner:
    start_ns, cgroup_id, pid, parent_pid, uid, _, comm = values
    return Owner(pid, start_ns, comm.decode("utf-8", "replace"), uid, cgroup_id, parent_pid)


class Scanned(NamedTuple):
    """A complete scan, and when it began and ended."""

    table: SocketTable
    began_s: float
    ended_s: float


def _pair_forwarded(keys: npt.NDArray[np.void], owners: Ids, sent: npt.NDArray[np.bool_]) -> None:
    """What has left as forwarded has come in as that; `sent` by a socket of this host has not."""
    leaving = np.flatnonzero(owners == FORWARDED)
    coming = np.flatnonzero((owners == NO_OWNER) & ~sent & (keys["direction"] == np.uint8(Direction.INGRESS)))
    if len(leaving) and len(coming):
        size = CONVERSATION_BYTES
        octets = keys.view(np.uint8).reshape(-1, FLOW_KEY_DTYPE.itemsize)[:, :size]
        come, left = (np.ascontiguousarray(octets[some]).view(f"S{size}")[:, 0] for some in (coming, leaving))
        owners[coming[np.isin(come, left)]] = FORWARDED


def _pair_kernels(keys: npt.NDArray[np.void], owners: Ids) -> None:
    """Datagrams that come in where the kernel itself sends some, between the same ends, are for it: of WireGuard."""
    sent = owners == KERNEL
    if not sent.any():
        return
    datagrams = (keys["kind"] == np.uint8(Kind.FLOW)) & (keys["protocol"] == np.uint8(Protocol.UDP))
    leaving = np.flatnonzero(datagrams & sent & (keys["direction"] == np.uint8(Direction.EGRESS)))
    if not len(leaving):
        return
    coming = np.flatnonzero(datagrams & (owners == NO_OWNER) & (keys["direction"] == np.uint8(Direction.INGRESS)))
    if len(coming):
        left, come = (_rows(conversations_of(keys, some)[0]) for some in (leaving, coming))
        owners[coming[np.isin(come, left)]] = KERNEL


def _name_refusals(keys: npt.NDArray[np.void], counters: npt.NDArray[np.void], owners: Ids) -> None:
    """Resets that leave, with nothing else in their flow and of no socket, are the kernel's answer for a port that
    nobody listens at, not the scanner's, whose socket may be known too when it is in a container of this host."""
    some = np.flatnonzero((owners == NO_OWNER) & (keys["direction"] == np.uint8(Direction.EGRESS))
                          & (keys["protocol"] == np.uint8(Protocol.TCP)) & (keys["kind"] == np.uint8(Kind.FLOW)))
    if len(some):
        seen = counters["tcp_bit_seen"][some].astype(np.bool_)
        others = seen[:, [int(bit).bit_length() - 1 for bit in (TcpBits.FIN, TcpBits.SYN, TcpBits.PSH)]].any(axis=1)
        owners[some[seen[:, int(TcpBits.RST).bit_length() - 1] & ~others]] = KERNEL


def _pair_echoes(keys: npt.NDArray[np.void], owners: Ids) -> None:
    """Echo replies that come in are of who sends requests between the same ends, ping; and requests that come in of who
    sends the replies, the kernel."""
    for icmp, (request, reply) in ICMP_ECHO.items():
        some = np.flatnonzero((keys["protocol"] == np.uint8(icmp)) & (keys["kind"] == np.uint8(Kind.FLOW)))
        if not len(some):
            continue
        types, sent = keys["destination_port"][some] >> 8, keys["direction"][some] == np.uint8(Direction.EGRESS)
        known = are_processes(owners[some]) | (owners[some] == KERNEL)
        for its, other in ((request, reply), (reply, request)):
            leaving = some[sent & known & (types == its)]
            coming = some[~sent & (owners[some] == NO_OWNER) & (types == other)]
            if not (len(leaving) and len(coming)):
                continue
            left, come = (_rows(conversations_of(keys, which)[0]) for which in (leaving, coming))
            left, first = np.unique(left, return_index=True)
            places = np.searchsorted(left, come).clip(max=len(left) - 1)
            found = left[places] == come
            owners[coming[found]] = owners[leaving[first[places[found]]]]


def _rows(words: Words) -> npt.NDArray[np.bytes_]:
    """Each row as one text of octets: that numpy ignores zeros at their end makes no difference."""
    rows: npt.NDArray[np.bytes_] = np.ascontiguousarray(words).view(f"S{words.itemsize * words.shape[1]}")[:, 0]
    return rows


def _different(ids: Ids) -> list[int]:
    """Each id once. Flows of one process are often neighbours, which costs less than sorting."""
    first = np.ones(len(ids), np.bool_)
    first[1:] = ids[1:] != ids[:-1]
    found: list[int] = np.unique(ids[first]).tolist()
    return found


class Apart:
    """Finds the owners of packets that sockets in other network namespaces send and receive: of containers.

    Args:
        clock: seconds, monotonic.
        translations: of this network namespace; None: they are not asked for.
    """

    def __init__(self, clock: Callable[[], float], translations: Translations | None) -> None:
        rng = np.random.default_rng()
        self._senders = Senders(rng, clock)
        self._sides = Sides(rng, clock)
        self._translations = translations

    def __len__(self) -> int:
        return len(self._senders)

    @property
    def texts(self) -> TranslationTexts | None:
        """The other side of translated flows; None: none are."""
        return self._translations.texts if self._translations is not None and len(self._sides) else None

    @property
    def missed(self) -> int:
        """Conversations and translations that were too many."""
        return self._senders.forgotten + (0 if self._translations is None else self._translations.missed)

    @property
    def refused(self) -> str:
        """Why translations are not known; "": they are."""
        return "" if self._translations is None else self._translations.refused

    def join(self, keys: npt.NDArray[np.void], owners: Ids, sent: npt.NDArray[np.bool_],
             table: SocketTable | None = None) -> Words | None:
        """Write the owners of flows that are part of a conversation of a container, here or in an earlier batch.

        Args:
            keys: FLOW_KEY_DTYPE, shape (n,).
            owners: of their local sockets; those of `sent` are the senders.
            sent: which flows came in from a socket in another network namespace.
            table: sockets, also those that receive there; None: they are not known yet.

        Returns:
            Flow Keys, shape (n, 7), in which the ends of translated flows are those before the translation; None: no
            flow is translated.
        """
        if self._translations is not None:
            self._translations.open()
            new = self._translations.take_new()
            if new:
                self._sides.note(new)
        receives = table is not None and table.receives
        if not (sent.any() or len(self._senders) or len(self._sides) or receives):
            return None
        some = np.flatnonzero((keys["kind"] == np.uint8(Kind.FLOW)) & (
            sent | (owners == NO_OWNER) | (owners == FORWARDED)))
        words, turned = conversations_of(keys, some)
        told = sent[some] & are_processes(owners[some])
        self._senders.note(words[told], turned[told], owners[some][told])
        if len(self._senders) or receives:
            self._name(owners, some[~told], words[~told], turned[~told], table if receives else None)
        if not len(self._sides):
            return None
        made, places = self._sides.before(words_of(keys).take(some, axis=0), words, turned)
        if not len(places):
            return None
        before = words_of(keys).copy()
        before[some[places]] = made
        return before

    def _name(self, owners: Ids, places: npt.NDArray[np.int64], words: Words, turned: npt.NDArray[np.bool_],
              table: SocketTable | None) -> None:
        """Name flows by who sends in their conversation, on this or the other side of its translation; else by a socket
        that receives there."""
        found = self._senders.find(words, turned)
        rest = np.flatnonzero(found == NO_OWNER)
        if len(self._sides):
            others, ways, translated = self._sides.other(words[rest], turned[rest])
            others, ways, elsewhere = others[translated], ways[translated], rest[translated]
            found[elsewhere] = self._senders.find(others, ways)
        if table is not None:
            _fill_ends(table, found, rest, words[rest], turned[rest])
            if len(self._sides):
                _fill_ends(table, found, elsewhere, others, ways)
        known = found != NO_OWNER
        owners[places[known]] = found[known]

    def renew(self) -> None:
        """Read what the kernel notified of. For a thread in the capture's network namespace."""
        if self._translations is not None:
            self._translations.renew()

    def close(self) -> None:
        """Close what is open."""
        if self._translations is not None:
            self._translations.close()


def _fill_ends(table: SocketTable, owners: Ids, rows: npt.NDArray[np.int64], words: Words,
               turned: npt.NDArray[np.bool_]) -> None:
    """Write the owners of the socket that one of the ends of these flows has, where there is no owner yet."""
    for source in (False, True):
        left = np.flatnonzero(owners[rows] == NO_OWNER)
        found = table.of_ends(ends_of(words[left], turned[left], source=source))
        owners[rows[left]] = np.where(are_processes(found), found | np.uint64(LISTED_BIT), found)


class Veths:
    """Which devices lead to other network namespaces. Asked again, at most once a second, for one not known.

    Args:
        links: of the capture's network namespace.
        clock: seconds, monotonic.
    """

    def __init__(self, links: Links, clock: Callable[[], float]) -> None:
        self._links = links
        self._clock = clock
        self._read_s = -1.0
        self._known: dict[int, bool] = {}

    def are(self, ifindexes: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        """For each of these devices, shape (n,)."""
        if not self._known.keys() >= set(np.unique(ifindexes).tolist()) and self._clock() - self._read_s >= 1.0:
            self._read_s = self._clock()
            with suppress(OSError, DumpInterruptedError):  # the ones known before stay
                self._known = {one.index: one.kind in _TO_ELSEWHERE for one in self._links.list()}
        return np.isin(ifindexes, np.array([ifindex for ifindex, is_one in self._known.items() if is_one], np.uint32))


class BegunScan(NamedTuple):
    """A scan that runs, and when it began."""

    scan: Scan | HelpersScan
    began_s: float

    def close(self) -> None:
        """End it; nobody waits for its result."""
        self.scan.close()


def begin_scan(clock: Callable[[], float] = time.monotonic, rights: Rights | None = None) -> BegunScan | None:
    """Start a scan while the programs are compiled; None: there is no process for it now."""
    try:
        return BegunScan(Scan() if rights is None else rights.scan(), clock())
    except OSError:
        return None


class SocketScans:
    """Scans of this host's sockets, one after another in a thread: at the start, and whenever one is asked for.

    Args:
        book: gets the processes that are found.
        clock: seconds, monotonic.
        scan: starts a scan.
        first: one that was started before the hooks were attached; it is repeated, as sockets may have been made since.

    Attributes:
        last: the last complete scan; None: there was none yet.
    """

    def __init__(self, book: OwnerBook, clock: Callable[[], float],
                 scan: Callable[[], Scan | HelpersScan] = partial(Scan, nice=_SCAN_NICE),  # noqa: B008 - it keeps nothing
                 first: BegunScan | None = None) -> None:
        self._book = book
        self._clock = clock
        self._scan = scan
        self._first = first
        self._current: Scan | HelpersScan | None = None
        self._asked = threading.Event()
        self._ending = threading.Event()
        self.last: Scanned | None = None
        self._thread = threading.Thread(target=self._run, name="sockets", daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Scan again soon: a few seconds after the last one, later if that took long."""
        self._asked.set()

    def _run(self) -> None:
        while not self._ending.is_set():
            began_s = self._clock()
            self._asked.clear()
            first, self._first = self._first, None
            if first is not None:
                self._current, began_s = first
                self._asked.set()
            else:
                try:
                    self._current = self._scan()
                except OSError:  # no process, or no file more, for now: the next one who asks tries again
                    self._ending.wait(_SCAN_PAUSE_S)
                    self._asked.wait()
                    continue
            if self._ending.is_set():
                self._current.stop()
            with suppress(OSError, MemoryError, ImportError):  # likewise, as with an ulimit -v
                output = self._current.result()
                if output is not None and not self._ending.is_set():
                    self._take(output, began_s)
            rest_s = 0.0 if first is not None else _SCAN_REST * (self._clock() - began_s)
            self._ending.wait(max(_SCAN_PAUSE_S, rest_s))
            self._asked.wait()

    def _take(self, output: bytes, began_s: float) -> None:
        table = SocketTable(SocketList.of(output), self._book.known_as,
                            None if self.last is None else self.last.table.unheld)
        self._book.note((owner_id, Owner(holder.pid, holder.start_ticks * TICK_NS, holder.comm, holder.uid,
                                         parent_pid=holder.parent_pid))
                        for owner_id, holder in table.holders.items() if self._book.owner(owner_id) is None)
        self.last = Scanned(table, began_s, self._clock())

    def close(self) -> None:
        """End the scan and the thread."""
        self._ending.set()
        self._asked.set()
        if self._current is not None:
            self._current.stop()
        self._thread.join()


def _translations(clock: Callable[[], float], rights: Rights | None) -> Translations:
    if rights is None:
        return Translations(clock)
    return Translations(clock, events=rights.translation_events, begin=rights.begin_translations)


class FlowOwners:
    """Finds the owners of flows that were drained. Threads look for sockets, and read what /proc says of processes.

    Args:
        program: loaded with owners.
        route: rtnetlink in the capture's network namespace.
        nat: join the two sides of connections with address translation.
        clock: seconds, monotonic.
        root: where cgroup v2 is mounted; None: where /proc says, else by a mount of its own.
        first: a scan of sockets that runs already.
        rights: what helpers do for this process; None: it does it.

    Attributes:
        refused: why the hooks are not attached; "": they are.
        of_packets: the owners of single packets.
    """

    def __init__(self, program: FlowProgram, route: RouteSocket, *, nat: bool = True,
                 clock: Callable[[], float] = time.monotonic, root: Path | None = None,
                 first: BegunScan | None = None, rights: Rights | None = None) -> None:
        self._rights = rights
        if rights is not None:
            root = root or rights.cgroup_root
        root = root or cgroup2_root() or detached_root()
        self._clock = clock
        self._addresses = LocalAddresses(route, clock)
        self._veths = Veths(Links(route), clock)
        self._sought: dict[tuple[int, ...], float] = {}
        self._containers = ContainerNames(rights, clock=clock)
        self._book = OwnerBook(CgroupPaths(root), clock=clock, containers=self._containers,
                               read_life=None if rights is None else rights.read_life,
                               user=user_name if rights is None else rights.user_name)
        self._apart = Apart(clock, _translations(clock, rights) if nat else None)
        self._hooks: OwnerHooks | None = None
        self._partial = False
        self._notes: ProcessNotes | None = None
        self._seen_s: dict[int, float] = {}
        self._drained_s = 0.0
        self.refused = program.owners_refused
        if not self.refused:
            self._attach(program, root)
        self.of_packets = PacketOwners((program.maps["flows_a"], program.maps["flows_b"]), self._texts_of,
                                       self._addresses.knew)
        scan = partial(Scan if rights is None else rights.scan, nice=_SCAN_NICE)
        self._scans = SocketScans(self._book, clock, scan, first)
        self._ending_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="owners", daemon=True)
        self._thread.start()

    def _attach(self, program: FlowProgram, root: Path | None) -> None:
        self._notes = ProcessNotes(program.maps)
        if root is None:
            self.refused = "cgroup v2 is not mounted, and cannot be"
            return
        try:
            self._hooks = OwnerHooks(program.programs, root,
                                     None if self._rights is None else self._rights.attach_owners)
            self._partial = not is_whole(root)
        except OSError as error:
            self.refused = f"{root}: {_exclusive(root) or error.strerror or error}"

    @property
    def statistics(self) -> OwnerStatistics:
        """How owners are found, and what is missing."""
        scanned = self._scans.last
        return OwnerStatistics(self.refused, scanned.table.denied if scanned is not None else 0,
                               self._book.forgotten + (0 if self._notes is None else self._notes.missed),
                               self._containers.nameless, self._apart.missed, self._apart.refused, self._partial)

    def find(self, keys: npt.NDArray[np.void], counters: npt.NDArray[np.void],
             ) -> tuple[Mapping[str, Mapping[int, str]], Words | None]:
        """Find the owners of flows whose maps have been drained just now.

        Args:
            keys: FLOW_KEY_DTYPE, shape (n,).
            counters: FLOW_COUNTERS_DTYPE, shape (n,): owners that are found are written to it, with LISTED_BIT if they
                are from the list of sockets.

        Returns:
            The texts of all owners, by model.owners.TEXTS, and of translated flows; FlowBatch.conversations.
        """
        self._take()  # after the flows: the process of each was noted before its first packet
        owners = np.ascontiguousarray(counters["owner"])
        self._check_addresses(keys, owners)
        sent = owners & np.uint64(SENDER_BIT) != 0
        cookies = np.ascontiguousarray(counters["socket_cookie"])
        if sent.any():
            self._split_sent(owners, cookies, sent)
        _pair_forwarded(keys, owners, sent)
        _pair_kernels(keys, owners)
        _name_refusals(keys, counters, owners)
        whole = (keys["kind"] == np.uint8(Kind.FLOW)) | (keys["tunnel"] == np.uint8(Tunnel.IPSEC))  # or decrypted
        left = np.flatnonzero((owners == NO_OWNER) & whole)
        if len(left):
            found = self._join(keys[left], cookies[left], sent[left])
            owners[left] = np.where(are_processes(found), found | np.uint64(LISTED_BIT), found)
        _pair_echoes(keys, owners)
        if sent.any():
            self._prefer_receivers(keys, owners, sent)
        passing = sent.any() or (owners == FORWARDED).any() or len(self._apart)
        table = None if self._scans.last is None else self._scans.last.table
        conversations = self._apart.join(keys, owners, sent, table) if passing else None
        if passing and table is not None:
            self._seek_receivers(keys, owners)
        counters["owner"] = owners
        self.of_packets.note(keys, owners)
        self._drained_s = self._clock()
        self._book.touch(_different(owners[are_processes(owners)] & ~np.uint64(LISTED_BIT)))
        texts = self._book.texts()
        translations = self._apart.texts
        return (texts if translations is None else {**texts, TRANSLATIONS: translations}), conversations

    @staticmethod
    def _split_sent(owners: Ids, cookies: Ids, sent: npt.NDArray[np.bool_]) -> None:
        """Take processes and cookies of senders apart, which are in the same word."""
        by_cookie = sent & ~are_processes(owners)
        cookies[by_cookie] = owners[by_cookie] & np.uint64(SENDER_BIT - 1)
        owners[by_cookie] = NO_OWNER
        owners[sent] &= ~np.uint64(SENDER_BIT)

    def _prefer_receivers(self, keys: npt.NDArray[np.void], owners: Ids, sent: npt.NDArray[np.bool_]) -> None:
        """What a container sent to this host is of the socket here that receives it, as far as the list knows it; those
        are not of `sent` any more. Else it is of the sender, unless the flow has an owner: the process here may have
        ended, and its socket with it."""
        scanned = self._scans.last
        some = np.flatnonzero(sent)
        some = some[self._addresses.are_local(keys["destination_address"][some], keys["ip_version"][some])]
        if not len(some):
            return
        if scanned is not None:
            found = scanned.table.of_flows(keys[some], np.ones(len(some), np.bool_))
            ours = are_processes(found)
            owners[some[ours]] = found[ours]
            sent[some[ours]] = False
        owners[some] |= np.where(are_processes(owners[some]), np.uint64(LISTED_BIT), np.uint64(0))

    def _seek_receivers(self, keys: npt.NDArray[np.void], owners: Ids) -> None:
        """List the sockets again for what is sent into a container that nobody sends from."""
        some = np.flatnonzero((owners == FORWARDED) & (keys["direction"] == np.uint8(Direction.EGRESS)))
        some = some[self._veths.are(keys["ifindex"][some])] if len(some) else some
        if not len(some):
            return
        words, turned = conversations_of(keys, some[:_MOST_SOUGHT])
        now_s, new = self._clock(), False
        for end in set(map(tuple, ends_of(words, turned, source=False).tolist())):
            if now_s - self._sought.get(end, -math.inf) >= _SOUGHT_AGAIN_S:
                self._sought[end] = now_s
                new = True
        if new:
            self._scans.ask()
        while len(self._sought) > _MOST_SOUGHT:
            del self._sought[next(iter(self._sought))]

    def _check_addresses(self, keys: npt.NDArray[np.void], owners: Ids) -> None:
        """A socket for any address receives only what is for this host."""
        some = np.flatnonzero(owners & np.uint64(ANY_ADDRESS_BIT))
        if len(some):
            local = self._addresses.are_local(keys["destination_address"][some], keys["ip_version"][some])
            owners[some] = np.where(local, owners[some] & ~np.uint64(ANY_ADDRESS_BIT), np.uint64(NO_OWNER))

    def _join(self, keys: npt.NDArray[np.void], cookies: Ids, sent: npt.NDArray[np.bool_]) -> Ids:
        """Owners from the last scan of sockets, which is repeated if it lacks some.

        Args:
            keys: FLOW_KEY_DTYPE, shape (n,).
            cookies: of their sockets; 0: not known.
            sent: which came in from a socket in another network namespace, with that one's cookie.
        """
        scanned = self._scans.last
        if scanned is None:
            return np.zeros(len(keys), np.uint64)
        table = scanned.table
        owners, known = table.of_cookies(cookies)
        unknown = np.flatnonzero((owners == NO_OWNER) & ~sent)
        sends = keys["direction"][unknown] == np.uint8(Direction.EGRESS)
        ends = np.where(sends, keys["source_address"][unknown], keys["destination_address"][unknown])
        local = self._addresses.are_local(ends, keys["ip_version"][unknown])
        owners[unknown] = table.of_flows(keys[unknown], local)
        nobodys = owners == NOBODY_YET
        if nobodys.any():
            owners[nobodys] = NO_OWNER
            self._scans.ask()
        strange = np.flatnonzero((owners == NO_OWNER) & ~known & (cookies != 0))
        if len(strange):
            self._name_kernel(scanned, keys, cookies, owners, strange, sent)
        return owners

    def _name_kernel(self, scanned: Scanned, keys: npt.NDArray[np.void], cookies: Ids, owners: Ids,
                     strange: npt.NDArray[np.int64], sent: npt.NDArray[np.bool_]) -> None:
        """Sockets that sent before and after a scan that does not have them are the kernel's own."""
        now_s, found = self._clock(), []
        for cookie in np.unique(cookies[strange]).tolist():
            if self._seen_s.setdefault(cookie, now_s) < scanned.began_s and scanned.ended_s < self._drained_s:
                found.append(cookie)
            else:
                self._scans.ask()
        listed = scanned.table.lists(keys[strange], sent[strange])
        of_kernel = np.isin(cookies[strange], np.array(found, np.uint64)) & listed
        owners[strange[of_kernel]] = KERNEL
        if len(self._seen_s) > _MOST_COOKIES:
            self._seen_s.clear()

    def _take(self) -> None:
        found = [] if self._notes is None else self._notes.take()
        if found:
            self._book.note(found)

    def _texts_of(self, owners: set[int]) -> Mapping[str, Mapping[int, str]]:
        """What is known of some owners; of those that the kernel has just reported, too."""
        if not self.of_packets.closed and any(pid_of(owner) and self._book.owner(owner) is None for owner in owners):
            self._take()
        return self._book.texts_of(owners)

    def _run(self) -> None:
        ending, any_event = select.poll(), select.poll()
        for poll in (ending, any_event):
            poll.register(self._ending_fd, select.POLLIN)
        if self._notes is not None:
            any_event.register(self._notes.written_fd, select.POLLIN)
        while self._ending_fd not in (events := dict(any_event.poll(_LOOK_S * 1000))):
            if self._notes is not None and events:
                self._notes.awaken()
                self._take()
            self._book.complete()
            self._apart.renew()
            if events and ending.poll(_AGAIN_S * 1000):
                break

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """A context in which nobody waits long for the helper: a process's memory may be a file that never answers."""
        if self._rights is None:
            yield
            return
        limit = threading.Timer(_ENDING_S, self._rights.looker.hang_up)
        limit.start()
        try:
            yield
        finally:
            limit.cancel()

    def close(self) -> None:
        """Detach the hooks and end the threads."""
        self.of_packets.close()
        if self._hooks is not None:
            self._hooks.close()
        os.eventfd_write(self._ending_fd, 1)
        with self._limited():
            self._scans.close()
            self._thread.join()
        os.close(self._ending_fd)
        if self._notes is not None:
            self._notes.close()
        self._containers.close()
        self._apart.close()
