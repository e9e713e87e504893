"""Headless output: every value here is written out by hand from the page that is put in."""

from __future__ import annotations

import base64
import csv
import fcntl
import hashlib
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from flowtop.errors import FlowtopError
from flowtop.model.elements import ELEMENTS
from flowtop.model.kinds import Direction, Tunnel
from flowtop.model.record import Unobserved
from flowtop.model.rows import FlowRow
from flowtop.output.batch import BatchConfig, PageQueue, descriptor_writer, round_format, run_batch
from flowtop.query.answer import Answerer
from flowtop.query.query import Books, Page, Query, Traffic
from flowtop.text.lookups import Lookups
from tests.unit.descriptors import many_descriptors
from tests.unit.factories import packed
from tests.unit.query.test_answer import source


def row(**changes: object) -> FlowRow:
    fields: dict[str, object] = dict(
        flow_id=7, source_address=socket.inet_aton("10.0.0.5").ljust(16, b"\0"),
        destination_address=socket.inet_aton("198.51.100.7").ljust(16, b"\0"), source_port=51514, destination_port=443,
        protocol=6, ip_version=4, kind=0, direction=1, vlan_id=12, customer_vlan_id=0, ifindex=2,
        source_mac=bytes.fromhex("020000000001"), destination_mac=bytes.fromhex("020000000002"),
        tcp_control_bits=0x18, tos=0, ttl=64, end_reason=0, closing=False, duplicate=False,
        packet_delta=3, octet_delta=300, packet_total=30, octet_total=3000, octet_rate=300.0, octet_rate_10s=30.0,
        octet_rate_60s=5.0, octet_rate_peak=300.0, packet_rate=3.0, packet_rate_10s=0.3, packet_rate_60s=0.05,
        start_ms=1_700_000_000_000, end_ms=1_700_000_001_500, age_s=1.5, idle_s=0.2)
    return FlowRow(**(fields | changes))  # type: ignore[arg-type]


def page(*rows: FlowRow, **changes: object) -> Page:
    whole = Page(query=Query(limit=None), tick=1, unix_ms=1_700_000_002_345, uptime_s=2.0, tick_s=1.0, rows=rows,
                 matched=len(rows), matched_flows=len(rows), flows=len(rows), active_flows=len(rows), anchor_rank=None,
                 books=Books(observed_packets=41, observed_octets=4100, accounted_packets=40, accounted_octets=4000,
                             ignored_packets=1, ignored_octets=100), ingress=Traffic(1000.0), egress=Traffic(125_000.0),
                 lookups=Lookups({2: "eth0"}), attached=("eth0",))
    return replace(whole, **changes)  # type: ignore[arg-type]


def written(output: str, *pages: Page, width: int = 120) -> str:
    form = round_format(BatchConfig(output=output, width=width))  # type: ignore[arg-type]
    return "".join(form.text(number, one) for number, one in enumerate(pages, 1))


COMMUNITY_ID = "1:" + base64.b64encode(hashlib.sha1(
    bytes(2) + bytes([10, 0, 0, 5]) + bytes([198, 51, 100, 7]) + bytes([6, 0]) + struct.pack(">HH", 51514, 443),
    usedforsecurity=False).digest()).decode()


def test_json_is_one_object_a_round_with_iana_names() -> None:
    first, second = map(json.loads, written("json", page(row()), page(row())).splitlines())
    assert (first["round"], second["round"]) == (1, 2)
    assert first["time"] == "2023-11-14T22:13:22.345Z"
    assert first["flows"][0] == {
        "flowId": 7, "interfaceName": "eth0", "flowDirection": 1, "ipVersion": 4, "protocolIdentifier": 6,
        "sourceIPv4Address": "10.0.0.5", "sourceTransportPort": 51514,
        "destinationIPv4Address": "198.51.100.7", "destinationTransportPort": 443,
        "vlanId": 12, "dot1qCustomerVlanId": 0,
        "sourceMacAddress": "02:00:00:00:00:01", "destinationMacAddress": "02:00:00:00:00:02",
        "ipClassOfService": 0, "ipTTL": 64, "tcpControlBits": 24,
        "flowStartMilliseconds": 1_700_000_000_000, "flowEndMilliseconds": 1_700_000_001_500,
        "octetDeltaCount": 300, "packetDeltaCount": 3, "octetTotalCount": 3000, "packetTotalCount": 30,
        "communityId": COMMUNITY_ID}


@pytest.mark.parametrize(("sort", "header", "biflow"), [("rtt", "RTT", False), ("peak", "PEAK", False),
                                                        ("rtt", "RTT", True), ("age", "AGE", True)])
