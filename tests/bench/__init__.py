"""Benchmarks: `python -m tests.bench NAME`. The last line printed is one JSON object."""
