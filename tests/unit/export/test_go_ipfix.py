"""`?profile=go-ipfix`: what the collector of go-ipfix v0.16.0 requires, by its pkg/collector/process.go.

A message has one Set ("at the moment we assume exactly one set per IPFIX message"), a Template Set one Template; any
other Set than 2 is of Data; records fill a Set completely; fields have the registry's lengths.
"""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flowtop.export.session import TransportSession
from flowtop.export.statistics import GivenUp, MeteringFacts
from flowtop.model.kinds import Kind, Tunnel
from flowtop.text.lookups import Lookups
from flowtop.wire.flow_templates import PROFILES, flow_templates
from tests.unit.export.flows import flows

CONTEXT: Any = SimpleNamespace(wall=lambda: 1_700_000_000.0, given_up=GivenUp, owners=lambda: None,
                               metering=lambda: MeteringFacts(Lookups(interfaces={3: "eth0"})))
LENGTHS = {8: 4, 12: 4, 27: 16, 28: 16, 7: 2, 11: 2, 4: 1, 60: 1, 61: 1, 136: 1, 148: 8, 152: 8, 153: 8, 1: 8, 2: 8,
           10: 4, 14: 4, 56: 6, 80: 6, 58: 2, 245: 2, 6: 2, 5: 1, 32: 2, 139: 2, 138: 8, 351: 8, 296: 4, 239: 1}
"""Octets of the elements' types in IANA's registry."""


def mixed(count: int) -> Any:
    records = flows(count)
    records["protocol"][::5], records["kind"][::7] = 1, Kind.FRAGMENT
    records["tunnel"][::3], records["tunnel_id"][::3] = Tunnel.VXLAN, 9
    records["tunnel"][1::6], records["tunnel_id"][1::6] = Tunnel.GRE, 5
    return records


class Collector:
    """Reads messages as go-ipfix does; raises AssertionError where it closes the connection."""

    def __init__(self) -> None:
        self.templates: dict[int, list[tuple[int, int]]] = {}
        self.octets = self.records = 0

    def take(self, message: bytes) -> None:
        version, length, _, sequence, _ = struct.unpack_from(">HHIII", message)
        set_id, set_octets = struct.unpack_from(">HH", message, 16)
        assert version == 10 and length == len(message) == 16 + set_octets
        if set_id == 2:
            id_, count = struct.unpack_from(">HH", message, 20)
            fields, at = [], 24
            for _ in range(count):
                number, octets = struct.unpack_from(">HH", message, at)
                at += 8 if number & 0x8000 else 4
                assert octets == LENGTHS[number & 0x7FFF], number
                fields.append((number, octets))
            assert at == len(message)
            self.templates[id_] = fields
            return
        assert sequence == self.records
        fields = self.templates[set_id]
        size = sum(octets for _, octets in fields)
        assert set_octets > 4 and (set_octets - 4) % size == 0
        for start in range(20, len(message), size):
            at = start
            for number, octets in fields:
                if number & 0x7FFF == 1:
                    self.octets += int.from_bytes(message[at:at + octets], "big")
                at += octets
            self.records += 1


@pytest.mark.parametrize("biflow", [False, True])
@pytest.mark.parametrize("max_octets", [400, 1_452, 16_384, 65_535])
@pytest.mark.parametrize("count", [1, 2, 50, 3_000])
def test_messages_are_as_its_collector_assumes(count: int, max_octets: int, biflow: bool) -> None:
    records = mixed(count)
    session = TransportSession(flow_templates(PROFILES["go-ipfix"]), 1, biflow=biflow)
    collector = Collector()
    messages = [*session.announcement(CONTEXT, max_octets), *session.new_tunnels(records, CONTEXT, max_octets)]
    encoded = session.flows(records, CONTEXT, max_octets)
    messages += [*encoded.messages, *session.changed_interfaces(CONTEXT), *session.reports(CONTEXT, max_octets)]
    for message in messages:
        collector.take(message)
        assert len(message) <= max_octets
    assert collector.octets == int(records["octet_delta"].sum()) and sum(encoded.record_counts) == count


def test_messages_that_were_not_sent_are_taken_back() -> None:
    session = TransportSession(flow_templates(PROFILES["go-ipfix"]), 1)
    records = mixed(100)
    encoded = session.flows(records, CONTEXT, 600)
    rest = session.not_sent(encoded, 3, CONTEXT)
    again = session.flows(rest, CONTEXT, 600)
    assert int.from_bytes(again.messages[0][8:12], "big") == sum(encoded.record_counts[:3])
    kept = np.concatenate((encoded.records[:sum(encoded.record_counts[:3])], again.records))
    assert sorted(kept["flow_id"]) == sorted(records["flow_id"])
