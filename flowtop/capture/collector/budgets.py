"""How much that is new a sender may bring about: Templates, names, samplers, agents, sessions. Old things are free.

What is new costs several times the time of a flow record. Exporters announce it once, and again after a restart; who
goes on has it refused, which costs next to nothing.
"""

from __future__ import annotations

from collections import OrderedDict

BURST, A_SECOND = 2_048, 500
"""What one address may bring about at once, and more with each second."""
STRANGERS_BURST, STRANGERS_A_SECOND = 4_096, 1_000
"""The same for all addresses together that no messages came from for long: they may be forged."""
_MOST = 4_096
"""Limit of addresses whose budget is known: the least recently used have their whole budget again."""

_STRANGERS = ""


class _Account:
    __slots__ = ("left", "since_s")

    def __init__(self, burst: int, now_s: float) -> None:
        self.left = float(burst)
        self.since_s = now_s

    def refill(self, per_s: int, burst: int, now_s: float) -> None:
        self.left = min(self.left + max(now_s - self.since_s, 0.0) * per_s, float(burst))
        self.since_s = now_s


class Budgets:
    """Budgets of all senders.

    Attributes:
        low: whose budget was spent when it was last looked at; "" stands for strangers. `is_spent` need not be asked
            while there is nobody.
    """

    def __init__(self) -> None:
        self.low: set[str] = set()
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._strangers: _Account | None = None

    def spend(self, source: str, stranger: bool, now_s: float, number: int = 1) -> None:
        """Count so much that is new.

        Args:
            source: the address it came from.
            stranger: no messages have come from there for long.
        """
        account = self._accounts.get(source)
        if account is None:
            account = self._accounts[source] = _Account(BURST, now_s)
            if len(self._accounts) > _MOST:
                self.low.discard(self._accounts.popitem(last=False)[0])
        else:
            self._accounts.move_to_end(source)
        account.refill(A_SECOND, BURST, now_s)
        account.left -= number
        if account.left < 1:
            self.low.add(source)
        if stranger:
            if self._strangers is None:
                self._strangers = _Account(STRANGERS_BURST, now_s)
            self._strangers.refill(STRANGERS_A_SECOND, STRANGERS_BURST, now_s)
            self._strangers.left -= number
            if self._strangers.left < 1:
                self.low.add(_STRANGERS)

    def is_spent(self, source: str, stranger: bool, now_s: float) -> bool:
        """Whether nothing new is taken from an address now."""
        account = self._accounts.get(source)
        if account is not None and account.left < 1:
            account.refill(A_SECOND, BURST, now_s)
            if account.left < 1:
                return True
            self.low.discard(source)
        strangers = self._strangers
        if stranger and strangers is not None and strangers.left < 1:
            strangers.refill(STRANGERS_A_SECOND, STRANGERS_BURST, now_s)
            if strangers.left < 1:
                return True
            self.low.discard(_STRANGERS)
        return False
