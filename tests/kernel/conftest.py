"""Kernel tests load real eBPF. Where that cannot work they skip and say why; FLOWTOP_REQUIRE_KERNEL=1 fails instead."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.netns import Lab, compile_c


def _why_not() -> str:
    """The reason kernel tests cannot run here, or "" when they can."""
    if sys.platform != "linux":
        return "eBPF needs Linux"
    if os.geteuid() != 0:
        return "needs root: sudo .venv/bin/python -m pytest"
    if shutil.which("ip") is None:
        return "needs ip: apt-get install iproute2"
    from flowtop.capture.ebpf.compiler import import_bcc
    from flowtop.errors import FlowtopError

    try:
        import_bcc()
    except FlowtopError as error:
        return f"{error.message}; {error.hint}"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    mine = [item for item in items if here in item.path.parents]
    if not mine:
        return
    reason = _why_not()
    for item in mine:
        item.add_marker(pytest.mark.kernel)
        if reason and os.environ.get("FLOWTOP_REQUIRE_KERNEL") != "1":
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="session")
def udp_flood(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(Path(__file__).with_name("udp_flood.c"), tmp_path_factory.mktemp("bin") / "udp_flood")
