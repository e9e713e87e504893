"""Details of files (RFC 5655 section 8.1), read octet by octet: checksums, session, time window, damage."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flowtop
from flowtop.export.statistics import GivenUp, MeteringFacts
from flowtop.export.transports.files import FileTransport, IpfixFile, own_address
from flowtop.export.url import parse_export_url
from flowtop.text.lookups import Lookups
from tests.prepared import run_flowtop
from tests.unit.capture.collector.exports import FLOW, flow, ipfix, set_of, template
from tests.unit.export.flows import flows

T = 1_700_000_000
DIGEST, SCOPE, SESSION = 262, 263, 267


class Context:
    """What a transport asks of its exporter."""

    now = float(T)

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def metering(self) -> MeteringFacts:
        return MeteringFacts(Lookups(interfaces={3: "eth0"}))

    def given_up(self) -> GivenUp:
        return GivenUp()

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def written(path: Path, *counts: int, options: str = "") -> bytes:
    """A file of flows, one batch a second later than the other; its octets."""
    context: Any = Context()
    transport = FileTransport(parse_export_url(f"file:{path}{options}"))
    transport.open(context)
    for number, count in enumerate(counts):
        context.now += 1
        records = flows(count)
        records["start_ms"] += 1000 * number
        records["end_ms"] += 1000 * number
        transport.send(records, context)
    transport.finish(context)
    return path.read_bytes()


def messages(octets: bytes) -> Iterator[bytes]:
    while octets:
        length = int.from_bytes(octets[2:4], "big")
        yield octets[:length]
        octets = octets[length:]


def sets(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 16
    while at < len(message):
        number, length = struct.unpack_from(">HH", message, at)
        yield number, at + 4, message[at + 4:at + length]
        at += length


class Reader:
    """Templates by domain; the options records whose fields are of `wanted` elements."""

    def __init__(self) -> None:
        self.templates: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self.sequence: dict[int, int] = {}
        self.digests = 0
        self.details: list[dict[int, int]] = []

    def take(self, message: bytes) -> None:
        _, _, _, sequence, domain = struct.unpack_from(">HHIII", message)
        assert sequence == self.sequence.get(domain, 0)
        found = 0
        for number, start, octets in sets(message):
            if number in (2, 3):
                self._learn(domain, number, octets)
                continue
            fields = self.templates[domain, number]
            size = sum(length for _, length in fields)
            if any(length == 65_535 for _, length in fields):
                self.sequence[domain] = self.sequence.get(domain, 0) + 1  # one interface
                continue
            self.sequence[domain] = self.sequence.get(domain, 0) + len(octets) // size
            if [element for element, _ in fields] == [SCOPE, DIGEST]:
                found += 1
                digest = octets[1:17]
                blank = message[:start + 1] + bytes(16) + message[start + 17:]
                assert hashlib.md5(blank, usedforsecurity=False).digest() == digest
            elif fields[0][0] == SESSION:
                at, values = 0, {}
                for element, length in fields:
                    values[element] = int.from_bytes(octets[at:at + length], "big")
                    at += length
                self.details.append(values)
        assert found == 1
        self.digests += 1

    def _learn(self, domain: int, number: int, octets: bytes) -> None:
        while len(octets) >= 6:
            id_, count = struct.unpack_from(">HH", octets)
            octets = octets[4 if number == 2 else 6:]
            fields = []
            for _ in range(count):
                element, length = struct.unpack_from(">HH", octets)
                octets = octets[8 if element & 0x8000 else 4:]
                fields.append((element, length))
            self.templates[domain, id_] = fields


@pytest.mark.parametrize("counts", [(1,), (3, 5), (1000,), (700, 1, 2), (5000,)])
@pytest.mark.parametrize("options", ["", "?profile=strict", "?biflow=on", "?domain=9&profile=nfdump"])
def test_every_message_has_its_checksum_and_sequence_numbers_go_on(counts: tuple[int, ...], options: str,
                                                                   tmp_path: Path) -> None:
    reader = Reader()
    found = list(messages(written(tmp_path / "x", *counts, options=options)))
    for message in found:
        reader.take(message)
        assert len(message) <= 65_535
    assert reader.digests == len(found)
    session, window = reader.details
    first_ms = T * 1000
    assert session[214] == 10 and session[264] == T and {*session} & {130, 131}
    assert (window[272], window[269], window[264], window[260]) == (
        first_ms, first_ms + 500 + 1000 * (len(counts) - 1), T, T + len(counts))


def test_a_file_without_flows_has_no_time_window(tmp_path: Path) -> None:
    reader = Reader()
    for message in messages(written(tmp_path / "x")):
        reader.take(message)
    assert len(reader.details) == 1


def test_each_rotated_file_has_details_of_its_own(tmp_path: Path) -> None:
    written(tmp_path / "x", 200, 200, 200, options="?rotate-size=4Ki")
    paths = list(tmp_path.iterdir())
    assert len(paths) >= 3
    for path in paths:
        reader = Reader()
        for message in messages(path.read_bytes()):
            reader.take(message)
        assert reader.digests and len(reader.details) <= 2


@pytest.mark.parametrize("profile", ["go-ipfix"])
def test_a_profile_without_options_has_no_details(profile: str, tmp_path: Path) -> None:
    for message in messages(written(tmp_path / "x", 5, options=f"?profile={profile}")):
        assert [number for number, _, _ in sets(message) if number in (3, 768)] == []


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "0.0.0.0"])
def test_the_exporter_is_this_host(address: str, tmp_path: Path) -> None:
    context: Any = Context()
    file = IpfixFile(parse_export_url(f"file:{tmp_path}/x"), lambda: address)
    reader = Reader()
    reader.take(file.begin(context)[0])
    packed = reader.details[0][131 if ":" in address else 130]
    assert ipaddress.ip_address(packed.to_bytes(16 if ":" in address else 4, "big")) == ipaddress.ip_address(address)
    ipaddress.ip_address(own_address())


def damaged(path: Path, octets: bytes) -> int:
    """Change one octet of a flow counter in the last message of flows; returns the number of messages."""
    parts = list(messages(octets))
    at = next(number for number in range(len(parts) - 1, -1, -1)
              if any(256 <= set_id < 263 for set_id, _, _ in sets(parts[number])))
    message = bytearray(parts[at])
    message[16 + 4 + 24 + 7] ^= 1  # the last octet of octetDeltaCount
    parts[at] = bytes(message)
    path.write_bytes(b"".join(parts))
    return len(parts)


def test_a_message_that_was_changed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x"
    octets = written(path, 5)
    good = flowtop.read(path)
    assert good.fault is None and good.collecting is not None and good.collecting.wrong_checksums == 0
    count = damaged(path, octets)
    table = flowtop.read(path)
    assert table.collecting is not None and table.collecting.wrong_checksums == 1
    assert table.fault is not None and "1 messages with a wrong checksum" in table.fault.message
    done = run_flowtop("-o", "json", path, module="flowtop.cli.dump")
    found = [json.loads(line)["refused"] for line in done.stdout.splitlines()]
    assert done.returncode == 65 and len(found) == count
    assert [one for one in found if one] == [["the checksum in this message is not its own"]]


def test_what_has_no_checksum_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(ipfix(template(256, FLOW), set_of(256, flow(1))))
    table = flowtop.read(tmp_path / "x")
    assert table.fault is None and table.collecting is not None and table.collecting.wrong_checksums == 0
