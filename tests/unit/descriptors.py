"""Room for descriptors that select cannot wait for."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

FIRST_HIGH = 1_100


@contextmanager
def many_descriptors() -> Iterator[int]:
    """Lets descriptors have numbers from the one given on, which select refuses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * FIRST_HIGH)), hard))
    try:
        yield FIRST_HIGH
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
