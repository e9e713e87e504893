"""flowtop: this host's network flows, exactly, in a terminal."""

__version__ = "0.1.0"
