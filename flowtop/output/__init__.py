"""Flows without a screen: rounds as a table, JSON Lines or CSV; and what is in an export."""
