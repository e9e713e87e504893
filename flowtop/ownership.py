"""To whom the files belong that flowtop makes."""

from __future__ import annotations

import re
from collections.abc import Mapping


def recording_owner(environment: Mapping[str, str], user: int) -> tuple[int, int] | None:
    """User and group behind sudo, to whom recordings belong; None when nobody is.

    Args:
        user: effective user id.
    """
    numbers = [environment.get(name, "") for name in ("SUDO_UID", "SUDO_GID")]
    if user != 0 or not all(re.fullmatch(r"[0-9]{1,9}", number) for number in numbers):
        return None
    return int(numbers[0]), int(numbers[1])
