"""Which flows pass: a table worked out by hand, and properties against a plain Python reading of the same tests."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.filters.errors import FilterError
from flowtop.filters.filter import compile_filter
from flowtop.filters.tree import as_text
from flowtop.model.kinds import Kind
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from flowtop.text.names import KnownNames
from tests.unit.factories import ACK, FIN, SECOND, START_NS, SYN
from tests.unit.filters.flows import INTERFACES, NOW_NS, passing, records, table

FLOWS: dict[str, dict[str, Any]] = {
    "https": dict(source="10.0.0.5", destination="198.51.100.7", source_port=51514, destination_port=443,
                  direction=1, tcp_control_bits=SYN | ACK, octet_delta=250_000, packet_delta=200,
                  octet_total=17_300_000, packet_total=12_000, octets_10s=10_000, octets_60s=100,
                  octet_rate_peak=3e6, tos=46 << 2, ttl=64,
                  source_mac=b"\2\0\0\0\0\x0a", destination_mac=b"\2\0\0\0\0\x0b"),
    "dns6": dict(source="2001:db8::1", destination="fd00::2", protocol=17, source_port=53, destination_port=40112,
                 ifindex=4, ttl=3, tos=10 << 2),
    "ssh": dict(source="192.168.1.1", destination="10.0.0.5", source_port=22, destination_port=50_000, vlan_id=100,
                customer_vlan_id=7, tcp_control_bits=SYN | ACK | FIN, first_ns=NOW_NS - 3 * SECOND,
                last_ns=NOW_NS - SECOND),
    "ping": dict(source="10.0.0.1", destination="192.0.2.1", protocol=1, destination_port=8 << 8, ifindex=3,
                 duplicate=True),
    "gre": dict(source="203.0.113.1", destination="203.0.113.2", protocol=47, end_reason=1, vlan_id=9),
    "mdns": dict(source="10.0.0.1", destination="224.0.0.251", protocol=17, source_port=5353, destination_port=5353),
    "fragment": dict(source="10.9.0.1", destination="10.9.0.2", protocol=17, kind=Kind.FRAGMENT),
}
ALL = set(FLOWS)

MEANINGS: dict[str, set[str]] = {
    "tcp": {"https", "ssh"},
    "udp": {"dns6", "mdns", "fragment"},
    "icmp": {"ping"},
    "icmp6": set(),
    "ip": ALL - {"dns6"},
    "ip6": {"dns6"},
    "text WG": {"dns6"},
    "text veth or wg": {"dns6", "ping"},
    "text 10.9": {"fragment"},
    "text 2001:db8:": {"dns6"},
    "text nothing-of-that-name": set(),
    "protocol udp": {"dns6", "mdns", "fragment"},
    "interface wg0": {"dns6"},
    "direction out": {"https"},
    "proto 47": {"gre"},
    "proto gre": {"gre"},
    r"ip proto \udp": {"mdns", "fragment"},
    "ip6 proto 17": {"dns6"},
    "proto != 6": ALL - {"https", "ssh"},
    "host 10.0.0.5": {"https", "ssh"},
    "src host 10.0.0.5": {"https"},
    "dst 10.0.0.5": {"ssh"},
    "src and dst net 203.0.113.0/24": {"gre"},
    "src or dst host fd00::2": {"dns6"},
    "host 2001:DB8:0::1": {"dns6"},
    "10.0.0.5": {"https", "ssh"},
    "10.0.0.5 and 192.168.1.1": {"ssh"},
    "host 10.0.0.5 or 192.0.2.1": {"https", "ssh", "ping"},
    "not host 10.0.0.5 and 192.0.2.1": {"ping"},
    "tcp host 10.0.0.1 or 10.0.0.5": {"https", "ssh"},
    "net 10/8": {"https", "ssh", "ping", "mdns", "fragment"},
    "net 10.9": {"fragment"},
    "192.168.0.0/16": {"ssh"},
    "dst net 198.51.100.0 mask 255.255.255.0": {"https"},
    "net 2001:db8::/32": {"dns6"},
    "net ::/0": {"dns6"},
    "net 0.0.0.0/0": ALL - {"dns6"},
    "port 443": {"https"},
    "dst port 443": {"https"},
    "src port 443": set(),
    "port 22 or 53": {"ssh", "dns6"},
    "port 22,53": {"ssh", "dns6"},
    "tcp port 53 or 22": {"ssh"},
    "udp src port 53": {"dns6"},
    "not port 443": ALL - {"https"},
    "not tcp port 22": ALL - {"ssh"},
    "portrange 1-1024": {"https", "dns6", "ssh"},
    "port 20-25": {"ssh"},
    "src port >= 5353": {"https", "mdns"},
    "port < 50": {"ssh"},
    "port ssh": {"ssh"},
    "10.0.0.5:51514": {"https"},
    "dst 10.0.0.5:50000": {"ssh"},
    "[2001:db8::1]:53": {"dns6"},
    "10.0.0.5:443": set(),
    "if eth0": ALL - {"dns6", "ping"},
    "if veth*": {"ping"},
    "if wg0 or veth1": {"dns6", "ping"},
    "if wg0,veth1": {"dns6", "ping"},
    'if "*0"': ALL - {"ping"},
    "if ~ ETH": ALL - {"dns6"},
    "if !~ eth": {"dns6"},
    "if != eth0": {"dns6", "ping"},
    "dir out": {"https"},
    "dir in": ALL - {"https"},
    "vlan": {"ssh", "gre"},
    "not vlan": ALL - {"ssh", "gre"},
    "vlan 100": {"ssh"},
    "vlan 7": {"ssh"},
    "vlan > 8": {"ssh", "gre"},
    "vlan 7 or 9": {"ssh", "gre"},
    "private": {"ssh", "mdns", "fragment"},
    "src private": {"https", "ssh", "ping", "mdns", "fragment"},
    "dst private": {"dns6", "ssh", "mdns", "fragment"},
    "not src private": {"dns6", "gre"},
    "bytes > 10M": {"https"},
    "bytes > 10 M": {"https"},
    "bytes > 16.5 MiB and tcp": set(),
    "bytes >= 17300000": {"https"},
    "bytes > 17.3M": set(),
    "bytes > 16Mi": {"https"},
    "bytes > 17Mi": set(),
    "packets = 1": ALL - {"https"},
    "packets 12k": {"https"},
    "rate >= 1Mbit": {"https"},       # 250,000 octets in 2 s: 1 Mb/s
    "rate > 1Mbit": set(),
    "rate >= 1 Mb/s": {"https"},
    "rate >= 1001 kb/s": set(),
    "rate >= 125kB/s": {"https"},
    "rate >= 126kBps": set(),
    "rate_10s = 8kbps": {"https"},    # 10,000 octets in 10 s
    "rate_60s >= 40": {"https"},      # 100 octets in 20 s
    "peak > 20Mbit": {"https"},       # 3,000,000 octets a second
    "pps >= 100": {"https"},
    "age < 5s": {"ssh"},
    "age <= 2000ms": {"ssh"},
    "age <= 2000 ms": {"ssh"},
    "age <= 2000000 µs": {"ssh"},
    "age < 2000000µs": set(),
    "age >= 1m40s": ALL - {"ssh"},
    "idle >= 1": {"ssh"},
    "state ended": {"gre"},
    "state closing": {"ssh"},
    "state active": ALL - {"gre", "ssh"},
    "state != active": {"gre", "ssh"},
    "dscp ef": {"https"},
    "dscp 46": {"https"},
    "dscp ef or af11": {"https", "dns6"},
    "dscp be": ALL - {"https", "dns6"},
    "tos 0xb8": {"https"},
    "ttl < 5": ALL - {"https"},
    "ttl 3": {"dns6"},
    "flags syn": {"https", "ssh"},
    "flags syn+ack": {"https", "ssh"},
    "flags tcp-fin": {"ssh"},
    "flags SF": {"ssh"},
    "flags S.": {"https", "ssh"},
    "flags none": ALL - {"https", "ssh"},
    "flags != fin": ALL - {"ssh"},
    "icmptype 8": {"ping"},
    "icmptype 8 icmpcode 0": {"ping"},
    "icmpcode 1": set(),
    "icmpcode != 0": ALL - {"ping"},
    "fragment": {"fragment"},
    "udp and not fragment": {"dns6", "mdns"},
    "vlan 100.7": {"ssh"},
    "vlan 7.100": set(),
    "vlan 9.0": {"gre"},
    "vlan 100.0 or 9.0": {"gre"},
    "not vlan 100.7 vlan": {"gre"},
    "port domain": {"dns6"},
    "src port domain": {"dns6"},
    "udp port l2tp,domain": {"dns6"},
    "portrange ssh-https": {"https", "dns6", "ssh"},
    "port http-alt": set(),
    "icmptype > 8": set(),
    "icmptype >= 3": {"ping"},
    "mac 02:00:00:00:00:0b": {"https"},
    "ether src 2:0:0:0:0:a": {"https"},
    "ether dst host 02-00-00-00-00-0a": set(),
    "duplicate": {"ping"},
    "not duplicate": ALL - {"ping"},
    # joining
    "tcp or udp and port 53": {"dns6"},                       # from left to right, as in tcpdump
    "tcp or (udp and port 53)": {"https", "ssh", "dns6"},
    "tcp or udp port 53": {"https", "ssh", "dns6"},
    "vlan or udp private": {"ssh", "gre", "mdns", "fragment"},  # side by side binds closer
    "tcp dir in": {"ssh"},
    "tcp && !port 22 || icmp": {"https", "ping"},
    "NOT TCP AND NOT UDP": {"ping", "gre"},
    "not not tcp": {"https", "ssh"},
    "not (tcp or udp)": {"ping", "gre"},
    "(port 22 or 53) or 443": {"ssh", "dns6", "https"},
    "bytes>10M and(tcp)": {"https"},
}


@pytest.mark.parametrize("text", MEANINGS)
def test_a_filter_means(text: str) -> None:
    assert passing(text, FLOWS) == MEANINGS[text]


@pytest.mark.parametrize("text", MEANINGS)
def test_what_a_filter_is_told_as_means_the_same(text: str) -> None:
    told = as_text(compile_filter(text).tree)
    assert passing(told, FLOWS) == MEANINGS[text]
    assert as_text(compile_filter(told).tree) == told


@pytest.mark.parametrize("text", MEANINGS)
def test_few_and_many_flows_are_judged_alike(text: str) -> None:
    many = {f"{name} {n}": flow for name, flow in FLOWS.items() for n in range(40 if name == "gre" else 1)}
    assert {name.split()[0] for name in passing(text, many)} == MEANINGS[text]


def test_an_aggregate_passes_unless_what_is_known_of_it_speaks_against_it() -> None:
    rest = {"rest": dict(kind=Kind.AGGREGATE, source="0.0.0.0", destination="0.0.0.0", octet_total=5_000),
            "other": dict()}
    for text in ("tcp port 443", "not tcp port 443", "host 198.51.100.7", "tcp and ttl 200", "bytes > 1k", "if eth0"):
        assert "rest" in passing(text, rest), text
    for text in ("udp port 443", "not tcp", "bytes < 1k", "dir out", "if wg0", "ip6 or bytes > 1G"):
        assert "rest" not in passing(text, rest), text


def test_an_interface_without_a_name_is_called_as_on_screen() -> None:
    assert passing("if if77", {"a": dict(ifindex=77), "b": dict()}) == {"a"}


RECORDS = {"a": dict(octet_delta=5_000, packet_delta=5, octet_total=10**9, start_ms=1_000, end_ms=9_000, end_reason=2),
           "b": dict(octet_delta=50, packet_delta=1, start_ms=1_000, end_ms=1_500, end_reason=3, protocol=17,
                     tcp_control_bits=FIN),
           "c": dict(octet_delta=50, packet_delta=1, start_ms=1_000, end_ms=1_500, end_reason=2, tcp_control_bits=FIN)}


@pytest.mark.parametrize(("text", "expected"), [
    ("bytes > 1k", {"a"}), ("packets 1", {"b", "c"}), ("age >= 8s", {"a"}), ("state ended", {"b"}),
    ("state closing", {"c"}), ("state active", {"a"}), ("udp", {"b"}), ("if eth0", {"a", "b", "c"}), ("if wg*", set()),
    ("host 10.0.0.1 and tcp", {"a", "c"}), ("not private", set()), ("not duplicate", {"a", "b", "c"}),
])
def test_flow_records_are_filtered_by_what_they_hold(text: str, expected: set[str]) -> None:
    mask = compile_filter(text, "records").record_mask(records(list(RECORDS.values())), INTERFACES)
    assert {name for name, passes in zip(RECORDS, mask.tolist(), strict=True) if passes} == expected


@pytest.mark.parametrize("text", ["rate > 1M", "pps > 1", "peak > 1", "idle > 5s", "tcp and rate_10s > 1"])
def test_what_a_flow_record_does_not_have_is_refused_when_compiled(text: str) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(text, "records")
    assert "exported records" in caught.value.problem


ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.1.1", "10.128.0.1", "192.0.2.1", "224.0.0.1", "172.31.255.255",
                             "172.32.0.0", "100.127.0.1", "0.0.0.0", "255.255.255.255"])
ADDRESSES6 = st.sampled_from(["::", "::1", "2001:db8::1", "2001:db8:0:1::1", "fe80::1", "fdff::1", "fe00::", "ff02::1"])
PORTS = st.sampled_from([0, 22, 53, 80, 443, 1024, 65535])


@st.composite
def flow(draw: st.DrawFn) -> dict[str, Any]:
    addresses = draw(st.sampled_from([ADDRESSES, ADDRESSES6]))
    protocol = draw(st.sampled_from([1, 6, 17, 47, 58, 132]))
    ported = protocol in (6, 17, 132)
    return dict(source=draw(addresses), destination=draw(addresses), protocol=protocol,
                source_port=draw(PORTS) * ported, destination_port=draw(PORTS) * ported,
                direction=draw(st.integers(0, 1)), vlan_id=draw(st.sampled_from([0, 1, 100])),
                octet_total=draw(st.integers(0, 3000)))


Test = tuple[str, Callable[[dict[str, Any]], bool]]


def test_of_network(word: str, text: str) -> Test:
    network = ipaddress.ip_network(text)

    def holds(flow: dict[str, Any]) -> bool:
        source, destination = (ipaddress.ip_address(flow[end]) in network for end in ("source", "destination"))
        return {"src": source, "dst": destination, "src and dst": source and destination}.get(
            word, source or destination)

    return f"{word} net {text}", holds


test_of_network.__test__ = False  # type: ignore[attr-defined]

NETWORKS = ["10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/32", "172.16.0.0/12", "0.0.0.0/0", "2001:db8::/32", "2001:db8::/63",
            "2001:db8::/64", "fe00::/8", "::/1", "::1/128", "128.0.0.0/1"]
TESTS: st.SearchStrategy[Test] = st.one_of(
    st.builds(test_of_network, st.sampled_from(["", "src", "dst", "src or dst", "src and dst"]),
              st.sampled_from(NETWORKS)),
    PORTS.map(lambda port: (f"port {port}", lambda flow: flow["protocol"] in (6, 17, 132) and port in (
        flow["source_port"], flow["destination_port"]))),
    st.tuples(PORTS, PORTS).map(sorted).map(lambda span: (f"src portrange {span[0]}-{span[1]}", lambda flow: (
        flow["protocol"] in (6, 17, 132) and span[0] <= flow["source_port"] <= span[1]))),
    st.sampled_from([6, 17, 47]).map(lambda n: (f"proto {n}", lambda flow: flow["protocol"] == n)),
    st.integers(0, 3000).map(lambda n: (f"bytes >= {n}", lambda flow: flow["octet_total"] >= n)),
    st.sampled_from([("dir out", lambda flow: flow["direction"] == 1), ("vlan", lambda flow: flow["vlan_id"] != 0),
                     ("ip6", lambda flow: ":" in flow["source"])]),
)


def negation(test: Test) -> Test:
    return f"not ({test[0]})", lambda flow: not test[1](flow)


def joined(tests: list[Test], word: str) -> Test:
    texts = f" {word} ".join(f"({text})" for text, _ in tests)
    return texts, lambda flow: (all if word != "or" else any)(holds(flow) for _, holds in tests)


EXPRESSIONS = st.recursive(TESTS, lambda inner: st.one_of(
    inner.map(negation),
    st.builds(joined, st.lists(inner, min_size=2, max_size=4), st.sampled_from(["and", "or", ""]))),
    max_leaves=8)


@settings(max_examples=100, deadline=None)
@given(st.lists(flow(), min_size=1, max_size=30), EXPRESSIONS)
def test_masks_equal_a_plain_reading(flows: list[dict[str, Any]], test: Test) -> None:
    text, holds = test
    mask = compile_filter(text).mask(table(flows), INTERFACES)
    assert mask.tolist() == [holds(flow) for flow in flows]


def test_a_mask_of_no_flows_is_empty() -> None:
    for text in MEANINGS:
        assert compile_filter(text).mask(table([]), NO_LOOKUPS).shape == (0,)


def test_filters_of_one_text_are_equal() -> None:
    assert compile_filter("tcp") == compile_filter("tcp")
    assert compile_filter("tcp") != compile_filter("udp")
    assert len({compile_filter("tcp"), compile_filter("tcp")}) == 1


def test_private_is_what_python_calls_so_and_multicast() -> None:
    """IPv4 and IPv6 blocks as the IANA registries have them, read by Python's ipaddress."""
    rng = np.random.default_rng(4)
    addresses = [str(ipaddress.ip_address(int(n))) for n in rng.integers(0, 2**32, 3000, dtype=np.uint64)]
    addresses += ["10.255.255.255", "172.31.255.255", "192.168.0.0", "169.254.9.9", "127.0.0.1"]
    blocks = [ipaddress.ip_network(block) for block in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8")]
    expected = [any(ipaddress.ip_address(a) in b for b in blocks) or ipaddress.ip_address(a).is_multicast
                for a in addresses]
    flows = [dict(source=address, first_ns=START_NS) for address in addresses]
    assert compile_filter("src private").mask(table(flows), NO_LOOKUPS).tolist() == expected


HOSTS = KnownNames(1, {bytes([10, 0, 0, 5]): "Db.Example.org", bytes([198, 51, 100, 7]): "www.example.com",
                       ipaddress.ip_address("2001:db8::1").packed: "six.example.org",
                       bytes([192, 168, 1, 1]): "gateway"})


@pytest.mark.parametrize(("text", "names"), [
    ("name ~ EXAMPLE", {"https", "dns6", "ssh"}),
    ("name ~ example.org", {"https", "dns6", "ssh"}),
    ("name ~ example.com", {"https"}),
    ("name *.example.org", {"https", "dns6", "ssh"}),
    ("name = example.org", set()),
    ("name gateway", {"ssh"}),
    ("name ~ six or gate", {"dns6", "ssh"}),
    ("src name ~ example", {"https", "dns6"}),
    ("dst name ~ example", {"https", "ssh"}),
    ("src and dst name ~ example", {"https"}),
    ("not name ~ example", ALL - {"https", "dns6", "ssh"}),
    ("name !~ example", ALL - {"https", "dns6", "ssh"}),
    ("name != gateway and tcp", {"https"}),
    ("name ~ '['", set()),
    ("udp and name ~ e", {"dns6"}),
])
def test_names_that_are_known_are_asked(text: str, names: set[str]) -> None:
    wanted = compile_filter(text)
    flows = table(list(FLOWS.values()))
    assert wanted.of_names
    found = wanted.mask(flows, replace(INTERFACES, hosts=HOSTS))
    assert {name for name, passes in zip(FLOWS, found, strict=True) if passes} == names
    again = compile_filter(as_text(wanted.tree))
    assert np.array_equal(again.mask(flows, replace(INTERFACES, hosts=HOSTS)), found)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([4, 6]), st.integers(0, 3000))
