"""Who talks: sockets, the processes that have them, their users and units."""
