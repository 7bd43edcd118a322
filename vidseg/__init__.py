"""vidseg: video in, accurate and identity-stable object masks out."""

__version__ = "0.1.0"
