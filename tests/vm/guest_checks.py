"""What makes the old-kernel run worth anything; run inside the machine only (see run_on_debian_kernel.sh)."""

from __future__ import annotations

import os
import platform


def test_this_is_the_kernel_series_asked_for() -> None:
    assert platform.release().startswith(os.environ["FLOWTOP_VM_SERIES"] + ".")
