"""Queries on the flow table: `Query` → `Page`, an immutable answer."""
