"""Trackers: who is where."""
