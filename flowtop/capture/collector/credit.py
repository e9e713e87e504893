"""How much traffic exporters are believed: so much that no sum of it exceeds 64 bits, whatever they claim.

Each exporter has a credit that grows with time, all together have one that grows faster, and there is an end.
"""

from __future__ import annotations

from flowtop.capture.collector.shares import Shares

MOST = 1 << 62
"""Octets and packets over all exporters since the start: 23 years of 50 Gbit/s. No sum of parts of it wraps, nor does
one that has a part twice."""
BURST, A_SECOND = 1 << 50, 1 << 42
"""What one exporter may report at once, and more with each second: octets, and packets, of 35 Tbit/s."""
ALL_BURST, ALL_A_SECOND = 1 << 56, 1 << 44
"""The same for all together, of whom a stranger can invent any number: three days until the end."""
_EXPORTERS = 8_192
_SMALL = 1 << 36
"""Less than this need not be looked at by exporter: it takes centuries to reach the end."""


class Credit:
    """Counts what was believed. In files, where time passes as fast as they are read, there is only the end."""

    def __init__(self) -> None:
        self.now_s: float | None = None
        self._total = 0
        self._all = _Account(ALL_BURST, ALL_A_SECOND)
        self._accounts: dict[str, _Account] = {}
        self._shares: Shares[str] = Shares(_EXPORTERS)

    def admit(self, exporter: str, amount: int) -> bool:
        """Whether so many octets, or packets, of an exporter are believed; if so, they are counted."""
        if self._total + amount > MOST:
            return False
        if self.now_s is not None and amount >= _SMALL:
            account = self._accounts.get(exporter)
            if account is None:
                account = self._accounts[exporter] = _Account(BURST, A_SECOND)
                gone = self._shares.add(exporter, None)
                if gone is not None:
                    del self._accounts[gone]
            else:
                self._shares.use(exporter)
            if not (account.has(amount, self.now_s) and self._all.has(amount, self.now_s)):
                return False
            account.left -= amount
            self._all.left -= amount
        self._total += amount
        return True


class _Account:
    __slots__ = ("_burst", "_per_s", "_since_s", "left")

    def __init__(self, burst: int, per_s: int) -> None:
        self.left = float(burst)
        self._burst = burst
        self._per_s = per_s
        self._since_s: float | None = None

    def has(self, amount: int, now_s: float) -> bool:
        passed_s = 0.0 if self._since_s is None else max(now_s - self._since_s, 0.0)
        self._since_s = now_s
        self.left = min(self.left + passed_s * self._per_s, float(self._burst))
        return self.left >= amount
