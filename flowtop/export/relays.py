"""Flow Records of collected flows, made complete: with the exporter's own numbers and names, so that they can be passed
on without the tables of this process.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from flowtop.model.exporters import Exporter, exporter_of
from flowtop.model.flows import egress_ifindex, ingress_ifindex
from flowtop.model.record import FLOW_RECORD_DTYPE, RELAYED_RECORD_DTYPE, FlowRecords, widened
from flowtop.model.reported import (
    APPLICATION_IDS,
    APPLICATIONS,
    INTERFACE_NUMBERS,
    USERS,
    VRF_IDS,
    VRFS,
    packed_address,
)
from flowtop.text.lookups import Lookups

_Found = TypeVar("_Found")
_NO_EXPORTER = Exporter("", 0, "")


def relayed(records: FlowRecords, lookups: Lookups) -> FlowRecords:
    """Records of collected flows as RELAYED_RECORD_DTYPE; those of this host's own flows as they are.

    Args:
        lookups: names and numbers of the exporters, of the same tick or a later one.
    """
    if records.dtype in (FLOW_RECORD_DTYPE, RELAYED_RECORD_DTYPE):
        return records
    found = widened(records, RELAYED_RECORD_DTYPE)
    exporters, inverse = _looked_up(records["ifindex"], lambda code: exporter_of(lookups.interfaces.get(code, "")))
    known = [exporter or _NO_EXPORTER for exporter in exporters]
    found["exporter"] = np.array([_packed(exporter.address) for exporter in known], "V16")[inverse]
    found["domain"] = np.array([exporter.domain for exporter in known], np.uint32)[inverse]
    numbers = lookups.named(INTERFACE_NUMBERS)
    for name, codes in (("ingress_interface", ingress_ifindex(records)), ("egress_interface", egress_ifindex(records))):
        found[name] = _numbers(codes, numbers.get)
    for name, member, table in (("ingress_vrf_id", "ingress_vrf", VRF_IDS), ("egress_vrf_id", "egress_vrf", VRF_IDS)):
        found[name] = _numbers(records[member], lookups.named(table).get)
    for name, member, table, ids in (("application_name", "application", APPLICATIONS, APPLICATION_IDS),
                                     ("vrf_name", "ingress_vrf", VRFS, VRF_IDS),
                                     ("egress_vrf_name", "egress_vrf", VRFS, VRF_IDS),
                                     ("user_name", "user", USERS, "")):
        found[name] = _texts(records[member], name, lookups, table, ids)
    texts, inverse = _looked_up(records["application"], lookups.named(APPLICATION_IDS).get)
    found["application_id"] = np.array([(text or "").encode() for text in texts],
                                       RELAYED_RECORD_DTYPE["application_id"])[inverse]
    return found


def _packed(address: str) -> bytes:
    return packed_address(ipaddress.ip_address(address).packed) if address else bytes(16)


def _looked_up(codes: npt.NDArray[np.uint32], look: Callable[[int], _Found]) -> tuple[
        list[_Found], npt.NDArray[np.intp]]:
    """What is known of each different code, and the place in that list for each of `codes`."""
    different, inverse = np.unique(codes, return_inverse=True)
    return [look(code) for code in different.tolist()], inverse


def _numbers(codes: npt.NDArray[np.uint32], text: Callable[[int], str | None]) -> npt.NDArray[np.uint32]:
    """Numbers whose text is known; 0 for others."""
    texts, inverse = _looked_up(codes, text)
    return np.array([int(text) if text else 0 for text in texts], np.uint32)[inverse]


def _texts(codes: npt.NDArray[np.uint32], name: str, lookups: Lookups, table: str, ids: str) -> npt.NDArray[np.bytes_]:
    """Names in UTF-8, cut to the length of the member `name`; empty where only the number is known."""
    dtype = RELAYED_RECORD_DTYPE[name]

    def octets(code: int) -> bytes:
        text = lookups.named(table).get(code, "")
        if ids and text == lookups.named(ids).get(code):
            return b""
        return text.encode("utf-8", "replace")[:dtype.itemsize].decode("utf-8", "ignore").encode()

    texts, inverse = _looked_up(codes, octets)
    return np.array(texts, dtype)[inverse]


def interfaces_of_exporters(lookups: Lookups) -> list[tuple[bytes, int, int, str]]:
    """The names of exporters' interfaces: (address of 4 or 16 octets, domain, the exporter's number, name)."""
    numbers, found = lookups.named(INTERFACE_NUMBERS), []
    for code, name in lookups.interfaces.items():
        exporter, number = exporter_of(name), numbers.get(code)
        if exporter is not None and number and exporter.interface not in ("", f"if{number}"):
            found.append((ipaddress.ip_address(exporter.address).packed, exporter.domain, int(number),
                          exporter.interface))
    return found
