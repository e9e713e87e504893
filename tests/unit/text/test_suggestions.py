"""Words that somebody may have meant: beginnings and slips, nothing far-fetched."""

from __future__ import annotations

import pytest

from flowtop.text.suggestions import nearest

WORDS = ("tcp", "udp", "host", "port", "portrange", "proto", "bytes", "retransmits", "rate", "rate_10s", "src", "flags")


@pytest.mark.parametrize(("word", "meant"), [
    ("retr", "retransmits"), ("RETRANS", "retransmits"), ("retransmitts", "retransmits"), ("tpc", "tcp"),
    ("hsot", "host"), ("porrt", "port"), ("prot", "proto"), ("byts", "bytes"), ("flag", "flags"),
    ("portr", "portrange"),
])
def test_a_beginning_or_a_slip_is_recognised(word: str, meant: str) -> None:
    assert nearest(word, WORDS) == [meant]


@pytest.mark.parametrize("word", ["nginx", "web", "db", "x", "", "postgres", "redis", "hostile-name", "p" * 5_000])
def test_what_is_another_word_suggests_nothing(word: str) -> None:
    assert nearest(word, WORDS) == []


def test_beginnings_come_first_the_shortest_before_the_others() -> None:
    assert nearest("rat", WORDS, 3) == ["rate", "rate_10s"]
    assert nearest("po", WORDS, 5) == ["port", "portrange"]
