"""Pipelines: streaming, resume, batch."""

import vidseg  # noqa: F401  (before torch: see there)
