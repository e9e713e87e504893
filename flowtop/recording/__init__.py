"""Write packets of selected flows to a pcapng file."""
