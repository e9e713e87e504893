"""What the loader of a confined capture compiles: flowtop's sources, with filters of the form that flowtop writes."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Mapping, Sequence
from typing import Any

from flowtop.capture.ebpf.compiler import COARSE_CLOCK_KERNEL, Build, Compilation, kernel_release
from flowtop.capture.ebpf.expressions import is_kernel_filter
from flowtop.capture.ebpf.packet_programs import build_programs
from flowtop.capture.ebpf.start import check_map_entries
from flowtop.confine.checks import number
from flowtop.confine.helper import Answer
from flowtop.confine.messages import ProtocolError, member
from flowtop.model.kinds import Tunnel
from flowtop.model.tunnel_ports import MOST_PORTS


def flows(message: Mapping[str, Any], _: Sequence[int]) -> Answer:
    """The programs that count: the answer has their descriptors, and those of maps."""
    entries = number(message, "map_entries")
    check_map_entries(entries)
    build = Compilation(map_entries=entries, coarse_clock=kernel_release() >= COARSE_CLOCK_KERNEL,
                        expression=_expression(message), decap=member(message, "decap", bool),
                        tunnel_ports=_ports(message), owners=member(message, "owners", bool),
                        names=member(message, "names", bool)).build
    return _built(build, message)


def packets(message: Mapping[str, Any], _: Sequence[int]) -> Answer:
    """Those that copy packets."""
    build = build_programs(
        snap=number(message, "snap"), per_flow=number(message, "per_flow", (1 << 63) - 1),
        expression=_expression(message), decap=member(message, "decap", bool), tunnel_ports=_ports(message))
    return _built(build, message)


def _expression(message: Mapping[str, Any]) -> str:
    value: str = member(message, "expression", str)
    if not is_kernel_filter(value):
        raise ProtocolError("no filter of the Flow Key")
    return value


def _ports(message: Mapping[str, Any]) -> dict[int, Tunnel]:
    found = {}
    pairs: list[Any] = member(message, "tunnel_ports", list)
    if len(pairs) > MOST_PORTS:
        raise ProtocolError("too many ports")
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(one) is int for one in pair)
                and 0 < pair[0] < 1 << 16 and pair[1] in set(Tunnel)):
            raise ProtocolError("no port of a tunnel")
        found[pair[0]] = Tunnel(pair[1])
    return found


def _built(build: Build, message: Mapping[str, Any]) -> Answer:
    """Wait for the programs, or for the end of who wants them, and then end the compiler."""
    poll = select.poll()
    poll.register(message["end"], select.POLLIN)
    poll.register(build, select.POLLIN)
    try:
        if message["end"] in dict(poll.poll()):
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
        programs, maps = build.result()
    finally:
        build.close()
    return ({"refused": dict(build.refused), "programs": list(programs), "maps": list(maps)},
            [*programs.values(), *maps.values()])
