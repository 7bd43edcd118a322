"""Whole benchmarks: from the official data folder to the score."""
