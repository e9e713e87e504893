"""What the looker of a confined capture reads: processes, their sockets, and the files of container runtimes."""

from __future__ import annotations

import gc
import os
import pwd
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from flowtop.confine.account import give_up_privileges
from flowtop.confine.checks import LONGEST_TEXT, number, text
from flowtop.confine.helper import Answer, fork_apart
from flowtop.confine.messages import ProtocolError, member
from flowtop.owners import proc, scan
from flowtop.owners.containers import ContainerFiles, Place

WHOLE = b"\1"
"""Follows the output of a scan that is complete."""
_LONGEST_CGROUPS = 32_768
CAP_DAC_READ_SEARCH = 2
_ID, _POD = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f-]{0,64}")


def life(message: Mapping[str, Any], _: Sequence[int]) -> Answer:
    """A process: see proc.read_life."""
    found = proc.read_life(number(message, "pid"), number(message, "start_ticks", (1 << 63) - 1))
    if found is None:
        return {"stat": None}, []
    stat = found.stat
    return {"stat": [stat.comm, stat.parent_pid, stat.start_ticks],
            "texts": [found.executable[:LONGEST_TEXT], found.command, found.cgroups[:_LONGEST_CGROUPS]]}, []


def user(message: Mapping[str, Any], _: Sequence[int]) -> Answer:
    """The name of a user, which may be a service's to say; else the number."""
    uid = number(message, "uid")
    try:
        name = pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        name = str(uid)
    return {"name": name[:LONGEST_TEXT]}, []


def sockets(message: Mapping[str, Any], _: Sequence[int]) -> Answer:
    """A process writes the output of a scan to a stream."""
    nice = number(message, "nice", 19)
    reading, writing = socket.socketpair()
    with reading, writing:
        if fork_apart() == 0:
            try:
                reading.close()
                os.nice(nice)
                gc.disable()  # nothing is circular, and it ends soon
                writing.sendall(scan.scan() + WHOLE)
            finally:
                os._exit(0)
        return {}, [reading.detach()]


def container(message: Mapping[str, Any], _: Sequence[int]) -> Answer:
    """A container: see containers.ContainerFiles.read. In a process of its own: users wrote some of what it reads."""
    give_up_privileges(None, 1 << CAP_DAC_READ_SEARCH)
    place = Place(text(message, "id"), text(message, "runtime"), text(message, "pod"), number(message, "uid"),
                  member(message, "named", bool))
    if not _ID.fullmatch(place.id) or not _POD.fullmatch(place.pod):  # both are in paths, and in requests of HTTP
        raise ProtocolError("no id")
    found, faults = ContainerFiles().read(place)
    return {"container": [found.id, found.name, found.image, found.pod, found.namespace],
            "faults": [fault[:LONGEST_TEXT] for fault in faults[:8]]}, []
