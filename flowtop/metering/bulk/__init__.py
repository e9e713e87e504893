"""Process a batch of many steps at once, with the same flows and records as step by step."""
