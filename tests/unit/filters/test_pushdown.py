"""Which part of a filter goes to the kernel. That the loaded program means the same: tests/kernel/test_pushdown.py."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.filters.errors import FilterError
from flowtop.filters.filter import compile_filter
from flowtop.filters.grammar import token_types
from flowtop.filters.kernel import split
from tests.unit.filters.flows import INTERFACES, table
from tests.unit.filters.test_meaning import FLOWS, MEANINGS


@pytest.mark.parametrize(("text", "kernel", "rest"), [
    ("tcp port 443", "tcp port 443", ""),
    ("tcp and rate > 1M", "tcp", "rate > 1M"),
    ("rate > 1M tcp not private", "tcp and not private", "rate > 1M"),
    ("tcp or rate > 1M", "", "tcp or rate > 1M"),
    ("not (tcp or rate > 1M)", "not tcp", "not (tcp or rate > 1M)"),
    ("not (tcp and rate > 1M)", "", "not (tcp and rate > 1M)"),
    ("(tcp and rate > 1M or udp) and ip6", "ip6 and (tcp or udp)", "(tcp and rate > 1M) or udp"),
    ("if eth0 udp", "udp", "if eth0"),
    ("flags syn", "", "flags syn"),
    ("dscp ef or ttl < 5 or mac 2:0:0:0:0:1", "", "dscp ef or ttl < 5 or mac 2:0:0:0:0:1"),
    ("dir in udp", "udp", "dir in"),
    ("vlan 5 udp", "udp", "vlan 5"),
])
def test_what_the_flow_key_answers_goes_to_the_kernel(text: str, kernel: str, rest: str) -> None:
    found = split(compile_filter(text), observation_points=False)
    assert (found.kernel, found.rest) == (kernel, rest)
    assert bool(found.expression) == bool(kernel)


def test_without_looking_for_duplicates_the_observation_point_goes_too() -> None:
    found = split(compile_filter("dir in and vlan 5 and if eth0"), observation_points=True)
    assert (found.kernel, found.rest) == ("dir in and vlan 5", "if eth0")


@pytest.mark.parametrize(("text", "kernel", "rest"), [
    ("src host 10.0.0.1 and tcp", "tcp", "src host 10.0.0.1"),
    ("src host 10.0.0.1", "", "src host 10.0.0.1"),
    ("port 443 and rate > 1M and dst net 10/8", "port 443", "rate > 1M and dst net 10/8"),
    ("src net 10/8 and dst net 10/8 tcp", "src net 10/8 and dst net 10/8 and tcp", ""),
    ("not (src host 10.0.0.1 or rate > 1M) and udp", "udp", "not (src host 10.0.0.1 or rate > 1M)"),
    ("icmptype 8 and ip", "ip", "icmptype 8"),
])
def test_where_answers_are_wanted_only_what_asks_both_ways_alike_goes_to_the_kernel(
        text: str, kernel: str, rest: str) -> None:
    found = split(compile_filter(text), observation_points=False, both_ways=True)
    assert (found.kernel, found.rest) == (kernel, rest)


def test_too_many_tests_stay_in_the_flow_table() -> None:
    text = " or ".join(f"host 10.0.0.{number}" for number in range(33))
    assert split(compile_filter(text), observation_points=True).kernel == ""


@pytest.mark.parametrize("points", [True, False])
def test_every_flow_that_passes_the_filter_passes_its_kernel_part(points: bool) -> None:
    flows = table(list(FLOWS.values()))
    for text in MEANINGS:
        kernel = split(compile_filter(text), observation_points=points).kernel
        if kernel:
            passes = compile_filter(text).mask(flows, INTERFACES)
            assert compile_filter(kernel).mask(flows, INTERFACES)[passes].all(), text


WORDS = st.sampled_from([*token_types(), "(", ")", "or", "and", "not", "!=", "80", "10.0.0.1", "10/8", "eth0",
                         "fe80::1", "'; drop'", "1Mbit", "1-2"])


@settings(max_examples=120, deadline=None)
@given(st.lists(WORDS, max_size=8).map(" ".join))
def test_the_expression_holds_nothing_but_field_names_and_numbers(text: str) -> None:
    try:
        compiled = compile_filter(text)
    except FilterError:
        return
    expression = split(compiled, observation_points=True).expression
    words = set(re.findall(r"[A-Za-z_]\w*", re.sub(r"\b0x[0-9a-f]+u|\b\d+\b", "", expression)))
    assert words <= {"key", "flow_word", "source_address", "destination_address", "source_port", "destination_port",
                     "protocol", "ip_version", "kind", "direction", "vlan_id", "customer_vlan_id", "tunnel",
                     "tunnel_id"}
    assert re.fullmatch(r"[\w\s()&|!=<>*\[\]-]*", expression) and "\n" not in expression
