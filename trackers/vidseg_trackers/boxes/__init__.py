"""Boxes of any detector or tracker, read from files."""
