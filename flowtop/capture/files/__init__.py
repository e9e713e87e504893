"""Files as a source of flows: pcap, pcapng, IPFIX, each gzipped or not, from disk or through a pipe. No root, no bcc.

One way, in bulk, with no Python object a packet: `octets` (a file's octets in a buffer) → `pcap`, `pcapng` (where its
frames lie) → `link`, `internet`, `fragments` (what each frame is, as bpf/parse.h has it) → `packets`, or `records` for
IPFIX → `entries` (what a FlowBatch holds) → `capture` (which hands batches over in the file's own time).
"""
