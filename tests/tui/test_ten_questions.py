"""Questions of an engineer in an outage, each answered in at most three keys from the start screen.

Over a recorded mix of traffic that the test makes, read by the real capture of files, metered and paged for real: a web
server with a few clients, a scanner, a backup, and a name server. What each answer must be is added up here from the
packets that were made.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot

from flowtop.capture.files.capture import FileCapture, FileConfig
from flowtop.metering.flows import TableConfig
from flowtop.networks.here import HostAddresses
from flowtop.networks.networks import NetworkDatabases
from flowtop.pipeline.drive import PipelineConfig
from flowtop.pipeline.pipeline import Pipeline
from flowtop.query.trouble import DEFAULTS
from flowtop.text import units
from flowtop.tui.app import FlowtopApp
from tests.kernel import frames as f
from tests.tui.fake_exports import FakeExports
from tests.tui.fake_packets import FakePackets
from tests.tui.fake_source import FakeSource, flow
from tests.tui.screen import running, terminal_lines
from tests.unit.capture.files import writers as w
from tests.unit.networks.databases import asn, country, write

T = 1_700_000_000 * w.SECOND
SERVER, SCANNER, BACKUP, RESOLVER = "198.51.100.10", "203.0.113.66", "203.0.113.200", "203.0.113.53"
CLIENTS = [f"203.0.113.{number}" for number in range(1, 5)]
LOSSY = CLIENTS[1]
"""Every fourth segment to this client is sent twice."""
SECONDS = 140
BACKUP_FROM_S = 100
"""Before that there is no backup: what it looked like two minutes ago is another picture."""
MOST_KEYS = 3

Packet = tuple[int, str, str, int, int, int, int]
"""Second, source, destination, ports, octets of payload (TCP; UDP to and from port 53), place in the stream."""


def mix() -> Iterator[Packet]:
    sent: Counter[tuple[str, int, str, int]] = Counter()

    def packet(second: int, source: str, destination: str, ports: tuple[int, int], size: int, again: int = 0) -> Packet:
        stream = source, ports[0], destination, ports[1]
        at = sent[stream] - again
        sent[stream] += size - again
        return second, source, destination, *ports, size, at

    for second in range(SECONDS):
        for number, client in enumerate(CLIENTS):
            yield packet(second, client, SERVER, (40_000 + number, 443), 100)
            for _ in range(number + 1):
                yield packet(second, SERVER, client, (443, 40_000 + number), 1_200)
            if client == LOSSY and second % 2:
                yield packet(second, SERVER, client, (443, 40_000 + number), 1_200, 1_200)
        yield packet(second, SERVER, RESOLVER, (35_000, 53), 40)
        yield packet(second, RESOLVER, SERVER, (53, 35_000), 200)
        for port in range(3):
            yield packet(second, SCANNER, SERVER, (55_555, 1_001 + 3 * second + port), 0)
        if second >= BACKUP_FROM_S:
            for _ in range(12):
                yield packet(second, SERVER, BACKUP, (873, 41_000), 1_400)


def frame(packet: Packet) -> bytes:
    _, source, destination, source_port, destination_port, size, at = packet
    udp = 53 in (source_port, destination_port)
    if udp:
        inner = f.udp(source_port, destination_port, bytes(size))
    else:
        inner = f.tcp(source_port, destination_port, f.ACK if size else f.SYN, bytes(size))
        inner = inner[:4] + (1_000 + at).to_bytes(4, "big") + inner[8:]
    return f.ethernet(f.IPV4, f.ipv4(inner, f.UDP if udp else f.TCP, source=source, destination=destination))


def octets(packets: list[Packet], second: int) -> tuple[Counter[str], Counter[str]]:
    """IP octets of that second from and to each remote host."""
    came: Counter[str] = Counter()
    went: Counter[str] = Counter()
    for packet in packets:
        if packet[0] == second:
            length = len(frame(packet)) - 14
            (came if packet[2] == SERVER else went)[packet[1] if packet[2] == SERVER else packet[2]] += length
    return came, went


PACKETS = list(mix())


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mix") / "mix.pcap"
    number = Counter(packet[0] for packet in PACKETS)
    place: Counter[int] = Counter()
    frames = []
    for packet in PACKETS:  # spread over their second, to its end: so ticks are seconds
        frames.append((T + packet[0] * w.SECOND + place[packet[0]] * (w.SECOND - 1) // (number[packet[0]] - 1),
                       frame(packet)))
        place[packet[0]] += 1
    path.write_bytes(w.pcap(frames, nano=True))
    return path


@asynccontextmanager
async def start_screen(recording: Path, width: int = 80, height: int = 24, *, networks: NetworkDatabases | None = None,
                       ) -> AsyncIterator[Pilot[None]]:
    """The screen at the end of the recording, as it is before any key."""
    own = ipaddress.ip_address(SERVER).packed
    config = PipelineConfig(own_time=True, stay=True, past_s=300.0, by_remote_end=True,
                            table=TableConfig(linger_s=1e9, idle_timeout_s=1e4), trouble=DEFAULTS)
    app = FlowtopApp(lambda: Pipeline(config, FileCapture(FileConfig(str(recording), 1.0)),
                                      here=HostAddresses(lambda: ([own], ())), networks=networks))
    async with app.run_test(size=(width, height)) as pilot:
        async with asyncio.timeout(120):
            while not any("END OF FILE" in line for line in terminal_lines(app)):
                await pilot.pause(0.05)
        try:
            yield pilot
        finally:  # also with a panel open, where q closes that: its threads must not outlive the test
            app.request_quit()
            await pilot.pause()


async def answer(pilot: Pilot[None], *keys: str) -> list[str]:
    """What is on screen after these keys."""
    assert len(keys) <= MOST_KEYS
    for key in keys:
        await pilot.press(key)
        app = pilot.app
        assert isinstance(app, FlowtopApp)
        async with asyncio.timeout(30):
            while app.main.page is None or app.main.page.query != app.main.questions.asked:
                await pilot.pause(0.02)
        await pilot.pause()
    return [line.rstrip() for line in terminal_lines(pilot.app)]


def row_of(screen: list[str], name: str) -> str:
    return next(line for line in screen if line.split()[:1] == [name])


def rate(octets_per_s: float) -> str:
    return " ".join(units.rate_cell(octets_per_s).split())


LAST = SECONDS - 1


async def test_who_uses_my_bandwidth(recording: Path) -> None:
    came, went = octets(PACKETS, LAST)
    async with start_screen(recording) as pilot:
        screen = await answer(pilot, "2")
        rows = screen[screen.index(row_of(screen, "HOST")) + 1:]
        both = came + went  # two of the clients have as much as each other: which of them is first is not said
        shown = [line.split()[0] for line in rows[:3]]
        assert [both[host] for host in shown] == [most for _, most in both.most_common(3)] and shown[0] == BACKUP
        share = 100 * both[BACKUP] / both.total()
        assert f" {share:.0f} %" in rows[0]


async def test_is_it_in_or_out(recording: Path) -> None:
    came, went = octets(PACKETS, LAST)
    async with start_screen(recording) as pilot:
        first = terminal_lines(pilot.app)[0]
        assert " ".join(units.rate(went.total(), bits=True).split()) in " ".join(first.split("out")[1].split())
        assert " ".join(units.rate(came.total(), bits=True).split()) in " ".join(first.split(" in ")[1].split())
        row = " ".join(row_of(await answer(pilot, "2"), CLIENTS[3]).split())
        assert row.startswith(f"{CLIENTS[3]} {rate(came[CLIENTS[3]])} {rate(went[CLIENTS[3]])} ")


async def test_who_talks_to_this_address_and_on_which_port(recording: Path) -> None:
    async with start_screen(recording) as pilot:
        screen = await answer(pilot, "2", "down", "enter")
        assert any(f"all › {BACKUP}" in line for line in screen)
        assert any(f"{SERVER}:873" in line and f"{BACKUP}:41000" in line for line in screen)


async def test_on_which_port(recording: Path) -> None:
    by_port: Counter[int] = Counter()
    for packet in PACKETS:
        if packet[0] == LAST:
            by_port[min(packet[3], packet[4])] += len(frame(packet)) - 14
    async with start_screen(recording) as pilot:
        screen = await answer(pilot, "3")
        rows = screen[screen.index(row_of(screen, "SERVICE")) + 1:]
        assert [int(line.split()[1]) for line in rows[:3]] == [port for port, _ in by_port.most_common(3)]
        assert rows[0].split()[0] == "tcp"


async def test_what_did_it_look_like_two_minutes_ago(recording: Path) -> None:
    came, went = octets(PACKETS, LAST - 120)
    async with start_screen(recording, 120, 40) as pilot:
        screen = await answer(pilot, "left_parenthesis", "left_parenthesis", "2")
        then = time.strftime("%H:%M:%S", time.localtime(T // w.SECOND + SECONDS - 120))
        assert any(f" kept, {then} " in line for line in screen)
        listed = [line.split()[0] for line in screen if line.split()[:1] and line.split()[0] in {*CLIENTS, BACKUP}]
        assert BACKUP not in listed and listed[0] == (came + went).most_common(1)[0][0]
        total = " ".join(units.rate(went.total(), bits=True).split())
        assert any(f"out {total}" in line for line in screen), "the sum of then"


async def test_how_much_of_all_is_what_i_filter_for(recording: Path) -> None:
    """One key, a filter, Enter."""
    came, went = octets(PACKETS, LAST)
    async with start_screen(recording, 120) as pilot:
        await pilot.press("slash", *f"host {BACKUP}", "enter")
        screen = await answer(pilot)
        await pilot.pause(0.2)
        screen = [line.rstrip() for line in terminal_lines(pilot.app)]
        share = 100 * (came + went)[BACKUP] / (came + went).total()
        assert any(f"out {' '.join(units.rate(went[BACKUP], bits=True).split())}  {share:.0f} %" in line
                   for line in screen)


async def test_am_i_being_scanned(recording: Path) -> None:
    ports = {packet[4] for packet in PACKETS if packet[1] == SCANNER}
    async with start_screen(recording) as pilot:
        assert any(f"scan? {SCANNER}" in line for line in terminal_lines(pilot.app)), "before any key"
        screen = await answer(pilot, "a")
        assert any(f"scan? {SCANNER}: {len(ports)} ports" in line for line in screen)
        rows = [line for line in screen if ":443" not in line and SERVER.split(".")[0] + "." in line]
        assert sum("55555" in line for line in rows) >= 15, "its probes are listed"


async def test_what_is_retransmitting(recording: Path) -> None:
    data = [packet for packet in PACKETS if packet[2] == LOSSY]
    again = len(data) - len({packet[6] for packet in data})
    assert again == SECONDS // 2
    async with start_screen(recording) as pilot:
        menu = await answer(pilot, "s", "pagedown")
        letter = next(line.strip("│ ").split()[0] for line in menu if " RETR " in line)
        screen = await answer(pilot, letter)
        head = next(line for line in screen if "RETR↓" in line and "SOURCE" in line)
        first = screen[screen.index(head) + 1]
        assert f"{LOSSY[-2:]}:40001 " in first
        assert first[:head.index("RETR↓") + len("RETR↓")].split()[-1] == str(again)


async def test_what_changed(recording: Path) -> None:
    """The backup is new, the scan's first probes are gone."""
    gone = {packet[4] for packet in PACKETS if packet[1] == SCANNER and packet[0] <= SECONDS - 119}
    rate_10s = sum(len(frame(packet)) - 14 for packet in PACKETS if packet[2] == BACKUP
                   and packet[0] >= SECONDS - 10) / 10
    async with start_screen(recording) as pilot:
        screen = await answer(pilot, "d")
        assert any("AGAINST" in line for line in screen)
        rows = [line for line in screen if ":" in line and line.rstrip("│ ").endswith((" appeared", " gone"))]
        assert "200:41000 " in rows[0] and "appeared" in rows[0] and f"+{rate(rate_10s)}" in " ".join(rows[0].split())
        listed = {int(line.split(":")[-1].split()[0]) for line in rows if " gone" in line}
        assert listed and listed <= gone


