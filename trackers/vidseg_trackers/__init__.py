"""Trackers: who is where."""

import vidseg  # noqa: F401  (before torch: see there)
