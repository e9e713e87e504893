"""Scenes of the screen: fixed flows, what is pressed, and a clock that stands still. The README's pictures are some of
them (screenshots/render.py); what every one of them says, at every size, is in test_regions.py."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, chdir
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from flowtop.export.statistics import ExportState, ExportStatistics
from flowtop.model.exporters import CollectingStatistics
from flowtop.model.kinds import EndReason, Kind, Tunnel
from flowtop.model.record import SourceState
from flowtop.model.rows import FlowRow
from flowtop.query.query import TrafficHistory
from flowtop.query.trouble import Trouble
from flowtop.recording.recording import RecordingStatistics
from flowtop.tui.app import FlowtopApp
from flowtop.tui.widgets.filter_bar import GATHER_S
from tests.tui.fake_exports import NOW_S, FakeExports, statistics
from tests.tui.fake_packets import FakePackets
from tests.tui.fake_source import ICMP, ICMP6, OUT, START_MS, UDP, FakeSource, answered, flow, random_flows
from tests.tui.screen import running


@dataclass(frozen=True, slots=True)
class Scene:
    """What happens before one looks.

    Attributes:
        keys: pressed once flows are shown; what has blanks is pasted.
        alarm: packets were lost, after the keys.
        exports, packets: what is exported, what is written of packets.
        ticks: pass before the keys are pressed, each with rates of its own.
        ended: the fastest flow ends after the keys, and leaves the table.
        leaving: it was told to quit, and the last drain takes long.
        conversations: most flows have a way back, which was seen first: those who ask send less.
        names: of hosts, by address; waited for.
        told: what else a page says.
    """

    keys: tuple[str, ...] = ()
    alarm: bool = False
    exports: tuple[ExportStatistics, ...] = ()
    ticks: int = 0
    ended: bool = False
    leaving: bool = False
    conversations: bool = False
    packets: RecordingStatistics | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)


EXPORTS = (
    statistics("ipfix+tcp://collector.example.net:4739", since_unix_s=NOW_S - 8_124, sent_records=184_812,
               sent_messages=4_902, sent_octets=13_301_220, queued_records=38, last_template_unix_s=NOW_S - 8_124),
    statistics("ipfix+tls://192.0.2.40:4740?ca=/etc/flowtop/ca.pem&reconnect=10s", ExportState.WAITING,
               since_unix_s=NOW_S - 72, sent_records=160_090, sent_messages=4_204, sent_octets=11_522_800,
               repeated_records=112, queued_records=1_204, spooled_records=23_480, last_error="connection refused",
               last_template_unix_s=NOW_S - 4_410),
    statistics("ipfix://[2001:db8::53]:2055?profile=nfdump", ExportState.EXPORTING, since_unix_s=NOW_S - 8_124,
               sent_records=184_231, sent_messages=9_120, sent_octets=13_280_004, not_sent_records=619,
               not_sent_packets=48_291, not_sent_octets=30_118_225, last_error="network is unreachable",
               last_template_unix_s=NOW_S - 14),
    statistics("file:flowtop-20260101-115412.ipfix", ExportState.PAUSED, since_unix_s=NOW_S - 9, sent_records=2_930,
               sent_messages=402, sent_octets=214_118, queued_records=77, file_octets=214_662,
               last_template_unix_s=NOW_S - 348),
)
"""A collector that reads, one that is away, one that was, and a recording that is paused."""


WRITING = RecordingStatistics("/home/ops/incident-4711.pcapng", "", "writing", written=48_211, octets=13_000_000,
                              dropped=212, capped=3_905)

NAMES = {"198.51.100.7": "edge-7.example.net", "10.0.0.5": "web1.example.org", "10.0.20.4": "db4.example.org",
         "2001:db8:40::1f": "backup.a-rather-long-subdomain.storage.example.com"}

TUNNELS = {"flows": [
    *(flow(vni, "10.1.0.10", "10.1.0.20", (443, 40_001), rate=4e6 / vni, octets=91_000_000 // vni, age_s=60,
           tunnel=Tunnel.VXLAN, tunnel_id=vni) for vni in (100, 101, 102)),
    flow(4, "10.1.0.20", "10.1.0.10", (0, 3 << 8 | 3), protocol=ICMP, rate=400, octets=1_200, tunnel=Tunnel.VXLAN,
         tunnel_id=101),
    flow(5, "2001:db8:7::10", "2001:db8:7:1::22", (0, 1 << 8 | 4), protocol=ICMP6, rate=300, octets=900,
         tunnel=Tunnel.GRE, tunnel_id=70_007),
    flow(6, "192.168.7.1", "192.168.7.2", (5000, 22), rate=90_000, octets=7_000_000, tunnel=Tunnel.IP),
    *(flow(6 + nr, "192.0.2.1", "192.0.2.2", (49_000 + nr, 4789), protocol=UDP, kind=int(Kind.PARENT), rate=4.2e6 / nr,
           octets=99_000_000 // nr, age_s=60, tunnel=Tunnel.VXLAN, tunnel_id=99 + nr) for nr in (1, 2, 3)),
    flow(10, "192.0.2.7", "192.0.2.8", protocol=4, kind=int(Kind.PARENT), rate=93_000, octets=7_400_000,
         tunnel=Tunnel.IP),
]}
VLANS = {"interfaces": {2: "trunk.pcap"}, "attached": ("trunk.pcap",), "flows": [
    flow(vlan + 1, "10.0.0.50", "10.0.0.51", (445, 50_112), rate=9e6 / (vlan + 1), octets=640_000_000 // (vlan + 1),
         vlan_id=vlan) for vlan in (0, 7, 20, 100, 4094)]}

COLLECTING = {
    "collecting": CollectingStatistics(messages=48_211, records=1_204_411, options_records=12, lost_flows=31,
                                       waiting_sets=2, exporters=2),
    "attached": ("udp://127.0.0.1:2055",),
    "interfaces": {2: "192.0.2.1/7 Gi0/1", 3: "198.51.100.250/7 xe-0/0/12", 4: "192.0.2.1/7 Gi0/2"},
}


class OwnNetworks:
    """In place of the addresses of this host: those of 10.0.0.0/8 and 2001:db8:40:7::/64."""

    edition = 1

    def local(self, high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """See text.lookups.Here."""
        own: npt.NDArray[np.bool_] = (high == 0) & (low >> np.uint64(24) == np.uint64(0xFFFF0A))
        return own | (high == np.uint64(0x2001_0DB8_0040_0007))

    def broadcast(self, high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """See text.lookups.Here."""
        return np.zeros(len(high), np.bool_)


def five_minutes(until_s: int) -> TrafficHistory:
    """Traffic with a burst, up to so many seconds after START_MS."""
    seconds = range(until_s - 300, until_s)
    waves = [1 + 0.3 * math.sin(second / 17) + 0.2 * math.sin(second / 5) for second in seconds]
    burst = [2.2 if -120 <= second - until_s < -70 else 1.0 for second in seconds]
    return TrafficHistory(
        tuple(START_MS + 1_000 * (second + 1) for second in seconds), (1.0,) * 300,
        tuple(9e7 * wave * more for wave, more in zip(waves, burst, strict=True)),
        tuple(4e7 * wave for wave in waves))


TROUBLES = (Trouble("scan", "scan? 203.0.113.66", "1,620 ports", "flows", "src host 203.0.113.66"),
            Trouble("retransmits", "retransmits 12 %", "641 of 5,330 segments in 10 s", "flows", "retransmits"))
LONG_FILTER = "tcp and port 443 or tcp port 22 or udp port 53 or tcp port 80 or port 70000"
"""Wrong in its last number."""
BACK = (*["left_curly_bracket"] * 4, *["left_square_bracket"] * 5)
"""45 ticks back."""

SCENES: dict[str, Scene] = {
    "main": Scene(("down", "down", "down")),
    "held": Scene(("down", "o", "F", "E", "space"), ticks=3),
    "hosts": Scene(("2", "down", "down"), told={"here": OwnNetworks()}),
    "trouble": Scene(("2", "down"), told={"here": OwnNetworks(), "troubles": TROUBLES}),
    "compared": Scene(("d",), ticks=75),
    "filter": Scene(("slash", "tcp and port 443", "enter", "down", "down", "right")),
    "filter-error": Scene(("slash", *"tcp and port 443 and prot")),
    "filter-too-large": Scene(("slash", LONG_FILTER[:-1], LONG_FILTER[-1], "enter")),
    "filter-completion": Scene(("slash", *"tcp and host 198", "tab", "tab", "tab", "tab")),
    "nothing-matches": Scene(("slash", "tcp and port 7", "enter")),
    "groups": Scene(("g", *["g"] * 10, "1", "6", "space", "up", "up")),
    "grouped": Scene(("g", "g", "g", "space", "g", "g", "g", "space", "enter", "down", "down", "down")),
    "group-open": Scene((*["g"] * 3, "enter", "down", "enter", *["g"] * 6, "enter", "down", "enter", "down")),
    "biflows": Scene(("B", "down", "down"), conversations=True),
    "details": Scene(("down", "enter")),
    "details-ended": Scene(("down", "enter"), exports=EXPORTS[:2], ended=True),
    "help": Scene(("question_mark",)),
    "help-words": Scene(("question_mark", "tab")),
    "help-filters": Scene(("question_mark", "tab", "tab")),
    "columns": Scene(("C", "down", "down", "space", "down", "J")),
    "columns-chosen": Scene(("C", "down", "space", "space", "K", "escape")),
    "copy": Scene(("down", "down", "c")),
    "palette": Scene(("ctrl+p", *"rate")),
    "write": Scene(("w", "ctrl+u", *"flows.csv")),
    "dark": Scene(("T", "down")),
    "light": Scene(("T", "T", "down")),
    "contrast": Scene(("T", "T", "T", "down")),
    "leaving": Scene(leaving=True),
    "exports": Scene(("e", "down"), exports=EXPORTS),
    "exports-typing": Scene(("e", "a", *"ipfix+t", "tab"), exports=EXPORTS[:2]),
    "exports-first": Scene(("e",)),
    "exporting": Scene(exports=EXPORTS[:1]),
    "scrub": Scene(("down", "down", *BACK), ticks=75),
    "mark": Scene(("m",)),
    "packets-prompt": Scene(("slash", "host 10.0.20.4", "enter", "W")),
    "packets": Scene(packets=WRITING),
    "packets-full": Scene(packets=replace(WRITING, state="full")),
    "lost": Scene(("space",), alarm=True),
    "names": Scene(("n", "p"), names=NAMES),
    "reading": Scene(told={"source": SourceState(False, False, 421_000_000, 1_003_000_000)}),
    "end-of-file": Scene(told={"source": SourceState(False, True, 1_003_000_000, 1_003_000_000)}),
    "collecting": Scene(told=COLLECTING),
    "tunnels": Scene(("down",), told=TUNNELS),
    "vlans": Scene(("down",), told=VLANS),
}
"""Every scene by name."""


def scene_flows() -> list[FlowRow]:
    """A small server's afternoon: backups, web, name service, a tunnel, and what is left of flows that ended."""
    hand_made = [
        flow(1, "198.51.100.7", "10.0.0.5", (443, 51514), rate=10.26e6, octets=1_210_000_000, age_s=151),
        flow(2, "10.0.0.5", "198.51.100.7", (51514, 443), direction=OUT, rate=152_400, octets=17_300_000, age_s=151),
        flow(3, "2001:db8:40::1f", "2001:db8:40:7::22", (873, 40960), rate=8.41e6, octets=48_200_000_000, age_s=4212),
        flow(4, "10.0.0.5", "203.0.113.80", (22, 60122), direction=OUT, rate=5_840, octets=912_000, age_s=3_720),
        flow(5, "10.8.0.2", "10.8.0.1", (40112, 53), protocol=UDP, ifindex=3, rate=112, octets=1_096, age_s=4),
        flow(6, "10.8.0.1", "10.8.0.2", (53, 40112), protocol=UDP, ifindex=3, direction=OUT, rate=388, octets=3_104,
             age_s=4),
        flow(7, "203.0.113.9", "10.0.0.5", (51820, 51820), protocol=UDP, rate=1.31e6, octets=602_000_000, age_s=98_100),
        flow(8, "192.0.2.33", "10.0.0.5", (0, 8 * 256), protocol=ICMP, rate=84, octets=50_400, age_s=600),
        flow(9, "fe80::1", "ff02::1", (0, 134 * 256), protocol=ICMP6, octets=2_304, age_s=812, rate=0),
        flow(10, "10.0.20.4", "10.0.20.1", (5432, 38114), ifindex=4, rate=640_000, octets=88_000_000, age_s=2_400),
        flow(11, "10.0.20.4", "10.0.20.1", (5432, 38114), rate=640_000, octets=88_000_000, age_s=2_400, vlan_id=20,
             duplicate=True),
        flow(12, "198.51.100.23", "10.0.0.5", (39022, 443), octets=48_310, age_s=2, tcp_control_bits=0b11011,
             end_reason=int(EndReason.END_OF_FLOW), ended_s=8.0),
        flow(13, "198.51.100.24", "10.0.0.5", (39400, 443), octets=9_120, age_s=1, rate=310, tcp_control_bits=0b11011,
             closing=True),
        flow(14, "0.0.0.0", "0.0.0.0", protocol=UDP, kind=int(Kind.AGGREGATE), rate=71_000, octets=4_400_000,
             age_s=12),
    ]
    return hand_made + [_ranked(row, rank) for rank, row in enumerate(random_flows(1_234), 3)]


