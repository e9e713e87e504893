"""When the capture filter holds: while nobody wants the flows that it leaves out."""

from __future__ import annotations

import numpy as np
import pytest

from flowtop.filters.filter import compile_filter
from flowtop.filters.kernel import Narrowing, places, split
from flowtop.model.record import FLOW_RECORD_DTYPE
from flowtop.text.lookups import NO_LOOKUPS
from tests.unit.filters.test_meaning import MEANINGS


def narrowing(text: str, *, points: bool = False) -> Narrowing:
    return Narrowing(split(compile_filter(text), observation_points=points))


@pytest.mark.parametrize("points", [True, False])
def test_it_holds_for_the_filter_it_was_made_of(points: bool) -> None:
    for text in MEANINGS:
        made = narrowing(text, points=points)
        lifted = made.lifted
        assert not made.follow(compile_filter(text)), text
        assert made.lifted == lifted == (not made.text), text


@pytest.mark.parametrize(("capture", "asked", "holds"), [
    ("tcp", ["tcp and rate > 1M"], True),
    ("tcp", ["rate > 1M tcp port 443"], True),
    ("tcp port 443", ["port 443 and tcp"], True),
    ("tcp port 443 and rate > 1M", ["tcp port 443"], True),
    ("tcp", ["udp", "tcp"], True),
    ("tcp", ["udp"], False),
    ("tcp", ["tcp or udp"], False),
    ("tcp", ["not tcp"], False),
    ("tcp", ["rate > 1M"], False),
    ("tcp port 443", ["tcp"], False),
    ("tcp", [], False),
])
def test_it_is_lifted_when_flows_are_asked_for_that_it_may_leave_out(
        capture: str, asked: list[str], holds: bool) -> None:
    made = narrowing(capture)
    assert made.follow(*map(compile_filter, asked), None) is not holds
    assert made.lifted is not holds
    made.follow(compile_filter(capture))
    assert made.lifted is not holds, "once lifted it stays so: a flow that was counted is not left out later"
    assert bool(made.text) is holds


@pytest.mark.parametrize(("text", "points", "holds"), [
    ("tcp", False, True),
    ("host 10.0.0.1 and port 443", False, True),
    ("10.0.0.1:443 or 10.0.0.2:80", False, True),
    ("not private and udp port 53", False, True),
    ("src host 10.0.0.1 or dst host 10.0.0.1", False, True),
    ("src and dst net 10/8", False, True),
    ("vlan 100", True, True),
    ("src host 10.0.0.1", False, False),
    ("dst port 443", False, False),
    ("not src port 443", False, False),
    ("src host 10.0.0.1 or dst port 443", False, False),
    ("icmptype 8", False, False),
    ("dir out", True, False),
    ("dir in or dir out", True, True),
])
def test_what_asks_for_one_way_only_is_not_pushed_down_where_answers_are_wanted(
        text: str, points: bool, holds: bool) -> None:
    assert narrowing(text, points=points).text
    both = places(compile_filter(text), in_kernel=True, observation_points=points, both_ways=True)
    assert bool(both.kernel) is holds


def records(*protocols: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    made = np.zeros(len(protocols), FLOW_RECORD_DTYPE)
    made["protocol"], made["ip_version"] = protocols, 4
    return made


def test_an_export_begun_while_it_holds_is_of_what_it_wants_whatever_is_listed_later() -> None:
    made = narrowing("tcp and rate > 1M")
    keep = made.scope()
    made.follow(None)
    assert keep is not None and keep(records(6, 17, 6), NO_LOOKUPS).tolist() == [True, False, True]
    assert made.lifted


def test_an_export_begun_when_it_is_lifted_is_of_all_flows() -> None:
    made = narrowing("tcp")
    made.follow(None)
    assert made.scope() is None


def test_without_a_capture_filter_nothing_is_limited() -> None:
    made = Narrowing()
    assert made.lifted and not made.text and made.scope() is None
    assert not made.follow(compile_filter("tcp")) and made.lifted
