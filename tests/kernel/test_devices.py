"""On every kind of device, what is counted equals the device's own counters, in both directions, packets and octets."""

from __future__ import annotations

import ipaddress
import json
import os
import shlex
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from flowtop.capture.ebpf.compiler import kernel_release
from flowtop.model.kinds import IGNORED_KINDS, Direction, Tunnel
from tests.kernel.devices import DEVICES, Device
from tests.kernel.netns import Books, Lab, Namespace, Recorder, eventually

ECHOES, ECHO_OCTETS = 20, 64 + 8
DATAGRAMS, DATAGRAM_OCTETS = 30, 100 + 8
OTHERS = 8
"""Packets that may come beside: address resolution, and what IPv6 says of itself."""
WAYS = {Direction.INGRESS: "rx", Direction.EGRESS: "tx"}
ESP = socket.IPPROTO_ESP
NAT_TRAVERSAL = 4500
"""Port of ESP in UDP (RFC 3948), which the datagrams come from: they are IPsec in IPsec, where there is some around."""
PROTOCOLS = (socket.IPPROTO_ICMP, socket.IPPROTO_UDP, socket.IPPROTO_ICMPV6)


PROBE_REDIRECTION = ("ip link add a type veth peer name b && tc qdisc add dev a ingress && "
                     "tc filter add dev a ingress matchall action mirred egress redirect dev b")


def has(device: Device) -> bool:
    """Whether this kernel has that kind: asked of it, but in the machines of Debian's kernels, which must have all."""
    if device.since > kernel_release():
        return False
    if os.environ.get("FLOWTOP_VM_SERIES"):
        return True
    if device.decrypts:
        return subprocess.run(["unshare", "--net", *shlex.split(device.fill(device.make, 1, 1).splitlines()[0].join(
            ("ip ", "")))], capture_output=True, check=False).returncode == 0
    if device.redirect:
        return subprocess.run(["unshare", "--net", "sh", "-c", PROBE_REDIRECTION], capture_output=True,
                              check=False).returncode == 0
    if device.type == "veth":
        return True
    answer = subprocess.run(["unshare", "--net", "ip", "link", "add", "some0", "type", device.type],
                            capture_output=True, text=True, check=False).stderr
    return "Unknown device type" not in answer


HERE = [device for device in DEVICES if os.geteuid() == 0 and has(device)]


def make(near: Namespace, far: Namespace) -> None:
    """All devices, each on a veth pair of its own. In batches: a process is slow in a machine that is emulated."""
    namespaces = {1: near, 2: far}
    for ipv6 in (False, True):  # only where it is needed: it speaks by itself
        numbers = [number for number, device in enumerate(HERE) if device.ipv6 is ipv6]
        for namespace in namespaces.values():
            namespace.run("sh", "-c", f"echo {int(not ipv6)} >/proc/sys/net/ipv6/conf/default/disable_ipv6")
        batch(near, (f"link add u{number} type veth peer name u{number} netns {far.name}" for number in numbers))
        for end, namespace in namespaces.items():
            batch(namespace, (f"link set u{number} up\naddr add 10.77.{number}.{end}/24 dev u{number}"
                              for number in numbers))
        for end, namespace in namespaces.items():
            namespace.await_up(*(f"u{number}" for number in numbers))
            for number in numbers:
                batch(namespace, [HERE[number].fill(HERE[number].make, number, end)])
                if HERE[number].redirect:
                    batch(namespace, [HERE[number].fill(HERE[number].redirect, number, end)], "tc")