def _ranked(row: FlowRow, rank: int) -> FlowRow:
    """Few flows carry most of the traffic: the rate falls with the rank, as it does on a real host."""
    rate = 7.2e6 / rank**1.4
    wobble = 0.8 + (rank * 7 % 10) / 25
    return row._replace(
        flow_id=row.flow_id + 100, octet_rate=rate, octet_rate_10s=rate * wobble, octet_rate_60s=rate * wobble * 0.9,
        octet_rate_peak=rate * 1.6, packet_rate=rate / 900, octet_total=int(rate * row.age_s * wobble),
        packet_total=int(rate * row.age_s * wobble / 900) + 1, closing=rank % 23 == 0,
    )


async def press(pilot: Pilot[None], keys: tuple[str, ...]) -> None:
    """Press keys, paste texts; what is typed behind the first of them is read when the parser of filters is there."""
    await pilot.press(*keys[:1])
    await pilot.app.workers.wait_for_complete()
    for key in keys[1:]:
        if " " in key.strip() and pilot.app.focused is not None:
            pilot.app.focused.post_message(events.Paste(key))
            await pilot.pause()
        else:
            if key == "tab" and "slash" in keys:  # it completes what is found for all that was typed
                await _settle_filter(pilot)
            await pilot.press(key)
    if "slash" in keys:
        await _settle_filter(pilot)
    if "ctrl+p" in keys:
        await _settle_palette(pilot)


