"""Where an export writes to, a module each."""
