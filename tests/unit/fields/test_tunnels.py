"""Names and numbers of tunnels that are written down where numpy must not be loaded."""

from __future__ import annotations

from flowtop.export import exports
from flowtop.model.elements import ELEMENTS, TUNNELS, tunnel_values
from flowtop.model.kinds import Kind, Tunnel


def test_they_are_those_of_the_record() -> None:
    assert ("", *(tunnel.name.lower() for tunnel in Tunnel if tunnel)) == TUNNELS
    assert exports._PARENT == Kind.PARENT


def test_a_vni_is_a_layer_2_segment_as_iana_has_it() -> None:
    """0x01 in the highest octet is VXLAN, the lowest three are the VNI."""
    found = tunnel_values(Tunnel.VXLAN, 0x123456)
    assert found == {"tunnel": "vxlan", "tunnelId": 0x123456, "layer2SegmentId": 0x0100_0000_0012_3456}
    assert ELEMENTS["layer2SegmentId"].number == 351
    assert tunnel_values(Tunnel.GRE, 7) == {"tunnel": "gre", "tunnelId": 7}
    assert tunnel_values(Tunnel.NONE, 0) == {}
