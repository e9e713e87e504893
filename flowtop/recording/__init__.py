"""Packets of the flows that match, written to a pcapng file."""
