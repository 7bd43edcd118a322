"""The field's data sets: where their files are, and which image belongs to which mask."""
