"""Weights: the catalogue, fetching, safe loading, conversion."""
