"""AS and country on the screen: columns, groups, details; bad databases are said; names from files are harmless."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowtop.networks.networks import NetworkDatabases
from flowtop.query.query import Query
from tests.tui.fake_source import FakeSource, flow
from tests.tui.screen import flow_lines, line, lines, running
from tests.tui.test_hostile import HOSTILE, assert_harmless
from tests.unit.networks.databases import asn, country, write

PEERS = {"198.51.100.7": (64500, "Example Cloud", "DE"), "203.0.113.9": (64501, "Beispiel", "FR")}


def source(*paths: Path) -> FakeSource:
    made = FakeSource([flow(number, "10.0.0.1", peer, (40_000, 443), rate=1e6 - number)
                       for number, peer in enumerate([*PEERS, "192.0.2.1"], 1)])
    made.networks = NetworkDatabases(paths)
    return made


def database(place: Path) -> Path:
    records: dict[str, Any] = {f"{peer}/32": asn(number, name) | country(code)
                               for peer, (number, name, code) in PEERS.items()}
    return write(place / "both.mmdb", records)


async def test_columns_details_and_groups(tmp_path: Path) -> None:
    shown = source(database(tmp_path))
    async with running(shown, 220, 40) as pilot:
        assert {"ASN", "CC"} <= set(line(pilot.app, 2).split())
        for row, (number, name, code) in zip(flow_lines(pilot.app), PEERS.values(), strict=False):
            assert f"{number}" in row and name in row and row.split().count(code) == 1
        await pilot.press("down", "enter")
        assert any("dst network" in each and {"AS64500", "Cloud", "DE"} <= set(each.split())
                   for each in lines(pilot.app))
    async with running(source(database(tmp_path)), 120, query=Query(group=("country",))) as pilot:
        assert sorted(row.split()[0] for row in flow_lines(pilot.app) if row.strip()) == ["-", "DE", "FR"]


async def test_without_databases_nothing_is_different(tmp_path: Path) -> None:
    plain, shown = source(), source()
    plain.networks = None
    async with running(plain, 220) as pilot:
        expected = lines(pilot.app)
    async with running(shown, 220) as pilot:
        assert lines(pilot.app) == expected


async def test_a_bad_database_is_said_and_stays_in_view(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mmdb"
    bad.write_bytes(b"\x1b[31mno database")
    async with running(source(bad, database(tmp_path)), 160) as pilot:
        text = "\n".join(lines(pilot.app))
        assert "AS/country: 1 bad" in text
        assert "bad.mmdb: is not an MMDB file" in text
        assert "DE" in text.split(), "the other one is used"


async def test_names_from_databases_are_painted_harmless(tmp_path: Path) -> None:
    records = {f"198.51.100.{number}/32": asn(64500 + number, text.encode(errors="replace").decode())
               for number, text in enumerate(HOSTILE)}
    path = write(tmp_path / "evil.mmdb", records)
    made = FakeSource([flow(number + 1, "10.0.0.1", f"198.51.100.{number}", (40_000, 443), rate=1e6 - number)
                       for number in range(len(HOSTILE))])
    made.networks = NetworkDatabases([path])
    async with running(made, 220, query=Query(sort="as_name")) as pilot:
        assert_harmless(pilot.app)
        assert "gone" in "\n".join(lines(pilot.app))
        await pilot.press("down", "enter")
        assert_harmless(pilot.app)
    async with running(made, 220, query=Query(group=("as_name",))) as pilot:
        assert_harmless(pilot.app)
        await pilot.press("down", "enter")
        assert_harmless(pilot.app)
