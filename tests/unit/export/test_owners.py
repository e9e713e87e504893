"""Processes in IPFIX: the next collector has what the first host knew; records without a process are as they were."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flowtop import Collector
from flowtop.cli.run import _closing_line
from flowtop.errors import FlowtopError
from flowtop.export.exporter import Exporter
from flowtop.export.exports import Exports
from flowtop.export.owners import OwnerTexts
from flowtop.export.session import TransportSession
from flowtop.export.spool import Spool
from flowtop.export.statistics import MeteringFacts
from flowtop.export.url import parse_export_url
from flowtop.filters.filter import compile_filter
from flowtop.model import owners
from flowtop.model.kinds import Direction, Kind, Protocol, Tunnel
from flowtop.model.record import FlowRecords
from flowtop.text.lookups import Lookups
from flowtop.wire.flow_templates import PROFILES, flow_templates
from flowtop.wire.ipfix_decoder import decode_message
from flowtop.wire.template_store import TemplateStore
from tests.unit.capture.collector.exports import NOW_S
from tests.unit.export.flows import RecordingTransport, until
from tests.unit.export.flows import flows as own_flows
from tests.unit.export.test_biflows import both
from tests.unit.export.test_relays import RELAY, Run, direct, next_collector

NGINX, BACKUP, UNNAMED = (owners.owner_id(pid, start_ns) for pid, start_ns in (
    (1234, 50 << 30), (4_000_000, 60 << 30), (77, 70 << 30)))
COMMAND = "nginx: worker process \"quoted\" é " + "x" * 400
TEXTS: dict[str, dict[int, str]] = {
    owners.PROCESSES: {NGINX: "nginx", BACKUP: "backup-of-everything", **owners.MARKS},
    owners.USERS: {NGINX: "www-data", BACKUP: "root"},
    owners.UNITS: {NGINX: "nginx.service", BACKUP: "backup.timer"},
    owners.COMMANDS: {NGINX: COMMAND},
    owners.PARENTS: {NGINX: "nginx (1200) < systemd (1)"},
    owners.EXECUTABLES: {NGINX: "/usr/sbin/nginx"},
    owners.CGROUPS: {NGINX: "/system.slice/nginx.service"},
}
LOOKUPS = Lookups(texts=TEXTS)
KEYS = {"processName", "processId", "userName", "systemdUnit", "processCommand", "processParents", "processExecutable",
        "processCgroup", "applicationName", "applicationId"}
OF_NGINX = {"processName": "nginx", "processId": 1234, "userName": "www-data", "systemdUnit": "nginx.service",
            "processCommand": COMMAND.encode()[:250].decode(), "processParents": "nginx (1200) < systemd (1)",
            "processExecutable": "/usr/sbin/nginx", "processCgroup": "/system.slice/nginx.service"}
OF_BACKUP = {"processName": "backup-of-everything", "processId": 4_000_000, "userName": "root",
             "systemdUnit": "backup.timer"}
"""What `-o json` says of them: the command line is cut at 250 octets."""


def owned(*ids: int) -> FlowRecords:
    """A flow of each owner, by its number in the order: as source port, packets and direction (odd: egress)."""
    records = own_flows(len(ids))
    records["source_port"], records["owner"] = np.arange(len(ids)) + 1, ids
    return records


def known(records: FlowRecords, lookups: Lookups = LOOKUPS) -> OwnerTexts:
    texts = OwnerTexts()
    texts.note(records, lookups)
    return texts


def context(texts: OwnerTexts | None, cut: list[int] | None = None) -> Any:
    """`cut` gets the numbers of records that lack texts."""
    return SimpleNamespace(wall=lambda: 1_700_000_000.0, metering=MeteringFacts,
                           owners=lambda: None if texts is None else texts.texts,
                           cut_owners=([] if cut is None else cut).append)


def sent(records: FlowRecords, profile: str = "default", *, octets: int = 1400, biflow: bool = False,
         on: bool = True) -> list[bytes]:
    there = context(known(records) if on else None)
    session = TransportSession(flow_templates(PROFILES[profile]), 1, biflow=biflow)
    found = session.announcement(there, octets)
    flows = session.flows(records, there, octets)
    found += [*flows.preceding, *flows.messages, *session.announcement(there, octets)]
    assert max(map(len, found)) <= octets
    return found


def by_port(collector: Collector) -> dict[int, dict[str, Any]]:
    assert not collector.statistics.refused_messages and not collector.statistics.skipped
    return {row["sourceTransportPort"]: row for row in collector.table.query().as_dicts()}


def owner_of(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name in KEYS}


@pytest.mark.parametrize("profile", ["default", "strict", "nfdump", "pmacct"])
def test_own_flows_come_back_with_their_processes(profile: str) -> None:
    records = owned(NGINX, 0, BACKUP, owners.KERNEL, owners.FORWARDED, UNNAMED, NGINX)
    rows = by_port(direct(sent(records, profile)))
    nothing: dict[str, Any] = {}
    assert [owner_of(rows[port]) for port in range(1, 8)] == [
        OF_NGINX, nothing, OF_BACKUP, {"processName": "kernel"}, {"processName": "forwarded"},
        {"processName": "pid 77", "processId": 77}, OF_NGINX]
    for port, row in rows.items():
        assert (row["packetTotalCount"], row["octetTotalCount"], row["flowDirection"]) == (port, 100 * port, port % 2)


def test_the_process_id_is_of_the_end_that_is_here() -> None:
    """ntop's elements for the source and for the destination; and applicationDescription is a JSON object."""
    store, found = TemplateStore(), {}
    for octets in sent(owned(NGINX, NGINX)):
        for data_set in decode_message(octets, store, session=None, datagram=False).data_sets:
            for record in data_set.records if "flowDirection" in data_set.template.names else ():
                found[int(record["flowDirection"])] = dict(zip(data_set.template.names, record.tolist(), strict=True))
    assert found[Direction.EGRESS]["ntopSrcProcPid"] == 1234 and "ntopDstProcPid" not in found[Direction.EGRESS]
    assert found[Direction.INGRESS]["ntopDstProcPid"] == 1234 and "ntopSrcProcPid" not in found[Direction.INGRESS]
    assert found[0]["applicationName"] == b"nginx" and found[0]["userName"] == b"www-data"
    described = json.loads(found[0]["applicationDescription"])
    assert described["systemdUnit"] == "nginx.service"
    assert described["processCommand"] == COMMAND.encode()[:250].decode()


