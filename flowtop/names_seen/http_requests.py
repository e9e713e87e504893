"""The host in an HTTP/1 request (RFC 9112)."""

from __future__ import annotations

import re

from flowtop.names_seen.errors import MalformedError

_REQUEST = re.compile(rb"[A-Z]{3,16} ([^ \r\n]+) HTTP/1\.[01]\r?\n")
_HOST = re.compile(rb"(?:^|\n)[Hh][Oo][Ss][Tt]:[ \t]*+([^ \t\r\n]*+)[ \t]*+\r?\n")
"""Possessive: a packet full of spaces costs its length, not the square of it."""
_PORT = re.compile(rb":[0-9]*$")


def host_of(octets: bytes) -> bytes | None:
    """The host that the server is asked for, without a port; None: it names none, or the server is a proxy.

    Args:
        octets: the request, or its beginning.

    Raises MalformedError: it is no request.
    """
    line = _REQUEST.match(octets)
    if line is None:
        raise MalformedError("no request line")
    if not line[1].startswith((b"/", b"*")):
        return None  # to a proxy, whose name that is not
    end = octets.find(b"\r\n\r\n", line.end() - 2)
    head = octets[line.end() - 1:] if end < 0 else octets[line.end() - 1:end + 2]
    found = _HOST.search(head)
    return _PORT.sub(b"", found[1]) or None if found else None