async def test_how_is_it_by_subnet(recording: Path) -> None:
    came, _ = octets(PACKETS, LAST)
    async with start_screen(recording) as pilot:
        menu = await answer(pilot, "g")
        letter = next(line.strip("│ •").split()[0] for line in menu if " subnet " in line)
        screen = await answer(pilot, letter)
        row = " ".join(next(line for line in screen if "203.0.113.0/24" in line).split())
        assert rate(came.total()) in row, "what comes from there"
        assert any("198.51.100.0/24" in line for line in screen)


async def test_how_is_it_by_as(recording: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "asn.mmdb", {"203.0.113.0/25": asn(64_500, "Clients Inc"),
                                         "203.0.113.128/25": asn(64_501, "Backups Ltd")})
    _, went = octets(PACKETS, LAST)
    async with start_screen(recording, 120, 60, networks=NetworkDatabases([path])) as pilot:
        menu = await answer(pilot, "g")
        letter = next(line.strip("│ •").split()[0] for line in menu if " as_name " in line)
        row = " ".join(next(line for line in await answer(pilot, letter) if "Backups Ltd" in line).split())
        assert rate(went[BACKUP]) in row


async def test_how_is_it_by_country(recording: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "country.mmdb", {"203.0.113.0/25": country("NL"), "203.0.113.128/25": country("JP")},
                 kind="GeoLite2-Country")
    _, went = octets(PACKETS, LAST)
    async with start_screen(recording, 120, 60, networks=NetworkDatabases([path])) as pilot:
        menu = await answer(pilot, "g")
        letter = next(line.strip("│ •").split()[0] for line in menu if " country " in line)
        screen = await answer(pilot, letter)
        row = next(line for line in screen if line.split()[:1] == ["JP"]).split()
        assert rate(went[BACKUP]) in " ".join(row)
        clients = sum(went[client] for client in CLIENTS) + went[SCANNER] + went[RESOLVER]
        assert rate(clients) in " ".join(next(line for line in screen if line.split()[:1] == ["NL"]).split())


