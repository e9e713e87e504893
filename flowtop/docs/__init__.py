"""The manual: its pages, the tables in them, the man pages and the shell completions made from it."""
