"""The tunnel of a flow as Information Elements, in both directions.

The registry has elements for a VXLAN's VNI and for a GRE key, but none to identify other tunnels. An Observation Point
may be any place where packets can be observed, so the inside of a tunnel is one: observationPointId is a Flow Key of
every flow in a tunnel, and Options Data describe that tunnel. The value is computed, so that it is the same in all
sessions: record.Tunnel in the upper 32 bits, the tunnel's id in the lower ones, so that collectors that keep only 32 or
16 bits (goflow2, ntopng) can still distinguish tunnels.
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
"""The three octets of layer2SegmentId with the VNI."""
_SEGMENT_KIND_BITS = np.uint64(56)
_SEGMENT_VXLAN, _SEGMENT_NVGRE = np.uint64(1), np.uint64(2)
"""Values of its highest octet. 0 is reserved, but is also sent by exporters that support VXLAN only."""


def observation_points(records: FlowRecords) -> npt.NDArray[np.uint64]:
    """observationPointId of each record, shape (n,); 0 outside tunnels."""
    tunnels, ids = records["tunnel"].astype(np.uint64), records["tunnel_id"].astype(np.uint64)
    points: npt.NDArray[np.uint64] = tunnels << _ID_BITS | ids * (tunnels > 0)
    return points


def layer2_segments(records: FlowRecords) -> npt.NDArray[np.uint64]:
    """layer2SegmentId of records in VXLANs, shape (n,)."""
    segments: npt.NDArray[np.uint64] = records["tunnel_id"].astype(np.uint64) & _SEGMENT
    return segments | _SEGMENT_VXLAN << _SEGMENT_KIND_BITS


def description(observation_point: int) -> str:
    """The tunnel of one of flowtop's observationPointIds: `vxlan 100`, `gre`."""
    tunnel, id_ = Tunnel(observation_point >> 32), observation_point & 0xFFFF_FFFF
    return f"{tunnel.label} {id_}" if id_ or tunnel.always_has_id else tunnel.label


def of_observation_points(points: Integers) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """record.Tunnel and id of each of flowtop's observationPointIds, shape (n,); impossible values give no tunnel."""
    values = points.astype(np.uint64)
    tunnels = values >> _ID_BITS
    tunnels[(tunnels >= np.uint64(len(Tunnel))) | (tunnels == np.uint64(Tunnel.IPSEC))] = Tunnel.NONE  # never exported
    return tunnels.astype(np.uint32), np.where(tunnels > 0, values & _ID, 0).astype(np.uint32)


def of_layer2_segments(segments: Integers) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """The same for layer2SegmentId of any exporter; unregistered kinds of overlay give no tunnel.

    The id of NVGRE is the 24-bit virtual subnet, the upper bits of its GRE key.
    """
    values = segments.astype(np.uint64)
    kinds = values >> _SEGMENT_KIND_BITS
    vxlan = (kinds == _SEGMENT_VXLAN) | ((kinds == 0) & (values > 0))
    tunnels = np.where(vxlan, Tunnel.VXLAN, np.where(kinds == _SEGMENT_NVGRE, Tunnel.GRE, Tunnel.NONE))
    return tunnels.astype(np.uint32), np.where(tunnels != Tunnel.NONE, values & _SEGMENT, 0).astype(np.uint32)


def of_gre_keys(keys: Integers) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """The same for greKey of any exporter; 0 means no tunnel."""
    ids = (keys.astype(np.uint64) & _ID).astype(np.uint32)
    return np.where(ids != 0, Tunnel.GRE, Tunnel.NONE).astype(np.uint32), ids
