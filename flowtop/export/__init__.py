"""The Exporting Process (RFC 7011 section 2): bounded queues, spools and a thread an export; nothing is lost unseen."""
