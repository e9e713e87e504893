"""What a process may still do once it parses what strangers send: user, capabilities, system calls, files, networks."""
