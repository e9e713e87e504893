"""On every kind of device, what is counted equals the device's own counters, in both directions, packets and octets."""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowtop.capture.ebpf.compiler import kernel_release
from flowtop.model.kinds import IGNORED_KINDS, Direction, Tunnel
from flowtop.model.owners import pid_of
from tests.kernel.device_setup import STEPS, Relays
from tests.kernel.devices import DEVICES, Device, mac
from tests.kernel.netns import Books, Lab, Namespace, Recorder, eventually, run

ECHOES, ECHO_OCTETS = 20, 68 + 8  # whole packets are multiples of 16 octets: WireGuard fills them up
DATAGRAMS, DATAGRAM_OCTETS = 30, 100 + 8
STRANGERS, STRANGERS_SPI = 3, 0x666
"""Packets of ESP that no key decrypts, which anybody can send."""
OTHERS = 8
"""Packets that may come beside: address resolution, and what IPv6 says of itself."""
OWN_OCTETS = 200
"""The most of a packet that is a device's own (WireGuard's handshakes)."""
WAYS = {Direction.INGRESS: "rx", Direction.EGRESS: "tx"}
ESP = socket.IPPROTO_ESP
NAT_TRAVERSAL = 4500
"""Port of ESP in UDP (RFC 3948), which the datagrams come from: they are IPsec in IPsec, where there is some around."""
PROTOCOLS = (socket.IPPROTO_ICMP, socket.IPPROTO_UDP, socket.IPPROTO_ICMPV6)



def has(device: Device) -> bool:
    """Whether this kernel has that kind: asked of it, but in the machines of Debian's kernels, which must have all but
    those that are named."""
    if device.since > kernel_release():
        return False
    if os.environ.get("FLOWTOP_VM_SERIES"):
        return (device.type in os.environ.get("FLOWTOP_VM_ONLY", device.type).split()
                and device.type not in os.environ.get("FLOWTOP_VM_LACKS", "").split())
    if device.probe:
        return subprocess.run(["unshare", "--net", "sh", "-c", device.probe], capture_output=True,
                              check=False).returncode == 0
    if device.type == "veth" or device.relayed:
        return True
    answer = subprocess.run(["unshare", "--net", "ip", "link", "add", "some0", "type", device.type],
                            capture_output=True, text=True, check=False).stderr
    return "Unknown device type" not in answer


HERE = [device for device in DEVICES if os.geteuid() == 0 and has(device)]


TALKING = [number for number, device in enumerate(HERE) if not device.refused]


def make(near: Namespace, far: Namespace, relays: Relays) -> None:
    """All devices, each on a veth pair of its own. In batches: a process is slow in a machine that is emulated."""
    namespaces = {1: near, 2: far}
    for namespace in namespaces.values():  # else the device below answers ARP for that above, perhaps first
        namespace.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore")
    if any(device.early for device in HERE):
        run("modprobe", "esp4_offload")  # what is configured before goes on without
    for ipv6 in (False, True):  # only where it is needed: it speaks by itself
        numbers = [number for number, device in enumerate(HERE) if device.ipv6 is ipv6]
        for namespace in namespaces.values():
            namespace.run("sh", "-c", f"echo {int(not ipv6)} >/proc/sys/net/ipv6/conf/default/disable_ipv6")
        batch(near, (f"link add u{number} type veth peer name u{number} netns {far.name}" for number in numbers
                     if HERE[number].pair == "veth"))
        for number in numbers:
            if HERE[number].pair == "netkit":  # the only one: the kernel calls its other end so
                batch(near, (f"link add u{number} type netkit", f"link set nk0 netns {far.name} name u{number}"))
        for end, namespace in namespaces.items():
            batch(namespace, (f"link set u{number} address {mac(number, end)}" for number in numbers
                              if HERE[number].pair == "veth"))
            batch(namespace, (f"link set u{number} up\naddr add 10.77.{number}.{end}/24 dev u{number}"
                              for number in numbers))
        for end, namespace in namespaces.items():
            namespace.await_up(*(f"u{number}" for number in numbers))
            for number in numbers:
                if HERE[number].relayed:
                    relays.open(namespace, f"d{number}", HERE[number].relayed)
                for word, commands in steps(HERE[number].fill(HERE[number].make, number, end)):
                    if word in TOOLS:
                        batch(namespace, commands, word)
                    else:
                        STEPS[word](namespace, *commands)
                if HERE[number].redirect:
                    batch(namespace, [HERE[number].fill(HERE[number].redirect, number, end)], "tc")


TOOLS = "ip", "tc"


def steps(text: str) -> Iterator[tuple[str, list[str]]]:
    """Words of STEPS with what follows; and a word of TOOLS with the commands that are together for it."""
    def word(line: str) -> str:
        first = line.split()[0]
        return first if first in STEPS or first in TOOLS else "ip"

    for first, lines in itertools.groupby(text.splitlines(), word):
        if first in TOOLS:
            yield first, [line.removeprefix("tc ") for line in lines]
        else:
            yield from ((first, line.split()[1:]) for line in lines)


