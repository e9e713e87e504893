"""What a flow has: one entry a field, from which columns, groups, words, JSON keys and details are made."""
