"""Pipelines: streaming, resume, batch."""
