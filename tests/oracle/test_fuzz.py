"""Captures and export datagrams of real devices, damaged: every reader ends, in books that balance, in bounded memory.

So many tries with seeds that stand: bounded time, and what fails once fails again.
"""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from flowtop.capture.files.messages import read_payloads
from flowtop.capture.files.octets import ROOM, OctetStream
from flowtop.errors import FlowtopError
from flowtop.model.kinds import Tunnel
from flowtop.output.dump import entries, entry_text
from flowtop.wire.flow_templates import (
    PROFILES,
    announcement,
    flow_sets,
    flow_templates,
    options_announcement,
    tunnel_table,
)
from flowtop.wire.ipfix import encode_messages
from tests.oracle.collectors import write_pcap
from tests.oracle.exports_data import DATA, data_directory
from tests.unit.capture.collector import test_sflow as agent
from tests.unit.capture.files.reading import read
from tests.unit.export.flows import flows

TRIES = 12
"""Of each file."""
INTERESTING = (b"\0", b"\xff", b"\0\0", b"\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0",
               b"\0\1\0\1")


def damaged(octets: bytes, rng: random.Random, head: int) -> bytes:
    """Some octets changed, cut out, doubled or put in; the first `head` mostly left, so that it is still looked at."""
    found = bytearray(octets)
    for _ in range(rng.randrange(1, 8)):
        at = rng.randrange(head if rng.randrange(10) else 0, max(head + 1, len(found)))
        way = rng.randrange(5)
        if way < 3:
            put = rng.choice(INTERESTING) if way else bytes([rng.randrange(256)])
            found[at:at + len(put)] = put
        elif way == 3:
            del found[at:at + rng.randrange(1, 40)]
        else:
            found[at:at] = found[at:at + rng.randrange(1, 200)]
    return bytes(found[:rng.randrange(head, len(found) + 1)] if not rng.randrange(3) else found)


@contextmanager
def memory_below(octets: int) -> Iterator[None]:
    """Python's memory, numpy's arrays with it, never passes this."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < octets
    finally:
        tracemalloc.stop()


def files(folder: str, pattern: str) -> list[Path]:
    return sorted((DATA / folder).glob(pattern)) or [Path("none")]


@pytest.mark.parametrize("path", files("pcap", "*.pcap"), ids=lambda path: path.stem)
def test_captures(path: Path, tmp_path: Path) -> None:
    data_directory()
    octets = path.read_bytes()[:200_000]
    rng = random.Random(path.name)
    with memory_below(ROOM + 40_000_000):
        for _ in range(TRIES):
            (tmp_path / "x").write_bytes(damaged(octets, rng, 24))
            try:
                read(tmp_path / "x")  # which asserts that the books balance
            except FlowtopError as error:
                assert "\n" not in error.message


@pytest.mark.parametrize("path", files("netflow", "*.dat"), ids=lambda path: path.stem)
def test_exports(path: Path) -> None:
    data_directory()
    octets = path.read_bytes()
    rng = random.Random(path.name)
    with memory_below(40_000_000):
        process = CollectingProcess()
        for number in range(10 * TRIES):
            session = Session(number % 3, "192.0.2.1", bool(number % 2))
            process.receive(octets if not number % 4 else damaged(octets, rng, 4), session, 1_780_000_000.0 + number)
            if not number % 10:
                process.drain()
        keys, counters, _ = process.drain()
        assert len(keys) == len(counters)
        statistics = process.statistics()
        assert statistics.messages + statistics.refused_messages >= 10 * TRIES, "a datagram may have several messages"


def test_exports_of_flows_in_tunnels() -> None:
    records = flows(60)
    records["tunnel"], records["tunnel_id"] = records["flow_id"] % len(Tunnel), records["flow_id"]
    templates = flow_templates(PROFILES["default"])
    told = [*announcement(templates), *announcement(templates, tunnelled=True),
            *options_announcement(templates, tunnelled=True), tunnel_table(templates, [4 << 32 | 7, 1 << 32])]
    messages = encode_messages([*told, *flow_sets(records, templates)[0]], domain=1, sequence=0,
                               export_time_s=1_780_000_000, max_octets=1_400).messages
    rng = random.Random("tunnels")
    with memory_below(40_000_000):
        process = CollectingProcess()
        for number in range(400):
            octets = messages[number % len(messages)]
            octets = octets if number < len(messages) else damaged(octets, rng, 16)
            process.receive(octets, Session("t", "192.0.2.1", True), 1_780_000_000.0 + number)
        keys, counters, _ = process.drain()
        assert int(counters["octets"].sum()) == int(process.points.observations()["octets"].sum())
        # What a host decrypted for itself is counted in its ESP flow: no Information Element tells it.
        assert set(keys["tunnel"].tolist()) == set(Tunnel) - {Tunnel.IPSEC}, "no other kind, whatever the octets say"


def test_sflow() -> None:
    octets = agent.datagram(agent.COUNTERS, agent.sample(agent.raw_header(agent.frame()), agent.OTHER_RECORD),
                            agent.sample(agent.raw_header(agent.frame(90, 7)), expanded=True))
    rng = random.Random("sflow")
    with memory_below(40_000_000):
        process = CollectingProcess()
        for number in range(400):
            process.receive(damaged(octets, rng, 4), Session("s", "192.0.2.1", True), 1_780_000_000.0 + number)
        _, counters, _ = process.drain()
        assert int(counters["octets"].sum()) == int(process.points.observations()["octets"].sum())


@pytest.mark.parametrize("container", ["raw", "pcap"])
def test_dump(container: str, tmp_path: Path) -> None:
    paths = sorted((data_directory() / "netflow").glob("*.dat"))
    rng = random.Random(container)
    with memory_below(ROOM + 40_000_000):
        for path in paths:
            for _ in range(3):
                octets = damaged(path.read_bytes(), rng, 2)
                if container == "pcap":
                    write_pcap(tmp_path / "x", [octets])
                    octets = damaged((tmp_path / "x").read_bytes(), rng, 24)
                (tmp_path / "x").write_bytes(octets)
                stream = OctetStream(str(tmp_path / "x"))
                try:
                    for entry in entries(read_payloads(stream)):
                        assert entry_text(entry, "text") and json.loads(entry_text(entry, "json"))
                except FlowtopError as error:
                    assert "\n" not in error.message
                finally:
                    stream.close()
