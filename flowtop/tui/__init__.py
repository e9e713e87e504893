"""The screen. The only user of textual."""
