"""Capture → flow table → pages for the screen or batch output, Flow Records for exports."""
