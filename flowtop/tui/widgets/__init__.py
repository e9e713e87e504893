"""Parts of the main screen."""
