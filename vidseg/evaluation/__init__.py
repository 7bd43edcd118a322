"""Exact evaluators of the protocols used in the papers."""
