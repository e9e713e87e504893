"""Nothing is timed or looked up in databases of this host; signals reach what tests start, however they were started."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

settings.register_profile("flowtop", deadline=None)  # a busy machine is no failure
settings.load_profile("flowtop")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell's background jobs have it; children would keep it
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["FLOWTOP_MMDB"] = "off"
