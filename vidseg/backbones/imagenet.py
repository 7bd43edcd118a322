"""Mean and standard deviation of the colours of ImageNet, by which pretrained networks expect images normalised."""

from __future__ import annotations

Colour = tuple[float, float, float]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
"""Of RGB in 0..1."""
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
BYTE_MEAN: Colour = (123.675, 116.28, 103.53)
"""The same for RGB in 0..255."""
BYTE_STD: Colour = (58.395, 57.12, 57.375)
