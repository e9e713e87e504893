"""Owners of packets that are written before the drain of their flows."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from flowtop.capture.ebpf import addresses, packet_owners
from flowtop.model.owners import ANY_ADDRESS_BIT, NO_OWNER, owner_id
from flowtop.model.record import FLOW_COUNTERS_DTYPE
from tests.unit.owners.test_conversations import flow, keys

SERVER = owner_id(7, 1 << 20)


@pytest.mark.parametrize(("ours", "to", "owner"), [
    (("10.0.0.1", "10.0.0.0"), "10.0.0.1", SERVER), (("10.0.0.1",), "10.0.0.2", NO_OWNER),
    (("10.0.0.0",), "10.0.0.0", SERVER), ((), "10.0.0.1", NO_OWNER), (("2001:db8::1",), "2001:db8::1", SERVER)])
def test_a_socket_for_any_address_has_packets_to_addresses_of_this_host(
        monkeypatch: pytest.MonkeyPatch, ours: tuple[str, ...], to: str, owner: int) -> None:
    def look_up(_: int, __: bytes, value: int) -> bool:
        entry = np.zeros(1, FLOW_COUNTERS_DTYPE)
        entry["owner"] = SERVER | ANY_ADDRESS_BIT
        ctypes.memmove(value, entry.ctypes.data, entry.nbytes)
        return True

    monkeypatch.setattr(packet_owners, "bpf", SimpleNamespace(map_lookup=look_up))
    own = frozenset(bytes(flow(one, 1, one, 2).source_address)[:16 if ":" in one else 4] for one in ours)
    monkeypatch.setattr(addresses, "read_addresses", lambda _: addresses.Addresses(own, frozenset()))
    local = addresses.LocalAddresses(None, lambda: 100.0)  # type: ignore[arg-type]
    peer = "2001:db8::9" if ":" in to else "10.0.0.9"
    packets = keys(flow(peer, 5, to, 53))
    local.are_local(packets["source_address"], packets["ip_version"])  # as of an earlier drain
    found, _ = packet_owners.PacketOwners((3,), lambda _: {}, local.knew).find(packets)
    assert found.tolist() == [owner]
