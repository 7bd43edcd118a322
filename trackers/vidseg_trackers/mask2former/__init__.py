"""Mask2Former for videos: objects with classes and identities, without any prompt."""
