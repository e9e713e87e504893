"""`flowtop help`: the manual where one reads it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from flowtop.text import manual

HELP = (sys.executable, "-m", "flowtop", "help")


def piped(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HELP, *arguments], capture_output=True, text=True, timeout=60, check=False,
                          stdin=subprocess.DEVNULL)


def on_a_terminal(*arguments: str, lines: int, columns: int = 80, pager: str = "cat") -> str:
    """What a terminal of that size is sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "LESS")}
    with subprocess.Popen([*HELP, *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
                          env=environment | {"PAGER": pager, "TERM": "xterm"}) as process:
        os.close(theirs)
        sent = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            sent += piece
    os.close(ours)
    assert process.returncode == 0
    return sent.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_without_a_topic_it_lists_every_page_with_its_title() -> None:
    done = piped()
    assert (done.returncode, done.stderr) == (0, "")
    listed = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  ")]
    assert listed == [[topic, manual.title(topic)] for topic in manual.topics()]
    assert ["filters", "Filters"] in listed


@pytest.mark.parametrize("topic", manual.topics())
def test_piped_a_page_is_markdown_without_marks_and_pictures_and_with_commands_for_links(topic: str) -> None:
    done = piped(topic)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"# {manual.title(topic)}\n")
    prose = re.sub(r"^```.*?^```|`[^`\n]+`", "", done.stdout, flags=re.S | re.M)
    assert re.findall(r"<!--|!\[|\]\((?!https?:)", prose) == []
    assert "\x1b" not in done.stdout


def test_a_link_to_another_page_is_its_command() -> None:
    assert "[filters](filters.md)" in manual.source("options")
    assert "filters (`flowtop help filters`)" in manual.page("options")


def test_brackets_in_code_are_no_link() -> None:
    assert "`[` goes back\nfrom there" in manual.page("keys")


def test_an_unknown_topic_is_two_lines_with_the_nearest_one() -> None:
    done = piped("filter")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == ["flowtop: no manual page 'filter'", 'hint: did you mean "filters"?']
    assert "topics: quick-start, keys," in piped("xyzzy").stderr


def test_a_filter_may_begin_with_the_word_after_two_dashes() -> None:
    done = subprocess.run([*HELP[:-1], "-b", "--", "help"], capture_output=True, text=True, timeout=60, check=False,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert 'unknown word "help"' in done.stderr, "the filter language has no such word"


def test_on_a_terminal_a_short_page_is_laid_out_and_needs_no_pager() -> None:
    sent = on_a_terminal("files", lines=200, pager="false")
    assert "**" not in plain(sent) and "```" not in plain(sent)
    assert "flowtop -r incident.pcap.gz" in plain(sent)
    assert "\x1b[1" in sent, "headings are bold"
    assert not re.search(r"\x1b\[[0-9;]*(3|4|9|10)[0-7]m", sent), "colours are the terminal's business"


def test_less_is_told_that_there_are_colours_and_other_pagers_get_none(tmp_path: Path) -> None:
    less = tmp_path / "less"
    less.write_text('#!/bin/sh\necho "LESS=$LESS"\nexec cat\n')
    less.chmod(0o755)
    shown = on_a_terminal("keys", lines=24, pager=str(less))
    assert "LESS=-R" in shown and "\x1b[1m" in shown
    assert "\x1b[" not in on_a_terminal("keys", lines=24, pager="cat")


def test_on_a_terminal_a_long_page_goes_through_the_pager() -> None:
    assert "PAGED" in on_a_terminal("keys", lines=24, pager="sed s/Keys/PAGED/")


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("topic", manual.topics())
def test_a_page_fits_the_terminal_and_loses_no_word_of_its_tables(topic: str, columns: int) -> None:
    from flowtop.text.markdown import rendered

    text = rendered(manual.page(topic), columns, styles=False)
    assert max(map(len, text.splitlines())) <= columns
    shown = "".join(text.split())  # a word that is longer than its column goes on in the next line
    for rows in re.findall(r"^\|(?:---\|)+\n((?:\|.*\n)*)", manual.page(topic), re.M):
        for word in re.sub(r"[`*|\\]", " ", rows).split():
            assert word in shown
