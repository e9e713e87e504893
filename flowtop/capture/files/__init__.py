"""Files as a source of flows: pcap, pcapng and IPFIX, optionally gzipped, from disk or a pipe. Needs no root, no bcc.

Processing is in bulk, without one Python object per packet: `octets` (a buffer with the file's data) → `pcap`, `pcapng`
(positions of frames) → capture/packets, or `records` for IPFIX → `pieces` → `capture` (batches in file time).
"""
