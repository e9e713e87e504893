"""Build hook of hatchling: makes what a wheel has beside the sources: man pages and shell completions, installed below
share/, and the library of flowtop/native."""

from __future__ import annotations

import sys
import sysconfig
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


class WheelHook(BuildHookInterface[Any]):
    """Adds `installed_files` to a wheel, also for editable installations; and the library, if there is a C compiler: in
    place for an editable installation."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling. Imports the package from the tree that is built; commands and pages do not need numpy."""
        self._folder = tempfile.TemporaryDirectory(prefix="flowtop-build-")
        sys.path.insert(0, self.root)
        try:
            made = installed_files()
            self._add_library(build_data, in_place=version == "editable")
        finally:
            sys.path.remove(self.root)
        for place, text in made.items():
            path = Path(self._folder.name, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            build_data["shared_data"][str(path)] = place

    def _add_library(self, build_data: dict[str, Any], *, in_place: bool) -> None:
        from flowtop.native.build import NotBuiltError, build
        from flowtop.native.library import FOLDER, LIBRARY

        try:
            made = build(FOLDER if in_place else Path(self._folder.name))
        except (NotBuiltError, OSError) as error:
            self.app.display_warning(f"flowtop/native is not built, numpy does its work, slower: {error}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        if not in_place:
            build_data["force_include"][str(made)] = f"flowtop/native/{LIBRARY}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """See hatchling."""
        del version, build_data, artifact_path
        self._folder.cleanup()
