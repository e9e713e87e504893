"""Messages between a confined process and its helper: JSON objects of bounded length over a socketpair, with
descriptors beside them. What has another form ends the conversation."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST = 65_536
"""Octets of a message."""
MOST_DESCRIPTORS = 64


class ProtocolError(Exception):
    """A message that has not the form it should have."""


def send(end: socket.socket, message: Mapping[str, object], descriptors: Sequence[int] = ()) -> None:
    """Send one. Raises OSError, ProtocolError: it is too long."""
    octets = json.dumps(message, separators=(",", ":")).encode()
    if len(octets) > LONGEST:
        raise ProtocolError("too long")
    socket.send_fds(end, [octets], descriptors)


def receive(end: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Wait for one; its descriptors are the caller's to close: fewer than were sent, if this
    process may not open more. None: the other end is closed.

    Raises OSError, ProtocolError.
    """
    octets, descriptors, flags, _ = socket.recv_fds(end, LONGEST, MOST_DESCRIPTORS)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)  # recv_fds ignores MSG_CMSG_CLOEXEC
    if not octets and not descriptors:
        return None
    try:
        if flags & socket.MSG_TRUNC:
            raise ProtocolError("too long")
        message = json.loads(octets)
        if not isinstance(message, dict):
            raise ProtocolError("not an object")
    except (ValueError, RecursionError, ProtocolError) as error:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ProtocolError(str(error)) from error
    return message, list(descriptors)


def member(message: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    """A member of exactly this type. Raises ProtocolError."""
    value = message.get(name)
    if type(value) is not kind:
        raise ProtocolError(f"{name} is no {kind.__name__}")
    return value
