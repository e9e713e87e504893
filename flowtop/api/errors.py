"""Errors that the codecs of the library raise: FlowtopError with details for programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flowtop.errors import EXIT_DAMAGED, FlowtopError
from flowtop.wire.ipfix_template import DecodeFault, IpfixDecodeError, IpfixEncodeError


class DecodeError(FlowtopError):
    """The octets are not a valid message of the protocol; nothing in them was used.

    Attributes:
        offset: of the first invalid octet, from the start of the message.
        fault: kind of the fault: "version", "length", "set", "template", "value" or "bound".
    """

    def __init__(self, message: str, offset: int, fault: DecodeFault) -> None:
        super().__init__(message, exit_code=EXIT_DAMAGED)
        self.offset = offset
        self.fault: DecodeFault = fault


class EncodeError(FlowtopError):
    """A Template, record or value does not fit a message of this protocol and size; nothing was encoded."""


@contextmanager
def decoding() -> Iterator[None]:
    """Raise DecodeError when the codec refuses octets."""
    try:
        yield
    except IpfixDecodeError as refusal:
        raise DecodeError(str(refusal), refusal.offset, refusal.fault) from refusal


@contextmanager
def encoding() -> Iterator[None]:
    """Raise EncodeError when the codec refuses a Template or a value."""
    try:
        yield
    except IpfixEncodeError as refusal:
        raise EncodeError(str(refusal)) from refusal
