"""Community IDs: the published test vectors, what tshark computes, and the text of the specification in Python."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.filters.filter import compile_filter
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.community import community_id, digest_of, digests, text_of
from flowtop.model.kinds import Kind
from flowtop.query.answer import Answerer
from flowtop.query.query import Query
from tests.kernel import frames as f
from tests.unit.capture.files import writers as w
from tests.unit.factories import SECOND, START_NS, batch, counters, key, packed

VECTORS = [  # of corelight/community-id-spec, Zeek's and Wireshark's tests
    ("128.232.110.120", 34855, "66.35.250.204", 80, 6, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
    ("1.2.3.4", 1122, "5.6.7.8", 3344, 6, "1:wCb3OG7yAFWelaUydu0D+125CLM="),
    ("1.2.3.4", 1122, "5.6.7.8", 3344, 17, "1:0Mu9InQx6z4ZiCZM/7HXi2WMhOg="),
    ("1.2.3.4", 0, "5.6.7.8", 8 << 8, 1, "1:crodRHL2FEsHjbv3UkRrfbs4bZ0="),
    ("5.6.7.8", 0, "1.2.3.4", 0, 1, "1:crodRHL2FEsHjbv3UkRrfbs4bZ0="),
    ("fe80:1:203:405:607:809:a0b:c0d", 0, "fe80:1011:1213:1415:1617:1819:1a1b:1c1d", 128 << 8, 58,
     "1:0bf7hyMJUwt3fMED7z8LIfRpBeo="),
    ("fe80:1011:1213:1415:1617:1819:1a1b:1c1d", 0, "fe80:1:203:405:607:809:a0b:c0d", 129 << 8, 58,
     "1:0bf7hyMJUwt3fMED7z8LIfRpBeo="),
    ("1.2.3.4", 0, "5.6.7.8", 0, 46, "1:ikv3kmf89luf73WPz1jOs49S768="),
]


def of(source: str, source_port: int, destination: str, destination_port: int, protocol: int) -> str:
    return community_id(packed(source), packed(destination), source_port, destination_port, protocol,
                        ipaddress.ip_address(source).version)


@pytest.mark.parametrize(("source", "source_port", "destination", "destination_port", "protocol", "expected"), VECTORS)
def test_published_vectors(source: str, source_port: int, destination: str, destination_port: int, protocol: int,
                           expected: str) -> None:
    assert of(source, source_port, destination, destination_port, protocol) == expected
    if protocol not in (1, 58):
        assert of(destination, destination_port, source, source_port, protocol) == expected


@pytest.mark.parametrize(("first", "second"), [
    (("10.0.0.1", 1234, "127.0.0.1", 80, 6), ("127.0.0.1", 80, "10.0.0.1", 1234, 6)),
    (("10.0.0.1", 80, "10.0.0.1", 81, 132), ("10.0.0.1", 81, "10.0.0.1", 80, 132)),
    (("200.0.0.1", 0, "10.0.0.1", 13 << 8, 1), ("10.0.0.1", 0, "200.0.0.1", 14 << 8, 1)),
    (("200.0.0.1", 0, "10.0.0.1", 17 << 8, 1), ("10.0.0.1", 0, "200.0.0.1", 18 << 8, 1)),
    (("2001:db8::1", 0, "2001:db8::2", 135 << 8, 58), ("2001:db8::2", 0, "2001:db8::1", 136 << 8, 58)),
    (("2001:db8::9", 0, "2001:db8::2", 0, 50), ("2001:db8::2", 0, "2001:db8::9", 0, 50)),
])
def test_both_directions_have_the_same(first: tuple[Any, ...], second: tuple[Any, ...]) -> None:
    assert of(*first) == of(*second)


def test_one_way_messages_have_one_for_each_direction() -> None:
    assert of("10.0.0.1", 0, "10.0.0.2", 3 << 8 | 1, 1) != of("10.0.0.2", 0, "10.0.0.1", 3 << 8 | 1, 1)


def specified(one: bytes, one_port: int, other: bytes, other_port: int, protocol: int) -> str:
    """The pseudo code of the specification, for protocols with two ends."""
    if (one, one_port) > (other, other_port):
        one, one_port, other, other_port = other, other_port, one, one_port
    ports = struct.pack(">HH", one_port, other_port) if protocol in (6, 17, 132) else b""
    digest = hashlib.sha1(bytes(2) + one + other + bytes((protocol, 0)) + ports, usedforsecurity=False).digest()
    return "1:" + base64.b64encode(digest).decode()


_address = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1))


@settings(deadline=None)
@given(st.lists(st.tuples(_address, _address, st.booleans(), st.integers(0, 65_535), st.integers(0, 65_535),
                          st.sampled_from([6, 17, 132, 47, 50, 33, 136, 0, 255])), min_size=1, max_size=20))
def test_many_at_once_are_as_specified(flows: list[tuple[Any, ...]]) -> None:
    keys = []
    expected = []
    for one, other, v6, one_port, other_port, protocol in flows:
        ends = [ipaddress.IPv6Address(0x20010DB8 << 96 | end) if v6 else ipaddress.IPv4Address(end)
                for end in (one, other)]
        keys.append(key(str(ends[0]), str(ends[1]), one_port, other_port, protocol))
        expected.append(specified(ends[0].packed, one_port, ends[1].packed, other_port, protocol))
    found = digests(np.concatenate(keys))
    assert [text_of(row.astype(">u4").tobytes()) for row in found] == expected
    assert [community_id(packed(str(ipaddress.ip_address(bytes(k["source_address"][0])[:4 if k["ip_version"] == 4
                                                                                         else 16]))),
                         bytes(k["destination_address"][0]), int(k["source_port"][0]), int(k["destination_port"][0]),
                         int(k["protocol"][0]), int(k["ip_version"][0])) for k in keys] == expected


def test_aggregates_and_later_fragments_have_none() -> None:
    keys = np.concatenate([key(kind=kind) for kind in (Kind.AGGREGATE, Kind.FRAGMENT, Kind.FLOW)])
    assert digests(keys).any(axis=1).tolist() == [False, False, True]


@pytest.mark.parametrize("text", ["", "1:", "2:wCb3OG7yAFWelaUydu0D+125CLM=", "1:wCb3OG7yAFWelaUydu0D+125CL",
                                  "1:wCb3OG7yAFWelaUydu0D+125CLMM=", "1:wCb3OG7yAFWelaUydu0D*125CLM="])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        digest_of(text)


def flow_table() -> FlowTable:
    flows = FlowTable(TableConfig())
    entries = [(key(source, destination, source_port, destination_port, protocol),
                counters(number + 1, 100, START_NS + number))
               for number, (source, source_port, destination, destination_port, protocol, _) in enumerate(VECTORS)]
    flows.update(batch(entries, START_NS + SECOND))
    return flows


@pytest.mark.parametrize("text", [
    "1:crodRHL2FEsHjbv3UkRrfbs4bZ0", '"1:crodRHL2FEsHjbv3UkRrfbs4bZ0="',
    "1:crodRHL2FEsHjbv3UkRrfbs4bZ0=", "= 1:crodRHL2FEsHjbv3UkRrfbs4bZ0=", "1:crodRHL2FEsHjbv3UkRrfbs4bZ0=&&icmp",
    "1:crodRHL2FEsHjbv3UkRrfbs4bZ0= and (not community 1:0Mu9InQx6z4ZiCZM/7HXi2WMhOg=)"])
def test_filters_and_groups(text: str) -> None:
    answer = Answerer().answer(Query(filter=compile_filter(f"community {text}")), flow_table())
    assert sorted((row.protocol, row.packet_total) for row in answer.rows) == [(1, 4), (1, 5)]
    groups = Answerer().answer(Query(group=("community",), limit=None), flow_table())
    assert sorted(row.packet_total for row in groups.rows) == [1, 2, 3, 8, 4 + 5, 6 + 7]
    assert [row.protocol for row in Answerer().answer(Query(sort="community", limit=None), flow_table()).rows]


def test_in_json_and_in_exported_records(tmp_path: Path) -> None:
    frames = [f.ethernet(f.IPV4, f.ipv4(f.tcp(1122, 3344, f.SYN), f.TCP, source="1.2.3.4", destination="5.6.7.8")),
              f.ethernet(f.IPV4, f.ipv4(f.udp(1122, 3344), f.UDP, source="1.2.3.4", destination="5.6.7.8"))]
    (tmp_path / "x.pcap").write_bytes(w.pcap((number * w.SECOND, frame) for number, frame in enumerate(frames, 1)))
    done = subprocess.run([sys.executable, "-m", "flowtop", "-b", "-o", "json", "-r", str(tmp_path / "x.pcap"), "-e",
                           f"jsonl:{tmp_path / 'x.jsonl'}"], capture_output=True, check=True, timeout=60)
    expected = {6: "1:wCb3OG7yAFWelaUydu0D+125CLM=", 17: "1:0Mu9InQx6z4ZiCZM/7HXi2WMhOg="}
    for flows in (json.loads(done.stdout)["flows"], map(json.loads, (tmp_path / "x.jsonl").read_text().splitlines())):
        assert {flow["protocolIdentifier"]: flow["communityId"] for flow in flows} == expected


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_every_icmp_type_is_as_in_tshark(tmp_path: Path) -> None:
    """Except messages that tshark calls malformed: it gives none for these."""
    frames, expected = [], []
    for kind in range(256):
        for source, destination in (("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1")):
            frames.append(f.ethernet(f.IPV4, f.ipv4(f.icmp(kind, 1, bytes(36)), f.ICMP, source=source,
                                                    destination=destination)))
            expected.append(of(source, 0, destination, kind << 8 | 1, 1))
        for source, destination in (("2001:db8::1", "2001:db8::2"), ("2001:db8::2", "2001:db8::1")):
            frames.append(f.ethernet(f.IPV6, f.ipv6(f.icmp(kind, 1, bytes(36)), f.ICMPV6, source=source,
                                                    destination=destination)))
            expected.append(of(source, 0, destination, kind << 8 | 1, 58))
    path = tmp_path / "icmp.pcap"
    path.write_bytes(w.pcap((number, frame) for number, frame in enumerate(frames)))
    done = subprocess.run(["tshark", "-r", str(path), "--enable-protocol", "communityid", "-T", "fields", "-e",
                           "communityid"], capture_output=True, text=True, check=True, timeout=120)
    pairs = [pair for pair in zip(done.stdout.split("\n")[:-1], expected, strict=True) if pair[0]]
    assert len(pairs) > 1000
    assert [found for found, _ in pairs] == [one for _, one in pairs]
