"""The Collecting Process (RFC 7011 section 2): flows that other exporters have metered, as one more capture."""
