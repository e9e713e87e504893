"""Structured data: fields in lists as libfixbuf reads them, which YAF is made with."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path
from typing import Any

from flowtop.api.decoding import Decoder
from tests.oracle.collectors import needs
from tests.unit.capture.collector.exports import FLOW, flow, ipfix, set_of, template
from tests.unit.wire.test_structured import LIST, MULTI, SUB, basic, multi, sub, variable


def test_lists_hold_what_libfixbuf_reads(tmp_path: Path) -> None:
    inner = template(300, ((184, 4), (11, 2)))
    records = [struct.pack(">IH", 70_000 + number, 100 + number) for number in range(3)]
    value = (variable(basic(4, 1, b"\6", b"\x11", semantic=4)) + variable(sub(300, *records[:2]))
             + variable(multi((300, records[2]))))
    octets = ipfix(inner, template(256, (*FLOW[:4], LIST, SUB, MULTI)), set_of(256, flow(1)[:12] + value))
    path = tmp_path / "lists.ipfix"
    path.write_bytes(octets)
    text = subprocess.run([needs("ipfixDump"), "--in", path], capture_output=True, text=True, check=True).stdout
    theirs = re.findall(r"\(\d+\)\s+(tcpSequenceNumber|destinationTransportPort) : (\d+)", text)
    (record,) = Decoder().decode(octets).records
    lists: list[Any] = [record["subTemplateList"], record["subTemplateMultiList"]]
    mine = [(name, str(value)) for part in lists for row in part["records"] for name, value in row.items()
            if name != "#template"]
    assert len(mine) == 6
    assert [("destinationTransportPort", "443"), *mine] == theirs
    assert record["basicList"] == {"semantic": "ordered", "element": "protocolIdentifier", "values": [6, 17]}
    assert re.search(r"semantic: 4-ordered\s+ie: \(4\) protocolIdentifier\s+1  : 6\s+2  : 17", text)
