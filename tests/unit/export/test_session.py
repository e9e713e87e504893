"""What a Transport Session tells of tunnels: nothing before there is one, then all that is needed, and not twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from flowtop.export.context import ExportContext
from flowtop.export.session import MAX_TUNNELS, TransportSession
from flowtop.export.statistics import MeteringFacts
from flowtop.model.kinds import Tunnel
from flowtop.model.record import FlowRecords
from flowtop.text.lookups import Lookups
from flowtop.wire.flow_templates import PROFILES, flow_templates
from flowtop.wire.ipfix_decoder import Message, decode_message
from flowtop.wire.template_store import TemplateStore
from tests.unit.export.flows import flows

CONTEXT = cast("ExportContext", SimpleNamespace(wall=lambda: 1_700_000_000.0, owners=lambda: None,
                                                metering=lambda: MeteringFacts(Lookups({3: "eth0"}))))


def tunnelled(*vnis: int) -> FlowRecords:
    records = flows(len(vnis))
    records["tunnel"], records["tunnel_id"] = Tunnel.VXLAN, vnis
    return records


class Collector:
    """Templates and descriptions that have arrived; each message has to follow the one before."""

    def __init__(self) -> None:
        self._store = TemplateStore()
        self.templates: list[int] = []
        self.described: list[str] = []
        self.keys: list[int] = []
        self._next: dict[int, int] = {}

    def take(self, messages: list[bytes]) -> None:
        for octets in messages:
            message: Message = decode_message(octets, self._store, session=0, datagram=False)
            assert message.sequence == self._next.get(message.domain, 0) and not message.undecoded
            self._next[message.domain] = message.sequence + message.record_count
            self.templates += [template.id for template in message.templates]
            for part in message.data_sets:
                names: Any = part.records.dtype.names
                if "interfaceDescription" in names:
                    self.described += [text.decode() for text in part.records["interfaceDescription"]]
                if "flowKeyIndicator" in names:
                    self.keys += part.records["templateId"].tolist()


@pytest.mark.parametrize("profile", sorted(set(PROFILES) - {"go-ipfix"}))  # without options: see test_go_ipfix
def test_tunnels_are_announced_when_there_are_some_and_with_every_announcement_from_then_on(profile: str) -> None:
    templates = flow_templates(PROFILES[profile])
    session, collector = TransportSession(templates, 9), Collector()
    first = session.announcement(CONTEXT)
    collector.take(first)
    outside = [*templates.flows, *templates.options]
    assert collector.templates == outside == list(range(256, 268)), "nobody pays for tunnels without any"
    assert session.new_tunnels(flows(3), CONTEXT) == []

    records = np.concatenate((flows(2), tunnelled(200, 100, 200)))
    collector.take(session.new_tunnels(records, CONTEXT, 464))
    collector.take(session.flows(records, CONTEXT).messages)
    inside = [*templates.tunnelled, *templates.tunnel_options]
    assert collector.templates == outside + inside
    assert collector.described == ["vxlan 100", "vxlan 200"]
    assert collector.keys == [*templates.flows, *templates.tunnelled]

    assert session.new_tunnels(records, CONTEXT) == []
    collector.take(session.new_tunnels(tunnelled(100, 300), CONTEXT))
    assert collector.described == ["vxlan 100", "vxlan 200", "vxlan 300"] and collector.templates == outside + inside

    again = Collector()
    again._next = collector._next
    again.take(session.announcement(CONTEXT))
    assert again.templates == outside + inside and again.described == collector.described


def test_tunnels_that_are_described_are_bounded() -> None:
    session, collector = TransportSession(flow_templates(PROFILES["default"]), 1), Collector()
    collector.take(session.announcement(CONTEXT))
    for start in range(0, 2 * MAX_TUNNELS, 500):
        collector.take(session.new_tunnels(tunnelled(*range(start, start + 500)), CONTEXT))
    assert session.new_tunnels(tunnelled(2**24 - 1), CONTEXT) == []
    assert collector.described == [f"vxlan {vni}" for vni in range(MAX_TUNNELS)]