ROUND_TRIPS_MS = {CLIENTS[0]: 20, CLIENTS[1]: 250, CLIENTS[2]: 45}


async def test_what_is_slow(tmp_path: Path) -> None:
    """Sorted by round-trip time: from the SYN to its answer, as seen where it was recorded."""
    frames = []
    for client, round_trip_ms in ROUND_TRIPS_MS.items():
        for at_ms, way, bits, size in ((0, 0, f.SYN, 0), (round_trip_ms, 1, f.SYN | f.ACK, 0),
                                       *((1_000 * second, 1, f.ACK, 1_000) for second in range(1, 5))):
            ends = [(client, 40_000), (SERVER, 443)]
            (source, port), (destination, to_port) = reversed(ends) if way else ends
            inner = f.tcp(port, to_port, bits, bytes(size))
            frames.append((T + at_ms * w.SECOND // 1_000, f.ethernet(f.IPV4, f.ipv4(
                inner, f.TCP, source=source, destination=destination))))
    path = tmp_path / "slow.pcap"
    path.write_bytes(w.pcap(sorted(frames), nano=True))
    async with start_screen(path, 120, 40) as pilot:
        menu = await answer(pilot, "s")
        letter = next(line.strip("│ ").split()[0] for line in menu if " RTT " in line)
        screen = await answer(pilot, letter)
        head = next(line for line in screen if "RTT↓" in line and "SOURCE" in line)
        end = head.index("RTT↓") + len("RTT↓")
        rows = screen[screen.index(head) + 1:][:2 * len(ROUND_TRIPS_MS)]
        assert [line[:end].split()[-2:] for line in rows] == [
            [f"{round_trip_ms}.0" if round_trip_ms < 100 else str(round_trip_ms), "ms"]
            for round_trip_ms in sorted(ROUND_TRIPS_MS.values(), reverse=True) for _ in range(2)]
        assert all(CLIENTS[1].split(".")[-1] + ":40000" in line for line in rows[:2])


