"""Default ports of collectors."""

from __future__ import annotations

IPFIX_PORT = 4739
IPFIX_TLS_PORT = 4740
LINES_PORT = 5_170
"""Fluent Bit's default for lines over TCP and UDP; there is no standard."""
