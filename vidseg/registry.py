"""Trackers by name. A package adds one with an entry point in the group ``vidseg.trackers``; no fork needed.

The entry point names a function ``build(options, *, device, dtype, offline) -> Tracker`` where ``options`` is a mapping
of the tracker's own settings; unknown settings are a :class:`~vidseg.errors.UsageError`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points

import torch

from vidseg.errors import UsageError, did_you_mean
from vidseg.types import Tracker

GROUP = "vidseg.trackers"


def tracker_names() -> list[str]:
    """Names of all installed trackers, sorted."""
    return sorted(entry_points(group=GROUP).names)


def check_tracker(name: str) -> None:
    """Raise a UsageError, with the allowed names and the closest, when there is no tracker called ``name``."""
    names = tracker_names()
    if name not in names:
        raise UsageError(f"unknown tracker '{name}'{did_you_mean(name, names)}: available are {', '.join(names)}")


def tracker_weights(name: str, options: Mapping[str, object]) -> str | None:
    """Which weights the tracker ``name`` would use: its option ``weights`` or its module's ``DEFAULT_WEIGHTS``."""
    check_tracker(name)
    (entry,) = entry_points(group=GROUP, name=name)
    chosen = options.get("weights") or getattr(importlib.import_module(entry.module), "DEFAULT_WEIGHTS", None)
    return None if chosen is None else str(chosen)


def build_tracker(
    name: str,
    options: Mapping[str, object] | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    offline: bool = False,
) -> Tracker:
    """Build the tracker called ``name``.

    Raises:
        UsageError: unknown name or unknown option.
    """
    check_tracker(name)
    (entry,) = entry_points(group=GROUP, name=name)
    tracker: Tracker = entry.load()(dict(options or {}), device=torch.device(device), dtype=dtype, offline=offline)
    return tracker
