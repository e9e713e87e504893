"""The user's directories, and files that flowtop writes: their owner, and how existing files are kept."""

from __future__ import annotations

import errno
import os
import pwd
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

_XDG = {"config": ("XDG_CONFIG_HOME", ".config"), "state": ("XDG_STATE_HOME", ".local/state")}

FILE_MODE = 0o600
"""Only the owner may read: flows are private data."""
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""Errors of file systems without hard links: vfat, many FUSE and SMB mounts."""


def home_directory(environment: Mapping[str, str], user: int) -> Path | None:
    """HOME, else what passwd(5) says; None: neither is there, as for a bare uid in a container.

    Args:
        user: effective user id.
    """
    if environment.get("HOME"):
        return Path(environment["HOME"])
    try:
        return Path(pwd.getpwuid(user).pw_dir)
    except KeyError:
        return None


def user_directory(kind: Literal["config", "state"], environment: Mapping[str, str], user: int) -> Path | None:
    """flowtop's directory of the user (XDG Base Directory Specification), there or not; None: no home directory.

    Args:
        kind: for settings, or for what one run leaves to the next.
        user: effective user id.
    """
    variable, below_home = _XDG[kind]
    if environment.get(variable):
        return Path(environment[variable]) / "flowtop"
    home = home_directory(environment, user)
    return None if home is None else home / below_home / "flowtop"


def recording_owner(environment: Mapping[str, str], user: int) -> tuple[int, int] | None:
    """User and group id that own recordings: those of sudo's caller. None without sudo.

    Args:
        user: effective user id.
    """
    numbers = [environment.get(name, "") for name in ("SUDO_UID", "SUDO_GID")]
    if user != 0 or not all(re.fullmatch(r"[0-9]{1,9}", number) for number in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


def put_aside(path: Path, wall_s: float) -> Path:
    """Rename flows.ipfix to flows-20261121T023000Z.ipfix (or ...Z-2.ipfix) and return the new path.

    Raises OSError.

    Args:
        path: an existing file.
        wall_s: current time, seconds since 1970 UTC.
    """
    stamp = datetime.fromtimestamp(wall_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    stem, dot, suffixes = path.name.partition(".")
    number = 1
    while True:
        end = f"-{number}" if number > 1 else ""
        target = path.with_name(f"{stem}-{stamp}{end}{dot}{suffixes}")
        try:
            os.link(path, target)  # Unlike rename, link does not replace an existing file.
        except FileExistsError:
            number += 1
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if not os.path.lexists(target):
                path.rename(target)
                return target
            number += 1
        else:
            path.unlink()
            return target


def put_back(target: Path, path: Path) -> None:
    """Undo `put_aside`, unless another file has the name by now. Raises OSError."""
    if not os.path.lexists(path):
        target.rename(path)
