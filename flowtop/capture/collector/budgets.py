"""How much that costs more than flow records a sender may bring about.

What is new costs several times the time of a flow record: Templates, names, samplers, agents, sessions. Exporters
announce it once, and again after a restart; who goes on has it refused, which costs next to nothing. Old things are
free. So it is with messages that are more work than others of their length (work.py).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple


class Limits(NamedTuple):
    """What one address may bring about at once, and more with each second; and the same for all addresses together that
    no messages came from for long, as they may be forged."""

    burst: int
    a_second: int
    strangers_burst: int
    strangers_a_second: int


NEWS = Limits(2_048, 500, 4_096, 1_000)
"""What is new."""
_MOST = 4_096
"""Limit of addresses whose budget is known: the least recently used have their whole budget again."""

_STRANGERS = ""


class _Account:
    __slots__ = ("left", "since_s")

    def __init__(self, burst: int, now_s: float) -> None:
        self.left = float(burst)
        self.since_s = now_s

    def refill(self, per_s: int, burst: int, now_s: float) -> None:
        if now_s > self.since_s:
            left = self.left + (now_s - self.since_s) * per_s
            self.left = left if left < burst else float(burst)
        self.since_s = now_s


class Budgets:
    """Budgets of all senders.

    Args:
        limits: of each, and of all.

    Attributes:
        low: whose budget was spent when it was last looked at; "" stands for strangers. `is_spent` need not be asked
            while there is nobody.
    """

    def __init__(self, limits: Limits = NEWS) -> None:
        self._limits = limits
        self.low: set[str] = set()
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._strangers: _Account | None = None

    def spend(self, source: str, stranger: bool, now_s: float, number: int = 1) -> None:
        """Count so much.

        Args:
            source: the address it came from.
            stranger: no messages have come from there for long.
        """
        account = self._accounts.get(source)
        if account is None:
            account = self._accounts[source] = _Account(self._limits.burst, now_s)
            if len(self._accounts) > _MOST:
                self.low.discard(self._accounts.popitem(last=False)[0])
        else:
            self._accounts.move_to_end(source)
        account.refill(self._limits.a_second, self._limits.burst, now_s)
        account.left -= number
        if account.left < 1:
            self.low.add(source)
        if stranger:
            if self._strangers is None:
                self._strangers = _Account(self._limits.strangers_burst, now_s)
            self._strangers.refill(self._limits.strangers_a_second, self._limits.strangers_burst, now_s)
            self._strangers.left -= number
            if self._strangers.left < 1:
                self.low.add(_STRANGERS)

    def is_spent(self, source: str, stranger: bool, now_s: float) -> bool:
        """Whether nothing more is taken from an address now."""
        account = self._accounts.get(source)
        if account is not None and account.left < 1:
            account.refill(self._limits.a_second, self._limits.burst, now_s)
            if account.left < 1:
                return True
            self.low.discard(source)
        strangers = self._strangers
        if stranger and strangers is not None and strangers.left < 1:
            strangers.refill(self._limits.strangers_a_second, self._limits.strangers_burst, now_s)
            if strangers.left < 1:
                return True
            self.low.discard(_STRANGERS)
        return False
