"""Screens over the main view."""
