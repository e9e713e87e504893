"""flowtop-dump shows what tshark reads, from captures and from raw octets."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowtop.capture.files.messages import read_payloads
from flowtop.capture.files.octets import OctetStream
from flowtop.errors import FlowtopError
from flowtop.output.dump import entries, entry_text
from flowtop.wire.recognition import split_exports
from tests.oracle.collectors import ENVIRONMENT, needs, write_pcap
from tests.oracle.exports_data import BROKEN, GROUPS, export_files, tshark_exports
from tests.prepared import run_flowtop
from tests.unit.capture.collector import exports
from tests.unit.capture.collector import test_sflow as sflow
from tests.unit.capture.files import writers
from tests.unit.capture.files.test_messages import fragments


def dump(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run the command; gives status, standard output, standard error."""
    run = run_flowtop(*arguments, module="flowtop.cli.dump", input=stdin, env=ENVIRONMENT)
    return run.returncode, run.stdout.decode(), run.stderr.decode()


def messages(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


ADDRESSES = {"sourceIPv4Address": "cflow.srcaddr", "destinationIPv4Address": "cflow.dstaddr"}


@pytest.mark.parametrize("group", GROUPS)
def test_a_capture_is_shown_as_tshark_reads_it(group: str, tmp_path: Path) -> None:
    datagrams = [part for octets in export_files(GROUPS[group]) for part in split_exports(octets)]
    expected = tshark_exports(datagrams, tmp_path)  # writes datagrams.pcap
    status, out, err = dump("-o", "json", tmp_path / "datagrams.pcap")
    assert (status, err) == (0, "")
    found = messages(out)
    assert [(one["version"], one["sequence"], one["length"]) for one in found] == [
        (one.version, one.sequence, len(octets)) for one, octets in zip(expected, datagrams, strict=True)]
    assert [[(template["id"], len(template["fields"])) for template in one["templates"]] for one in found] == [
        one.templates for one in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert [record["template"] for record in mine["records"]] == [set_id for set_id, _, _ in theirs.records]
        for record, (_, _, fields) in zip(mine["records"], theirs.records, strict=True):
            for element, name in ADDRESSES.items():
                if element in record["values"]:
                    assert record["values"][element] == ".".join(map(str, fields[name][0]))
            if "octetDeltaCount" in record["values"]:
                assert record["values"]["octetDeltaCount"] == int.from_bytes(fields["cflow.octets"][0], "big")


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_told_and_is_the_status(name: str, tmp_path: Path) -> None:
    (octets,) = export_files([name])
    (tmp_path / "broken.dat").write_bytes(octets)
    status, out, _ = dump("-o", "json", tmp_path / "broken.dat")
    assert status == 65 and len(messages(out)) == 1 and "flows need" in messages(out)[0]["refused"][0]
    assert "refused: " in dump(tmp_path / "broken.dat")[1]


def test_raw_gzipped_and_piped_show_the_same(tmp_path: Path) -> None:
    (octets,) = export_files(["ipfix"])
    path, packed = tmp_path / "x.dat", tmp_path / "x.gz"
    path.write_bytes(octets)
    packed.write_bytes(gzip.compress(octets))
    status, plain, _ = dump(path)
    assert status == 0 and "template 1024: 16 fields" in plain and "IPFIX" in plain
    assert dump(packed)[1] == dump("-", stdin=octets)[1] == plain


def test_data_before_its_template_is_shown_when_that_comes(tmp_path: Path) -> None:
    template, data = export_files(GROUPS["barracuda"])
    path = tmp_path / "x.pcap"
    write_pcap(path, [data, template])
    first, second = messages(dump("-o", "json", path)[1])
    assert first["withoutTemplate"] == [{"set": 256, "octets": 576}] and first["records"] == []
    assert len(second["records"]) == 8 and all(record["cameBeforeItsTemplate"] for record in second["records"])
    assert "received before its template: 8 records" in dump(path)[1]


def two_ports(path: Path, parts: list[tuple[int, bytes]]) -> None:
    """Datagrams from one address and these ports, over IPv4 (LINKTYPE_RAW)."""
    import socket
    import struct

    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101)]
    for port, octets in parts:
        packet = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(octets), 0, 0, 64, 17, 0, socket.inet_aton("192.0.2.1"),
                             socket.inet_aton("192.0.2.9")) + struct.pack(">HHHH", port, 2055, 8 + len(octets), 0)
        out.append(struct.pack("<IIII", 0, 0, len(packet) + len(octets), len(packet) + len(octets)) + packet + octets)
    path.write_bytes(b"".join(out))


