"""The screen. The only package that imports textual."""

import os

# Textual paints at the next of its frames: 60 a second are up to 17 ms that a key waits for each of its paints, and one
# that changes the list has two. What does not change is never painted, so more frames cost nothing.
os.environ.setdefault("TEXTUAL_FPS", "250")
