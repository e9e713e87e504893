"""Screens over the main screen."""