def batch(namespace: Namespace, commands: Iterable[str], tool: str = "ip") -> None:
    """Commands of ip(8) or tc(8), until one fails."""
    text = "\n".join(commands)
    done = subprocess.run([tool, "-n", namespace.name, "-batch", "-"], input=text, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, f"{text}: {done.stderr}"


def speak(near: Namespace, far: Namespace, address: str, source: str) -> None:
    """Datagrams that a socket takes, and echoes that are answered."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def listen() -> socket.socket:
        listener = socket.socket(family, socket.SOCK_DGRAM)
        listener.bind(("", 9))
        return listener

    def send() -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"")
            sender.bind((source, NAT_TRAVERSAL))
            for _ in range(DATAGRAMS):
                sender.sendto(bytes(DATAGRAM_OCTETS - 8), (address, 9))

    with far.call(listen) as listener:
        listener.settimeout(5)
        near.call(send)
        with suppress(TimeoutError):  # a test of the device says what is missing
            for _ in range(DATAGRAMS):
                listener.recv(2048)
    near.run("ping", "-q", "-c", str(ECHOES), "-i", "0.01", "-W", "5", "-s", str(ECHO_OCTETS - 8), "-I", source,
             address, check=False)


@dataclass
class Seen:
    """Both ends' books of all devices, and the devices' own counters: by end, then by name of the device."""

    books: dict[str, Books]
    counters: dict[str, dict[str, dict[str, dict[str, int]]]]


def statistics(ends: dict[str, Namespace]) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
    """The devices' own counters, as Seen has them."""
    return {end: {link["ifname"]: link["stats64"] for link in json.loads(namespace.run("ip", "-s", "-j", "link"))}
            for end, namespace in ends.items()}


@pytest.fixture(scope="module")
def seen() -> Iterator[Seen]:
    """All devices at once, because compiling the programs takes longest in a machine that is emulated."""
    with Lab() as lab:
        near, far = lab.namespace(), lab.namespace()
        ends = {"near": near, "far": far}
        names = {number: device.fill(device.observe, number, 1) for number, device in enumerate(HERE)}
        make(near, far)
        for number, device in enumerate(HERE):
            source, target = device.addresses(number)
            near.run("ping", "-q", "-c", "1", "-w", "20", "-I", source, target, check=False)  # who is where
        with Recorder(near, "[du]*") as one, Recorder(far, "[du]*") as two:
            for recorder in (one, two):
                eventually(lambda recorder=recorder: set(names.values()) <= set(recorder.attached()),  # type: ignore[misc]
                           "all are observed")
            before = statistics(ends)
            for number, device in enumerate(HERE):
                speak(near, far, *reversed(device.addresses(number)))
            after = statistics(ends)
        counters = {end: {name: {way: {what: after[end][name][way][what] - before[end][name][way][what]
                                       for what in ("packets", "bytes")} for way in WAYS.values()}
                          for name in names.values()} for end in ends}
        yield Seen({"near": one.books, "far": two.books}, counters)


@pytest.mark.devices
def test_the_books_of_both_ends_balance(seen: Seen) -> None:
    assert [books.imbalances for books in seen.books.values()] == [[], []]
    assert len(HERE) >= 3, "else the next test proves little"


@pytest.mark.devices
@pytest.mark.parametrize("number", range(len(HERE)), ids=[device.kind.replace(" ", "-") for device in HERE])
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
    books, counters = seen.books[end], seen.counters[end][name][way]
    point = books.points[name, direction]
    (ifindex,) = [ifindex for (ifindex, _), other in books.by_index.items() if other is point]
    destination = ipaddress.ip_address(to[0]).packed.ljust(16, b"\0")
    tunnel = int(Tunnel.IPSEC if device.decrypts else Tunnel.NONE)
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
    if device.decrypts:
        # Each ESP packet is a packet of the interface, in a flow of ESP; what was in it is a flow beside, in no sum.
        esp = sum(packets for key, packets, _ in books.flows() if key["ifindex"] == ifindex
                  and key["direction"] == direction and key["protocol"] == ESP)
        assert esp == expected[0], told
        assert (point["decrypted_packets"], point["decrypted_octets"]) == (expected if way == "rx" else (0, 0)), told
        if way == "tx":
            expected = 0, 0  # encrypted before the hook
            assert esp > 0
    else:
        assert point["decrypted_packets"] == 0, told
    more = device.received if way == "rx" else device.sent
    octets = point["frame_octets"] + 4 * point["vlan_stripped_frames"] * (way == "rx")
    assert found == expected, told
    assert int(point.observation["ignored_packets"][IGNORED_KINDS.index("malformed")]) == 0, told
    assert point["frames"] == point["interface_packets"], told
    assert 0 <= point["interface_packets"] - counters["packets"] <= OTHERS, told
    assert device.decrypts or 0 <= point["frames"] - expected[0] <= OTHERS, told
    assert octets + more * point["frames"] == point["interface_octets"], told