def test_many_names_are_found_as_python_finds_them(seed: int, version: int, known: int) -> None:
    rng = np.random.default_rng(seed)
    size = 4 if version == 4 else 16
    pool = [rng.bytes(size) for _ in range(5000)]
    picked = [pool[index] for index in rng.integers(0, 5000, 400)]
    flows = table([{"source": "::" if version == 6 else "0.0.0.0", "destination": "::1"}] * 400)
    flows.columns["source_address"] = np.array([address.ljust(16, b"\0") for address in picked], "V16")
    flows.columns["ip_version"] = version
    names = KnownNames(1, dict.fromkeys(pool[:known], "x") | {rng.bytes(20 - size): "x"})
    found = compile_filter("src name x").mask(flows, Lookups(hosts=names))
    wanted = set(pool[:known])
    assert found.tolist() == [address in wanted for address in picked]


def test_ports_are_found_by_a_part_of_their_services_names() -> None:
    lines = Path("/etc/services").read_text().splitlines()
    found = {words[1] for words in map(str.split, lines)
             if len(words) > 1 and "http" in words[0] and words[1].endswith(("/tcp", "/udp"))}
    ports = {int(words.partition("/")[0]) for words in found}
    flows = table([dict(destination_port=port) for port in range(1, 32768)])
    mask = compile_filter("dst port ~ HTTP").mask(flows, NO_LOOKUPS)
    assert set((np.flatnonzero(mask) + 1).tolist()) == {port for port in ports if port < 32768}
    assert np.array_equal(compile_filter("dst port !~ http").mask(flows, NO_LOOKUPS), ~mask)


def test_texts_of_two_columns_are_looked_up_in_their_own() -> None:
    """Each column has its own different values, however alike they are kept."""
    vrfs = Lookups({}, texts={"vrfs": {1: "red", 2: "blue", 3: "green"}})
    flows = table([dict(ingress_vrf=1, egress_vrf=2), dict(ingress_vrf=2, egress_vrf=1), dict(ingress_vrf=3)])
    for text, expected in (("in_vrf red and out_vrf blue", [True, False, False]),
                           ("in_vrf green or out_vrf red", [False, True, True]),
                           ("text red", [True, True, False]), ("text green", [False, False, True])):
        assert compile_filter(text).mask(flows, vrfs).tolist() == expected, text
