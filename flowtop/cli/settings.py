"""The settings file: TOML, one key per option, checked before anything begins."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.files import user_directory
from flowtop.text.suggestions import nearest

Kind = Literal["flag", "text", "number", "list"]
_TYPES: dict[Kind, tuple[type, ...]] = {
    "flag": (bool,), "text": (str,), "number": (str, int, float), "list": (str, list)}
"""TOML types of a setting; a number may be text with a unit."""
_ANY_EXAMPLE: dict[Kind, str] = {"flag": "true", "text": '"text"', "number": "1", "list": '["text"]'}
_EXAMPLES = {"interface": '["eth0", "veth*"]', "export": '["file:flows.ipfix", "ipfix+tcp://collector"]',
             "listen": '["udp://:2055"]', "tunnel_port": '["vxlan=51234"]',
             "sort": '"bytes"', "output": '"json"', "dedupe": '"off"', "batch": "true",
             "names": '"ports"', "numeric": "true", "theme": '"dark"',
             "write": '"packets.pcapng"', "read": '"trace.pcap"', "group": '"source,service"'}


def settings_path(environment: Mapping[str, str], user: int) -> Path | None:
    """The settings file of a user, there or not; None: this user has no home directory.

    Args:
        user: effective user id.
    """
    directory = user_directory("config", environment, user)
    return None if directory is None else directory / "config.toml"


def read_settings(path: Path, known: Mapping[str, Kind], *, must_exist: bool) -> dict[str, Any]:
    """The settings of a file by option name, with underscores; none when the file is not there and need not be.

    Args:
        path: of the file.
        known: all settings by name, and what kind of value each has.
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
        value, kind = settings[name], known[name]
        if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "flag"):
            raise FlowtopError(f"wrong kind of value for {name} in {path}: {value!r}",
                               hint=f"write it as in {name} = {_EXAMPLES.get(name, _ANY_EXAMPLE[kind])}",
                               exit_code=EXIT_USAGE)
        if kind == "list" and isinstance(value, str):
            settings[name] = [value]
    return settings


def _near(word: str, known: Iterable[str]) -> str:
    near = nearest(word, known)
    return f"did you mean {near[0]}?" if near else f"known settings: {', '.join(sorted(known))}"
