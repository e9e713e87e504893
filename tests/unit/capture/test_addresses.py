"""The addresses of this host, against ip(8)."""

from __future__ import annotations

import ipaddress
import json
import subprocess

from flowtop.capture.ebpf.addresses import local_addresses


def test_they_are_those_that_ip_lists() -> None:
    listed = json.loads(subprocess.run(["ip", "-json", "address"], capture_output=True, check=True).stdout)
    expected = {ipaddress.ip_address(address["local"]).packed for link in listed for address in link["addr_info"]}
    assert expected
    assert local_addresses() == expected
