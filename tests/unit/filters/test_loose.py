"""What is typed after `/`: words alone, flags, ports and numbers without units, in the words of the language."""

from __future__ import annotations

import pytest

from flowtop.filters.errors import FilterError
from flowtop.filters.filter import compile_filter
from flowtop.filters.loose import compile_loosely


@pytest.mark.parametrize(("typed", "means"), [
    ("nginx", "text nginx"), ("nginx or redis", "text nginx or redis"), ("tcp and nginx", "tcp and text nginx"),
    ("not nginx", "not text nginx"), ("(web and db) or udp", "(text web and db) or udp"),
    ('"web 1"', 'text "web 1"'), ("10.1", "text 10.1"), ("2001:db8:", "text 2001:db8:"),
    ("rst", "flags rst"), ("SYN and not ack", "flags SYN and not ack"), ("ended", "state ended"),
    ("443", "port 443"), ("tcp and 443", "tcp and port 443"),
    ("rtt > 100", "rtt > 100ms"), ("rtt>100", "rtt>100ms"),
    ("tcp and rtt >= 1.5 or udp", "tcp and rtt >= 1.5ms or udp"),
    ("rtt > 100 and tcp", "rtt > 100ms and tcp"), ("rtt > 100ms", "rtt > 100ms"), ("rtt > 100 us", "rtt > 100 us"),
    ("port 80", "port 80"), ("10.0.0.5:443", "10.0.0.5:443"),
])
def test_what_is_typed_loosely_is_written_in_the_language(typed: str, means: str) -> None:
    found = compile_loosely(typed)
    assert found.text == means
    assert found == compile_filter(means), "which the command line takes too"


@pytest.mark.parametrize("text", ["port 80 443", "nginx 443", "prot 80", "tcp and nginx web", "70000", "tcp and",
                                  "a > 5"])
def test_beside_other_values_a_word_is_a_slip(text: str) -> None:
    with pytest.raises(FilterError):
        compile_loosely(text)


@pytest.mark.parametrize("word", ["retr", "hsot", "prot", "po"])
def test_a_word_that_is_near_one_of_the_language_is_a_slip_until_it_is_settled(word: str) -> None:
    with pytest.raises(FilterError):
        compile_loosely(word, settled=False)
    with pytest.raises(FilterError):
        compile_loosely(word, finished=False, settled=False)
    assert compile_loosely(word).text == f"text {word}"


@pytest.mark.parametrize("text", ["nginx", "rst", "443", "tcp and nginx"])
def test_the_language_itself_stays_strict(text: str) -> None:
    with pytest.raises(FilterError):
        compile_filter(text)
