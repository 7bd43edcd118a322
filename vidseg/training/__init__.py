"""Training of the HQ parts and of the embedded compact models."""
