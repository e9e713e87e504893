"""Frames → Flow Keys and counters, for many frames at once, like bpf/parse.h for one. Used by files and sFlow.

`link` (position of the IP header) → `internet` (key and counters) → `tunnels`, `fragments` → `entries` (of a
FlowBatch).
"""
