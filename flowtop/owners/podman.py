"""Names in Podman's database: those of pods are in no other file of its.

`db.sql` of Podman 4.8 and later (libpod/sqlite_state.go), read without a lock and without a write. It may belong to a
user, who may have put anything into it.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

_MOST_OCTETS = 4 << 20
"""Of a value."""
_STEPS, _MOST_LOOKS = 1_000, 2_000
"""Of SQLite's virtual machine between two looks, and how many of these: a view may go on for ever."""


def database_names(path: Path, container_id: str, pod_id: str, uid: int = 0) -> tuple[str, str, str]:
    """A container's name and configuration (JSON), and its pod's name, as the database has them now; "": not there.

    Args:
        path: of db.sql. A -wal file beside it is not read: what is in there is in the database when Podman's last
            command has ended.
        container_id, pod_id: "": none.
        uid: user whose it must be; 0: the system's.

    Raises OSError: there is none, it cannot be read, it is another user's, or it is not Podman's.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    looks = iter(range(_MOST_LOOKS))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file", str(path))
        if uid not in (0, status.st_uid):
            raise OSError(0, f"not user {uid}'s", str(path))
        uri = f"file:/proc/self/fd/{descriptor}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_OCTETS)
            database.set_progress_handler(lambda: next(looks, -1) < 0, _STEPS)
            database.execute("PRAGMA trusted_schema = OFF")
            name, configuration = _row(database, "SELECT Name, JSON FROM ContainerConfig WHERE ID = ?", container_id, 2)
            (pod,) = _row(database, "SELECT Name FROM PodConfig WHERE ID = ?", pod_id, 1) if pod_id else ("",)
    except sqlite3.Error as error:
        raise OSError(0, str(error), str(path)) from error
    finally:
        os.close(descriptor)
    return name, configuration, pod


def _row(database: sqlite3.Connection, query: str, key: str, columns: int) -> tuple[str, ...]:
    """The texts of the first row; "": it is none, or something else."""
    row = database.execute(query, (key,)).fetchone() or ("",) * columns
    return tuple(value if isinstance(value, str) else "" for value in row)