@pytest.mark.parametrize("group", ["barracuda", "asa", "aci", "asr9k", "nbar"])
def test_a_template_of_another_port_is_used_and_told(group: str, tmp_path: Path) -> None:
    *first, data = export_files(GROUPS[group])
    expected = tshark_exports([*first, data], tmp_path)[-1].records
    path = tmp_path / "x.pcap"
    two_ports(path, [*((40_001, octets) for octets in first), (40_002, data)])
    last = messages(dump("-o", "json", path)[1])[-1]
    assert [record["template"] for record in last["records"]] == [set_id for set_id, _, _ in expected]
    assert last["withoutTemplate"] == [] and all(record["templateOfOtherPort"] for record in last["records"])
    assert "of another port: " in dump(path)[1]
    two_ports(path, [(40_002, data), *((40_001, octets) for octets in first)])
    found = messages(dump("-o", "json", path)[1])
    late = [record for one in found[1:] for record in one["records"] if "cameBeforeItsTemplate" in record]
    assert len(late) == len(expected)


@pytest.mark.parametrize(("octets", "message"), [
    (b"", "is empty"), (b"hello, world, this is no export", "is not an export")])
def test_what_is_no_export_is_one_clear_line(octets: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(octets)
    status, out, err = dump(tmp_path / "x")
    assert (status, out) == (65, "") and message in err.splitlines()[0] and len(err.splitlines()) <= 2
    assert dump(tmp_path / "not there")[0] == 66


def test_a_capture_without_exports_says_so(tmp_path: Path) -> None:
    write_pcap(tmp_path / "x.pcap", [b"\0\1nothing"])
    status, _, err = dump(tmp_path / "x.pcap")
    assert status == 65 and "contains no flow export" in err


def test_strings_of_strangers_are_quoted_and_harmless(tmp_path: Path) -> None:
    import struct

    name = b"\x1b[31m\xff\n=x"
    body = struct.pack(">HHHHHHHHH", 3, 18, 300, 2, 1, 10, 4, 82, 65_535) + struct.pack(
        ">HHIB", 300, 9 + len(name), 7, len(name)) + name
    (tmp_path / "x").write_bytes(struct.pack(">HHIII", 10, 16 + len(body), 0, 0, 0) + body)
    text = dump(tmp_path / "x")[1]
    assert "\x1b" not in text and 'interfaceName="\\u001b[31m\\\\xff\\n=x"' in text


def tcp_capture(path: Path, stream: bytes, cuts: list[int], order: list[int]) -> None:
    """A connection to port 4739 over IPv4 (LINKTYPE_RAW): its segments, cut at these places, in this order."""
    import socket
    import struct

    address, first = socket.inet_aton("127.0.0.1"), 2**32 - 100
    edges = [0, *cuts, len(stream)]
    parts = [(first, 0x02, b"")] + [((first + 1 + edges[at]) % 2**32, 0x10, stream[edges[at]:edges[at + 1]])
                                    for at in order]
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101)]
    for number, (sequence, flags, octets) in enumerate(parts):
        tcp = struct.pack(">HHIIBBHHH", 40_000, 4739, sequence, 1, 0x50, flags, 60_000, 0, 0) + octets
        packet = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), number, 0, 64, 6, 0, address, address) + tcp
        out.append(struct.pack("<IIII", number, 0, len(packet), len(packet)) + packet)
    path.write_bytes(b"".join(out))


