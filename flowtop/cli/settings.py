"""The settings file: TOML, one key per option, checked before anything begins."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from flowtop.errors import EXIT_USAGE, FlowtopError
from flowtop.files import own_descriptor, recording_owner, user_directory
from flowtop.text.suggestions import nearest
from flowtop.text.toml import MOST_OCTETS, parse_toml

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


Views = Mapping[str, Mapping[str, str | list[str]]]
"""Views of the screen by name: [views.NAME] tables."""
Limits = Mapping[str, str | float]
"""From which on trouble is shown, by rule: the [trouble] table."""
_VIEW_KEYS: dict[str, tuple[type, ...]] = {
    "filter": (str,), "group": (str, list), "sort": (str,), "columns": (str, list), "title": (str,)}


def _views(tables: Any, path: Path) -> Views:
    """The [views.NAME] tables. Raises FlowtopError (EXIT_USAGE): an unknown key, or a wrong kind of value."""
    example = 'for example [views.db] filter = "port 5432", group = "host"'
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise FlowtopError(f"views in {path} are tables", hint=example, exit_code=EXIT_USAGE)
    for name, table in tables.items():
        for key, value in table.items():
            if key not in _VIEW_KEYS:
                raise FlowtopError(f"unknown setting of view {name} in {path}: {key}", hint=_near(key, _VIEW_KEYS),
                                   exit_code=EXIT_USAGE)
            words = value if isinstance(value, list) else [value]
            if not isinstance(value, _VIEW_KEYS[key]) or not all(isinstance(word, str) for word in words):
                raise FlowtopError(f"wrong kind of value for {key} of view {name} in {path}: {value!r}", hint=example,
                                   exit_code=EXIT_USAGE)
    return tables


def _limits(table: Any, path: Path) -> Limits:
    """The [trouble] table. Raises FlowtopError (EXIT_USAGE): a wrong kind of value; which rules there are is known
    where they are."""
    example = 'for example scan = 200, talker = "50Mbit"; 0 turns a rule off'
    if not isinstance(table, dict) or not all(
            isinstance(value, str | int | float) and not isinstance(value, bool) and _finite(value)
            for value in table.values()):
        raise FlowtopError(f"trouble in {path} is a table of thresholds", hint=example, exit_code=EXIT_USAGE)
    return table


def settings_path(environment: Mapping[str, str], user: int) -> Path | None:
    """The settings file of a user, there or not; None: this user has no home directory.

    Args:
        user: effective user id.
    """
    directory = user_directory("config", environment, user)
    return None if directory is None else directory / "config.toml"


def read_settings(path: Path, known: Mapping[str, Kind], *, must_exist: bool) -> tuple[dict[str, Any], Views, Limits]:
    """The settings of a file by option name, with underscores, its views, and its limits of trouble; none when the file
    is not there and need not be.

    Args:
        path: of the file.
        known: all settings by name, and what kind of value each has.
        must_exist: it was named by the user.

    Raises FlowtopError (EXIT_USAGE): not readable, not TOML, an unknown setting, a wrong kind of value.
    """
    try:
        content = parse_toml(_text(path))
    except (OSError, ValueError) as error:
        if not must_exist and isinstance(error, OSError):
            return {}, {}, {}  # not there, or in a home directory this user may not look into
        raise FlowtopError(f"cannot read settings from {path}: {error}",
                           hint="name a readable TOML file with --config", exit_code=EXIT_USAGE) from error
    views, limits = _views(content.pop("views", {}), path), _limits(content.pop("trouble", {}), path)
    settings = {name.replace("-", "_"): value for name, value in content.items()}
    for name in settings:
        if name not in known:
            raise FlowtopError(f"unknown setting in {path}: {name}", hint=_near(name, known), exit_code=EXIT_USAGE)
        value, kind = settings[name], known[name]
        if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "flag") or not _finite(value):
            raise FlowtopError(f"wrong kind of value for {name} in {path}: {value!r}",
                               hint=f"write it as in {name} = {_EXAMPLES.get(name, _ANY_EXAMPLE[kind])}",
                               exit_code=EXIT_USAGE)
        if kind == "list" and isinstance(value, str):
            settings[name] = [value]
    return settings, views, limits


def _text(path: Path) -> str:
    """The file's text. Raises OSError; ValueError: it is not UTF-8, or somebody else may have written it."""
    if own_descriptor(path) is not None:  # --config <(...)
        with path.open(encoding="utf-8") as file:
            return file.read(MOST_OCTETS + 1)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # of a named pipe nothing is awaited
    with os.fdopen(descriptor, encoding="utf-8") as file:
        status = os.fstat(descriptor)
        behind = recording_owner(os.environ, os.geteuid())
        if not stat.S_ISREG(status.st_mode) and not os.path.samestat(status, os.stat(os.devnull)):  # noqa: PTH116
            raise ValueError("it is not a regular file")
        if status.st_uid not in (os.geteuid(), 0, *(behind or ())[:1]):
            raise ValueError(f"it is user {status.st_uid}'s")
        if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IWOTH:
            raise ValueError("everybody may write it")
        return file.read()
def _finite(value: Any) -> bool:
    """Whether it is no infinite number, and none that is none: TOML has both."""
    return not isinstance(value, float) or math.isfinite(value)


def _near(word: str, known: Iterable[str]) -> str:
    near = nearest(word, known)
    return f"did you mean {near[0]}?" if near else f"known settings: {', '.join(sorted(known))}"
