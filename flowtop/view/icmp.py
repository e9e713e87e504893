"""Which ICMP messages answer which: both are ways of one conversation."""

from __future__ import annotations

ANSWERS: dict[int, dict[int, int]] = {1: {8: 0, 13: 14, 17: 18}, 58: {128: 129}}
"""By IP protocol: type of a request, and type of its answer (RFC 792, RFC 950, RFC 4443)."""
