"""This host's interfaces: the kernel programs of bpf/ loaded, attached and drained."""
