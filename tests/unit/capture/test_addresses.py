"""The addresses of this host, against ip(8)."""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
import subprocess
from typing import cast

import numpy as np

from flowtop.capture.ebpf.addresses import LocalAddresses, host_addresses
from flowtop.capture.ebpf.netlink import RouteSocket, pack_attribute
from flowtop.model.kinds import IpVersion

OWN, PEER, BROADCAST, LATER, OTHER = "192.0.2.1", "192.0.2.9", "198.51.100.255", "192.0.2.77", "203.0.113.1"
ADDRESS, LOCAL, BROADCAST_KIND = 1, 2, 4  # uapi/linux/if_addr.h: IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST


class FakeRoute:
    """Answers with what it is given, and counts."""

    def __init__(self, *bodies: bytes) -> None:
        self.bodies = list(bodies)
        self.dumps = 0

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        assert (kind, len(body)) == (22, 8)  # RTM_GETADDR, struct ifaddrmsg
        self.dumps += 1
        return self.bodies


def body(**given: str) -> bytes:
    kinds = {"address": ADDRESS, "local": LOCAL, "broadcast": BROADCAST_KIND}
    return struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, 1) + b"".join(
        pack_attribute(kinds[name], ipaddress.ip_address(text).packed) for name, text in given.items())


def are_local(addresses: LocalAddresses, *texts: str) -> list[bool]:
    packed = [ipaddress.ip_address(text) for text in texts]
    keys = np.array([one.packed.ljust(16, b"\0") for one in packed], "V16")
    versions = np.array([IpVersion.V4 if one.version == 4 else IpVersion.V6 for one in packed], np.uint8)
    return addresses.are_local(keys, versions).tolist()


def test_they_are_those_that_ip_lists() -> None:
    listed = json.loads(subprocess.run(["ip", "-json", "address"], capture_output=True, check=True).stdout)
    expected = {ipaddress.ip_address(address["local"]).packed for link in listed for address in link["addr_info"]}
    assert expected
    assert host_addresses().own == expected


def test_the_peer_of_a_link_is_not_this_host_and_broadcasts_are_for_it() -> None:
    route = FakeRoute(body(address=PEER, local=OWN), body(address="198.51.100.4", local="198.51.100.4",
                                                          broadcast=BROADCAST))
    addresses = LocalAddresses(cast(RouteSocket, route), lambda: 5.0)
    assert are_local(addresses, OWN, PEER, "198.51.100.4", BROADCAST, OTHER) == [True, False, True, True, False]


def test_addresses_of_many_and_of_loopback_need_no_list() -> None:
    route = FakeRoute()
    addresses = LocalAddresses(cast(RouteSocket, route), lambda: 5.0)
    assert are_local(addresses, "224.0.0.251", "255.255.255.255", "127.3.2.1", "ff02::1") == [True] * 4
    assert route.dumps == 0


def test_an_unknown_address_has_the_list_read_once_a_second() -> None:
    now_s = 5.0
    route = FakeRoute(body(address=OWN, local=OWN))
    addresses = LocalAddresses(cast(RouteSocket, route), lambda: now_s)
    assert are_local(addresses, LATER) == [False]
    route.bodies.append(body(address=LATER, local=LATER))
    now_s = 5.9
    assert are_local(addresses, LATER) == [False]
    now_s = 6.1
    assert are_local(addresses, LATER, OWN) == [True, True]
    assert route.dumps == 2
