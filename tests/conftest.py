"""Nothing here is timed; with xdist's `--dist loadgroup`, what measures this host's traffic runs one after another."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("flowtop", deadline=None)  # a busy machine is no failure
settings.load_profile("flowtop")

# They load programs, own namespaces, sockets and decoders: two of them at once would time and count each other.
_ALONE = tuple(Path(__file__).parent / name for name in ("kernel", "oracle"))


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(folder in item.path.parents for folder in _ALONE):
            item.add_marker(pytest.mark.xdist_group("host"))