def test_records_without_a_process_are_not_changed_by_others() -> None:
    """And without `owners=on` none has one: the messages are those of flows without owners."""
    without = owned(0, 0)
    assert sent(owned(NGINX, BACKUP), on=False) == sent(without, on=False) == sent(without)


@pytest.mark.parametrize("octets", [268, 300, 512, 600])
def test_small_messages_have_what_there_is_room_for(octets: int) -> None:
    """A record is never lost: names are cut, then left out."""
    records = owned(*[NGINX, BACKUP] * 3)
    records["rtt_us"], records["tunnel"], records["tunnel_id"] = 9, int(Tunnel.VXLAN), 7
    rows = by_port(direct(sent(records, octets=octets)))
    for port, row in rows.items():
        assert row["packetTotalCount"] == port
        whole = OF_NGINX if port % 2 else OF_BACKUP
        for name, value in owner_of(row).items():
            assert value == whole[name] or str(whole[name]).startswith(str(value)), (octets, name)
    assert len(rows) == 6
    if octets >= 300:
        assert all("processName" in row for row in rows.values())


@pytest.mark.parametrize("octets", [240, 268, 300, 400, 600, 1400, 65_535])
def test_records_that_lack_texts_are_counted(octets: int) -> None:
    """As many as come back with less than was known; a command line of more than 250 octets is cut always."""
    records = owned(NGINX, BACKUP, 0, BACKUP, NGINX, owners.KERNEL)
    records["rtt_us"], records["tunnel"], records["tunnel_id"] = 9, int(Tunnel.VXLAN), 7
    cut: list[int] = []
    there, session = context(known(records), cut), TransportSession(flow_templates(PROFILES["default"]), 1)
    announced = session.announcement(there, octets)
    flows = session.flows(records, there, octets)
    rows = by_port(direct([*announced, *flows.preceding, *flows.messages]))
    whole = (OF_NGINX | {"processCommand": COMMAND}, OF_BACKUP, {}, OF_BACKUP, OF_NGINX | {"processCommand": COMMAND},
             {"processName": "kernel"})
    lacking = sum(owner_of(rows[port]) != known_of for port, known_of in enumerate(whole, 1))
    assert sum(cut) == lacking >= 2
    session.not_sent(flows, 0, there)
    assert sum(cut) == 0


