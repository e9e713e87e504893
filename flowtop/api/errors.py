"""What the codecs of the library raise: the one error type, with what a program may want to know of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flowtop.errors import EXIT_DAMAGED, FlowtopError
from flowtop.wire.ipfix_template import DecodeFault, IpfixDecodeError, IpfixEncodeError


class DecodeError(FlowtopError):
    """Octets that are no message of the protocol; nothing of them was taken.

    Attributes:
        offset: of the first octet that is wrong, from the start of the message.
        fault: its kind: "version", "length", "set", "template", "value" or "bound".
    """

    def __init__(self, message: str, offset: int, fault: DecodeFault) -> None:
        super().__init__(message, exit_code=EXIT_DAMAGED)
        self.offset = offset
        self.fault: DecodeFault = fault


class EncodeError(FlowtopError):
    """A Template, a record or a value that no message of that protocol and size can hold; nothing was encoded."""


@contextmanager
def decoding() -> Iterator[None]:
    """Raises DecodeError where the codec refuses octets."""
    try:
        yield
    except IpfixDecodeError as refusal:
        raise DecodeError(str(refusal), refusal.offset, refusal.fault) from refusal


@contextmanager
def encoding() -> Iterator[None]:
    """Raises EncodeError where the codec refuses a Template or a value."""
    try:
        yield
    except IpfixEncodeError as refusal:
        raise EncodeError(str(refusal)) from refusal
