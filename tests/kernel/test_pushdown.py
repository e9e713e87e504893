"""The kernel's part of a filter: the loaded program's verdict is the mask's, and tcpdump's where it has the words."""

from __future__ import annotations

import ipaddress
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowtop.capture.ebpf.compiler import (
    COARSE_CLOCK_KERNEL,
    OWNERS_KERNEL,
    FlowProgram,
    compile_program,
    kernel_release,
)
from flowtop.filters.filter import compile_filter
from flowtop.filters.kernel import split
from flowtop.filters.terms import flow_as_tcpdump
from flowtop.model.kinds import Direction
from flowtop.model.record import FLOW_RECORD_DTYPE
from flowtop.text.lookups import NO_LOOKUPS
from tests.kernel import frames as f
from tests.kernel.observer import Observer, SeenFlow
from tests.unit.factories import flow_row

HOSTS4 = ["10.0.0.1", "10.0.1.7", "172.16.3.4", "192.0.2.1", "224.0.0.5", "128.0.0.1"]
HOSTS6 = ["2001:db8::1", "2001:db8:0:1::2", "fe80::1", "ff02::1", "::1", "fd00:1::ffff"]
PORTS = [22, 53, 80, 443, 1024, 65535]


def loaded(expression: str = "", *, whole: bool = False) -> FlowProgram:
    """The kernel program; `whole`: with all that a live run has, owners and names."""
    release = kernel_release()
    return compile_program(map_entries=1024, coarse_clock=release >= COARSE_CLOCK_KERNEL, expression=expression,
                           owners=whole and release >= OWNERS_KERNEL, names=whole)


@pytest.fixture(scope="module")
def everything() -> Iterator[Observer]:
    with closing(loaded()) as program:
        yield Observer(program)


def packet(number: int) -> bytes:
    """A frame of those that the hosts, protocols and ports make, by number."""
    def pick(choices: Sequence[str]) -> str:
        nonlocal number
        number, index = divmod(number, len(choices))
        return choices[index]

    six = pick("46") == "6"
    source, destination = pick(HOSTS6 if six else HOSTS4), pick(HOSTS6 if six else HOSTS4)
    kind = pick(["tcp", "udp", "sctp", "icmp", "gre"])
    source_port, destination_port = int(pick(list(map(str, PORTS)))), int(pick(list(map(str, PORTS))))
    ports = struct.pack(">HH", source_port, destination_port)
    protocol, payload = {
        "tcp": (f.TCP, f.tcp(source_port, destination_port, f.ACK)),
        "udp": (f.UDP, f.udp(source_port, destination_port)),
        "sctp": (f.SCTP, ports + bytes(8)),
        "icmp": (f.ICMPV6 if six else f.ICMP, f.icmp(8 if source_port > 80 else 3, 0)),
        "gre": (47, ports + bytes(8)),
    }[kind]
    if six:
        return f.ethernet(f.IPV6, f.ipv6(payload, protocol, source=source, destination=destination))
    return f.ethernet(f.IPV4, f.ipv4(payload, protocol, source=source, destination=destination), pad=60)


PACKETS = st.lists(st.integers(0, 2 * 36 * 5 * 36 - 1), min_size=5, max_size=40, unique=True)

DIRECTIONS = st.sampled_from(["", "src ", "dst ", "src or dst ", "src and dst "])
NETWORKS = st.sampled_from(["net 10.0.0.0/8", "net 10.0.0.0/23", "net 128.0.0.0/1", "net 172.16.0.0/12",
                            "net 2001:db8::/32", "net 2001:db8::/64", "net fe80::/10", "net 8000::/1"])
HOSTS = st.sampled_from([f"host {host}" for host in [*HOSTS4, *HOSTS6]])
OF_PORTS = st.one_of(st.sampled_from(PORTS).map("port {}".format),
                     st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(sorted).map(
                         lambda span: f"portrange {span[0]}-{span[1]}"))
PRIMITIVES = st.one_of(
    st.tuples(DIRECTIONS, st.one_of(HOSTS, NETWORKS)).map("".join),
    st.tuples(st.sampled_from(["", "tcp ", "udp "]), DIRECTIONS, OF_PORTS).map("".join),
    st.sampled_from(["tcp", "udp", "icmp", "icmp6", "ip", "ip6", "proto 47", "ip proto 6", "ip6 proto 17", "sctp"]),
)