def test_the_exporter_says_how_many_lack_texts() -> None:
    records = owned(NGINX, BACKUP, NGINX)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as collector:
        collector.bind(("127.0.0.1", 0))
        collector.settimeout(10)
        url = f"ipfix://127.0.0.1:{collector.getsockname()[1]}?owners=on"
        exports = Exports(None)
        exports.update(MeteringFacts(lookups=LOOKUPS))
        exports.add(url)
        exports.consume(records)
        [export] = exports.stop()
    assert (export.statistics.sent_records, export.statistics.cut_owners) == (3, 2)
    assert export.statistics.record["cutOwnerRecords"] == 2
    assert "2 lack texts about their process" in _closing_line(export.statistics)


def test_a_pid_that_is_used_again_is_another_process() -> None:
    """Same host, pid, name and user: the start time is another."""
    first, second = (owners.owner_id(5, start_ns) for start_ns in (1 << 40, 2 << 40))
    records = owned(first, second)
    starts = {first: "2026-01-01T00:00:00.00Z", second: "2026-01-01T00:10:00.00Z"}
    texts = {table: {} for table in TEXTS} | {
        owners.PROCESSES: {first: "sh", second: "sh"}, owners.STARTS: starts}
    there = context(known(records, Lookups(texts=texts)))
    session = TransportSession(flow_templates(PROFILES["default"]), 1)
    flows = session.flows(records, there, 1400)
    rows = by_port(direct([*session.announcement(there), *flows.preceding, *flows.messages]))
    assert [rows[port]["processStart"] for port in (1, 2)] == list(starts.values())


def test_tunnels_measurements_icmp_and_fragments_keep_their_kind() -> None:
    records = owned(*[NGINX] * 4)
    records["kind"][1], records["tunnel"][2], records["tunnel_id"][2] = int(Kind.FRAGMENT), int(Tunnel.VXLAN), 77
    records["protocol"][0], records["destination_port"][0] = int(Protocol.ICMP), 0x0800
    records["source_port"][:2], records["retransmitted_delta"][3] = 0, 5
    expected, found = (sorted(direct(sent(records, on=on)).table.query().as_dicts(),
                              key=lambda row: int(row["packetTotalCount"])) for on in (False, True))
    assert [owner_of(row) for row in found] == [OF_NGINX] * 4
    for row in (*expected, *found):
        del row["flowId"]  # of the collector's, in order of arrival
    assert [{name: value for name, value in row.items() if name not in KEYS} for row in found] == expected


def test_a_sum_of_many_flows_has_no_process() -> None:
    records = owned(NGINX, NGINX)
    records["kind"][0] = int(Kind.AGGREGATE)
    assert sorted(len(owner_of(row)) for row in direct(sent(records)).table.query().as_dicts()) == [0, len(OF_NGINX)]


