"""Binary masks: run-lengths, boxes, boundaries, palettes."""
