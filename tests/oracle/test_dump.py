"""flowtop-dump shows what tshark reads, from captures and from raw octets."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowtop.wire.exports import split_exports
from tests.oracle.collectors import ENVIRONMENT, needs, write_pcap
from tests.oracle.exports_data import BROKEN, GROUPS, export_files, tshark_exports


def dump(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run the command; gives status, standard output, standard error."""
    run = subprocess.run([sys.executable, "-m", "flowtop.cli_dump", *arguments], input=stdin, capture_output=True,
                         env=ENVIRONMENT)
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
    assert status == 65 and len(messages(out)) == 1 and "flows take" in messages(out)[0]["refused"][0]
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
    assert "came before its template: 8 records" in dump(path)[1]


@pytest.mark.parametrize(("octets", "said"), [(b"", "is empty"), (b"hello, world, this is no export", "is no export")])
def test_what_is_no_export_is_one_clear_line(octets: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(octets)
    status, out, err = dump(tmp_path / "x")
    assert (status, out) == (65, "") and said in err.splitlines()[0] and len(err.splitlines()) <= 2
    assert dump(tmp_path / "not there")[0] == 66


def test_a_capture_without_exports_says_so(tmp_path: Path) -> None:
    write_pcap(tmp_path / "x.pcap", [b"\0\1nothing"])
    status, _, err = dump(tmp_path / "x.pcap")
    assert status == 65 and "has no export in it" in err


def test_strings_of_strangers_are_quoted_and_harmless(tmp_path: Path) -> None:
    import struct

    name = b"\x1b[31m\xff\n=x"
    body = struct.pack(">HHHHHHHHH", 3, 18, 300, 2, 1, 10, 4, 82, 65_535) + struct.pack(
        ">HHIB", 300, 9 + len(name), 7, len(name)) + name
    (tmp_path / "x").write_bytes(struct.pack(">HHIII", 10, 16 + len(body), 0, 0, 0) + body)
    text = dump(tmp_path / "x")[1]
    assert "\x1b" not in text and 'interfaceName="\\u001b[31m\\\\xff\\n=x"' in text


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path) -> None:
    needs("tshark")
    (octets,) = export_files(["netflow5_test_juniper_mx80"])
    (tmp_path / "x.dat").write_bytes(octets * 500)
    read, write = os.pipe()
    process = subprocess.Popen([sys.executable, "-m", "flowtop.cli_dump", tmp_path / "x.dat"], stdout=write,
                               stderr=subprocess.PIPE, env=ENVIRONMENT)
    os.close(write)
    os.read(read, 10)
    os.close(read)
    assert process.communicate()[1] == b"" and process.returncode == 0
