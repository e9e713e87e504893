"""Processes in IPFIX as tshark, nfdump, nfacctd and ipfixDump read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowtop.model import owners
from tests.oracle.collectors import ipfix_dump, nfacctd_records, nfdump_records, tshark_records
from tests.unit.export.test_owners import BACKUP, COMMAND, NGINX, UNNAMED, owned, sent

IDS = (NGINX, 0, BACKUP, owners.KERNEL, UNNAMED, NGINX)
NAMES = {1: "nginx", 3: "backup-of-everything", 4: "kernel", 5: "", 6: "nginx"}
USERS = {1: "www-data", 3: "root", 4: "", 5: "", 6: "www-data"}
PIDS = {1: 1234, 3: 4_000_000, 4: 0, 5: 77, 6: 1234}


@pytest.mark.parametrize("profile", ["default", "strict"])
def test_tshark_names_the_elements(tmp_path: Path, profile: str) -> None:
    found, complaints = tshark_records(sent(owned(*IDS), profile), tmp_path)
    assert not complaints
    rows = {int.from_bytes(fields["cflow.srcport"], "big"): fields
            for _, pairs in found for fields in [dict(pairs)] if "cflow.srcport" in fields}
    assert rows.keys() == {1, 2, 3, 4, 5, 6}
    assert "cflow.appl_name" not in rows[2]
    for port, name in NAMES.items():
        assert rows[port].get("cflow.appl_name", b"").decode() == name
        assert rows[port].get("cflow.user_name", b"").decode() == USERS[port]
        element = "cflow.pie.ntop.src_proc_id" if port % 2 else "cflow.pie.ntop.dst_proc_pid"
        assert int.from_bytes(rows[port][element], "big") == PIDS[port]
    assert json.loads(rows[1]["cflow.appl_desc"]) == {
        "systemdUnit": "nginx.service", "processExecutable": "/usr/sbin/nginx",
        "processCgroup": "/system.slice/nginx.service", "processParents": "nginx (1200) < systemd (1)",
        "processCommand": COMMAND.encode()[:250].decode()}


def test_ipfix_dump_names_them_too(tmp_path: Path) -> None:
    dumped, errors = ipfix_dump(b"".join(sent(owned(*IDS), "strict")), tmp_path)
    assert not errors
    rows = {int(fields["sourceTransportPort"]): fields for _, pairs in dumped
            for fields in [dict(pairs)] if "sourceTransportPort" in fields}
    assert {port: fields.get("applicationName") for port, fields in rows.items()} == {2: None, **NAMES}
    assert {port: fields.get("userName") for port, fields in rows.items()} == {2: None, **USERS}


@pytest.mark.parametrize("profile", ["default", "nfdump"])
def test_nfdump_reads_all_the_rest(tmp_path: Path, profile: str) -> None:
    found, errors = nfdump_records(sent(owned(*IDS), profile), tmp_path)
    assert sorted((row["src_port"], row["in_packets"], row["in_bytes"]) for row in found) == [
        (port, port, 100 * port) for port in range(1, len(IDS) + 1)]
    assert not errors


@pytest.mark.parametrize("profile", ["default", "pmacct"])
def test_nfacctd_reads_all_the_rest(tmp_path: Path, profile: str) -> None:
    found, complaints = nfacctd_records(sent(owned(*IDS), profile), len(IDS), tmp_path)
    assert sorted((row["packets"], row["bytes"]) for row in found) == [
        (port, 100 * port) for port in range(1, len(IDS) + 1)]
    assert not complaints