def test_a_biflow_has_the_process_that_either_direction_has() -> None:
    pairs = [both(number) for number in (1, 2, 3)]
    for there, back, owner in ((*pairs[0], (NGINX, 0)), (*pairs[1], (0, BACKUP))):
        there["owner"], back["owner"] = owner
    rows = direct(sent(np.concatenate([each for pair in pairs for each in pair]), biflow=True)).table.query().as_dicts()
    found = {(row["sourceTransportPort"], row["destinationTransportPort"]): owner_of(row) for row in rows}
    nothing: dict[str, Any] = {}
    assert found == {(40_001, 443): OF_NGINX, (443, 40_001): OF_NGINX, (40_002, 443): OF_BACKUP,
                     (443, 40_002): OF_BACKUP, (40_003, 443): nothing, (443, 40_003): nothing}


def test_what_was_not_sent_is_taken_back_and_sent_again() -> None:
    """Sequence numbers and records of a session that could not send its last messages."""
    records = owned(*[NGINX, 0, BACKUP] * 20)
    there = context(known(records))
    session, collector = TransportSession(flow_templates(PROFILES["strict"]), 1), Collector(
        clock=lambda: NOW_S)
    for octets in session.announcement(there, 600):
        assert collector.receive(octets, RELAY)
    flows = session.flows(records, there, 600)
    for octets in (*flows.preceding, *flows.messages[:3]):
        assert collector.receive(octets, RELAY)
    rest = session.not_sent(flows, 3, there)
    again = session.flows(rest, there, 600)
    for octets in (*again.preceding, *again.messages):
        assert collector.receive(octets, RELAY)
    assert not collector.statistics.lost_records
    rows = by_port(collector)
    assert sorted(rows) == list(range(1, 61)) and [rows[port]["processName"] for port in (1, 3, 4)] == [
        "nginx", "backup-of-everything", "nginx"]


def test_the_spool_keeps_names_over_a_restart(tmp_path: Path) -> None:
    records = owned(NGINX, 0, BACKUP, owners.KERNEL, UNNAMED)
    spool = Spool(tmp_path / "spool", domain=1, wall=lambda: NOW_S)
    spool.owners = known(records)
    assert not len(spool.store(records)[0])
    spool.close()
    later = Spool(tmp_path / "spool", domain=1, wall=lambda: NOW_S)
    later.owners = OwnerTexts()
    found = later.oldest()
    found.sort(order="flow_id")
    session = TransportSession(flow_templates(PROFILES["default"]), 1)
    flows = session.flows(found, context(later.owners), 1400)
    rows = by_port(direct([*session.announcement(context(later.owners)), *flows.preceding, *flows.messages]))
    assert [owner_of(rows[port]) for port in (1, 3, 4, 5)] == [
        OF_NGINX, OF_BACKUP, {"processName": "kernel"}, {"processName": "pid 77", "processId": 77}]
    assert not owner_of(rows[2])


def test_names_are_those_at_the_time_of_the_record() -> None:
    """The flow table may forget a process while its records wait."""
    texts = OwnerTexts()
    transport = RecordingTransport()
    exporter = Exporter("ipfix://192.0.2.1", transport, owners=texts)
    exporter.update(MeteringFacts(lookups=LOOKUPS))
    exporter.consume(owned(NGINX))
    exporter.update(MeteringFacts())
    assert exporter.owners() is texts.texts and texts.texts[owners.PROCESSES] == {NGINX: "nginx"}
    exporter.start()
    until(lambda: transport.received == [1], exporter.statistics)
    exporter.stop()


def test_an_export_filter_asks_for_owners(tmp_path: Path) -> None:
    exports = Exports(tmp_path)
    exports.update(MeteringFacts(lookups=LOOKUPS))
    filters = {"a": "process nginx", "b": "user root", "c": "unit ?*", "d": "pid 77 or process kernel"}
    for name, text in filters.items():
        exports.add(f"file:{tmp_path}/{name}.ipfix?owners=on", compile_filter(text, "records").record_mask)
    exports.consume(owned(NGINX, 0, BACKUP, owners.KERNEL, UNNAMED))
    exports.stop()
    found = {name: sorted(by_port(next_collector(tmp_path / f"{name}.ipfix"))) for name in filters}
    assert found == {"a": [1], "b": [3], "c": [1, 3], "d": [4, 5]}