def test_a_table_has_the_column_it_is_sorted_by(sort: str, header: str, biflow: bool) -> None:
    def headers(sort: str) -> list[str]:
        query = Query(limit=None, biflow=biflow, sort=sort)
        return written("table", page(query=query), width=100).splitlines()[2].split()

    assert header in headers(sort) and header not in headers("rate")


@pytest.mark.parametrize(("query", "order"), [
    (Query(), "RATE↓"), (Query(sort="source", descending=False), "SOURCE↑"),
    (Query(sort="bytes_in", biflow=True), "BYTES IN↓"),
    (Query(sort="bytes_in"), "BYTES↓"), (Query(sort="flows", group=("protocol",)), "FLOWS↓"),
])
def test_a_table_says_by_what_it_is_sorted(query: Query, order: str) -> None:
    assert written("table", replace(page(), query=query)).splitlines()[0].endswith(f"  by {order}")


def test_a_table_counts_one_flow_as_one() -> None:
    assert "  1 flow  out" in written("table", replace(page(row()), flows=1))
    assert "  2 flows  out" in written("table", replace(page(row()), flows=2))


def test_json_totals_hold_the_books() -> None:
    totals = json.loads(written("json", page(row())))["totals"]
    assert totals["observedPackets"] == 41
    assert totals["accountedPackets"] + totals["ignoredPackets"] + totals["lostPackets"] == 41
    assert totals["observedOctets"] == 4100
    assert totals["flows"] == 1


def test_less_and_more_than_the_interfaces_have_counted_is_in_json_and_table() -> None:
    """Neither hides the other."""
    off = page(books=replace(page().books, coverage=0.77, unseen_packets=300, excess_ingress_packets=1_000,
                             excess_egress_packets=5))
    totals = json.loads(written("json", off))["totals"]
    assert [totals[f"{name}Packets"] for name in ("unseen", "excessIngress", "excessEgress")] == [300, 1_000, 5]
    assert written("table", off).splitlines()[1].endswith("  unseen 300  excess in 1000  excess out 5")
    assert not {"unseen", "excess"} & set(written("table", page()).split())


@pytest.mark.parametrize(("protocol", "version", "key"), [(1, 4, "icmpTypeCodeIPv4"), (58, 6, "icmpTypeCodeIPv6")])
def test_json_icmp_has_type_and_code_and_no_port(protocol: int, version: int, key: str) -> None:
    [flow] = json.loads(written("json", page(row(protocol=protocol, ip_version=version, source_port=0,
                                                 destination_port=8 * 256 + 3))))["flows"]
    assert flow[key] == 2051
    assert (flow["sourceTransportPort"], flow["destinationTransportPort"]) == (0, 0)


def test_json_ipv6_addresses() -> None:
    [flow] = json.loads(written("json", page(row(
        ip_version=6, source_address=socket.inet_pton(socket.AF_INET6, "2001:db8::1"),
        destination_address=socket.inet_pton(socket.AF_INET6, "::")))))["flows"]
    assert (flow["sourceIPv6Address"], flow["destinationIPv6Address"]) == ("2001:db8::1", "::")
    assert "sourceIPv4Address" not in flow


def test_json_aggregate_has_no_addresses_or_ports() -> None:
    rest = row(kind=1, source_address=bytes(16), destination_address=bytes(16))
    [flow] = json.loads(written("json", page(rest)))["flows"]
    assert not {name for name in flow if "Address" in name or "Port" in name}
    assert flow["protocolIdentifier"] == 6


def test_json_says_how_a_flow_ended_and_which_are_duplicates_only_when_they_are() -> None:
    flows = json.loads(written("json", page(row(end_reason=3), row(duplicate=True))))["flows"]
    assert [flow.get("flowEndReason") for flow in flows] == [3, None]
    assert [flow.get("duplicate") for flow in flows] == [None, True]


def test_every_key_is_an_information_element() -> None:
    [flow] = json.loads(written("json", page(row(end_reason=1))))["flows"]
    assert flow.keys() - {"communityId"} <= ELEMENTS.keys()


TCP_NAMES = {field + "Milliseconds" for field in ("tcpSyn", "tcpFin", "tcpRst")} | {
    "tcpRoundTripMicroseconds", "tcpRetransmittedSegments", "tcpOutOfOrderSegments", "tcpCongestionWindowSegments"}