def expressions(primitives: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(primitives, lambda inner: st.one_of(
        inner.map("not ({})".format), inner.map("({})".format),
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map("".join)), max_leaves=6)


def tcpdumps_verdict(directory: Path, text: str, frames: Sequence[bytes]) -> list[bool]:
    """Which frames pass `tcpdump -r`; each frame's time of capture is its number."""
    packets = [struct.pack("=IIII", number, 0, len(frame), len(frame)) + frame for number, frame in enumerate(frames)]
    path = directory / "packets.pcap"
    path.write_bytes(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(packets))
    done = subprocess.run(["tcpdump", "-n", "-r", str(path), "-w", "-", text], capture_output=True, check=False)
    if b"rejects all packets" in done.stderr:
        return [False] * len(frames)
    assert done.returncode == 0, done.stderr
    passed, offset = set(), 24
    while offset < len(done.stdout):
        seconds, _, kept, _ = struct.unpack_from("=IIII", done.stdout, offset)
        passed.add(seconds)
        offset += 16 + kept
    return [number in passed for number in range(len(frames))]


def kernels_verdict(observer: Observer, frames: Sequence[bytes], direction: Direction) -> list[bool]:
    """Which frames the program counts in a flow; the books must tell the others."""
    verdicts = []
    for frame in frames:
        observer.see(frame, direction=direction)
        books = observer.take(direction)
        books.assert_balanced()
        assert books.total("packets") == 1
        verdicts.append(bool(books.flows))
    return verdicts


def masks_verdict(text: str, flows: Sequence[SeenFlow]) -> list[bool]:
    """Which of the flows that the unfiltered program makes of the frames pass."""
    records = np.zeros(len(flows), FLOW_RECORD_DTYPE)
    for record, flow in zip(records, flows, strict=True):
        for name in ("protocol", "source_port", "destination_port", "ip_version", "kind", "direction", "vlan_id",
                     "customer_vlan_id"):
            record[name] = getattr(flow, name)
        for name in ("source", "destination"):
            record[f"{name}_address"] = np.void(ipaddress.ip_address(getattr(flow, name)).packed.ljust(16, b"\0"))
    verdict: list[bool] = compile_filter(text, "records").record_mask(records, NO_LOOKUPS).tolist()
    return verdict


def flows_of(observer: Observer, frames: Sequence[bytes], direction: Direction) -> list[SeenFlow]:
    flows = []
    for frame in frames:
        observer.see(frame, direction=direction)
        flows += observer.take(direction).flows
    assert len(flows) == len(frames)
    return flows


def filtered(text: str, *, observation_points: bool = True, whole: bool = False) -> FlowProgram:
    pushed = split(compile_filter(text), observation_points=observation_points)
    assert pushed.expression and not pushed.rest
    return loaded(pushed.expression, whole=whole)


SLOW = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is not installed")
@SLOW
@given(expressions(PRIMITIVES), PACKETS)
def test_kernel_mask_and_tcpdump_agree(everything: Observer, tmp_path: Path, text: str, numbers: list[int]) -> None:
    frames = [packet(number) for number in numbers]
    expected = tcpdumps_verdict(tmp_path, text, frames)
    assert masks_verdict(text, flows_of(everything, frames, Direction.INGRESS)) == expected
    with closing(filtered(text)) as program:
        assert kernels_verdict(Observer(program), frames, Direction.INGRESS) == expected


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is not installed")
def test_a_flow_in_tcpdumps_words_is_its_packets_and_no_others(everything: Observer, tmp_path: Path) -> None:
    later = f.fragment_header(f.UDP, 7, offset=24, more=False)
    frames = [
        *(f.ethernet(f.IPV4, f.ipv4(f.icmp(kind, code), f.ICMP)) for kind, code in ((3, 0), (3, 1), (8, 0))),
        *(f.ethernet(f.IPV6, f.ipv6(f.icmp(kind, code), f.ICMPV6)) for kind, code in ((1, 0), (1, 4), (128, 0))),
        f.ethernet(f.IPV4, f.ipv4(f.udp(53, 9, bytes(16)), f.UDP)),
        f.ethernet(f.IPV4, f.ipv4(bytes(16), f.UDP, identification=77, offset=24)),
        f.ethernet(f.IPV6, f.ipv6(f.udp(53, 9, bytes(16)), f.UDP)),
        f.ethernet(f.IPV6, f.ipv6(later + bytes(16), 44)),
    ]
    for number, flow in enumerate(flows_of(everything, frames, Direction.INGRESS)):
        ends = {f"{name}_address": ipaddress.ip_address(getattr(flow, name)).packed.ljust(16, b"\0")
                for name in ("source", "destination")}
        row = flow_row(**ends, **{name: getattr(flow, name) for name in (
            "source_port", "destination_port", "protocol", "ip_version", "kind")})
        expected = [number == other for other in range(len(frames))]
        assert tcpdumps_verdict(tmp_path, flow_as_tcpdump(row), frames) == expected, flow_as_tcpdump(row)


OURS = st.sampled_from(["private", "src private", "dir in", "dir out", "vlan", "vlan 5", "vlan > 5", "icmptype 8",
                        "icmptype < 8", "vlan 7.5", "vlan 5.0", "port 22,80", "10.0.0.1:443",
                        "[2001:db8::1]:53", "dst port > 80", "proto != 6"])


@SLOW
@given(expressions(st.one_of(OURS, PRIMITIVES)), PACKETS, st.sampled_from(Direction),
       st.sampled_from([(), (5,), (7, 5)]))
def test_kernel_and_mask_agree_in_our_own_words(everything: Observer, text: str, numbers: list[int],
                                                direction: Direction, tags: tuple[int, ...]) -> None:
    frames = [packet(number) for number in numbers]
    frames = [frame[:12] + b"".join(struct.pack(">HH", f.VLAN, tag) for tag in tags) + frame[12:] for frame in frames]
    with closing(filtered(text)) as program:
        assert kernels_verdict(Observer(program), frames, direction) == masks_verdict(
            text, flows_of(everything, frames, direction))


@pytest.mark.core
def test_what_is_not_wanted_is_in_the_books_and_in_no_flow() -> None:
    with closing(filtered("tcp port 443 and not net 2001:db8::/32")) as program:
        observer = Observer(program)
        wanted = f.ethernet(f.IPV4, f.ipv4(f.tcp(443, 5, f.ACK, bytes(100)), f.TCP))
        other = f.ethernet(f.IPV4, f.ipv4(f.udp(443, 5, bytes(100)), f.UDP))
        six = f.ethernet(f.IPV6, f.ipv6(f.tcp(443, 5, f.ACK), f.TCP))
        arp = f.ethernet(f.ARP, bytes(28))
        for frame in (wanted, wanted, other, six, arp):
            observer.see(frame)
        books = observer.take()
        books.assert_balanced()
        assert [(flow.protocol, flow.packets, flow.octets) for flow in books.flows] == [(6, 2, 2 * 140)]
        assert books.total("filtered_packets") == 2
        assert books.total("filtered_octets") == (20 + 8 + 100) + (40 + 20)
        assert books.ignored() == {"arp": (1, 28)}


def test_later_fragments_share_their_firsts_fate() -> None:
    with closing(filtered("udp port 53")) as program:
        observer = Observer(program)
        for port, number in ((53, 1), (80, 2)):
            for offset, payload in ((0, f.udp(port, 9, bytes(16))), (24, bytes(16))):
                observer.see(f.ethernet(f.IPV4, f.ipv4(payload, f.UDP, identification=number, offset=offset,
                                                       more=not offset)))
        observer.see(f.ethernet(f.IPV4, f.ipv4(bytes(16), f.UDP, identification=99, offset=24)))  # no first
        books = observer.take()
        books.assert_balanced()
        assert [(flow.source_port, flow.packets) for flow in books.flows] == [(53, 2)]
        assert books.total("filtered_packets") == 3
        assert books.total("unjoined_fragments") == 0, "that counts fragments in flows of their own"


@pytest.mark.core
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.types)],
                         ids=["flows", "owners and names"])
def test_the_largest_filter_that_is_pushed_down_loads(whole: bool) -> None:
    hosts = " or ".join(f"host 2001:db8::{number:x}" for number in range(32))
    with closing(filtered(hosts, whole=whole)) as program:
        assert not program.owners_refused and not program.names_refused
        observer = Observer(program)
        frames = [f.ethernet(f.IPV6, f.ipv6(f.udp(1, 2), f.UDP, source=f"2001:db8::{n:x}", destination="::9"))
                  for n in (31, 32)]
        assert kernels_verdict(observer, frames, Direction.INGRESS) == [True, False]
