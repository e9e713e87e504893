"""The README: short, its commands run as pasted, what it names is there."""

from __future__ import annotations

import re
import subprocess

import pytest

from flowtop.tui.keys import KEYS
from tests.unit.pages import README, commands, marked

LONGEST = 150
"""Lines of the README at most."""


def code_block(name: str) -> str:
    """The fenced block that follows <!-- name -->."""
    match = re.search(rf"<!-- {name} -->\n```sh\n(.*?)```", README.read_text(), re.S)
    assert match, f"README.md has lost its {name} block"
    return match[1]


def test_it_is_short() -> None:
    assert len(README.read_text().splitlines()) <= LONGEST


def test_it_shows_one_picture() -> None:
    assert re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text()) == ["screenshots/main.svg"]


def test_its_ten_keys_are_keys_of_the_main_screen() -> None:
    rows = marked(README, "ten-keys").splitlines()[2:]
    caps = {cap for key in KEYS for cap in key.caps.split()}
    assert len(rows) == 10
    named = [cap for row in rows for cap in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert named and [cap for cap in named if cap not in caps] == []


def test_it_has_six_recipes() -> None:
    recipes = README.read_text().split("## Six recipes")[1].split("##")[0]
    assert len(commands(recipes)) == 6


@pytest.mark.parametrize("name", ["run", "test"])
def test_an_install_command_is_one_command_that_bare_sh_takes(name: str) -> None:
    block = code_block(name)
    subprocess.run(["sh", "-n"], input=block, text=True, check=True)
    lines = block.strip().split("\n")
    assert all(line.endswith(("&&", "\\")) for line in lines[:-1]), "pasted whole, it must stop at the first failure"
    assert "sudo" not in block


def test_it_says_which_flowtop_this_is() -> None:
    assert "netsniff-ng" in README.read_text()


@pytest.mark.parametrize("other", ["rustnet", "iftop", "bandwhich", "nethogs", "NetObserv"])
def test_it_compares_with_what_people_use_today(other: str) -> None:
    assert other in README.read_text().split("## When to use something else")[1].split("## Manual")[0]
