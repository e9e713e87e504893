"""README and manual as the tests read them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
README = REPOSITORY / "README.md"
PAGES = sorted((REPOSITORY / "flowtop" / "docs").glob("*.md"))

PROGRAMS = ("flowtop", "flowtop-dump")


def page(name: str) -> Path:
    """One page of the manual."""
    return REPOSITORY / "flowtop" / "docs" / f"{name}.md"


def marked(path: Path, name: str) -> str:
    """What stands between <!-- name --> and <!-- /name -->."""
    match = re.search(rf"^<!-- {name} -->\n(.*?)\n?^<!-- /{name} -->$", path.read_text(), re.S | re.M)
    assert match, f"{path.name} has lost its <!-- {name} --> marks"
    return match[1]


def commands(text: str) -> list[list[str]]:
    """Words of each call of our programs in fenced blocks of shell commands, redirections left out."""
    found = []
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M)).replace("\\\n", " ")
    for line in blocks.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        words: list[str] = []
        for token in [*lexer, ";"]:
            if re.fullmatch(r"[();|&]+", token):
                called = [at for at, word in enumerate(words) if word.rpartition("/")[2] in PROGRAMS]
                if called and called[0] == 0:
                    found.append(words)
                words = []
            elif re.fullmatch(r"[<>]+", token):
                words.append(token)
            elif words and re.fullmatch(r"[<>]+", words[-1]):
                words.pop()
            else:
                words.append(token)
    return found
