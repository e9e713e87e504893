"""Copied texts behind a command in a shell."""

from __future__ import annotations

import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.text.shell import for_shell, from_shell

HOSTILE = ("process '$(touch pwned)'", "name `id`", "(tcp and port 80) or udp", "host 2001:db8::1 and [::1]:80", "a; b",
           "rate > 1M", "process 'it''s'", "name *", "~root", "a\\b", "!x", "tcp\necho pwned")


def words_in_a_shell(text: str) -> str:
    """What a command gets, as tcpdump and flowtop do: its words with a blank between each."""
    return subprocess.run(["sh", "-c", f"printf '%s ' {text}"], capture_output=True, text=True, check=True, cwd="/",
                          ).stdout[:-1]


def test_a_shell_gives_on_what_was_copied() -> None:
    for text in HOSTILE:
        assert words_in_a_shell(for_shell(text)) == text
        assert from_shell(for_shell(text)) == text
    assert for_shell("tcp and 10.0.0.5:51514 and port 443") == "tcp and 10.0.0.5:51514 and port 443", "nothing to quote"


def test_a_quoted_word_of_a_filter_keeps_its_quotes() -> None:
    for text in ("'nginx'", "process 'a b'", "'a b' or 'c'", "'unfinished", "''"):
        assert from_shell(text) == text


@settings(max_examples=20)
@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1))
def test_any_text_comes_through(text: str) -> None:
    text = " ".join(text.split())
    if text:
        assert words_in_a_shell(for_shell(text)) == text
        assert from_shell(for_shell(text)) == text or for_shell(text) == text
