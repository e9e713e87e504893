"""Man pages from the manual's pages and the commands' options: flowtop(1), flowtop-dump(1), flowtop-filter(7)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from flowtop import __version__
from flowtop.cli.completion import COMMANDS
from flowtop.cli.help import option_rows
from flowtop.text import manual

_SECTIONS = {1: "User Commands", 7: "Miscellaneous Information Manual"}
_ESCAPES = {"\\": "\\e", "-": "\\-", "~": "\\(ti", "^": "\\(ha", "`": "\\(ga", "'": "\\(aq"}
"""Characters that are special in roff. Every - stays a plain one, so that commands can be copied."""


def man_pages() -> dict[str, str]:
    """Roff source of each man page, by file name."""
    pages: dict[str, Callable[[], str]] = {"flowtop.1": _flowtop, "flowtop-dump.1": _dump, "flowtop-filter.7": _filter}
    return {name: make() for name, make in pages.items()}


def _flowtop() -> str:
    return _page("flowtop", 1, "shows this host's network flows, exactly, in a terminal", {
        "Synopsis": "**flowtop** [*OPTIONS*] [*FILTER*]...\n\n**flowtop help** [*TOPIC*]",
        "Description": _help("flowtop"),
        "Options": _options("flowtop"),
        "Keys": part("keys", "Main screen"),
        "Examples": f"{part('quick-start', 'Without a screen')}\n\n{part('quick-start', 'Without root')}",
        "Exit status": part("options", "Exit status"),
        "Environment and files": part("options", "Settings"),
        "See also": "**flowtop-filter**(7), **flowtop-dump**(1), **tcpdump**(8), **pcap-filter**(7)\n\n"
                    "`flowtop help` shows the whole manual.",
    })


def _dump() -> str:
    return _page("flowtop-dump", 1, "shows what is in a NetFlow, IPFIX or sFlow export", {
        "Synopsis": "**flowtop-dump** [*OPTIONS*] *FILE*",
        "Description": part("collector", "flowtop-dump"),
        "Options": _options("flowtop-dump"),
        "Exit status": "0 when all of it could be read, 65 when something in it could not.",
        "See also": "**flowtop**(1)",
    })


def _filter() -> str:
    first, *rest = parts("filters").items()
    return _page("flowtop-filter", 7, "which flows flowtop lists", {
        "Description": first[1], **dict(rest), "See also": "**flowtop**(1), **pcap-filter**(7)"})


def part(topic: str, heading: str) -> str:
    """The text below a heading of a page, up to the next heading. Raises KeyError: there is no such heading."""
    return parts(topic)[heading]


def parts(topic: str) -> dict[str, str]:
    """The parts of a page by heading, in order; the first is the text after the title."""
    texts: dict[str, list[str]] = {}
    code = False
    for line in manual.page(topic).splitlines():
        code ^= line.startswith("```")
        heading = None if code else re.match(r"#+ (.*)", line)  # in code, # begins a comment
        if heading:
            lines = texts.setdefault(heading[1], [])
        else:
            lines.append(line)
    return {heading: "\n".join(lines).strip() for heading, lines in texts.items()}


def _help(program: str) -> str:
    """The description from the command's help."""
    return inspect.cleandoc(COMMANDS[program].help or "").replace("*", "\\*")


def _options(program: str) -> str:
    rows = (f"| `{names}` | {doc} |" for names, doc in (
        (cell.replace("|", "\\|") for cell in row) for row in option_rows(COMMANDS[program])))
    return "\n".join(["| option | what it does |", "|---|---|", *rows])


def _page(name: str, section: int, doc: str, parts: dict[str, str]) -> str:
    lines = [".nr HY 0",  # no hyphenation: words can be copied
             f'.TH {name.upper()} {section} "" "flowtop {__version__}" "{_SECTIONS[section]}"',
             ".ad l", ".SH NAME", f"{escaped(name)} \\- {escaped(doc)}"]
    for heading, markdown in parts.items():
        lines += [f'.SH "{escaped(heading.upper())}"', *roff(markdown)]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text with special characters escaped; characters outside ASCII by number, which every roff understands."""
    return "".join(_ESCAPES.get(char) or (char if char.isascii() else f"\\[u{ord(char):04X}]") for char in text)


def roff(markdown: str) -> list[str]:
    """Lines of man(7) macros for a part of a page."""
    tokens = iter(MarkdownIt().enable("table").parse(markdown))
    lines: list[str] = []
    for token in tokens:
        if token.type == "heading_open":
            lines.append(f'.SS "{_inline(next(tokens))}"')
        elif token.type == "paragraph_open":
            text = _inline(next(tokens))
            if text:  # a picture has none
                lines += [*([] if _opens(lines) else [".PP"]), _line(text)]
        elif token.type == "list_item_open":
            lines.append(f".IP {token.info}. 4" if token.info else ".IP \\(bu 2")
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            lines.append(".PP")
        elif token.type in ("fence", "code_block"):
            lines += [".PP", ".RS 4", ".EX", *map(_line, map(escaped, token.content.splitlines())), ".EE", ".RE"]
        elif token.type == "table_open":
            lines += _table(tokens)
    while lines and lines[-1] == ".PP":
        lines.pop()
    return [line for at, line in enumerate(lines) if line != ".PP" or not _opens(lines[:at])]


def _opens(lines: Sequence[str]) -> bool:
    """Whether a paragraph begins here without .PP."""
    return not lines or lines[-1].startswith((".SS", ".IP", ".PP"))


def _line(text: str) -> str:
    """A line of text that roff does not read as a macro."""
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _table(tokens: Iterator[Token]) -> Iterable[str]:
    """A tagged paragraph for each row: first cell and value as the tag; then the longest cell, then the others."""
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "table_close":
            break
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(_inline(token))
    header, *rows = rows
    longest = max(range(1, len(header)), key=lambda at: max(len(row[at]) for row in rows))
    for row in rows:
        value = header.index("value") if "value" in header else 0
        yield ".TP"
        yield _line(f"{row[0]} {row[value]}".rstrip() if value else row[0])
        yield _line(row[longest] or "\\&")
        for at, cell in enumerate(row):
            if at not in (0, longest, value) and cell:
                yield f"{escaped(header[at].capitalize())}: {cell}."


def _inline(token: Token) -> str:
    """Text with fonts: code and strong text bold, emphasis italic."""
    fonts = {"strong_open": "\\fB", "em_open": "\\fI", "strong_close": "\\fR", "em_close": "\\fR",
             "softbreak": " ", "hardbreak": " "}
    parts = []
    for child in token.children or ():
        if child.type == "text":
            parts.append(escaped(child.content))
        elif child.type == "code_inline":
            parts.append(f"\\fB{escaped(child.content)}\\fR")
        else:
            parts.append(fonts.get(child.type, ""))
    return "".join(parts).strip()
