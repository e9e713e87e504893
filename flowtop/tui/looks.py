"""How the screen looks to begin with: what options, settings and the last run chose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Looks:
    """Choices that the reader can change while it runs.

    Attributes:
        hosts: names of hosts by reverse DNS, in the place of addresses.
        services: names of ports, in the place of their numbers.
        theme: one of `palettes.THEMES`.
    """

    hosts: bool = False
    services: bool = False
    theme: str = "terminal"
