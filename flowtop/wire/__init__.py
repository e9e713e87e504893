"""Codecs without sockets: IPFIX, NetFlow 5 and 9, sFlow 5."""
