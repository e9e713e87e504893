"""Network namespaces with veth pairs, and captures running inside them. Traffic of the tests stays in there.

Entering needs no fork: setns(2) moves one thread. Everything made is removed when the `Lab` ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import json
import os
import queue
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from flowtop.capture.ebpf.capture import EbpfCapture, EbpfConfig
from flowtop.capture.ebpf.compiler import kernel_release
from flowtop.model.kinds import Kind
from flowtop.model.record import FLOW_KEY_DTYPE, FlowBatch

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _IFF_RUNNING = 0x8913, 0x40
SCALE = float(os.environ.get("FLOWTOP_TEST_SCALE", "1"))
"""How much work the tests do: less than 1 in a slow virtual machine."""
PATIENCE_S = 30 + 60 * (SCALE < 1)
"""How long to wait for something that must happen."""


def scaled(number: int) -> int:
    """`number` of packets or flows, fewer in a slow machine."""
    return max(1, round(number * SCALE))


def run(*words: str, check: bool = True) -> str:
    """A command's standard output."""
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert not check or result.returncode == 0, f"{' '.join(words)}: {result.stdout}{result.stderr}"
    return result.stdout


def eventually(holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until `holds`; fails after this time."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, f"did not happen: {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Namespace:
    """A network namespace."""

    name: str

    def ip(self, command: str) -> str:
        """`ip -n NAMESPACE COMMAND`, words separated by spaces."""
        return run("ip", "-n", self.name, *command.split())

    def command(self, *words: str) -> list[str]:
        """The argument list that runs a command in here."""
        return ["ip", "netns", "exec", self.name, *words]

    def run(self, *words: str, check: bool = True) -> str:
        """A command's standard output."""
        return run(*self.command(*words), check=check)

    def enter(self) -> None:
        """Move the calling thread in, for good."""
        descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {self.name}")
        finally:
            os.close(descriptor)

    def call(self, function: Callable[[], _T]) -> _T:
        """`function`'s result, called by a thread that is in here."""
        results: queue.SimpleQueue[tuple[_T | None, BaseException | None]] = queue.SimpleQueue()

        def inside() -> None:
            try:
                self.enter()
                results.put((function(), None))
            except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
                results.put((None, error))

        thread = threading.Thread(target=inside)
        thread.start()
        value, error = results.get()
        thread.join()
        if error is not None:
            raise error
        return value  # type: ignore[return-value]

    def link_statistics(self, interface: str) -> dict[str, dict[str, int]]:
        """The kernel's own counters: {"rx": {"packets", "bytes", "dropped", ...}, "tx": ...}."""
        (link,) = json.loads(self.run("ip", "-s", "-j", "link", "show", "dev", interface))
        statistics: dict[str, dict[str, int]] = link["stats64"]
        return statistics

    def await_up(self, *interfaces: str) -> None:
        """Wait until frames can leave: the carrier is seen a moment after both ends are up, and later under load."""
        def running() -> bool:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
                answers = [fcntl.ioctl(asked, _SIOCGIFFLAGS, struct.pack("32s", name.encode())) for name in interfaces]
            return all(struct.unpack_from("16xH", answer)[0] & _IFF_RUNNING for answer in answers)

        def ready() -> bool:
            links = {link["ifname"]: link for link in json.loads(run("ip", "-n", self.name, "-j", "link"))}
            return all(links[name]["operstate"] == "UP" and links[name]["qdisc"] != "noop" for name in interfaces)

        # Nearly all of the wait is for the first, which starts no process.
        eventually(lambda: self.call(running), f"{interfaces} have a carrier")
        eventually(ready, f"{interfaces} are up")

    def snmp(self, counter: str) -> int:
        """A counter of /proc/net/snmp since the namespace was made, as nstat names it."""
        found = json.loads(self.run("nstat", "-a", "-s", "-z", "-j", counter))["kernel"]
        return int(found[counter])


class Lab:
    """Makes namespaces and removes them."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 where: TracebackType | None) -> None:
        self._cleanup.close()

    def namespace(self) -> Namespace:
        """A new namespace: loopback up, IPv6 off until asked for, so that nobody but the test speaks."""
        namespace = Namespace(f"ftkb{os.getpid()}n{next(self._numbers)}")
        run("ip", "netns", "add", namespace.name)
        self._cleanup.callback(run, "ip", "netns", "del", namespace.name)
        namespace.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6;"
                                  "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
        namespace.ip("link set lo up")
        return namespace

    def pair(self, *, offload: bool = True) -> tuple[Namespace, Namespace]:
        """Two namespaces, joined by veth0 in each: 10.77.0.1 and 10.77.0.2, who know each other's MAC."""
        near, far = self.namespace(), self.namespace()
        near.ip(f"link add veth0 type veth peer name veth0 netns {far.name}")
        for namespace, number, other in ((near, 1, 2), (far, 2, 1)):
            namespace.ip(f"link set veth0 address 02:00:00:00:77:0{number}")
            if not offload:
                namespace.run("ethtool", "-K", "veth0", "gso", "off", "tso", "off", "gro", "off")
            namespace.ip(f"addr add 10.77.0.{number}/24 dev veth0")
            namespace.ip("link set veth0 up")
            namespace.ip(f"neigh add 10.77.0.{other} lladdr 02:00:00:00:77:0{other} dev veth0")
        near.await_up("veth0")
        far.await_up("veth0")
        # Destinations nobody has: the far end drops them after the hooks, silently.
        near.ip("route add 198.18.0.0/15 via 10.77.0.2")
        return near, far


@dataclass
class Point:
    """What all batches said of one Observation Point, by its newest name."""

    name: str = ""
    flow_packets: int = 0
    flow_octets: int = 0
    observation: Any = None

    @property
    def ignored_packets(self) -> int:
        return int(self.observation["ignored_packets"].sum())

    @property
    def ignored_octets(self) -> int:
        return int(self.observation["ignored_octets"].sum())

    def __getitem__(self, name: str) -> int:
        return int(self.observation[name])


@dataclass
class Books:
    """The sum of all batches of a capture.

    Attributes:
        by_index: by (ifindex, direction).
        packets, octets: by Flow Key (its bytes).
        owners: the last owner of each, if one was found.
        drains: how many batches there were, the one at close included.
        imbalances: what did not add up, at any drain.
    """

    by_index: dict[tuple[int, int], Point] = field(default_factory=dict)
    packets: Counter[bytes] = field(default_factory=Counter)
    octets: Counter[bytes] = field(default_factory=Counter)
    owners: dict[bytes, int] = field(default_factory=dict)
    drains: int = 0
    imbalances: list[str] = field(default_factory=list)
    batch: FlowBatch | None = None

    def add(self, batch: FlowBatch) -> None:
        """Account one batch, and check that the books balance now."""
        self.drains += 1
        self.batch = batch
        keys, counters = batch.keys, batch.counters
        octets_of_keys, size = keys.tobytes(), FLOW_KEY_DTYPE.itemsize
        names = [octets_of_keys[start:start + size] for start in range(0, len(octets_of_keys), size)]
        if len(set(names)) != len(names):
            self.imbalances.append(f"drain {self.drains}: a key twice")
        for name, packets, octets in zip(names, counters["packets"].tolist(), counters["octets"].tolist(), strict=True):
            self.packets[name] += packets
            self.octets[name] += octets
        owners = counters["owner"].tolist()
        self.owners.update((name, owner) for name, owner in zip(names, owners, strict=True) if owner)
        for observation in batch.observations:
            ifindex, direction = int(observation["ifindex"]), int(observation["direction"])
            point = self.by_index.setdefault((ifindex, direction), Point())
            point.name = batch.interfaces[ifindex]
            mine = (keys["ifindex"] == ifindex) & (keys["direction"] == direction) & (keys["kind"] != Kind.PARENT)
            point.flow_packets += int(counters["packets"][mine].sum())
            point.flow_octets += int(counters["octets"][mine].sum())
            point.observation = observation.copy()
            for unit, flows in (("packets", point.flow_packets), ("octets", point.flow_octets)):
                accounted = (flows + int(observation[f"ignored_{unit}"].sum()) + int(observation[f"lost_{unit}"])
                             + int(observation[f"filtered_{unit}"]))
                if accounted != observation[unit]:
                    self.imbalances.append(f"drain {self.drains}: {batch.interfaces[ifindex]}/{direction} {unit}: "
                                           f"accounted {accounted}, observed {observation[unit]}")

    @property
    def points(self) -> dict[tuple[str, int], Point]:
        """By (name, direction), for tests in which no name comes twice."""
        return {(point.name, direction): point for (_, direction), point in self.by_index.items()}

    def flows(self) -> list[tuple[Any, int, int]]:
        """(key as a FLOW_KEY_DTYPE scalar, packets, octets) of every flow."""
        return [(np.frombuffer(key, FLOW_KEY_DTYPE)[0], packets, self.octets[key])
                for key, packets in self.packets.items()]


class Recorder:
    """A capture in a thread inside a namespace, drained every `delay_s`; a context that yields its `Books`.

    The books are complete once the context has ended.
    """

    def __init__(self, namespace: Namespace, *interfaces: str, delay_s: float = 0.1,
                 capture: Callable[[EbpfConfig], EbpfCapture] = EbpfCapture, **config: Any) -> None:
        self._namespace = namespace
        self.capture = capture(EbpfConfig(interfaces=interfaces, **config))
        self._delay_s = delay_s
        self._stop = threading.Event()
        self._opened: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self.books = Books()
        self.said: list[str] = []
        self.texts: list[str] = []
        """What any batch said is not observed."""

    def _run(self) -> None:
        try:
            self._namespace.enter()
            self.capture.open(self.said.append)
        except BaseException as error:  # noqa: BLE001 - raised again by the test's thread
            self._opened.put(error)
            return
        self._opened.put(None)
        try:
            while not self._stop.is_set():
                self.capture.wait(self._delay_s)
                batch = self.capture.drain()
                self.texts += [one.text for one in batch.unobserved]
                self.books.add(batch)
        except BaseException as error:  # noqa: BLE001 - raised again by the test's thread
            self._error = error
        finally:
            self.books.add(self.capture.close())

    def __enter__(self) -> Recorder:
        self._thread.start()
        error = self._opened.get()
        if error is not None:
            self._thread.join()
            raise error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 where: TracebackType | None) -> None:
        self._stop.set()
        self.capture.wake()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def attached(self) -> tuple[str, ...]:
        """Names the newest batch gave."""
        return self.books.batch.attached if self.books.batch is not None else ()


@contextmanager
def process(*words: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A child process, killed at the end if it still runs."""
    child = subprocess.Popen(words, text=True, **options)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()


def hooks(namespace: Namespace, interface: str) -> int:
    """How many programs hang on an interface, both ways, by TCX or as bpf filters: asked of the kernel directly."""
    shown = "".join(namespace.run("tc", "filter", "show", "dev", interface, way) for way in ("ingress", "egress"))
    return shown.count("direct-action") + (tcx_programs(namespace, interface) if kernel_release() >= (6, 6) else 0)


def tcx_programs(namespace: Namespace, interface: str) -> int:
    """How many TCX programs an interface has, both ways: BPF_PROG_QUERY."""
    def query() -> int:
        found, ifindex = 0, socket.if_nametoindex(interface)
        for attach_type in (46, 47):
            attributes = ctypes.create_string_buffer(struct.pack("=IIIIQI", ifindex, attach_type, 0, 0, 0, 0), 64)
            number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
            if ctypes.CDLL(None, use_errno=True).syscall(number, 16, attributes, 64) != 0:
                raise OSError(ctypes.get_errno(), "BPF_PROG_QUERY")
            found += struct.unpack_from("=I", attributes, 24)[0]
        return found

    return namespace.call(query)


def compile_c(source: Path, output: Path) -> Path:
    """A C program of the tests, compiled."""
    run("cc", "-O2", "-Wall", "-o", str(output), str(source))
    return output


def send_frames(namespace: Namespace, interface: str, frames: Sequence[bytes]) -> None:
    """Send frames as they are."""
    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((interface, 0))
            for frame in frames:
                sender.send(frame)

    namespace.call(send)
