"""Writes databases of networks with mmdb_writer, from dicts of prefixes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmdb_writer
import pytest
from netaddr import IPSet

GEOLITE_ASN = "GeoLite2-ASN"


def write(path: Path, networks: Mapping[str, Any], *, version: int = 6, kind: str = GEOLITE_ASN,
          record_size: int = 0) -> Path:
    """An MMDB file with a record for each network; in a database of version 6, IPv4 networks are in ::/96.

    Args:
        record_size: 24, 28 or 32 bits; 0: the smallest.
    """
    writer = mmdb_writer.MMDBWriter(version, kind, languages=["en"], ipv4_compatible=version == 6)
    for network, record in networks.items():
        writer.insert_network(IPSet([network]), record)
    with pytest.MonkeyPatch.context() as patch:
        if record_size:
            def adjust(tree: Any) -> None:
                tree.record_size = record_size
                tree.data_offset = record_size * 2 / 8 * tree._node_counter

            patch.setattr(mmdb_writer.TreeWriter, "_adjust_record_size", adjust)
        writer.to_db_file(str(path))
    return path


def asn(number: int, name: str = "") -> dict[str, Any]:
    """A record as in GeoLite2-ASN and DB-IP's ASN Lite."""
    return {"autonomous_system_number": number, "autonomous_system_organization": name or f"Example {number}"}


def country(code: str) -> dict[str, Any]:
    """A record as in GeoLite2-Country and DB-IP's Country Lite."""
    return {"continent": {"code": "EU", "names": {"en": "Europe"}},
            "country": {"geoname_id": 1, "iso_code": code, "names": {"en": "Name"}},
            "registered_country": {"iso_code": "ZZ"}}
