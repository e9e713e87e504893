"""The collector (Collecting Process, RFC 7011 section 2): flows metered by other exporters, as a capture."""
