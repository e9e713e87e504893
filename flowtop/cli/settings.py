"""The settings file: TOML, one key per option, checked before anything begins."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.files import user_directory

_LISTS = ("interface", "export", "listen")
_TYPES: tuple[tuple[type, ...], tuple[type, ...]] = ((str, int, float, bool), (str, list))
"""TOML types of a setting; and those of `_LISTS`."""
_EXAMPLES = {"interface": '["eth0", "veth*"]', "export": '["file:flows.ipfix", "ipfix+tcp://collector"]',
             "listen": '["udp://:2055"]', "sort": '"bytes"', "output": '"json"', "dedupe": '"off"', "batch": "true",
             "names": '"ports"', "numeric": "true", "theme": '"dark"'}


def settings_path(environment: Mapping[str, str], user: int) -> Path | None:
    """The settings file of a user, there or not; None: this user has no home directory.

    Args:
        user: effective user id.
    """
    directory = user_directory("config", environment, user)
    return None if directory is None else directory / "config.toml"


def read_settings(path: Path, known: set[str], *, must_exist: bool) -> dict[str, Any]:
    """The settings of a file by option name, with underscores; none when the file is not there and need not be.

    Args:
        path: of the file.
        known: names of all settings.
        must_exist: it was named by the user.

    Raises FlowtopError (EXIT_USAGE): not readable, not TOML, an unknown setting, a wrong kind of value.
    """
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        if not must_exist and isinstance(error, OSError):
            return {}  # not there, or in a home directory this user may not look into
        raise FlowtopError(f"cannot read settings from {path}: {error}",
                           hint="name a readable TOML file with --config", exit_code=EXIT_USAGE) from error
    settings = {name.replace("-", "_"): value for name, value in content.items()}
    for name in settings:
        if name not in known:
            raise FlowtopError(f"unknown setting in {path}: {name}", hint=_near(name, known), exit_code=EXIT_USAGE)
        if not isinstance(settings[name], _TYPES[name in _LISTS]):
            raise FlowtopError(f"wrong kind of value for {name} in {path}: {settings[name]!r}",
                               hint=f"write it as in {name} = {_EXAMPLES.get(name, 1)}", exit_code=EXIT_USAGE)
    for name in _LISTS:
        if isinstance(settings.get(name), str):
            settings[name] = [settings[name]]
    return settings


def _near(word: str, known: set[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known settings: {', '.join(sorted(known))}"
