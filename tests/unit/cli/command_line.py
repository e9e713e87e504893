"""A command line as `RunOptions`, without a process of its own."""

from __future__ import annotations

from flowtop.cli.main import command
from flowtop.cli.run_options import RunOptions, run_options


def options(*arguments: str) -> RunOptions:
    """What `flowtop ARGUMENTS` means; the environment and the settings of whoever runs the tests count too."""
    return run_options(command.make_context("flowtop", list(arguments)))
