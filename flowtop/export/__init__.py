"""The Exporting Process (RFC 7011 section 2): a queue, a spool and a thread per export; every loss is counted."""
