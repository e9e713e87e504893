"""What keys need is there before they are pressed, and after the first page."""

from __future__ import annotations

import subprocess
import sys

from flowtop.tui.ahead import MODULES

SCRIPT = """
import asyncio, sys
import flowtop.tui.app
from flowtop.tui.ahead import MODULES, import_ahead
before = [name for name in MODULES if name in sys.modules]
asyncio.run(import_ahead(0))
print(before, [name for name in MODULES if name not in sys.modules], "lark" in sys.modules)
"""


def test_nothing_of_it_delays_the_first_frame_and_all_of_it_is_there_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["[]", "[]", "True"]
    assert len(set(MODULES)) == len(MODULES)
