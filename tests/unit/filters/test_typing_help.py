"""Completion while typing, `=` and `!=` on cells, and a flow in another tool's words."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.fields.registry import COLUMNS
from flowtop.filters.completion import Completion, complete
from flowtop.filters.errors import FilterError
from flowtop.filters.filter import compile_filter
from flowtop.filters.terms import add_term, flow_as_filter, flow_as_tcpdump
from flowtop.model.kinds import Kind, Tunnel
from flowtop.query.answer import Answerer
from flowtop.query.measures import measured
from flowtop.query.query import Query
from flowtop.query.rows import flow_rows
from flowtop.text.lookups import Lookups
from tests.kernel import frames as f
from tests.unit.capture.files import writers as w
from tests.unit.factories import flow_row, packed
from tests.unit.fields.test_columns import ROWS
from tests.unit.filters.flows import table

SEEN = {"host": ["10.0.0.5", "192.0.2.1"], "port": ["443", "53"], "if": ["eth0", "veth1", "my if"]}
INTERFACES = Lookups({2: "eth0", 3: "wg0"})


def at_end(text: str) -> Completion:
    return complete(text, len(text), SEEN)


@pytest.mark.parametrize(("text", "start", "some", "none"), [
    ("", 0, {"host", "net", "port", "tcp", "rate", "if", "not", "src", "private"},
     {"and", "10.0.0.5", "eigrp", "eth0"}),
    ("tc", 0, {"tcp"}, {"udp", "host"}),
    ("tcp", 0, set(), {"tcp"}),
    ("tcp ", 4, {"and", "or", "port", "host", "src", "rate"}, {"eth0"}),
    ("tcp a", 4, {"and", "age"}, {"host"}),
    ("if ", 3, {"eth0", "veth1", '"my if"'}, {"10.0.0.5", "and", "tcp"}),
    ("if v", 3, {"veth1"}, {"eth0"}),
    ("if = ve", 5, {"veth1"}, {"eth0"}),
    ("state ", 6, {"active", "closing", "ended"}, {"and", "tcp"}),
    ("state active or ", 16, {"state", "tcp", "not"}, {"or"}),
    ("state active or cl", 16, {"closing"}, set()),
    ("host ", 5, {"10.0.0.5", "192.0.2.1"}, {"tcp", "443"}),
    ("src ", 4, {"host", "net", "port", "10.0.0.5", "or"}, {"tcp"}),
    ("tcp dst port 4", 13, {"443"}, {"53"}),
    ("(udp and po", 9, {"port", "portrange"}, {"pps"}),
    ("proto g", 6, {"gre"}, {"tcp"}),
    ("dscp e", 5, {"ef"}, {"af41"}),
    ("rate ", 5, set(), {"tcp"}),
])
def test_candidates_are_words_and_values_that_may_stand_there(text: str, start: int, some: set[str],
                                                               none: set[str]) -> None:
    found = at_end(text)
    assert found.start == start
    assert some <= set(found.candidates)
    assert not none & set(found.candidates)


def test_a_word_in_the_middle_is_completed_by_what_stands_before_it() -> None:
    assert complete("tc and port 80", 2).candidates[0] == "tcp"


def test_nothing_is_offered_after_what_is_wrong() -> None:
    assert at_end("tcp or or ").candidates == ()


@settings(max_examples=80, deadline=None)
@given(st.text(alphabet="tcp host()!='\"10./and or eth~>", max_size=30), st.integers(0, 30))
def test_completing_any_text_does_no_harm(text: str, cursor: int) -> None:
    found = complete(text, min(cursor, len(text)), SEEN)
    assert 0 <= found.start <= len(text)


def test_what_is_completed_compiles() -> None:
    for text in ("state ", "if ", "host ", "tcp dst port ", "dscp ", "dir ", "flags ", "proto "):
        for candidate in at_end(text).candidates:
            compile_filter(text + candidate)


# ---- = and != on a cell

ROW = flow_row(source_address=packed("10.0.0.5"), source_port=443, ifindex=3)


@pytest.mark.parametrize(("text", "column", "negate", "expected"), [
    ("", "source", False, "src host 10.0.0.5 and src port 443"),
    ("", "source", True, "not (src host 10.0.0.5 and src port 443)"),
    ("", "protocol", True, "not tcp"),
    ("udp", "interface", False, "udp and if wg0"),
    ("udp or icmp", "protocol", True, "(udp or icmp) and not tcp"),
    ("tcp", "protocol", False, "tcp"),
    ("bytes > 1k and tcp", "protocol", False, "bytes > 1k and tcp"),
    ("not tcp", "protocol", False, "tcp"),
    ("bytes > 1k and tcp", "protocol", True, "bytes > 1k and not tcp"),
    ("dir in and (udp or tcp)", "direction", True, "(udp or tcp) and not dir in"),
    ("", "vlan", False, "not vlan"),
    ("", "vlan", True, "vlan"),
])
def test_a_cell_is_added_to_the_filter(text: str, column: str, negate: bool, expected: str) -> None:
    assert add_term(text, column, ROW, negate, INTERFACES) == expected


@pytest.mark.parametrize("column", COLUMNS)
def test_what_comes_out_is_always_a_filter(column: str) -> None:
    for (name, row), text, negate in itertools.product(
            ROWS.items(), ("", "tcp or udp", "not private and bytes > 5"), (False, True)):
        first = add_term(text, column, row, negate, INTERFACES)
        if first:  # nothing is known in that cell: nothing to ask for
            compile_filter(first)
        assert add_term(first, column, row, negate, INTERFACES) == first, (name, text)


def test_a_text_that_is_no_filter_is_not_added_to() -> None:
    with pytest.raises(FilterError):
        add_term("tcp and", "protocol", ROW, False, INTERFACES)


# ---- hand-off

def test_a_flow_as_a_filter() -> None:
    assert flow_as_filter(ROW, INTERFACES) == (
        "if wg0 and dir in and not vlan and tcp and src host 10.0.0.5 and src port 443 and dst host 10.0.0.2 "
        "and dst port 80")


STACKS = ((0, 0), (100, 0), (200, 0), (100, 200), (200, 100), (100, 100))
CONFUSABLE = [
    *(dict(vlan_id=outer, customer_vlan_id=inner) for outer, inner in STACKS),
    *(dict(protocol=1, destination_port=kind << 8 | code) for kind, code in ((3, 0), (3, 1), (3, 3), (8, 0), (0, 3))),
    *(dict(protocol=17, kind=kind, source_port=port) for kind, port in ((Kind.FLOW, 53), (Kind.FRAGMENT, 0))),
    *(dict(protocol=17, source_port=53, direction=1, ifindex=ifindex) for ifindex in (2, 3)),
    *(dict(protocol=47, kind=kind) for kind in (Kind.FLOW, Kind.FRAGMENT)),
    *(dict(protocol=1, kind=Kind.FRAGMENT, source=source) for source in ("10.0.0.1", "10.0.0.11")),
    *(dict(protocol=58, source="2001:db8::1", destination="::2", destination_port=port) for port in (0x8000, 0x8001)),
    dict(protocol=58, source="2001:db8::1", destination="::2", kind=Kind.FRAGMENT),
]
"""Flows that differ in one thing from another one."""


def test_a_flow_as_a_filter_passes_it_and_no_other() -> None:
    flows = table(CONFUSABLE)
    rows = flow_rows(measured(flows), np.arange(len(CONFUSABLE)))
    for number, row in enumerate(rows):
        passes = compile_filter(flow_as_filter(row, INTERFACES)).mask(flows, INTERFACES)
        assert np.flatnonzero(passes).tolist() == [number], CONFUSABLE[number]


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_flow_as_a_filter_is_one(row: object) -> None:
    compile_filter(flow_as_filter(row, INTERFACES))  # type: ignore[arg-type]


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is not installed")
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_tcpdump_takes_a_flow_in_its_words(row: object) -> None:
    expression = flow_as_tcpdump(row)  # type: ignore[arg-type]
    done = subprocess.run(["tcpdump", "-d", "-y", "EN10MB", expression], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "rejects all packets" in done.stderr, f"{expression}: {done.stderr}"


@pytest.mark.skipif(not shutil.which("tcpdump"), reason="tcpdump is not installed")
@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("stacks", [STACKS, STACKS[1:2], STACKS[3:4], STACKS[:1], STACKS[1:3]])
def test_tcpdump_finds_every_packet_of_a_biflow_whatever_vlans_it_came_by(
        stacks: tuple[tuple[int, int], ...], both_ways: bool, tmp_path: Path) -> None:
    def frame(ports: tuple[int, int], hosts: tuple[int, int], tags: tuple[int, int]) -> bytes:
        source, destination = (f"10.0.0.{host}" for host in hosts)
        packet = f.ipv4(f.tcp(*ports, 0x10), f.TCP, source=source, destination=destination)
        return f.ethernet(f.IPV4, packet, tags=tuple((0x8100, tag) for tag in tags if tag))

    ways = [((1000, 80), (1, 2)), ((80, 1000), (2, 1))][:1 + both_ways]
    flows = table([dict(flow_id=number + 1, source=f"10.0.0.{hosts[0]}", destination=f"10.0.0.{hosts[1]}",
                        source_port=ports[0], destination_port=ports[1], vlan_id=outer, customer_vlan_id=inner)
                   for number, (outer, inner) in enumerate(stacks) for ports, hosts in ways])
    [row] = Answerer().answer(Query(biflow=True), flows).rows
    others = [frame((1000, 81), (1, 2), stack) for stack in STACKS] + [frame((1000, 80), (1, 3), (0, 0))]
    frames = [frame(*way, stack) for stack in stacks for way in ways]
    path = tmp_path / "x.pcap"
    path.write_bytes(w.pcap([(number * w.SECOND, octets) for number, octets in enumerate([*frames, *others])]))
    done = subprocess.run(["tcpdump", "-nr", path, "--count", flow_as_tcpdump(row)], capture_output=True, check=True)
    assert done.stdout.split()[0] == b"%d" % len(frames)


def test_tcpdump_does_not_look_into_tunnels() -> None:
    assert flow_as_tcpdump(flow_row(tunnel=Tunnel.VXLAN, tunnel_id=7)) == ""
    assert "udp" in flow_as_tcpdump(flow_row(tunnel=Tunnel.VXLAN, tunnel_id=7, kind=Kind.PARENT, protocol=17))
