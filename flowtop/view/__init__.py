"""Questions to the flow table: filter, sort, top N; and how their answers are worded."""
