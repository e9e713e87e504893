"""What is said to whoever typed something else than a filter; hostile texts end in an error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtop.errors import EXIT_USAGE
from flowtop.filters.build import MOST_NESTED
from flowtop.filters.errors import FilterError
from flowtop.filters.filter import compile_filter
from flowtop.filters.grammar import LONGEST, token_types


def error_of(text: str) -> FilterError:
    with pytest.raises(FilterError) as caught:
        compile_filter(text)
    return caught.value


@pytest.mark.parametrize(("text", "place", "said", "expected"), [
    ("tpc port 80", "tpc", 'unknown word "tpc"', 'did you mean "tcp"?'),
    ("tcp and hsot 10.0.0.1", "hsot", 'unknown word "hsot"', 'did you mean "host"?'),
    ("host 10.0.0.300 and tcp", "10.0.0.300", "is not valid here", "an address such as"),
    ("host tcp", "tcp", "unexpected", "a value"),
    ("net 10.0.0.1/8 or tcp", "10.0.0.1/8", "is not valid here", "10.0.0.0/8"),
    ("port 99999 and tcp", "99999", "is not valid here", "0 to 65535"),
    ("portrange 90-80", "90-80", "is not valid here", "lower port first"),
    ("port nosuchservice and tcp", "nosuchservice", "is not valid here", "a port"),
    ("rate > 5parsec", "5parsec", '"5parsec" is not a rate', "for example"),
    ("bytes > 99999P", "99999P", "is too large", "at most 18,446,744,073,709,551,615"),
    ("state sleeping", "sleeping", "is not valid here", "active, closing or ended"),
    ("dir up", "up", "is not valid here", "in, out or unknown"),
    ("if > 5", "5", "cannot be compared", "="),
    ("flags > syn", "syn", "does not take", "TCP flags"),
    ("foo > 3", "foo", 'unknown word "foo"', "expected an address, a protocol, or a word such as"),
    ("tcp )", ")", '")" without "("', "the end"),
    ("tcp or or udp", "or udp", "unexpected", "an address, a protocol"),
    ("port 80 443", "443", "ambiguous", "or"),
    ("a & b", "&", 'unexpected "&"', "&&"),
    ("porrt 443", "porrt", 'unknown word "porrt"', 'did you mean "port"?'),
    ("tcp and porrt 443", "porrt", 'unknown word "porrt"', 'did you mean "port"?'),
    ('"tcp"', '"tcp"', "in quotes", "remove the quotes"),
    ("tcp | udp", "| udp", 'unexpected "|"', "||, or the word or"),
    ("arp", "arp", "unknown word", "ignored"),
    ("tcp[13] & 2", "tcp[13]", "packet bytes cannot be tested", "flags syn"),
    ("host fe80::1%eth0", "fe80::1%eth0", "is not valid here", "if eth0"),
    ("port > 80,90", "80,90", "is not valid here", "a port after a comparison"),
    ("age < 5 MB", "5 MB", '"5MB" is not a duration', "for example 500ms"),
    ("rtt > 50 parsec", "parsec", 'unknown word "parsec"', ""),
    ("port 80 s", "s", 'unknown word "s"', ""),
    ("if 5 s", "s", 'unknown word "s"', ""),
    ("age < 5s6", "5s6", "is not a duration", "for example 500ms"),
    ("vlan > 1.2", "1.2", "is not valid here", "one VLAN ID"),
    ("vlan 1.5000", "1.5000", "is not valid here", "0 to 4095"),
    ("ether host 10.0.0.1", "10.0.0.1", "is not valid here", "a MAC address"),
])
def test_an_error_names_the_place_and_what_was_expected(text: str, place: str, said: str, expected: str) -> None:
    error = error_of(text)
    assert text[error.position:].startswith(place)
    assert said in error.problem and expected in error.hint
    assert error.exit_code == EXIT_USAGE
    problem, shown, caret = error.message.split("\n")
    assert problem == error.problem and shown == f"  {text}"
    assert caret == "  " + " " * error.position + "^"


@pytest.mark.parametrize("text", ["tcp\u200f", "tcp\0", "\x01", "udp or \u202etcp"])
def test_what_does_not_print_is_said_to_be_there(text: str) -> None:
    assert "unprintable characters" in error_of(text).problem


@pytest.mark.parametrize("text", ["", " ", "tcp and", "tcp and ", "not", "(tcp", "(", "host", "src", "src or", "rate",
                                  "rate >", 'if "et', "host 10.0.", "src host 10.0.0", "tc", "portra", "net 10.0.0.0/",
                                  "port", "tcp and (port 80 or", "bytes > ", "tcp &", "state act", "! "])
def test_an_unfinished_text_is_told_apart(text: str) -> None:
    try:
        compile_filter(text)
    except FilterError as error:
        assert error.unfinished, error.message


@pytest.mark.parametrize("text", ["tcp )", "tcp or or", "xyzzy", "a > 3", ")", "tpc port 80",
                                  "host 10.0.0.300 and tcp"])
def test_a_wrong_text_is_not_called_unfinished(text: str) -> None:
    assert not error_of(text).unfinished


def test_an_error_speaks_of_no_token_of_the_grammar() -> None:
    for text in ("", "tcp and", "host", "src", "rate", "rate >", "(", "(tcp", "tcp )", "net 10/8 mask", "vlan >", "if",
                 "ether", "ether src", "src or", "tcp src", "proto", "not", "port >"):
        try:
            compile_filter(text)
        except FilterError as error:
            assert error.hint and not any(c.isupper() or c in "_$" for c in error.hint), error.hint


def test_hostile_text_in_an_error_is_harmless() -> None:
    for text in ("\x1b[31mevil\x07", "host \x1b]0;x\x07", "\u202eabc", "[red]x[/red]", "\ud800", "名", "\0", "tcp\n)"):
        error = error_of(text)
        shown = error.message.replace("\n", "") + error.hint
        assert all(c.isprintable() and c not in "\x1b\u202e" for c in shown)


@pytest.mark.parametrize("text", [
    "(" * 200_000, "not " * 100_000, "(" * 60 + "tcp" + ")" * 60, "not " * 60 + "tcp", "a" * 100_000,
    "tcp or udp and " * 1000 + "tcp", "port " + "9" * 10_000, "bytes > " + "9" * 15_000, "host " + ":" * 10_000,
    "net 1/" + "9" * 5_000, "vlan " + "0" * 9_000, "rate > 1." + "0" * 9_000, "\"" * 10_001,
    "flags " + "+" * 9_000, "[" * 15_000,
], ids=range(15))
def test_too_much_is_an_error_not_a_crash(text: str) -> None:
    assert error_of(text).message


def test_bounds_are_generous() -> None:
    compile_filter("(" * MOST_NESTED + "tcp" + ")" * MOST_NESTED)
    compile_filter("host 10.0.0.1" + " or 10.0.0.2" * (LONGEST // 13))
    compile_filter("tcp " + "and not port 22 " * 1000)


WORDS = st.sampled_from([*token_types(), "(", ")", "&&", "||", "!", "=", ">=", "~", "80", "10.0.0.1", "10/8", "eth*",
                         "fe80::1", '"x y"', "1Mbit", "5s", "syn+ack", "aa:bb:cc:dd:ee:ff", "1-2", ",", "'"])


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.lists(WORDS, max_size=12).map(" ".join), st.text(max_size=60)))
def test_any_text_is_a_filter_or_an_error_with_a_place(text: str) -> None:
    try:
        compile_filter(text)
    except FilterError as error:
        assert 0 <= error.position <= len(text)
        assert error.message.count("\n") == 2