async def test_how_has_it_been_over_time_of_a_host_and_of_a_flow(recording: Path) -> None:
    """The chart of the host that is opened, and of its flow: octets of each second, from the first packet on."""
    by_second = [octets(PACKETS, second)[1][BACKUP] for second in range(BACKUP_FROM_S, SECONDS)]
    async with start_screen(recording, 120, 48) as pilot:
        screen = await answer(pilot, "2", "down", "enter")
        assert any(" listed " in line for line in screen)
        app = pilot.app
        assert isinstance(app, FlowtopApp) and app.main.page is not None
        history = app.main.page.listed_history
        assert sum(history.into) == 0
        volumes = [rate * length for rate, length in zip(history.out_of, history.lengths_s, strict=True)]
        assert sum(volumes) == pytest.approx(sum(by_second))
        assert max(history.out_of) == pytest.approx(max(by_second), rel=0.02)
        for keys in (["left_square_bracket"], ["d"], ["d", "space"]):  # the past, compared; now
            screen = await answer(pilot, *keys)
            assert app.main.page.listed_history == history and any(" listed " in line for line in screen)
            at = [segment for strip in app.screen._compositor.render_strips()[2:5] for segment in strip
                  if segment.style is not None and segment.style.reverse]
            assert len(at) == (0 if "space" in keys else 6), "a cursor in each row of both sides"
        screen = await answer(pilot, "enter")
        details = app.main.page.details
        assert details is not None and details.history is not None
        its = details.history
        volumes = [rate * length for rate, length in zip(its.out_of, its.lengths_s, strict=True)]
        assert sum(volumes) == pytest.approx(sum(by_second))
        assert any("-1m" in line and "│" in line for line in screen), "in the box of the details"