def group_page(*group: str) -> Page:
    """Two flows of 10.0.0.5, grouped by a real Answerer."""
    table = source(2, octet_delta=[300, 50], octet_total=[3000, 500], packet_total=[30, 5], packet_delta=[3, 1],
                   ifindex=2, protocol=6, source_port=51514, destination_port=[443, 80], ip_version=4,
                   source_address=packed("10.0.0.5"), destination_address=packed("198.51.100.7"))
    query = Query(limit=None, group=group)
    answer = Answerer().answer(query, table)
    return page(*answer.rows, query=query, matched=answer.matched, matched_flows=answer.matched_flows,
                flows=answer.flows)


def test_json_has_of_tcp_what_is_known() -> None:
    line = written("json", page(row(rtt_us=12_300, congestion_window=10, syn_ms=1_700_000_000_123), row()))
    known, unknown = json.loads(line)["flows"]
    assert (known["tcpRoundTripMicroseconds"], known["tcpCongestionWindowSegments"]) == (12_300, 10)
    assert known["tcpSynMilliseconds"] == 1_700_000_000_123
    assert not [name for name in unknown if name in TCP_NAMES]
    assert [name for name in known if name in TCP_NAMES] == [
        "tcpSynMilliseconds", "tcpRoundTripMicroseconds", "tcpCongestionWindowSegments"]


def test_json_of_groups() -> None:
    whole = json.loads(written("json", group_page("source", "service")))
    assert "flows" not in whole
    assert whole["totals"]["flows"] == 2
    first, second = whole["groups"]
    assert {name: first[name] for name in list(first)[:4]} == {
        "sourceIPv4Address": "10.0.0.5", "protocolIdentifier": 6, "servicePort": 443, "deltaFlowCount": 1}
    assert (first["octetDeltaCount"], first["octetTotalCount"], first["packetTotalCount"]) == (300, 3000, 30)
    assert (second["servicePort"], second["packetDeltaCount"]) == (80, 1)


def test_csv_of_groups_has_the_columns_of_its_fields() -> None:
    [cells] = csv.DictReader(io.StringIO(written("csv", group_page("pair"))))
    assert list(cells)[:4] == ["round", "time", "hosts", "deltaFlowCount"]
    assert (cells["hosts"], cells["deltaFlowCount"], cells["octetTotalCount"]) == ("10.0.0.5 198.51.100.7", "2", "3500")


@pytest.mark.parametrize("width", [60, 80, 160])
def test_table_of_groups(width: int) -> None:
    text = written("table", group_page("interface", "source"), width=width)
    assert "1 groups of 2 flows" in text
    [line] = [line for line in text.splitlines() if "10.0.0.5" in line]
    assert "3.5 kB" in line and len(line) <= width
    assert line.startswith("eth0 ")


def test_csv_has_one_header_and_a_row_a_flow() -> None:
    rows = list(csv.DictReader(io.StringIO(written("csv", page(row(), row()), page(row())))))
    assert [r["round"] for r in rows] == ["1", "1", "2"]
    assert rows[0]["sourceIPv4Address"] == "10.0.0.5"
    assert rows[0]["sourceIPv6Address"] == ""
    assert rows[0]["octetTotalCount"] == "3000"


@pytest.mark.parametrize("width", [80, 120, 200])
def test_table_fits_the_width_and_names_the_flow(width: int) -> None:
    text = written("table", page(row()), width=width)
    assert max(map(len, text.splitlines())) <= max(width, 110)
    assert "10.0.0.5:51514" in text
    assert "198.51.100.7:443" in text
    assert "seen 41" in text


@pytest.mark.parametrize("tunnels", [False, True])
def test_table_has_columns_for_tunnels_where_there_have_been_some(tunnels: bool) -> None:
    header, flow = written("table", page(row(tunnel=Tunnel.VXLAN, tunnel_id=4242), tunnels=tunnels),
                           width=200).splitlines()[-2:]
    assert ("TUNNEL" in header and "VNI" in header) == ("vxlan" in flow and "4242" in flow) == tunnels


def test_a_hostile_interface_name_is_harmless() -> None:
    text = written("json", page(row(), lookups=Lookups({2: "e\x1b[31mvil\n"})))
    assert "\\u001b" not in text
    assert "\x1b" not in text
    assert "\x1b" not in written("table", page(row(), lookups=Lookups({2: "e\x1b[31mvil\n"})))


class PagesSource:
    """Stands for a pipeline that hands over pages at once."""

    def __init__(self, *items: Page | FlowtopError) -> None:
        self.items, self.stopped = items, 0

    def ask(self, query: Query) -> None:
        self.query = query

    def start(self, listener: PageQueue) -> None:
        for item in self.items:
            if isinstance(item, FlowtopError):
                listener.on_error(item)
            else:
                listener.on_page(item)

    def stop(self) -> None:
        self.stopped += 1


