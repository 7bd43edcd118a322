"""SAM and HQ-SAM: one file per box of the papers."""
