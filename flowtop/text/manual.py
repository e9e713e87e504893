"""The manual's pages: topics, titles, and a page for a reader at a terminal. No numpy, no rich.

The pages are Markdown files in `flowtop/docs`, part of the installed package.
"""

from __future__ import annotations

import re
from importlib.resources import files

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.text.suggestions import nearest

ORDER = ("quick-start", "keys", "filters", "options", "columns", "json", "processes", "names", "trouble", "export",
         "counting", "tunnels", "files", "packets", "collector", "networks", "service", "confinement", "security",
         "benchmarks", "design", "library", "adding-a-field", "changes")
"""Topics as a reader needs them. A page that is not listed here comes after these; one that is missing is left out."""

_PAGES = files("flowtop").joinpath("docs")

_CODE_OR_LINK = re.compile(r"^```.*?^```|`[^`\n]+`|"
                           r"\[(?P<text>[^\]]*)\]\((?!https?:)(?P<target>[\w./-]*)(?:#[\w-]*)?\)", re.M | re.S)


def topics() -> tuple[str, ...]:
    """Name of each page there is, in reading order."""
    there = {page.name.removesuffix(".md") for page in _PAGES.iterdir() if page.name.endswith(".md")}
    return (*(name for name in ORDER if name in there), *sorted(there.difference(ORDER)))


def source(topic: str) -> str:
    """A page as it is written: Markdown with marks around generated tables.

    Raises FlowtopError (EXIT_USAGE): no such page; the hint names the nearest.
    """
    known = topics()
    if topic not in known:
        near = nearest(topic.removesuffix(".md"), known)
        hint = f'did you mean "{near[0]}"?' if near else f"topics: {', '.join(known)}"
        raise FlowtopError(f"no manual page {topic!r}", hint=hint, exit_code=EXIT_USAGE)
    return _PAGES.joinpath(f"{topic}.md").read_text(encoding="utf-8")


def title(topic: str) -> str:
    """The heading of a page."""
    return source(topic).partition("\n")[0].removeprefix("# ")


def page(topic: str) -> str:
    """A page as Markdown for a reader at a terminal: no marks, no pictures, links as commands.

    Raises FlowtopError: as `source`.
    """
    text = re.sub(r"^<!-- .*? -->\n", "", source(topic), flags=re.M)
    text = re.sub(r"^!\[[^\]]*\]\([^)]*\)\n+", "", text, flags=re.M)
    return _CODE_OR_LINK.sub(_without_link, text)


def _without_link(found: re.Match[str]) -> str:
    """Code as it is. Of a link its text, and the command that shows the page where it is one of the manual's."""
    if found["text"] is None:
        return found[0]
    if not found["target"].endswith(".md") or "/" in found["target"]:
        return found["text"]
    return f"{found['text']} (`flowtop help {found['target'].removesuffix('.md')}`)"
