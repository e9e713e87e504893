"""`-r FILE -w OTHER FILTER`: tshark reads in OTHER what its own display filter finds in FILE."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.oracle.test_read import CAPTURES, EXPECTED, NOT_ETHERNET, names
from tests.unit.capture.files.reading import read
from tests.unit.packets import write_packets

pytestmark = [
    pytest.mark.skipif(not EXPECTED.exists(), reason=f"needs the capture files in {CAPTURES}"),
    pytest.mark.skipif(not all(map(shutil.which, ("tshark", "mergecap"))), reason="needs tshark and mergecap"),
]

FILTERS = {
    "": "ip or ipv6",
    "tcp": "tcp",
    "udp port 53": "udp.port == 53",
    "host 10.0.0.1 or icmp": "ip.addr == 10.0.0.1 or ip.proto == 1",
    "not private": None,
}
"""flowtop's filter, and what tshark calls it; None: nothing so short."""


def tshark(path: Path, *options: str) -> list[str]:
    """Time, lengths and interface of each frame."""
    fields = ("frame.time_epoch", "frame.len", "frame.cap_len", "frame.encap_type")
    run = subprocess.run(["tshark", "-r", path, "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE", *options,
                          "-T", "fields", *[part for field in fields for part in ("-e", field)]],
                         capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every shared capture without tunnels in one, for those would need the display filter's outermost layer."""
    path = tmp_path_factory.mktemp("merged") / "merged.pcapng"
    tunnels = ("gre", "vxlan", "geneve", "erspan", "mpls", "contrail", "layer-key", NOT_ETHERNET, "with-without",
               "corrupted", "truncated")
    plain = [CAPTURES / name for name in names() if not any(tunnel in name for tunnel in tunnels)]
    assert len(plain) > 8
    subprocess.run(["mergecap", "-a", "-F", "pcapng", "-w", path, *plain], check=True)
    return path


@pytest.mark.parametrize("text", FILTERS)
def test_tshark_finds_the_same_packets(merged: Path, tmp_path: Path, text: str) -> None:
    figures = write_packets(merged, tmp_path / "y.pcapng", text)
    found = tshark(tmp_path / "y.pcapng")
    assert len(found) == figures.written
    wanted = FILTERS[text]
    if wanted is not None:
        whole = tshark(merged, "-Y", wanted)
        assert found == whole
        assert found
    everything = read(merged).flows
    chosen = read(tmp_path / "y.pcapng").flows
    assert chosen.items() <= everything.items(), "whole flows, with the same sums"