def test_run_writes_rounds_up_to_the_last_page() -> None:
    source, out = PagesSource(page(row()), page(row(), last=True)), io.StringIO()
    assert run_batch(BatchConfig("json"), source, PageQueue(), out.write) == 2  # type: ignore[arg-type]
    assert len(out.getvalue().splitlines()) == 2
    assert source.stopped == 1


def test_what_is_not_observed_is_said_once_and_another_reason_once_a_minute() -> None:
    """Another program that is loaded again each second is another one each time."""
    ends = [Unobserved("eth0", f"packets end at program {number}", Direction.EGRESS, in_part=True)
            for number in range(1, 5)]
    gone = Unobserved("can0", "it carries CAN")
    rounds = [(0.0, (ends[0], gone)), (1.0, (ends[1], gone)), (2.0, ()), (3.0, (ends[0],)), (4.0, (ends[2],)),
              (60.0, (ends[3],)), (61.0, (ends[0], gone)), (200.0, (ends[3], gone))]
    times = iter([time_s for time_s, unobserved in rounds for _ in unobserved])
    source, said = PagesSource(*(page(unobserved=unobserved) for _, unobserved in rounds), page(last=True)), []
    run_batch(BatchConfig("none"), source, PageQueue(), io.StringIO().write, said.append,  # type: ignore[arg-type]
              lambda: next(times))
    assert said == ["egress of eth0 is not all observed: packets end at program 1",
                    "can0 is not observed: it carries CAN",
                    "egress of eth0 is not all observed: packets end at program 4"]


def test_run_raises_what_ended_the_capture_and_stops() -> None:
    source = PagesSource(page(row()), FlowtopError("gone"))
    with pytest.raises(FlowtopError, match="gone"):
        run_batch(BatchConfig("json"), source, PageQueue(), io.StringIO().write)  # type: ignore[arg-type]
    assert source.stopped == 1


def test_a_reader_that_went_away_ends_the_run_quietly() -> None:
    source = PagesSource(page(row()), page(row(), last=True))
    reader, writer = os.pipe()
    os.close(reader)
    assert run_batch(BatchConfig("json"), source, PageQueue(), descriptor_writer(writer)) == 0  # type: ignore[arg-type]
    os.close(writer)
    assert source.stopped == 1


def test_a_signal_in_the_middle_of_a_large_write_costs_nothing() -> None:
    """More than a pipe holds, while nobody reads, a signal with a handler: all of it still arrives."""
    script = ("import signal, sys; from flowtop.output.batch import descriptor_writer\n"
              "signal.signal(signal.SIGINT, lambda *_: None)\n"
              "descriptor_writer(1)('x' * 1_000_000 + '\\n')")
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, bufsize=0)
    assert process.stdout is not None
    first = process.stdout.read(1)  # it is writing now, and the pipe fills
    await_blocked(process)
    process.send_signal(signal.SIGINT)
    await_blocked(process)  # the handler has run, and it writes on
    rest, _ = process.communicate(timeout=30)
    assert first + rest == b"x" * 1_000_000 + b"\n"


def await_blocked(process: subprocess.Popen[bytes]) -> None:
    """Wait until it sleeps in a full pipe, with no signal that has not reached it yet (proc_pid_status(5))."""
    deadline = time.monotonic() + 30
    while True:
        text = Path(f"/proc/{process.pid}/status").read_text()
        pending = re.findall(r"(?:SigPnd|ShdPnd):\s*(\w+)", text)
        if re.search(r"State:\s*S", text) and not any(int(mask, 16) for mask in pending):
            return
        assert time.monotonic() < deadline and process.poll() is None, text
        time.sleep(0.005)


def test_a_reader_that_does_not_block_behind_a_high_descriptor_gets_everything() -> None:
    """select cannot wait for descriptors from 1,024 on."""
    reader, low = os.pipe()
    with many_descriptors() as number:
        writer = fcntl.fcntl(low, fcntl.F_DUPFD, number)
        os.close(low)
        os.set_blocking(writer, False)
        found: list[bytes] = []
        thread = threading.Thread(target=lambda: found.extend(iter(lambda: os.read(reader, 65_536), b"")))
        text = "x" * 1_000_000
        starter = threading.Timer(0.1, thread.start)  # the pipe is full by then
        starter.start()
        descriptor_writer(writer)(text)
        os.close(writer)
        starter.join()
        thread.join()
        os.close(reader)
    assert b"".join(found) == text.encode()
