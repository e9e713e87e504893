"""What a flow has: columns, group fields, filter keys and JSON members, each in a registry of its own."""
