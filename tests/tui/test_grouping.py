"""Groups on screen: the chooser's keys, into groups and out of them, what goes on working meanwhile."""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager

import pytest
from textual.pilot import Pilot

from flowtop.fields.registry import GROUP_COLUMNS, GROUPS
from flowtop.model.kinds import Kind
from flowtop.model.rows import FlowRow
from flowtop.query.query import Query
from flowtop.tui.app import FlowtopApp
from flowtop.tui.keys import GROUP_KEYS
from flowtop.tui.panels.groups import GroupsScreen
from flowtop.tui.widgets.header import trail_text
from tests.tui.fake_source import FakeSource, flow, random_flows
from tests.tui.screen import cursor_line, flow_lines, line, lines, running, shown

FLOWS = random_flows(200)
LINES = 19
IDS = [id_ for id_, field in GROUPS.items() if not field.of_exporters and not field.of_networks]
Check = Callable[["Pilot[None]", FakeSource, str], Awaitable[None]]


@asynccontextmanager
async def choosing() -> AsyncIterator[tuple[Pilot[None], FakeSource]]:
    """The app with the chooser open."""
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("g")
        yield pilot, source


def asked(source: FakeSource) -> tuple[str, ...]:
    return source.asked[-1].group


async def check_next(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(key, key, "enter")
    assert asked(source) == (IDS[0],)
    await pilot.press("g", key, "enter")
    assert asked(source) == (IDS[1],), "it begins at what the list is grouped by"


async def check_previous(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(key, "enter")
    assert asked(source) == (IDS[-1],), "past the first comes the last"


async def check_mark(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press("down", "down", key, "down", "down", "down", key, "down", "enter")
    assert asked(source) == (IDS[0], IDS[3])
    await pilot.press("g", key, "enter")
    assert asked(source) == (IDS[3],), "marked again is not marked"
    await pilot.press("g", "up", "up", "up", "up", "up", key, "enter")
    assert asked(source) == ()


async def check_take(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press("down", "down", key)
    assert asked(source) == (IDS[0],)
    assert not isinstance(pilot.app.screen, GroupsScreen)


async def check_erase(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(*["g"] * (2 + IDS.index("subnet")), "1", "6", "9", key, "enter")
    assert asked(source) == ("subnet:16",)
    networks = Counter(str(ipaddress.ip_network((row.source_address[:4], 16), strict=False)) for row in FLOWS)
    assert {text.split()[0] for text in flow_lines(pilot.app) if text} == set(networks)
    await pilot.press("g", key, key, "enter")
    assert asked(source) == ("subnet",)


async def check_close(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press("down", key)
    assert not isinstance(pilot.app.screen, GroupsScreen)
    assert pilot.app.return_code is None
    assert asked(source) == ()


async def check_page(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press(*["down"] * 8, key, key, "enter")
    assert asked(source) == ((IDS[-1],) if key == "pagedown" else ()), "two pages hold all"


async def check_end(pilot: Pilot[None], source: FakeSource, key: str) -> None:
    await pilot.press("down", "down", "down", key, "enter")
    assert asked(source) == ((IDS[-1],) if key == "end" else ())


CHECKS: dict[str, Check] = {"move(1)": check_next, "move(-1)": check_previous, "mark": check_mark, "take": check_take,
                            "erase": check_erase, "close": check_close, "page(1)": check_page, "page(-1)": check_page,
                            "jump(1000)": check_end, "jump(-1000)": check_end}



@pytest.mark.parametrize(("name", "action"), [(name, key.action) for key in GROUP_KEYS for name in key.names])
async def test_key_does_what_its_entry_says(name: str, action: str) -> None:
    async with choosing() as (pilot, source):
        await CHECKS[action](pilot, source, name)


async def test_a_prefix_length_that_is_none_is_said_and_can_be_mended() -> None:
    async with choosing() as (pilot, source):
        await pilot.press(*["g"] * (2 + IDS.index("subnet")), "1", "2", "9", "enter")
        assert "at most 32 bits" in "".join(lines(pilot.app))
        await pilot.press("backspace", "slash", "4", "8", "enter")
        assert asked(source) == ("subnet:12/48",)


async def test_a_click_moves_the_cursor_and_a_second_one_takes() -> None:
    async with choosing() as (pilot, source):
        y = next(index for index, text in enumerate(lines(pilot.app)) if "e service" in text)
        await pilot.click(offset=(20, y))
        assert asked(source) == ()
        await pilot.click(offset=(20, y))
        assert asked(source) == ("service",)


def network(raw: bytes, bits: int = 24) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network((raw[:4], bits), strict=False)


IN_COMMON: dict[str, Callable[[FlowRow], Hashable]] = {
    "source": lambda row: row.source_address, "destination": lambda row: row.destination_address,
    "pair": lambda row: frozenset((row.source_address, row.destination_address)),
    "service": lambda row: (row.protocol, min(row.source_port, row.destination_port)),
    "protocol": lambda row: row.protocol, "interface": lambda row: row.ifindex, "direction": lambda row: row.direction,
    "subnet": lambda row: network(row.source_address),
    "destination_subnet": lambda row: network(row.destination_address), "vlan": lambda row: row.vlan_id,
    "tunnel": lambda row: (row.tunnel, row.tunnel_id), "dscp": lambda row: row.tos >> 2,
    **dict.fromkeys(("process", "pid", "user", "unit", "cgroup", "container", "image", "container_id", "pod",
                     "namespace", "icmp_id", "name", "name_origin"), lambda _: "none"),
    "community": lambda row: (
        row.protocol, frozenset({(row.source_address, row.source_port),
                                 (row.destination_address, row.destination_port)}))}
"""What the flows of a group have in common, by field."""


@pytest.mark.parametrize("group", [id_ for id_ in IDS if id_ not in ("host", "remote_subnet")])  # in two groups
@pytest.mark.parametrize("width", [80, 200])
async def test_every_field_can_be_looked_into(group: str, width: int) -> None:
    """Each group's line has its sums; Enter lists its flows."""
    flows = [row._replace(tos=row.flow_id % 5 * 40, vlan_id=row.flow_id % 3 * 7, ifindex=2 + row.flow_id % 3)
             for row in FLOWS]
    source = FakeSource(flows)
    async with running(source, width, query=Query(group=(group,))) as pilot:
        groups: dict[Hashable, list[FlowRow]] = defaultdict(list)
        for row in flows:
            groups[IN_COMMON[group](row)].append(row)
        assert f"of {len(groups)} group{'s' * (len(groups) > 1)} " in line(pilot.app, 1)
        header = line(pilot.app, 2)
        assert {"RATE↓", "IN", "OUT", "FLOWS"} <= set(header.split())
        fastest = max(groups.values(), key=lambda rows: sum(row.octet_rate for row in rows))
        await pilot.press("down")
        end = header.index("FLOWS") + len("FLOWS")
        assert flow_lines(pilot.app)[0][:end].split()[-1] == str(len(fastest)), "how many flows it has"
        await pilot.press("enter")
        in_order = [row.flow_id for row in sorted(fastest, key=lambda row: -row.octet_rate)]
        assert shown(pilot.app) == in_order[:LINES]
        assert f"{len(fastest)} of 200 flows" in line(pilot.app, 1)


async def test_groups_can_be_opened_one_in_the_other_and_each_way_back_leads_to_where_one_was() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("g", "g", "g", "enter")
        for _ in GROUP_COLUMNS:
            if source.asked[-1].sort != "rate_60s":
                await pilot.press("greater_than_sign")
        await pilot.press(*["down"] * 3)
        hosts, sort = flow_lines(pilot.app), source.asked[-1].sort
        assert sort == "rate_60s"
        await pilot.press("enter", *["g"] * 6, "enter")
        assert source.asked[-1].group == ("service",)
        host = hosts[2].split()[0]
        services = flow_lines(pilot.app)
        await pilot.press("down", "enter")
        service = " ".join(services[0].split()[:2])
        assert f"all › {host} › {service}" in line(pilot.app, 1)
        number = int(service.split()[1])
        wanted = {row.flow_id for row in FLOWS if str(ipaddress.ip_address(row.source_address[:4])) == host
                  and min(row.source_port, row.destination_port) == number}
        assert wanted and set(shown(pilot.app)) == wanted
        await pilot.press("backspace")
        assert flow_lines(pilot.app) == services
        assert cursor_line(pilot.app) == 0
        await pilot.press("backspace")
        assert flow_lines(pilot.app) == hosts
        assert (cursor_line(pilot.app), source.asked[-1].sort) == (2, "rate_60s")


async def test_the_way_back_finds_the_cursors_group_far_down_and_where_its_rank_is_another_now() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("g", "g", "g", "enter", "down", "end", *["pageup"] * 3, "up", "up")
        before = cursor_line(pilot.app)
        assert before is not None
        host = flow_lines(pilot.app)[before].split()[0]
        await pilot.press("enter")
        busy = [row._replace(octet_rate=row.octet_rate + 1e9) if number < 60 and host not in
                str(ipaddress.ip_address(row.source_address[:4])) else row for number, row in enumerate(FLOWS)]
        source.tick(busy)
        await pilot.pause()
        await pilot.press("backspace")
        await pilot.pause()
        now = cursor_line(pilot.app)
        assert now is not None and flow_lines(pilot.app)[now].split()[0] == host
        assert now == before, "on the same line"


async def test_a_filter_typed_inside_a_group_is_for_that_group() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("g", *["g"] * 5, "enter", "down", "enter")
        inside = set(shown(pilot.app))
        scope = source.asked[-1].scope
        await pilot.press("slash", *"udp", "enter")
        assert source.asked[-1].scope == scope
        assert all(row.protocol == 17 for row in source.look(source.asked[-1]).rows)
        assert "all › " in line(pilot.app, 1) and "filter udp" in line(pilot.app, 1)
        await pilot.press("backslash")
        assert set(shown(pilot.app)) == inside, "all flows of the group again"
        await pilot.press("backspace")
        assert "groups" in line(pilot.app, 1)


async def test_groups_go_on_being_sorted_held_paused_and_followed() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("g", "g", "g", "enter", "o", "down", "F")
        first = flow_lines(pilot.app)
        assert "ORDER FROZEN" in line(pilot.app, 1)
        source.tick([row._replace(octet_rate=1e6 / row.octet_rate) for row in FLOWS])
        await pilot.pause()
        assert [text.split()[0] for text in flow_lines(pilot.app)] == [text.split()[0] for text in first]
        await pilot.press("o")
        assert [text.split()[0] for text in flow_lines(pilot.app)] != [text.split()[0] for text in first]
        await pilot.press("space")
        held = flow_lines(pilot.app)
        source.tick(FLOWS)
        await pilot.pause()
        assert flow_lines(pilot.app) == held
        await pilot.press("down", "enter")
        assert "PAUSED" in line(pilot.app, 1) and "all ›" in line(pilot.app, 1), "one may look into groups meanwhile"


async def test_keys_typed_before_the_groups_are_there_reach_them() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        source.silent = True
        await pilot.press("g", "g", "g", "enter", "down", "down")
        source.silent = False
        source.tick()
        await pilot.pause()
        assert cursor_line(pilot.app) == 1
        assert "groups" in line(pilot.app, 1)


async def test_a_cell_of_a_group_makes_a_filter() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("g", *["g"] * 5, "enter", "down", "right", "exclamation_mark")
        hidden = source.asked[-1].filter
        assert hidden is not None and hidden.text.startswith("not (")
        await pilot.press("backslash", "down", *["right"] * 9, "equals_sign")
        assert source.asked[-1].filter is None, "a flow has not as much as its group"
        assert "flows cannot be filtered by this cell" in line(pilot.app, -1)


async def test_what_only_a_sum_is_known_of_cannot_be_opened() -> None:
    source = FakeSource([flow(1, "0.0.0.0", "0.0.0.0", kind=int(Kind.AGGREGATE), rate=10.0)])
    async with running(source, query=Query(group=("source",))) as pilot:
        assert "(all other flows)" in flow_lines(pilot.app)[0]
        await pilot.press("down", "enter")
        assert "only the sum of these flows is known" in line(pilot.app, -1)


def test_a_trail_keeps_its_last_steps() -> None:
    assert trail_text(("10.0.0.5", "tcp 443"), 40) == "all › 10.0.0.5 › tcp 443"
    assert trail_text(("10.0.0.5", "tcp 443"), 23) == "… › 10.0.0.5 › tcp 443"
    assert trail_text(("10.0.0.5", "tcp 443"), 22) == "… › 10.0.0.5 › tcp 443"
    assert trail_text(("10.0.0.5", "tcp 443"), 21) == "… › tcp 443"
    assert len(trail_text(("x" * 100,), 24)) == 24


async def test_host_names_stand_in_groups_too() -> None:
    def rows() -> list[FlowRow]:
        return [flow(1, "192.0.2.9", "10.0.0.5", (443, 50000), rate=10.0)]

    source = FakeSource(rows())
    async with running(source, query=Query(group=("source", "service"))) as pilot:
        pilot.app.main.filter.look_up = lambda address: f"h-{address}.example"  # type: ignore[attr-defined]
        await pilot.press("n", "p")
        while "h-192.0.2.9.example" not in flow_lines(pilot.app)[0]:
            await pilot.pause(0.05)
        assert "tcp https" in flow_lines(pilot.app)[0]
        await pilot.press("down", "enter")
        assert "all › h-192.0.2.9.example tcp https" in line(pilot.app, 1)
        await pilot.press("n", "p")
        assert "all › 192.0.2.9 tcp 443" in line(pilot.app, 1), "the numbers are a key away, here too"


async def test_exporters_are_offered_where_flows_come_from_some() -> None:
    async with choosing() as (pilot, _):
        assert "With -l" not in "".join(lines(pilot.app))
        pilot.app.push_screen(GroupsScreen((), collecting=True))
        await pilot.pause()
        assert "With -l: the exporter that reported the flow." in "".join(lines(pilot.app))


async def test_networks_are_offered_where_there_are_databases() -> None:
    for networks in (False, True):
        async with choosing() as (pilot, _):
            pilot.app.push_screen(GroupsScreen((), networks=networks))
            await pilot.pause()
            await pilot.press("up")
            assert ("Destination's country" in "".join(lines(pilot.app))) == networks


@pytest.mark.parametrize("height", [24, 12])
async def test_a_mark_is_seen_however_deep_one_is_in_groups_and_whatever_else_there_is_to_say(height: int) -> None:
    source = FakeSource(FLOWS)
    async with running(source, 80, height) as pilot:
        await pilot.press("m", *["g"] * (1 + IDS.index("pair")), "enter", "down", "enter")
        await pilot.press(*["g"] * (1 + IDS.index("service")), "enter", "down", "enter")
        assert " SINCE MARK 0:00 " in line(pilot.app, 1) and " › " in line(pilot.app, 1)
        await pilot.press("slash", *"tcp or udp", "enter", "o", "F", "space")
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        app.main.show_alarm("file:flows.ipfix: no space left on device, nothing of it is written any more")
        source.tick()
        await pilot.pause()
        said = line(app, 1)
        assert " SINCE MARK 0:00 " in said and " PAUSED 0" in said and "file:flo" in said
        assert "filter tcp or udp" in said, "and what is listed"


async def test_an_order_that_was_chosen_in_one_list_is_not_anothers() -> None:
    source = FakeSource(FLOWS)
    async with running(source) as pilot:
        await pilot.press("g", "g", "g", "enter", "s", "b")  # hosts by BYTES
        assert source.asked[-1].sort == "bytes"
        await pilot.press("down", "enter")
        assert source.asked[-1].sort == "rate", "flows have the order that they had"
        await pilot.press("s", "p")
        inside = source.asked[-1].sort
        assert inside != "rate"
        await pilot.press("backspace")
        assert source.asked[-1].sort == "bytes"
        await pilot.press("backspace")
        assert (source.asked[-1].group, source.asked[-1].sort) == ((), "rate"), "that of the group is not theirs"
        await pilot.press("g", "g", "g", "enter")
        assert source.asked[-1].sort == "bytes", "and the hosts are as they were"


async def test_every_key_of_the_chooser_does_something_or_says_why_not() -> None:
    async with choosing() as (pilot, _):
        await pilot.press("1")
        assert "takes no number" in "".join(lines(pilot.app))
        await pilot.press("backspace")
        assert "nothing to erase" in "".join(lines(pilot.app))
        await pilot.press("end")
        assert "takes no number" not in "".join(lines(pilot.app))
        await pilot.press("enter")
        assert pilot.app.main.questions.choice.group == (IDS[-1],)  # type: ignore[attr-defined]
        await pilot.press("g", "home", "down", "down", "enter")
        assert pilot.app.main.questions.choice.group == (IDS[0],)  # type: ignore[attr-defined]


async def test_both_hosts_of_a_pair_are_cut_each_by_itself() -> None:
    rows = [flow(number, f"192.0.2.{number}", "10.0.0.5", (443, 50000), rate=10.0) for number in (7, 8)]
    async with running(FakeSource(rows), 80, query=Query(group=("pair",))) as pilot:
        pilot.app.main.filter.look_up = lambda address: (  # type: ignore[attr-defined]
            f"host-{address.replace('.', '-')}.a-rather-long-subdomain.storage.example.net")
        await pilot.press("n")
        while not all(text.count("hos") == 2 for text in flow_lines(pilot.app)[:2]):
            await pilot.pause(0.05)
        texts = [text[:text.index("b/s")] for text in flow_lines(pilot.app)[:2]]
        assert all(text.count("example.net") == 2 for text in texts), texts
        assert all(end.lstrip().startswith("hos") for text in texts for end in text.split(" ↔ "))
        assert len({text.rpartition(" ↔ ")[2][:12] for text in texts}) == 2, "they still differ"
