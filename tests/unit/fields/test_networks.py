"""Fields of AS and country: remote end, source and destination; filters, groups, JSON, records, details, exporters.

Expectations are the test's own table of networks, searched with `ipaddress`.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowtop.errors import FlowtopError
from flowtop.fields.columns import Wording
from flowtop.fields.fitting import NO_DISTINCTIONS, fit
from flowtop.fields.groups import drill_term
from flowtop.fields.networks import NetworkColumns
from flowtop.fields.records import plain_records
from flowtop.fields.registry import COLUMNS, FIELDS, GROUPS, KEYS, MEMBERS
from flowtop.fields.seen import seen_texts
from flowtop.filters.build import PRIVATE
from flowtop.filters.filter import compile_filter
from flowtop.metering.flows import TableConfig
from flowtop.metering.table import FlowTable
from flowtop.model.kinds import SOURCE_LENGTH_SHIFT, Kind, RecordBits
from flowtop.model.record import DESCRIBED_DTYPE
from flowtop.model.reported import REPORTED_DTYPE
from flowtop.networks.here import HostAddresses
from flowtop.networks.networks import NetworkDatabases
from flowtop.output.records import record
from flowtop.query.answer import Answerer
from flowtop.query.pager import Pager
from flowtop.query.past import Past
from flowtop.query.query import Query
from flowtop.text.lookups import NO_LOOKUPS, Lookups
from flowtop.tui.main.filter import seen_values
from flowtop.tui.panels.details import DetailsContext, detail_lines
from tests.kernel import frames as f
from tests.unit.capture.files import writers as w
from tests.unit.factories import SECOND, START_NS, batch, counters, key
from tests.unit.factories import packed as packed_address
from tests.unit.networks.databases import asn, country, write
from tests.unit.query.test_answer import source
from tests.unit.query.test_past import facts

NETWORKS = {"198.51.100.0/25": (64500, "Example Cloud", "DE"), "203.0.113.0/24": (64501, "Evil \x1b[31mNet\n", "FR"),
            "2001:db8:1::/48": (64502, "Six", "NL"), "10.9.0.0/16": (64503, "Lab", "")}
NAMES = {64501: "Evil Net"}
HOME, SERVER, EVIL, NOBODY, LAB = "10.0.0.1", "198.51.100.7", "203.0.113.9", "198.51.100.200", "10.9.1.1"
HOME6, SERVER6 = "fd00::1", "2001:db8:1::7"
FIELD_IDS = [f"{side}{name}" for side in ("", "source_", "destination_") for name in ("asn", "as_name", "country")]


def known(address: str) -> tuple[int, str, str]:
    parsed = ipaddress.ip_address(address)
    for network, (number, name, code) in NETWORKS.items():
        if parsed.version == ipaddress.ip_network(network).version and parsed in ipaddress.ip_network(network):
            return number, NAMES.get(number, name), code
    return 0, "", ""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("databases")
    numbers = {network: asn(number, name) for network, (number, name, _) in NETWORKS.items()}
    countries = {network: country(code) for network, (_, _, code) in NETWORKS.items() if code}
    return [write(place / "asn.mmdb", numbers), write(place / "country.mmdb", countries)]


@pytest.fixture
def lookups(paths: list[Path]) -> Lookups:
    return Lookups({2: "eth0"}, networks=NetworkDatabases(paths))


FLOWS = [  # source, destination, source port, destination port, remote end
    (HOME, SERVER, 40000, 443, SERVER), (SERVER, HOME, 443, 40000, SERVER), (HOME, EVIL, 1000, 80, EVIL),
    (EVIL, NOBODY, 50000, 22, NOBODY), (NOBODY, EVIL, 22, 50000, NOBODY), (SERVER, EVIL, 7, 7, EVIL),
    (HOME, LAB, 40000, 53, LAB), (LAB, HOME, 53, 40000, LAB), (HOME6, SERVER6, 40000, 443, SERVER6),
    (SERVER6, HOME6, 443, 40000, SERVER6)]


def table() -> FlowTable:
    flows = FlowTable(TableConfig(idle_timeout_s=60))
    flows.update(batch([(key(*flow[:4]), counters(1, 100)) for flow in FLOWS], START_NS + SECOND))
    return flows


def of_row(row: Any) -> tuple[str, str, int, int]:
    version = 4 if row.ip_version == 4 else 16
    source, destination = (str(ipaddress.ip_address(raw[:4 if version == 4 else 16]))
                           for raw in (row.source_address, row.destination_address))
    return source, destination, row.source_port, row.destination_port


def values_of(row: Any, lookups: Lookups, side: str) -> tuple[int, str, str]:
    texts = [COLUMNS[f"{side}{name}"].text(row, Wording(), lookups) for name in ("asn", "as_name", "country")]
    return int(texts[0] or 0), texts[1], texts[2]


def rows(lookups: Lookups, flows: Any = None, **query: Any) -> tuple[Any, ...]:
    return Answerer().answer(Query(**{"limit": None} | query), flows or table(), lookups).rows


def test_each_flow_has_those_of_its_ends_and_of_the_remote_end(lookups: Lookups) -> None:
    remote = {flow[:4]: flow[4] for flow in FLOWS}
    found = rows(lookups)
    assert len(found) == len(FLOWS)
    for row in found:
        flow = of_row(row)
        assert values_of(row, lookups, "source_") == known(flow[0])
        assert values_of(row, lookups, "destination_") == known(flow[1])
        assert values_of(row, lookups, "") == known(remote[flow])


def test_addresses_of_this_host_decide_the_remote_end(paths: list[Path]) -> None:
    own = [ipaddress.ip_address(text).packed for text in (SERVER, SERVER6)]
    lookups = Lookups(networks=NetworkDatabases(paths), here=HostAddresses(lambda: (own, ())))
    expected = {(HOME, SERVER): HOME, (SERVER, HOME): HOME, (SERVER, EVIL): EVIL, (HOME6, SERVER6): HOME6,
                (SERVER6, HOME6): HOME6, (EVIL, NOBODY): NOBODY, (HOME, EVIL): EVIL}
    found = {of_row(row)[:2]: values_of(row, lookups, "") for row in rows(lookups)}
    assert {ends: found[ends] for ends in expected} == {ends: known(remote) for ends, remote in expected.items()}


@pytest.mark.parametrize("text", [
    "asn 64500", "asn AS64500", "asn != 64500", "asn 64500,64501", "asn > 64500", "not asn >= 0", "as_name ~ cloud",
    'as_name "example cloud"', "as_name Ex*", "country DE", "country de", "country D?", "country != DE",
    "country DE,FR", "not country ?*", "source_country FR", "destination_asn 64500", "source_as_name ~ evil",
    "as 64500", "src as 64500", "dst as AS64501", "src and dst as > 64499"])
@pytest.mark.parametrize("use", ["flows", "records"])
def test_filters(lookups: Lookups, text: str, use: Any) -> None:
    wanted: Any = {
        "asn 64500": lambda s, d, r: r[0] == 64500, "asn AS64500": lambda s, d, r: r[0] == 64500,
        "asn != 64500": lambda s, d, r: r[0] != 64500, "asn 64500,64501": lambda s, d, r: r[0] in (64500, 64501),
        "asn > 64500": lambda s, d, r: r[0] > 64500, "not asn >= 0": lambda s, d, r: not r[0],
        "as_name ~ cloud": lambda s, d, r: "Cloud" in r[1], 'as_name "example cloud"': lambda s, d, r: r[0] == 64500,
        "as_name Ex*": lambda s, d, r: r[1].startswith("Ex"), "country DE": lambda s, d, r: r[2] == "DE",
        "country de": lambda s, d, r: r[2] == "DE", "country D?": lambda s, d, r: r[2] == "DE",
        "country != DE": lambda s, d, r: r[2] != "DE", "country DE,FR": lambda s, d, r: r[2] in ("DE", "FR"),
        "not country ?*": lambda s, d, r: not r[2], "source_country FR": lambda s, d, r: s[2] == "FR",
        "destination_asn 64500": lambda s, d, r: d[0] == 64500, "source_as_name ~ evil": lambda s, d, r: "Evil" in s[1],
        "as 64500": lambda s, d, r: 64500 in (s[0], d[0]), "src as 64500": lambda s, d, r: s[0] == 64500,
        "dst as AS64501": lambda s, d, r: d[0] == 64501, "src and dst as > 64499": lambda s, d, r: s[0] and d[0],
    }[text]
    expected = sorted(flow[:4] for flow in FLOWS if wanted(*map(known, (flow[0], flow[1], flow[4]))))
    assert 0 < len(expected) < len(FLOWS)
    compiled = compile_filter(text, use)
    if use == "flows":
        assert sorted(map(of_row, rows(lookups, filter=compiled))) == expected
    else:
        records = table().end_all(START_NS + 2 * SECOND)
        ports = [tuple(pair) for pair in records[["source_port", "destination_port"]].tolist()]
        mask = compiled.record_mask(records, lookups)
        assert sorted(pair for pair, passes in zip(ports, mask, strict=True) if passes) == sorted(
            flow[2:4] for flow in expected)


@pytest.mark.parametrize("text", ["asn x", "asn AS", "asn 4294967296", "asn -1", "country > DE"])
def test_operands_that_mean_nothing(text: str) -> None:
    with pytest.raises(FlowtopError):
        compile_filter(text)


@pytest.mark.parametrize("field", FIELD_IDS)
def test_groups_and_their_filters(lookups: Lookups, field: str) -> None:
    side = next((side for side in ("source", "destination") if field.startswith(side)), "")
    name = field.removeprefix(f"{side}_")
    at, part = {"source": 0, "destination": 1, "": 4}[side], ("asn", "as_name", "country").index(name)
    wanted: dict[str, int] = {}
    for flow in FLOWS:
        text = str(known(str(flow[at]))[part] or "-")
        wanted[text] = wanted.get(text, 0) + 1
    found = rows(lookups, group=(field,), sort=field, descending=False)
    assert {GROUPS[field].text(row.group[0], lookups): row.flows for row in found} == wanted
    json_name = {"": "remote", "source": "source", "destination": "destination"}[side] + {
        "asn": "AsNumber", "as_name": "AsName", "country": "Country"}[name]
    for row in found:
        text = GROUPS[field].text(row.group[0], lookups)
        value = record(row, Query(group=(field,)), lookups).get(json_name)
        assert value == (None if text == "-" else int(text) if name == "asn" else text)
        term = drill_term((field,), row, lookups)
        assert len(rows(lookups, filter=compile_filter(term))) == wanted[text]


@pytest.mark.parametrize("field", FIELD_IDS)
def test_sorted_by_what_is_shown(lookups: Lookups, field: str) -> None:
    texts = [COLUMNS[field].text(row, Wording(), lookups) for row in rows(lookups, sort=field, descending=False)]
    if field.endswith("asn"):
        assert [int(text or 0) for text in texts] == sorted(int(text or 0) for text in texts)
    else:
        assert texts == sorted(texts, key=lambda text: (not text, text)), "at the first look, unknown ones last"
    cells = [COLUMNS[field].term(row, lookups) for row in rows(lookups)]
    for row, term in zip(rows(lookups), cells, strict=True):
        if term:
            assert of_row(row) in map(of_row, rows(lookups, filter=compile_filter(term)))


def test_biflows_have_those_of_their_initiator(lookups: Lookups) -> None:
    flows = FlowTable(TableConfig())
    there, back = FLOWS[0], FLOWS[1]
    flows.update(batch([(key(*there[:4]), counters(first_ns=START_NS)), (key(*back[:4]), counters(
        first_ns=START_NS + 1))], START_NS + SECOND))
    [row] = rows(lookups, flows, biflow=True, sort="country")
    assert values_of(row, lookups, "source_") == known(HOME)
    assert values_of(row, lookups, "destination_") == values_of(row, lookups, "") == known(SERVER)
    members = record(row, Query(biflow=True), lookups)
    assert members["destinationCountry"] == "DE" and "sourceCountry" not in members
    assert not [name for name in members if name.startswith("reverse") and name.endswith(("Country", "AsNumber"))]


def test_json_and_records_have_the_same_members(lookups: Lookups) -> None:
    of_rows = {of_row(row): record(row, Query(), lookups) for row in rows(lookups)}
    of_records = list(plain_records(table().end_all(START_NS + 2 * SECOND), lookups))
    assert len(of_records) == len(FLOWS)
    names = [name for name in MEMBERS if name.endswith(("AsNumber", "AsName", "Country")) and name[:3] != "bgp"]
    assert len(names) == 9
    for flow in FLOWS:
        [exported] = [one for one in of_records if {flow[0], flow[1]} <= set(one.values()) and flow[2:4] == (
            one["sourceTransportPort"], one["destinationTransportPort"])]
        expected = {f"{side}{name}": value for side, address in (
            ("source", flow[0]), ("destination", flow[1]), ("remote", flow[4]))
            for name, value in zip(("AsNumber", "AsName", "Country"), known(address), strict=True) if value}
        for members in (exported, of_rows[flow[:4]]):
            assert {name: members[name] for name in names if name in members} == expected


def test_without_databases_there_is_nothing() -> None:
    for row in rows(NO_LOOKUPS):
        assert not {"asn", "source_country"} & row.more.keys()
        assert not [name for name in record(row, Query(), NO_LOOKUPS) if name.endswith(("AsNumber", "Country"))]
    assert not rows(NO_LOOKUPS, filter=compile_filter("country DE or asn 64500"))
    assert len(rows(NO_LOOKUPS, group=("country",))) == 1


def test_only_what_is_shown_is_looked_up(lookups: Lookups, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    origins = NetworkDatabases.origins
    monkeypatch.setattr(NetworkDatabases, "origins",
                        lambda self, *args: (asked.append(len(args[0])), origins(self, *args))[1])
    flows = FlowTable(TableConfig())
    flows.update(batch([(key(HOME, SERVER, port), counters()) for port in range(1, 2001)], START_NS + SECOND))
    for query in (Query(limit=10), Query(limit=10, biflow=True)):
        asked.clear()
        assert Answerer().answer(query, flows, lookups).rows
        assert asked and max(asked) <= 2 * 10, "the flows in view"
    asked.clear()
    Answerer().answer(Query(limit=10, group=("source",)), flows, lookups)
    Answerer().answer(Query(limit=0), flows, lookups)
    assert not any(asked)
    Answerer().answer(Query(limit=10, sort="country", filter=compile_filter("country DE")), flows, lookups)
    assert asked.count(max(asked)) == 2 and max(asked) >= 2000, "each end of each flow, once a page"


def test_columns_are_shown_when_there_is_something(lookups: Lookups) -> None:
    distinctions = NO_DISTINCTIONS.with_rows(rows(lookups), tunnels=False)
    shown = {column.id for column, _ in fit(300, distinctions=distinctions)}
    assert shown & set(FIELD_IDS) == {"asn", "as_name", "country"}
    assert not {column.id for column, _ in fit(300)} & set(FIELD_IDS)
    assert not {column.id for column, _ in fit(80, distinctions=distinctions)} & set(FIELD_IDS)
    assert {column.id for column, _ in fit(160, distinctions=distinctions)} & set(FIELD_IDS) == {"country"}


def test_completion_offers_what_is_in_view(lookups: Lookups) -> None:
    seen = seen_values(rows(lookups), lookups, ("eth0",))
    assert set(seen["country"]) == {"DE", "FR", "NL"}
    assert {"Example Cloud", "Evil Net", "Six"} <= set(seen["as_name"])
    assert seen_texts(rows(lookups), lookups)["source_country"]


def test_details(lookups: Lookups) -> None:
    flows, pager = table(), Pager(Past())
    now = replace(facts(flows, 1), lookups=lookups)
    [row] = [row for row in rows(lookups, flows) if of_row(row)[:2] == (EVIL, NOBODY)]
    page = pager.page(Query(details=row.flow_id), flows, now)
    assert page.details is not None
    assert values_of(page.details.row, lookups, "source_") == known(EVIL)
    strips = detail_lines(page.details, DetailsContext(page, Wording(), time.gmtime), 120)
    lines = [" ".join("".join(segment.text for segment in strip).split()) for strip in strips]
    assert "src network AS64501 Evil Net FR" in lines
    assert not [line for line in lines if line.startswith("dst network")], "nothing is known of it"


def test_the_past_and_frozen_pages_have_them(lookups: Lookups) -> None:
    flows, pager = table(), Pager(Past())
    now = replace(facts(flows, 1), lookups=lookups)
    pager.remember(flows, now)
    for query in (Query(at=1, limit=None), Query(freeze=1, limit=None), Query(mark=1, limit=None, sort="country")):
        page = pager.page(query, flows, now)
        assert sorted(values_of(row, lookups, "") for row in page.rows) == sorted(known(flow[4]) for flow in FLOWS)


# ---- exporters


def reported(**values: Any) -> FlowTable:
    flows = FlowTable(TableConfig())
    keys = key(HOME, SERVER, 40000, 443), key(SERVER, EVIL, 1, 2)
    made = batch([(one, counters()) for one in keys], START_NS + SECOND)
    numbers = np.zeros(2, REPORTED_DTYPE)
    for name, value in values.items():
        numbers[name] = value
    flows.update(replace(made, reported=numbers, other_ifindexes=np.zeros(2, np.uint32)))
    return flows


def test_a_number_that_the_exporter_reports_comes_first(lookups: Lookups) -> None:
    flows = reported(source_as=[0, 65010], destination_as=[64501, 0])
    rows(lookups, flows)  # the name of AS 64501 is known once an address of it was looked up
    first, second = sorted(rows(lookups, flows), key=of_row)
    assert values_of(first, lookups, "source_") == (0, "", "")
    assert values_of(first, lookups, "destination_") == (64501, "Evil Net", "DE")
    assert values_of(second, lookups, "source_") == (65010, "", "DE"), "no name of another AS"
    assert values_of(second, lookups, "destination_") == known(EVIL)
    members = record(second, Query(), Lookups(texts={"x": {}}, networks=lookups.networks))
    assert (members["bgpSourceAsNumber"], members["sourceAsNumber"]) == (65010, 65010)
    assert "bgpDestinationAsNumber" not in members and members["destinationAsNumber"] == 64501
    for text, count in (("src_as 65010", 1), ("source_asn 65010", 1), ("dst_as 64501", 1), ("as 64501", 2),
                        ("source_asn 64500", 0)):
        assert len(rows(lookups, flows, filter=compile_filter(text))) == count, text
    for text, count in (("as 65010", 1), ("as 64501", 1)):  # without databases what is reported is still known
        assert len(rows(NO_LOOKUPS, flows, filter=compile_filter(text))) == count, text


def test_flows_of_prefixes_macs_and_aggregates(lookups: Lookups) -> None:
    flows = FlowTable(TableConfig())
    entries = [key("198.51.100.0", EVIL, port) for port in (1, 2, 3)] + [key(SERVER, EVIL, 4, kind=Kind.AGGREGATE)]
    made = batch([(one, counters()) for one in entries], START_NS + SECOND)
    described = np.zeros(4, DESCRIBED_DTYPE)
    for row, length in enumerate((25, 24, None)):
        described["record_bits"][row] = RecordBits.SOURCE_PREFIX | (
            0 if length is None else length + 1 << SOURCE_LENGTH_SHIFT)
    flows.update(replace(made, described=described))
    found = {row.source_port: values_of(row, lookups, "source_") for row in rows(lookups, flows)}
    assert found == {1: known(SERVER), 2: (0, "", ""), 3: (0, "", ""), 4: (0, "", "")}, \
        "198.51.100.0/24 lies in two networks; of the third the length is not known"


# ---- the command


def command(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    frames = [f.ethernet(f.IPV4, f.ipv4(f.udp(source, destination, b"x"), f.UDP, source=ends[0], destination=ends[1]))
              for *ends, source, destination, _ in FLOWS if ":" not in ends[0]]
    (tmp_path / "x.pcap").write_bytes(w.pcap((number * w.SECOND, frame) for number, frame in enumerate(frames, 1)))
    return subprocess.run([sys.executable, "-m", "flowtop", "-b", "-r", str(tmp_path / "x.pcap"), *options],
                          capture_output=True, text=True, timeout=60, check=False)


def test_batch_output_and_exports(tmp_path: Path, paths: list[Path]) -> None:
    databases = [part for path in paths for part in ("--mmdb", str(path))]
    done = command(tmp_path, *databases, "-o", "json", "-e", f"jsonl:{tmp_path / 'x.jsonl'}", "-e",
                   f"csv:{tmp_path / 'x.csv'}")
    assert done.returncode == 0, done.stderr
    round_ = json.loads(done.stdout)
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    wanted = sorted(known(flow[4])[2] for flow in FLOWS if ":" not in flow[0])
    for flows in (round_["flows"], lines):
        assert sorted(flow.get("remoteCountry", "") for flow in flows) == wanted
    assert "remoteCountry" in (tmp_path / "x.csv").read_text().splitlines()[0]
    assert [path.name in line for path, line in zip(paths, round_["networks"]["files"], strict=True)] == [True, True]
    assert round_["networks"]["faults"] == []
    done = command(tmp_path, *databases, "-g", "country", "-o", "csv", "country DE or country FR")
    assert {line.split(",")[2] for line in done.stdout.splitlines()[1:]} == {"DE", "FR"}


def test_a_bad_database_is_said_once_and_the_file_is_read(tmp_path: Path, paths: list[Path]) -> None:
    bad = tmp_path / "bad.mmdb"
    bad.write_text("no database")
    for output in ("json", "table"):
        done = command(tmp_path, "--mmdb", str(bad), "--mmdb", str(paths[1]), "-o", output)
        assert done.returncode == 0
        assert done.stderr.count(str(bad)) == 1 and "is not an MMDB file" in done.stderr
        assert done.stdout.count(str(bad)) == 1
    done = command(tmp_path, "--mmdb", "off", "--mmdb", str(bad), "-o", "json")
    assert not done.stderr and "networks" not in json.loads(done.stdout)


def test_the_check_says_which_databases_are_used(tmp_path: Path, paths: list[Path]) -> None:
    for options, said in ((["--mmdb", str(paths[0])], f"ok    AS and country     {paths[0]} (GeoLite2-ASN"),
                          (["--mmdb", str(tmp_path / "none")], "MISS  AS and country"), (["--mmdb", "off"], "none")):
        done = command(tmp_path, "--check", *options)
        [line] = [line for line in done.stdout.splitlines() if "AS and country" in line]
        assert said in line


def test_every_part_comes_from_the_registry() -> None:
    for name in FIELD_IDS:
        assert FIELDS[name].column is COLUMNS[name] and FIELDS[name].group is GROUPS[name]
        assert KEYS[name] is FIELDS[name].key and FIELDS[name].members


def test_private_is_what_the_filter_word_means() -> None:
    edges = [text for network in PRIVATE for text in (network.packed, _last(network))]
    asked = [*edges, *(_moved(packed, step) for packed in edges for step in (-1, 1))]
    flows = source(len(asked), ip_version=[4 if len(packed) == 4 else 6 for packed in asked])
    flows.columns["source_address"] = np.array([packed.ljust(16, b"\0") for packed in asked], "V16")
    flows.columns["destination_address"] = np.void(packed_address("192.0.2.1"))
    expected = compile_filter("src private").mask(flows, NO_LOOKUPS)
    assert {True, False} == set(expected.tolist())
    # Of two ends of which only the source is private, the destination is remote, whatever the ports are.
    flows.columns["protocol"], flows.columns["source_port"], flows.columns["destination_port"] = 6, 1, 2
    assert (NetworkColumns(flows.columns, None)._remote_is_source() == ~expected).all()


def _last(network: Any) -> bytes:
    return bytes(octet | ~mask & 255 for octet, mask in zip(network.packed, network.mask, strict=True))


def _moved(packed: bytes, step: int) -> bytes:
    size = 8 * len(packed)
    return ((int.from_bytes(packed, "big") + step) % (1 << size)).to_bytes(size // 8, "big")
