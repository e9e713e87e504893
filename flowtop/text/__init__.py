"""Text for people: numbers, times, addresses and names, written and read back."""
