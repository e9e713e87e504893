"""Captures: sources of FlowBatches, from this host's interfaces, from files, from other exporters."""
