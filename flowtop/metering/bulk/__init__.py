"""A batch of many steps at the cost of its entries: the same flows and records as step by step."""
