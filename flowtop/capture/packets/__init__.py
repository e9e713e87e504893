"""Frames → Flow Keys and counters, for many frames at once: what bpf/parse.h does for one. Used by files and by sFlow.

`link` (where the IP header is) → `internet` (key and counters) → `tunnels`, `fragments` → `entries` (of a FlowBatch).
"""
