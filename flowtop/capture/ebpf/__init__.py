"""The eBPF capture of this host's interfaces: loads, attaches and drains the kernel programs of bpf/."""
