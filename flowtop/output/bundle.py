"""A bundle for a ticket: a new directory with what the screen showed, the flows, the check of the host, and packets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import flowtop
from flowtop.errors import FlowtopError
from flowtop.output.row_files import MODE

DIRECTORY_MODE = 0o700
"""Only the owner may look: flows are private."""
CHECK_S = 60.0
"""How long `--check` may take."""
SCREEN, FLOWS, CHECK, PACKETS = "screen.txt", "flows.csv", "check.txt", "packets.pcapng"


def make_directory(path: Path, owner: tuple[int, int] | None) -> None:
    """Make a directory that must not exist yet.

    Args:
        owner: user and group; None: those of the process.

    Raises:
        FlowtopError: it exists, or cannot be made.
    """
    try:
        path.mkdir(DIRECTORY_MODE)
        if owner is not None:
            os.chown(path, *owner, follow_symlinks=False)
    except FileExistsError:
        raise FlowtopError(f"{path} exists already", hint="use another name") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FlowtopError(f"cannot make {path}: {reason.lower()}", hint="type another place") from error


def write_text(path: Path, text: str, owner: tuple[int, int] | None) -> None:
    """Write a text to a file that must not exist yet. Raises FlowtopError: it exists, or cannot be written."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if owner is not None:
                os.fchown(descriptor, *owner)
            file.write(text)
    except OSError as error:
        raise FlowtopError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error


def check_text() -> str:
    """What `flowtop --check` reports of this host, by a process of its own: it does not disturb this one."""
    root = str(Path(flowtop.__file__).parent.parent)
    try:  # -P: no modules of the directory one happens to be in, which may be another user's
        done = subprocess.run([sys.executable, "-P", "-m", "flowtop", "--check"],
                              env={**os.environ, "PYTHONPATH": root}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=CHECK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"flowtop --check did not run: {error}\n"
    return done.stdout.decode(errors="replace")
