"""`python -m flowtop.docs.generate` updates the tables of the manual; with --check it only lists stale pages."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from flowtop.docs.tables import REPOSITORY, TABLES


def pages() -> tuple[Path, ...]:
    """The README and the manual's pages, in a checkout."""
    return (REPOSITORY / "README.md", *sorted((REPOSITORY / "flowtop" / "docs").glob("*.md")))


def generated(text: str) -> str:
    """The page with its tables made again from the code; parts between unknown marks stay as they are."""
    def made(part: re.Match[str]) -> str:
        name = part[1]
        return f"<!-- {name} -->\n{TABLES[name]()}\n<!-- /{name} -->\n" if name in TABLES else part[0]

    return re.sub(r"^<!-- ([\w-]+) -->\n.*?^<!-- /\1 -->\n", made, text, flags=re.M | re.S)


def stale() -> Iterator[tuple[Path, str]]:
    """Pages whose tables are stale, and their correct texts."""
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if (new := generated(text)) != text:
            yield path, new


def main() -> int:
    """Command line; returns exit status 1 when --check finds a stale page."""
    parser = argparse.ArgumentParser(prog="python -m flowtop.docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    differing = list(stale())
    for path, text in differing:
        print(path.name, "is stale: run python -m flowtop.docs.generate" if check else "written")
        if not check:
            path.write_text(text, encoding="utf-8")
    return int(check and bool(differing))


if __name__ == "__main__":
    sys.exit(main())
