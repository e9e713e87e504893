"""Transports of exports, one module each."""
