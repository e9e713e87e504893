"""Build hook of hatchling: makes man pages and shell completions for the wheel, installed below share/."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_COMPLETIONS = {"bash": "share/bash-completion/completions/{}", "zsh": "share/zsh/site-functions/_{}",
                "fish": "share/fish/vendor_completions.d/{}.fish"}
"""Where each shell looks for completions; {}: name of the program."""


def installed_files() -> dict[str, str]:
    """The text of each file, by its path below the prefix."""
    from flowtop.cli.completion import COMMANDS, completion_script
    from flowtop.docs.man import man_pages

    man = {f"share/man/man{name[-1]}/{name}": text for name, text in man_pages().items()}
    return man | {place.format(program): completion_script(shell, program)
                  for shell, place in _COMPLETIONS.items() for program in COMMANDS}


class ManualHook(BuildHookInterface[Any]):
    """Adds `installed_files` to a wheel, also for editable installations."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling. Imports the package from the tree that is built; commands and pages do not need numpy."""
        del version
        sys.path.insert(0, self.root)
        try:
            made = installed_files()
        finally:
            sys.path.remove(self.root)
        self._folder = tempfile.TemporaryDirectory(prefix="flowtop-build-")
        for place, text in made.items():
            path = Path(self._folder.name, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            build_data["shared_data"][str(path)] = place

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """See hatchling."""
        del version, build_data, artifact_path
        self._folder.cleanup()
