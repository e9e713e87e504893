"""`python -m tests.bench NAME` runs tests/bench/NAME.py's main()."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> int:
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        print(f"usage: python -m tests.bench {{{','.join(names)}}}", file=sys.stderr)
        return 2
    name = sys.argv.pop(1)
    sys.argv[0] = f"tests.bench {name}"
    importlib.import_module(f"tests.bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