async def _settle_filter(pilot: Pilot[None]) -> None:
    await pilot.pause(2 * GATHER_S)
    await pilot.app.workers.wait_for_complete()


async def _settle_palette(pilot: Pilot[None]) -> None:
    """The palette has found what it looks for, and its cursor does not blink."""
    palette = pilot.app.screen
    palette.query_one(Input).cursor_blink = False
    found = palette.query_one(OptionList)
    before = -1
    while not found.option_count or before != found.option_count or palette.has_class("--busy"):
        before = found.option_count
        await pilot.pause(0.3)


@asynccontextmanager
async def showing(scene: Scene, width: int, height: int) -> AsyncIterator[Pilot[None]]:
    """The app on a terminal of this size, when all of the scene has happened."""
    flows = scene_flows()
    source = FakeSource([*flows[:14], *answered(flows[14:], 5, -1)] if scene.conversations else flows)
    if scene.conversations:
        source.openers = {row.flow_id for row in source.flows if row.flow_id == 2 or (
            row.flow_id > 5_000 and row.flow_id % 4)}
    source.history = five_minutes(scene.ticks + 1)
    for name, value in scene.told.items():
        setattr(source, name, value)
    with chdir("/"):
        async with running(source, width, height, exports=FakeExports(scene.exports),
                           packets=FakePackets(scene.packets)) as pilot:
            try:
                await _play(pilot, scene, source)
                yield pilot
            finally:
                source.leave.set()


