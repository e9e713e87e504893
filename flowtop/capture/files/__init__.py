"""Capture files as a source of flows: pcap, pcapng, either gzipped, from disk or through a pipe. No root, no bcc.

One way, in bulk, with no Python object a packet: `octets` (a file's octets in a buffer) → `pcap`, `pcapng` (where its
frames lie) → `link`, `internet` (what each frame is, as bpf/parse.h has it) → `entries` (what a FlowBatch holds) →
`capture` (which hands batches over in the file's own time).
"""
