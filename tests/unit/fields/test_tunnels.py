"""Tunnel kinds where they are shown and exported: everything is derived from the members of Tunnel."""

from __future__ import annotations

import numpy as np
import pytest

from flowtop.fields.columns import Wording
from flowtop.fields.records import flow_record
from flowtop.fields.registry import COLUMNS, GROUPS
from flowtop.filters.filter import compile_filter
from flowtop.filters.words import KEYS
from flowtop.model.elements import ELEMENTS, TUNNEL_MEMBERS, tunnel_values
from flowtop.model.kinds import TUNNELS_BY_LABEL, Kind, Tunnel
from flowtop.text.lookups import NO_LOOKUPS
from flowtop.tui.panels import details
from flowtop.wire import tunnels
from tests.unit.fields.test_columns import ROWS
from tests.unit.filters.flows import table

every_tunnel = pytest.mark.parametrize("tunnel", [tunnel for tunnel in Tunnel if tunnel], ids=lambda kind: kind.label)


def test_each_kind_has_a_name_and_traits_of_its_own() -> None:
    assert Tunnel.NONE.label == "" and not Tunnel.NONE.id_label
    assert [*TUNNELS_BY_LABEL] == ["ip", "gre", "erspan", "vxlan", "geneve", "mpls", "pppoe", "ipsec"]
    assert [*map(int, Tunnel)] == [*range(len(Tunnel))], "the numbers are in exports"
    for tunnel in TUNNELS_BY_LABEL.values():
        assert tunnel.id_label or not tunnel.always_has_id


@every_tunnel
def test_a_kind_is_in_the_list_the_filter_language_json_details_and_exports(tunnel: Tunnel) -> None:
    row = ROWS["tcp"]._replace(tunnel=int(tunnel), tunnel_id=7)
    assert COLUMNS["tunnel"].text(row, Wording(), NO_LOOKUPS) == tunnel.label
    assert tunnel.label in KEYS["tunnel"].choices and tunnel.label in KEYS["tunnel"].expected
    passed = compile_filter(f"tunnel {tunnel.label}").mask(table([{"tunnel": int(tunnel)}, {}]), NO_LOOKUPS)
    assert passed.tolist() == [True, False]
    assert flow_record(row, NO_LOOKUPS)["tunnel"] == tunnel.label
    assert tunnel_values(tunnel, 7).keys() <= {*TUNNEL_MEMBERS}
    assert GROUPS["tunnel"].text((int(tunnel), 7), NO_LOOKUPS) == f"{tunnel.label} 7"
    shown = details._tunnel(row)
    assert shown == (f"{tunnel.label}, {tunnel.id_label} 7" if tunnel.id_label else tunnel.label)
    point = int(tunnel) << 32 | 7
    assert tunnels.description(point) == f"{tunnel.label} 7"
    read_back = [part.tolist() for part in tunnels.of_observation_points(np.array([point], np.uint64))]
    assert read_back == ([[0], [0]] if tunnel == Tunnel.IPSEC else [[tunnel], [7]]), "no export is of decrypted packets"


@every_tunnel
def test_an_id_of_0_is_shown_where_it_is_an_id(tunnel: Tunnel) -> None:
    row = ROWS["tcp"]._replace(tunnel=int(tunnel), tunnel_id=0)
    assert COLUMNS["vni"].text(row, Wording(), NO_LOOKUPS) == ("0" if tunnel.always_has_id else "")
    assert tunnels.description(int(tunnel) << 32) == (f"{tunnel.label} 0" if tunnel.always_has_id else tunnel.label)


def test_what_ipsec_has_decrypted_is_told_from_a_tunnel() -> None:
    tunnel = ROWS["tcp"]._replace(kind=int(Kind.PARENT), tunnel=int(Tunnel.VXLAN), tunnel_id=7, end_reason=0)
    decrypted = tunnel._replace(tunnel=int(Tunnel.IPSEC), tunnel_id=0x101)
    shown = [COLUMNS["state"].text(row, Wording(), NO_LOOKUPS) for row in (tunnel, decrypted)]
    assert shown == ["tun", "sec"]
    record = flow_record(decrypted, NO_LOOKUPS)
    assert (record["parent"], record["tunnel"], record["tunnelId"]) == (True, "ipsec", 0x101)


def test_a_vni_is_a_layer_2_segment_as_iana_has_it() -> None:
    """0x01 in the highest octet is VXLAN, the lowest three are the VNI."""
    found = tunnel_values(Tunnel.VXLAN, 0x123456)
    assert found == {"tunnel": "vxlan", "tunnelId": 0x123456, "layer2SegmentId": 0x0100_0000_0012_3456}
    assert ELEMENTS["layer2SegmentId"].number == 351
    assert tunnel_values(Tunnel.GRE, 7) == {"tunnel": "gre", "tunnelId": 7}
    assert tunnel_values(Tunnel.NONE, 0) == {}
