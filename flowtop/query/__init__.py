"""Questions to the flow table: `Query` → `Page`, an immutable answer."""