@pytest.mark.parametrize("keys", [("f", "W", "enter"), ("x", "p", "enter")])
async def test_a_capture_of_exactly_this(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...]) -> None:
    """Of the first flow: `x`, or `f` lists its conversation, and `W` and Enter write that. A file that has been read
    has no more packets, so this is live."""
    monkeypatch.chdir(tmp_path)
    packets = FakePackets()
    flows = [flow(1, SERVER, BACKUP, (873, 41_000), rate=9e6), flow(2, SERVER, CLIENTS[0], (443, 40_000), rate=8e6)]
    async with running(FakeSource(flows), packets=packets) as pilot:
        await pilot.press(*keys)
        await pilot.app.workers.wait_for_complete()
        await pilot.pause()
        [(_, filters, _)] = packets.asked
        assert len(filters) == 1 and all(word in filters[0] for word in (BACKUP, SERVER, "873", "41000"))


async def test_an_export_of_exactly_this() -> None:
    exports = FakeExports()
    async with running(FakeSource([flow(1, SERVER, BACKUP, (873, 41_000), rate=9e6)]), exports=exports) as pilot:
        await pilot.press("x", "e", "enter")
        await pilot.app.workers.wait_for_complete()
        [(_, (_, text))] = exports.asked
        assert all(word in text for word in (BACKUP, SERVER, "873", "41000"))
