"""Where databases of networks usually are, and which of them to read."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path

PLACES = tuple(map(Path, (
    "/usr/share/GeoIP", "/var/lib/GeoIP", "/usr/local/share/GeoIP", "/usr/local/var/GeoIP", "/opt/GeoIP",
    "/usr/share/dbip", "/var/lib/dbip", "/usr/share/ipinfo", "/var/lib/ipinfo")))
"""Directories of geoipupdate, distributions, and the usual ones of DB-IP and IPinfo. Only root writes there."""

_BOTH = ("ipinfo_lite*.mmdb", "country_asn*.mmdb")
_KINDS = (
    (*_BOTH, "GeoLite2-ASN*.mmdb", "GeoIP2-ISP*.mmdb", "GeoIP2-ASN*.mmdb", "dbip-asn*.mmdb", "dbip-isp*.mmdb",
     "*asn*.mmdb"),
    (*_BOTH, "GeoIP2-Country*.mmdb", "GeoLite2-Country*.mmdb", "dbip-country*.mmdb", "*country*.mmdb",
     "GeoIP2-City*.mmdb", "GeoLite2-City*.mmdb", "dbip-city*.mmdb", "GeoIP2-Enterprise*.mmdb", "dbip-location*.mmdb",
     "*location*.mmdb", "*city*.mmdb"),
)
"""Names of files that have AS numbers, and of those that have countries; the smaller ones first, they are as good."""


def usual_databases(places: Sequence[Path] = PLACES) -> tuple[Path, ...]:
    """The databases to read when none is named: one with AS numbers and one with countries, or one with both.

    Of files that differ in a date the last one, by name. A place that is missing or cannot be listed has none.
    """
    found = [path for path in (_first(patterns, places) for patterns in _KINDS) if path is not None]
    return tuple(dict.fromkeys(found))


def _first(patterns: Sequence[str], places: Sequence[Path]) -> Path | None:
    for place in places:
        try:
            files = sorted(path for path in place.iterdir() if path.suffix == ".mmdb")
        except OSError:
            continue
        for pattern in patterns:
            matching = [path for path in files if fnmatch.fnmatchcase(path.name.lower(), pattern.lower())]
            if matching:
                return matching[-1]
    return None
