"""Decoding and encoding of videos and image folders."""