def test_ipfix_over_tcp_is_put_together_as_tshark_does(tmp_path: Path) -> None:
    datagrams = [*export_files(GROUPS["barracuda"]), *export_files(GROUPS["yaf"])]
    stream = b"".join(datagrams)
    cuts = [7, 300, 301, 302, len(datagrams[0]) + 5, len(stream) - 3]
    path = tmp_path / "x.pcap"
    tcp_capture(path, stream, cuts, [0, 2, 1, 3, 3, 4, 6, 5])
    run = subprocess.run([needs("tshark"), "-r", path, "-o", "tcp.reassemble_out_of_order:TRUE", "-d",
                          "tcp.port==4739,cflow", "-T", "fields", "-e", "cflow.sequence", "-e", "cflow.od_id",
                          "-Y", "cflow"], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    theirs = [(int(sequence), int(domain)) for line in run.stdout.splitlines()
              for sequence, domain in zip(*(part.split(",") for part in line.split("\t")), strict=True)]
    status, out, err = dump("-o", "json", path)
    assert (status, err) == (0, "")
    found = messages(out)
    assert [(one["sequence"], one["observationDomainId"]) for one in found] == theirs and len(theirs) == len(datagrams)
    assert {(one["sender"], one["receiver"]) for one in found} == {("127.0.0.1:40000", "127.0.0.1:4739")}
    plain = tmp_path / "plain.pcap"
    write_pcap(plain, datagrams)
    assert [one["records"] for one in messages(dump("-o", "json", plain)[1])] == [one["records"] for one in found]


def test_a_gap_in_a_stream_is_told_and_is_the_status(tmp_path: Path) -> None:
    datagrams = export_files(GROUPS["yaf"])
    cut = len(datagrams[0])
    path = tmp_path / "x.pcap"
    tcp_capture(path, b"".join(datagrams), [cut, cut + len(datagrams[1])], [0, 2])
    status, out, _ = dump("-o", "json", path)
    assert status == 65
    assert [one["refused"] for one in messages(out)] == [[], ["octets are missing in the stream before this message"]]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("order", ["sent", "reversed"])
def test_fragments_are_put_together_as_tshark_does(version: int, order: str, tmp_path: Path) -> None:
    """What tshark reads: lengths and sequence numbers of the messages of which no fragment is missing."""
    messages_sent = [exports.ipfix(exports.set_of(256, bytes([number]) * 3000), sequence=number) for number in range(6)]
    packets = [one for number, octets in enumerate(messages_sent)
               for one in fragments(octets, version, [1480, 2960], number + 1)[::1 if order == "sent" else -1]]
    del packets[4]  # the middle one of the second message
    path = tmp_path / "x.pcap"
    path.write_bytes(writers.pcap(list(enumerate(packets)), link_type=101))
    run = subprocess.run([needs("tshark"), "-r", path, "-o", "ip.defragment:TRUE", "-T", "fields", "-e",
                          "cflow.sequence", "-Y", "cflow"], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    status, out, _ = dump("-o", "json", path)
    found = messages(out)
    assert [str(one["sequence"]) for one in found if not one["refused"]] == run.stdout.split()
    assert status == 65 and [one["refused"][0] for one in found if one["refused"]] == [
        "fragments of this datagram are missing"]


SFLOW = {"samplingInterval": "sflow.flow_sample.sampling_rate", "ingressInterface": "sflow.flow_sample.input_interface",
         "egressInterface": "sflow.flow_sample.output_interface_value", "frameOctets": "sflow_245.header.frame_length",
         "sourceIPv4Address": "ip.src", "destinationIPv4Address": "ip.dst", "protocolIdentifier": "ip.proto",
         "sourceTransportPort": "tcp.srcport", "destinationTransportPort": "tcp.dstport", "ipTTL": "ip.ttl",
         "ipTotalLength": "ip.len", "vlanId": "vlan.id", "sourceMacAddress": "eth.src",
         "destinationMacAddress": "eth.dst"}
"""Our names, and tshark's; of what stands in the sampled header it gives the innermost, the last."""


def test_sflow_is_shown_as_tshark_reads_it(tmp_path: Path) -> None:
    datagrams = [sflow.datagram(sflow.COUNTERS, sflow.sample(sflow.raw_header(sflow.frame(200 + 9 * number, vlan=7)),
                                                             interval=100 + number, drops=number), sequence=number)
                 for number in range(5)]
    path = tmp_path / "x.pcap"
    write_pcap(path, datagrams)
    names = ["sflow_245.sequence_number", "sflow_245.sub_agent_id", "sflow_245.agent", *SFLOW.values()]
    run = subprocess.run([needs("tshark"), "-r", path, "-d", "udp.port==4739,sflow", "-T", "fields", "-E",
                          "occurrence=l", *(word for name in names for word in ("-e", name))],
                         capture_output=True, text=True, env=ENVIRONMENT, check=True)
    status, out, err = dump("-o", "json", path)
    assert (status, err) == (0, "")
    found = messages(out)
    assert [one["protocol"] for one in found] == ["sFlow 5"] * 5 and [one.get("dropped") for one in found] == [
        None, *({"3": number} for number in range(1, 5))]
    assert [[str(one[name]) for name in ("sequence", "subAgent", "agent")]
            + [str(record["values"][name]) for record in one["records"] for name in SFLOW] for one in found] == [
        line.split("\t") for line in run.stdout.splitlines()]
    (tmp_path / "raw").write_bytes(datagrams[1])
    status, text, _ = dump(tmp_path / "raw")
    assert status == 0 and "sFlow 5" in text and "source 3 has dropped 1 packets" in text
    assert "sourceIPv4Address=10.0.0.1" in text
    (tmp_path / "raw").write_bytes(datagrams[1][:-9])
    status, text, _ = dump(tmp_path / "raw")
    assert status == 65 and "refused: " in text


@pytest.mark.parametrize("way", ["cut", "hostile"])
def test_any_cut_and_any_damage_ends_in_messages_or_refusals(way: str, tmp_path: Path) -> None:
    """In this process: a thousand commands would take minutes."""
    rng = random.Random(way)
    whole = [octets for group in GROUPS.values() for octets in export_files(group)] + [
        sflow.datagram(sflow.sample(sflow.raw_header(sflow.frame())))]
    for number in range(400):
        octets = bytearray(rng.choice(whole))
        if way == "cut":
            del octets[rng.randrange(1, len(octets)):]
        else:
            for _ in range(rng.randrange(1, 9)):
                octets[rng.randrange(4, len(octets))] = rng.randrange(256)
        path = tmp_path / f"{number}"
        if number % 2:
            write_pcap(path, [bytes(octets)])
        else:
            path.write_bytes(octets)
        stream = OctetStream(str(path))
        try:
            for entry in entries(read_payloads(stream)):
                assert entry.refusals or entry.message or entry.sflow
                assert entry_text(entry, "text") and json.loads(entry_text(entry, "json"))
        except FlowtopError as error:
            assert "\n" not in error.message and len(octets) < 4
        finally:
            stream.close()


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path) -> None:
    needs("tshark")
    (octets,) = export_files(["netflow5_test_juniper_mx80"])
    (tmp_path / "x.dat").write_bytes(octets * 500)
    read, write = os.pipe()
    process = subprocess.Popen([sys.executable, "-m", "flowtop.cli.dump", tmp_path / "x.dat"], stdout=write,
                               stderr=subprocess.PIPE, env=ENVIRONMENT)
    os.close(write)
    os.read(read, 10)
    os.close(read)
    assert process.communicate()[1] == b"" and process.returncode == 0


def test_a_closed_standard_output_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "x.dat").write_bytes(bytes(24))
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "flowtop.cli.dump",
                           str(tmp_path / "x.dat")], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "flowtop-dump: standard output is closed")
