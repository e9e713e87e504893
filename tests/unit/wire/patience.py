"""Hypothesis without a clock: a slow machine finds no faults that are not there."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
