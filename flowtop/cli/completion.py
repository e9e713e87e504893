"""Shell completion of the commands: click's own scripts."""

from __future__ import annotations

from click.shell_completion import ShellComplete, get_completion_class

from flowtop.cli.dump import command as dump_command
from flowtop.cli.main import command

COMMANDS = {"flowtop": command, "flowtop-dump": dump_command}
"""Every command by the name it is installed under."""


def completion_script(shell: str, program: str) -> str:
    """What a shell reads to complete a program's options.

    Args:
        shell: bash, zsh or fish.
        program: a name of COMMANDS.

    Raises KeyError: another program or shell.
    """
    found = get_completion_class(shell)
    if found is None:
        raise KeyError(shell)
    complete = found(COMMANDS[program], {}, program, f"_{program.replace('-', '_').upper()}_COMPLETE")
    return ShellComplete.source(complete)  # not the class's own: bash's would run bash, to see how old it is