def batch(namespace: Namespace, commands: Iterable[str], tool: str = "ip") -> None:
    """Commands of ip(8) or tc(8), until one fails."""
    text = "\n".join(commands)
    done = subprocess.run([tool, "-n", namespace.name, "-batch", "-"], input=text, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, f"{text}: {done.stderr}"


def listen(namespace: Namespace, address: str = "", by: str = "", family: int = socket.AF_INET) -> socket.socket:
    """A socket that takes the datagrams of `speak`."""
    def bind() -> socket.socket:
        listener = socket.socket(family, socket.SOCK_DGRAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, by.encode())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # beside those of one address
        listener.bind((address, 9))
        return listener

    return namespace.call(bind)


def speak(near: Namespace, listener: socket.socket, address: str, source: str, *, answers: bool = True, by: str = "",
          ) -> None:
    """Datagrams that a socket takes, which is closed then, and echoes that are answered, if somebody answers there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def send() -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, by.encode())
            sender.bind((source, NAT_TRAVERSAL))
            for _ in range(DATAGRAMS):
                sender.sendto(bytes(DATAGRAM_OCTETS - 8), (address, 9))

    with listener:
        listener.settimeout(5)
        near.call(send)
        with suppress(TimeoutError):
            for _ in range(DATAGRAMS * answers):
                listener.recv(2048)
    near.run("ping", "-q", "-c", str(ECHOES), "-i", "0.01", "-W", "5" if answers else "0.1", "-s",
             str(ECHO_OCTETS - 8), "-I", by or source, address, check=False)


def send_strange_esp(near: Namespace, address: str) -> None:
    """See STRANGERS."""
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, ESP) as sender:
            for number in range(STRANGERS):
                sender.sendto(struct.pack(">II64x", STRANGERS_SPI, number), (address, 0))

    near.call(send)


@dataclass
class Seen:
    """Both ends' books of all devices, what is not observed, and the devices' own counters: by end, then by name."""

    books: dict[str, Books]
    unobserved: dict[str, set[str]]
    counters: dict[str, dict[str, dict[str, dict[str, int]]]]


def statistics(ends: dict[str, Namespace]) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
    """The devices' own counters, as Seen has them."""
    return {end: {link["ifname"]: link["stats64"] for link in json.loads(namespace.run("ip", "-s", "-j", "link"))}
            for end, namespace in ends.items()}


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    """All devices at once, because compiling the programs takes longest in a machine that is emulated."""
    with Lab() as lab, Relays() as relays:
        near, far = lab.namespace(), lab.namespace()
        ends = {"near": near, "far": far}
        names = {number: device.fill(device.observe, number, 1) for number, device in enumerate(HERE)}
        make(near, far, relays)
        relays.start()
        for number in TALKING:
            if HERE[number].answers:
                source, target = HERE[number].addresses(number)
                near.run("ping", "-q", "-c", "1", "-w", "20", "-I", names[number] if HERE[number].bound else source,
                         target, check=False)  # who is where
        waiting = {number: listen(far, HERE[number].addresses(number)[1]) for number in TALKING if HERE[number].ipsec}
        with (Recorder(near, "[du]*", owners=bool(waiting)) as one,
              Recorder(far, "[du]*", owners=bool(waiting)) as two):
            for recorder in (one, two):
                eventually(lambda recorder=recorder: {names[number] for number in TALKING}  # type: ignore[misc]
                           <= set(recorder.attached()), "all are observed")
            if waiting:  # where the kernel tells no owners, the list of sockets does, of what comes after it
                eventually(lambda: all(recorder.capture._owners is not None
                                       and recorder.capture._owners._scans.last is not None
                                       for recorder in (one, two)), "the sockets are listed")
            before = statistics(ends)
            for number in TALKING:
                if HERE[number].ipsec:
                    send_strange_esp(near, HERE[number].fill("{there}", number, 1))
                with suppress(OSError):  # a test of the device says what is missing
                    source, target = HERE[number].addresses(number)
                    by = names[number] if HERE[number].bound else ""
                    listener = waiting[number] if number in waiting else listen(
                        far, by=by, family=socket.AF_INET6 if ":" in target else socket.AF_INET)
                    speak(near, listener, target, source, answers=HERE[number].answers, by=by)
            after = statistics(ends)
        counters = {end: {name: {way: {what: after[end][name][way][what] - before[end][name][way][what]
                                       for what in ("packets", "bytes")} for way in WAYS.values()}
                          for name in names.values()} for end in ends}
        yield Seen({"near": one.books, "far": two.books}, {"near": set(one.texts), "far": set(two.texts)}, counters)


@pytest.mark.devices
def test_the_books_of_both_ends_balance(seen: Seen) -> None:
    assert [books.imbalances for books in seen.books.values()] == [[], []]
    assert len(HERE) >= 3, "else the next test proves little"


@pytest.mark.devices
def test_what_cannot_be_observed_is_said(seen: Seen) -> None:
    expected = {f"d{number} is not observed: {device.refused}" for number, device in enumerate(HERE) if device.refused}
    assert seen.unobserved == {"near": expected, "far": expected}


@pytest.mark.devices
@pytest.mark.parametrize("number", TALKING, ids=[HERE[number].kind.replace(" ", "-") for number in TALKING])
@pytest.mark.parametrize("way", ["rx", "tx"])
@pytest.mark.parametrize("end", ["near", "far"])
def test_what_is_counted_equals_the_device(seen: Seen, end: str, way: str, number: int) -> None:
    device = HERE[number]
    name, direction = device.fill(device.observe, number, 1), Direction.INGRESS if way == "rx" else Direction.EGRESS
    addresses = device.addresses(number)
    traffic = "rx" if device.redirect else way
    to = [address for address, place in zip(addresses, ("near", "far"), strict=True)
          if (place == end) == (traffic == "rx")]
    header = 40 if ":" in addresses[0] else 20
    replies = (end == "near") == (traffic == "rx")  # the echoes' answers alone; else echoes and datagrams
    expected = (ECHOES, ECHOES * (ECHO_OCTETS + header)) if replies else (
        ECHOES + DATAGRAMS, ECHOES * (ECHO_OCTETS + header) + DATAGRAMS * (DATAGRAM_OCTETS + header))
    if way in device.direct or (not device.answers and (end, way) != ("near", "tx")):
        expected = 0, 0
    books, counters = seen.books[end], seen.counters[end][name][way]
    point = books.points[name, direction]
    (ifindex,) = [ifindex for (ifindex, _), other in books.by_index.items() if other is point]
    destination = ipaddress.ip_address(to[0]).packed.ljust(16, b"\0")
    beside = device.ipsec and not device.early
    tunnel = int(Tunnel.IPSEC if beside else Tunnel.NONE)
    flows = [(packets, octets) for key, packets, octets in books.flows()
             if key["ifindex"] == ifindex and key["direction"] == direction and key["protocol"] in PROTOCOLS
             and bytes(key["destination_address"]) == destination and key["tunnel"] == tunnel]
    found = sum(packets for packets, _ in flows), sum(octets for _, octets in flows)
    told = f"{device.kind}: device {counters}, frames {point['frames']}, {point['frame_octets']} octets, flows {found}"
    if way in device.unseen:
        assert found == (0, 0), told
        assert counters["packets"] >= expected[0], f"its counter has them; {told}"
        assert point["interface_packets"] == 0, f"not compared, so that it is no alarm; {told}"
        return
    seen_decrypted, strangers = (0, 0), 0
    if device.ipsec:
        # Each ESP packet is a packet of the interface, in a flow of ESP; what was in it is a flow beside, in no sum.
        esp = sum(packets for key, packets, _ in books.flows() if key["ifindex"] == ifindex
                  and key["direction"] == direction and key["protocol"] == ESP)
        strangers = STRANGERS * ((end, way) in (("near", "tx"), ("far", "rx")))
        assert esp == strangers + expected[0] * (way == "tx" or not device.early), told
        if way == "tx":
            expected = 0, 0  # encrypted before the hook
        elif not device.early:
            seen_decrypted = expected
            owners = [pid_of(books.owners.get(key.tobytes(), 0)) for key, _, _ in books.flows()
                      if key["ifindex"] == ifindex and key["tunnel"] == tunnel
                      and key["protocol"] == socket.IPPROTO_UDP]
            assert owners == [os.getpid()] * (end == "far"), f"the process of the socket that receives it; {told}"
    assert (point["decrypted_packets"], point["decrypted_octets"]) == seen_decrypted, told
    late = device.late if Path("/sys/module/esp4_offload").exists() else 0
    more, more_of_esp = device.more(way, kernel_release()), device.early if way == "rx" else late
    octets = point["frame_octets"] + 4 * point["vlan_stripped_frames"] * (way == "rx")
    of_its_own = point["interface_packets"] - point["frames"]
    assert found == expected, told
    assert int(point.observation["ignored_packets"][IGNORED_KINDS.index("malformed")]) == 0, told
    assert 0 <= of_its_own <= OTHERS * device.own_packets, told
    assert 0 <= point["interface_packets"] - counters["packets"] <= OTHERS, told
    assert device.ipsec or 0 <= point["frames"] - expected[0] <= OTHERS, told
    octets += more * point["frames"] + more_of_esp * (point["frames"] - strangers)
    assert 0 <= point["interface_octets"] - octets <= OWN_OCTETS * of_its_own, told
