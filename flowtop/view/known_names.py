"""The names of hosts that are known at one moment, for filters to ask. Immutable; without numpy."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class KnownNames:
    """Names of one edition; those of the same edition are equal.

    Attributes:
        edition: of the cache they are from: another one has other names.
        names: by address, 4 bytes of IPv4 or 16 of IPv6.
    """

    edition: int = 0
    names: Mapping[bytes, str] = field(default_factory=dict, compare=False, repr=False)

    def matching(self, pattern: str, *, whole: bool) -> list[bytes]:
        """Addresses of which the name is `pattern`, a glob, or has that text in it; upper and lower case are alike."""
        pattern = pattern.casefold()
        if not whole:
            return [address for address, name in self.names.items() if pattern in name.casefold()]
        glob = re.compile(fnmatch.translate(pattern))
        return [address for address, name in self.names.items() if glob.match(name.casefold())]


NO_NAMES = KnownNames()
"""None is known."""
