"""Damaged messages: what nfdump reads of them, flowtop reads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from flowtop.capture.collector.process import CollectingProcess
from flowtop.capture.collector.sessions import Session
from tests.oracle.collectors import nfdump_records
from tests.unit.capture.collector.exports import NOW_S
from tests.unit.wire.damaged import CASES


def test_every_flow_that_nfdump_reads_is_collected(tmp_path: Path) -> None:
    cases = {name: make(number) for number, (name, make) in enumerate(CASES.items(), 1)}
    records, _ = nfdump_records([case.octets for case in cases.values()], tmp_path)
    theirs = Counter(record["src4_addr"] for record in records if record["src4_addr"].startswith("10."))
    process = CollectingProcess(correct_clocks=False)
    for case in cases.values():
        process.receive(case.octets, Session("s", "192.0.2.1", True), NOW_S)
    ours = Counter(".".join(map(str, bytes(row["source_address"])[:4])) for row in process.take_rows()[0])
    assert len(theirs) > 40, "nfdump reads most of them"
    missing = {name: theirs[f"10.{number}.0.1"] - ours[f"10.{number}.0.1"] for number, name in enumerate(cases, 1)}
    assert {name: flows for name, flows in missing.items() if flows > 0} == {}
    assert ours == {f"10.{number}.0.1": case.flows for number, case in enumerate(cases.values(), 1)}
