"""Compiles the programs that copy packets of selected flows to a ring buffer. No numpy."""

from __future__ import annotations

import errno
import os

from flowtop.capture.ebpf import bpf
from flowtop.capture.ebpf.compiler import Build, decap_flags
from flowtop.capture.ebpf.loader import PACKET_MAPS, PACKET_PROGRAMS
from flowtop.errors import EXIT_UNAVAILABLE, FlowtopError
from flowtop.model.tunnel_ports import TunnelPorts

RING_OCTETS = 16 << 20
"""Of the ring buffer that packets are written from."""
_RING_PAGE = 4096


def try_ring_buffer(octets: int = RING_OCTETS) -> None:
    """Make a ring buffer of the size that writing packets uses. Raises OSError if the kernel refuses."""
    os.close(bpf.map_create(bpf.MAP_TYPE_RINGBUF, 0, 0, octets))


def require_ring_buffers() -> None:
    """Raises FlowtopError (EXIT_UNAVAILABLE) if this kernel has no ring buffers."""
    try:
        try_ring_buffer()
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            return  # later calls report permissions and other faults
        raise FlowtopError("this kernel has no ring buffers, which writing packets needs",
                           hint="Linux 5.8 or later is needed to write packets", exit_code=EXIT_UNAVAILABLE) from error


def build_programs(*, snap: int, per_flow: int, expression: str, decap: bool = False,
                   tunnel_ports: TunnelPorts | None = None) -> Build:
    """Start compiling. Raises FlowtopError like `require_ring_buffers`.

    Args:
        snap, per_flow, expression: see PacketRequest.
        decap: packets in tunnels belong to their inner flow.
        tunnel_ports: UDP ports of tunnels, in addition to the standard ones.
    """
    require_ring_buffers()
    cflags = [f"-DFLOW_SNAP={snap}", f"-DFLOW_RING_PAGES={RING_OCTETS // _RING_PAGE}",
              *decap_flags(decap, tunnel_ports)]
    if per_flow:
        cflags.append(f"-DFLOW_SHARE={per_flow}ULL")
    if expression:
        cflags.append(f"-DFLOW_FILTER(key)={expression}")
    return Build("packets.bpf.c", cflags, PACKET_PROGRAMS, PACKET_MAPS,
                 (f"a ring buffer of {RING_OCTETS >> 20} MiB", "raise the memory limit"))
