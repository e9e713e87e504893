"""Names in packets: DNS answers, TLS and QUIC server names, HTTP hosts; which client called which address what."""
