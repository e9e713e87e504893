"""Files as a source of flows: pcap, pcapng, IPFIX, gzipped or not, from disk or through a pipe. No root, no bcc.

In bulk, with no Python object a packet: `octets` (a file's octets in a buffer) → `pcap`, `pcapng` (where its frames
lie) → capture/packets, or `records` for IPFIX → `pieces` → `capture` (batches in the file's own time).
"""
