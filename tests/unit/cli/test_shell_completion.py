"""What shells complete: columns, fields to group by, words of filters, pages of the manual."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete

from flowtop.cli.main import command
from flowtop.fields.registry import BIFLOW_COLUMNS, COLUMNS, GROUPS
from flowtop.text import manual


def completed(*words: str) -> list[str]:
    """What the last word could become, after the others."""
    complete = ShellComplete(command, {}, "flowtop", "_FLOWTOP_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


def test_columns_to_sort_by() -> None:
    assert set(completed("-s", "")) == set(COLUMNS)
    assert completed("-s", "retr") == ["retransmits"]
    assert set(completed("-B", "--sort", "")) == set(BIFLOW_COLUMNS)
    assert "flows" in completed("-g", "source", "-s", "")
    assert set(completed("-g", "nothing", "-s", "")) == set(COLUMNS)


def test_fields_to_group_by_one_after_the_other() -> None:
    assert set(completed("-g", "")) == set(GROUPS)
    assert completed("-g", "prot") == ["protocol"]
    assert completed("--group", "source,serv") == ["source,service"]
    assert "source,source" not in completed("-g", "source,")


def test_pages_of_the_manual() -> None:
    assert set(completed("help", "")) == set(manual.topics())
    assert completed("help", "quick") == ["quick-start"]
    assert "help" in completed("he")


@pytest.mark.parametrize(("words", "offered"), [
    (("retr",), "retransmits"), (("tcp", "and", "por"), "port"), (("tunnel", "vx"), "vxlan"), (("state", ""), "ended"),
])
def test_words_of_filters(words: tuple[str, ...], offered: str) -> None:
    assert offered in completed(*words)
