"""Checks of what a request has: its form is messages.member's to check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowtop.confine.messages import ProtocolError, member

MOST_NUMBER = (1 << 32) - 1
LONGEST_TEXT = 4096


def number(message: Mapping[str, Any], name: str, most: int = MOST_NUMBER) -> int:
    """A number from 0 on. Raises ProtocolError."""
    value: int = member(message, name, int)
    if not 0 <= value <= most:
        raise ProtocolError(f"{name} is out of range")
    return value


def text(message: Mapping[str, Any], name: str, most: int = LONGEST_TEXT) -> str:
    """A text without NUL. Raises ProtocolError."""
    value: str = member(message, name, str)
    if len(value) > most or "\0" in value:
        raise ProtocolError(f"{name} is too long")
    return value
