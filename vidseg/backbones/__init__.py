"""Backbones of the networks: one of each."""