async def _play(pilot: Pilot[None], scene: Scene, source: FakeSource) -> None:
    flows = source.flows
    for tick in range(scene.ticks):
        source.tick([row._replace(octet_rate=row.octet_rate * (1 + tick % 7 / 20)) for row in flows])
    await pilot.pause()
    if scene.names:
        assert isinstance(pilot.app, FlowtopApp)
        pilot.app.main.filter.look_up = scene.names.get
    await press(pilot, scene.keys)
    if scene.names:
        await _named(pilot, scene.names)
    if scene.alarm:
        source.books = replace(source.books, lost_packets=1_204, aggregated_packets=58_121, evicted_flows=12,
                               accounted_packets=source.books.accounted_packets - 1_204)
        source.tick(seconds=75)
    if scene.ended:
        over = [row._replace(end_reason=int(EndReason.END_OF_FLOW), octet_rate=0.0, tcp_control_bits=0b11011)
                if row.flow_id == 1 else row for row in source.flows]
        source.tick(over)
        source.tick(over[1:])
    if scene.leaving:
        await _leave(pilot, source)
    await pilot.pause()


async def _named(pilot: Pilot[None], names: Mapping[str, str]) -> None:
    """Every name has come and is painted, cut or not."""
    assert isinstance(pilot.app, FlowtopApp)
    main = pilot.app.main
    while not set(names.values()) <= set(main.filter.known_hosts().names.values()):
        await pilot.pause(0.05)
    main.filter.gather_names()  # the last of them may not have said yet that it came
    while main.filter._gathering:
        await pilot.pause(0.05)


async def _leave(pilot: Pilot[None], source: FakeSource) -> None:
    """Quit, as far as the words about the last drain."""
    source.leave.clear()
    await pilot.press("q")
    while isinstance(pilot.app, FlowtopApp) and not pilot.app.main.notice:
        await pilot.pause(0.05)
