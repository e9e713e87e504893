"""Capture → flow table → pages for whoever watches, Flow Records for whoever exports."""