@pytest.mark.parametrize(("url", "on"), [
    ("ipfix://192.0.2.1?owners=on", True), ("ipfix+tcp://192.0.2.1", False), ("file:x?owners=off", False)])
def test_the_option(url: str, on: bool) -> None:
    assert parse_export_url(url).owners is on


@pytest.mark.parametrize(("url", "message"), [
    ("file:x?owners=yes", "owners=yes is not known"), ("jsonl:x?owners=on", "unknown option 'owners'"),
    ("ipfix://192.0.2.1?owners=on&profile=go-ipfix", "profile=go-ipfix has no owners")])
def test_where_it_makes_no_sense(url: str, message: str) -> None:
    with pytest.raises(FlowtopError, match=message):
        parse_export_url(url)


# ---- the next one


def test_filters_and_groups_of_what_was_read_back() -> None:
    collector = direct(sent(owned(NGINX, 0, BACKUP, owners.KERNEL, NGINX)))
    table = collector.table
    for text, ports in (("process nginx", [1, 5]), ("user root", [3]), ("unit nginx*", [1, 5]), ("pid 1234", [1, 5]),
                        ("command *worker*", [1, 5]), ("process kernel", [4]), ("not process ?*", [2])):
        found = [row["sourceTransportPort"] for row in table.query(text).as_dicts()]
        assert sorted(found) == ports, text
    groups = {row.get("processName"): row["packetDeltaCount"] for row in table.query(group="process").as_dicts()}
    assert {name: int(count) for name, count in groups.items()} == {
        "nginx": 6, "backup-of-everything": 3, "kernel": 4, None: 2}


def test_a_relay_passes_processes_on(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for octets in sent(owned(NGINX, 0, BACKUP)):
        run.receive(octets)
    run.export("file:{}/flows.ipfix?owners=on")
    rows = by_port(next_collector(tmp_path / "flows.ipfix"))
    assert [owner_of(rows[port]) for port in (1, 2, 3)] == [OF_NGINX, {}, OF_BACKUP]


def test_equal_pids_of_two_hosts_are_two_processes() -> None:
    collector = Collector(clock=lambda: NOW_S)
    other = {table: {NGINX: "other"} if table == owners.PROCESSES else {} for table in TEXTS}
    records = owned(NGINX)
    for address, texts in (("192.0.2.1", known(records)), ("192.0.2.2", known(records, Lookups(texts=other)))):
        session = TransportSession(flow_templates(PROFILES["default"]), 1)
        flows = session.flows(records, context(texts), 1400)
        for octets in (*session.announcement(context(texts)), *flows.preceding, *flows.messages):
            assert collector.receive(octets, (address, 4739))
    assert {(row["exporterIPv4Address"], row["processName"], row["processId"])
            for row in collector.table.query().as_dicts()} == {
        ("192.0.2.1", "nginx", 1234), ("192.0.2.2", "other", 1234)}


@pytest.mark.parametrize("octets", [b"{", b"[1]", b'{"systemdUnit": 7}', b'{"x": "y"}', b"\xff\xfe", b"[" * 1100,
                                    b'{"systemdUnit":"' + b"\x1b[2J" + b'"}', b'"text"'])
def test_a_hostile_description_is_harmless(octets: bytes) -> None:
    from flowtop.wire.owners import OwnerCodes

    codes = OwnerCodes(10)
    owner = codes.code("192.0.2.1", 5, (b"a\0b", b"c", octets))
    assert owners.pid_of(owner) == 5 and codes.texts[owners.PROCESSES][owner] == "a"
    assert owner not in codes.texts[owners.UNITS]


def test_processes_beyond_the_limit_are_forgotten_and_counted() -> None:
    from flowtop.wire.owners import OwnerCodes

    codes = OwnerCodes(10)
    made = [codes.code("", pid, (b"p%d" % pid, b"", b"")) for pid in range(1, 26)]
    assert len(set(made)) == 25 and codes.forgotten == 15
    assert [owner for owner in made if owner in codes.texts[owners.PROCESSES]] == made[15:]
