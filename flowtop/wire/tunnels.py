"""What carried a flow, as Information Elements and back.

The registry has an element for the VNI of VXLAN and one for a GRE key, and none for what other tunnels are told apart
by. But an Observation Point may be any place where packets can be observed, so the inside of a tunnel is one:
observationPointId is a Flow Key of every flow in a tunnel, and Options Data say which tunnel it is. Its value is made,
not counted up, so that all sessions have the same: record.Tunnel in the upper 32 bits, the tunnel's id in the lower,
where collectors that keep 32 or 16 bits of it (goflow2, ntopng) leave what tells tunnels apart.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.model.kinds import Tunnel
from flowtop.model.record import FlowRecords

Integers = npt.NDArray[np.int64] | npt.NDArray[np.uint64]
_ID_BITS = np.uint64(32)
_ID = np.uint64(0xFFFF_FFFF)
_SEGMENT = np.uint64(0xFF_FFFF)
"""The three octets of layer2SegmentId that hold the VNI."""
_SEGMENT_KIND_BITS = np.uint64(56)
_SEGMENT_VXLAN, _SEGMENT_NVGRE = np.uint64(1), np.uint64(2)
"""Of its highest octet; 0, which is reserved, is also what exporters send that know no other than VXLAN."""


def observation_points(records: FlowRecords) -> npt.NDArray[np.uint64]:
    """observationPointId of each record, shape (n,); 0 outside tunnels."""
    tunnels, ids = records["tunnel"].astype(np.uint64), records["tunnel_id"].astype(np.uint64)
    found: npt.NDArray[np.uint64] = tunnels << _ID_BITS | ids * (tunnels > 0)
    return found


def layer2_segments(records: FlowRecords) -> npt.NDArray[np.uint64]:
    """layer2SegmentId of records in VXLANs, shape (n,)."""
    found: npt.NDArray[np.uint64] = records["tunnel_id"].astype(np.uint64) & _SEGMENT
    return found | _SEGMENT_VXLAN << _SEGMENT_KIND_BITS


def description(observation_point: int) -> str:
    """Which tunnel an observationPointId of ours is the inside of: `vxlan 100`, `gre`."""
    tunnel, id_ = Tunnel(observation_point >> 32), observation_point & 0xFFFF_FFFF
    return f"{tunnel.label} {id_}" if id_ or tunnel.always_has_id else tunnel.label


def of_observation_points(points: Integers) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """record.Tunnel and id of each observationPointId of ours, shape (n,); what cannot be one of them is no tunnel."""
    values = points.astype(np.uint64)
    tunnels = values >> _ID_BITS
    tunnels[tunnels >= np.uint64(len(Tunnel))] = Tunnel.NONE
    return tunnels.astype(np.uint32), np.where(tunnels > 0, values & _ID, 0).astype(np.uint32)


def of_layer2_segments(segments: Integers) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Likewise of anybody's layer2SegmentId; a kind of overlay that the registry does not name is no tunnel.

    Of NVGRE the id is the 24 bits that tell networks apart, which are the upper ones of its GRE key.
    """
    values = segments.astype(np.uint64)
    kinds = values >> _SEGMENT_KIND_BITS
    vxlan = (kinds == _SEGMENT_VXLAN) | ((kinds == 0) & (values > 0))
    tunnels = np.where(vxlan, Tunnel.VXLAN, np.where(kinds == _SEGMENT_NVGRE, Tunnel.GRE, Tunnel.NONE))
    return tunnels.astype(np.uint32), np.where(tunnels != Tunnel.NONE, values & _SEGMENT, 0).astype(np.uint32)


def of_gre_keys(keys: Integers) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Likewise of anybody's greKey: 0 is what flows outside tunnels have in such a field."""
    ids = (keys.astype(np.uint64) & _ID).astype(np.uint32)
    return np.where(ids != 0, Tunnel.GRE, Tunnel.NONE).astype(np.uint32), ids
