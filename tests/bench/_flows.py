"""Made-up Flow Keys and counters for the benchmarks of table and drain."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flowtop.model.record import FLOW_COUNTERS_DTYPE, FLOW_KEY_DTYPE, OBSERVATION_DTYPE, FlowBatch

SECOND = 1_000_000_000


def keys_of(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
    """A distinct key for each number below 2**32, FLOW_KEY_DTYPE, shape (n,): half IPv6/UDP, half IPv4/TCP."""
    keys = np.zeros(len(numbers), FLOW_KEY_DTYPE)
    words = keys.view(np.uint64).reshape(len(keys), -1)
    scattered = numbers.astype(np.uint64) * np.uint64(2_654_435_761) & np.uint64(0xFFFF_FFFF)
    six = numbers % 2 == 0
    words[:, 0] = scattered
    words[six, 1] = scattered[six] << np.uint64(32)
    words[:, 2] = numbers % 1000 + 1
    keys["source_port"] = 1024 + numbers % 60_000
    keys["destination_port"] = 443
    keys["protocol"] = np.where(six, 17, 6)
    keys["ip_version"] = np.where(six, 6, 4)
    keys["direction"] = numbers // 2 % 2
    keys["ifindex"] = 2
    return keys


def counters_of(n: int, now_ns: int, rng: np.random.Generator) -> npt.NDArray[np.void]:
    """n counters of the second before `now_ns`, FLOW_COUNTERS_DTYPE."""
    counters = np.zeros(n, FLOW_COUNTERS_DTYPE)
    counters["packets"] = rng.integers(1, 1_000, n)
    counters["octets"] = counters["packets"] * rng.integers(40, 1_500, n).astype(np.uint64)
    counters["first_ns"] = now_ns - SECOND
    counters["last_ns"] = now_ns - rng.integers(0, SECOND, n)
    counters["ttl"] = 64
    counters["tos"] = rng.integers(0, 4, n) << 5
    counters["tcp_bit_seen"][:, 4] = 1
    counters["congestion_window"][::4] = 10  # what local sockets send
    counters["smoothed_rtt_us"][::4] = 20_000
    return counters


def batch_of(numbers: npt.NDArray[np.int64], now_ns: int, rng: np.random.Generator) -> FlowBatch:
    """A batch with an entry for each number."""
    counters = counters_of(len(numbers), now_ns, rng)
    return FlowBatch(keys_of(numbers), counters, np.zeros(0, OBSERVATION_DTYPE), now_ns, 0)
