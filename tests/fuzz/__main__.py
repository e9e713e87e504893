"""`python -m tests.fuzz TARGET --minutes N`: random inputs at one boundary of flowtop; `all`: at each in turn."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.engine import fuzz
from tests.fuzz.targets import TARGETS, available


def main() -> int:
    """Print a line for each target; 1 if there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--kept", type=Path, default=Path(tempfile.gettempdir(), "flowtop-fuzz"),
                        help="directory for inputs that were found (%(default)s)")
    parser.add_argument("--grow", type=Path, help="directory for short inputs with new outcomes")
    options = parser.parse_args()
    found = 0
    for name in TARGETS if options.target == "all" else [options.target]:
        reason = available(name)
        if reason:
            print(f"{name}: not tried: {reason}")
            continue
        report = fuzz(TARGETS[name](), seconds=options.minutes * 60, seed=options.seed, kept=options.kept / name,
                      grow=options.grow and options.grow / name)
        print(f"{name}: {report.inputs:,} inputs, {report.outcomes:,} kinds of outcome, "
              f"{report.grown_mib:.0f} MiB more, {len(report.findings)} findings (seed {options.seed})", flush=True)
        for what, path in report.findings.items():
            print(f"  {what}\n    {path}")
        found += len(report.findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
