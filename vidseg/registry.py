"""Trackers and detectors by name. A package adds one with an entry point; no fork needed.

In the groups ``vidseg.trackers`` and ``vidseg.detectors`` an entry point names a function
``build(options, *, device, dtype, offline)`` that gives a :class:`~vidseg.types.Tracker` or a
:class:`~vidseg.types.Detector`. ``options`` is a mapping of its own settings; unknown settings are a
:class:`~vidseg.errors.UsageError`. A module may name the weights that it uses by default as ``DEFAULT_WEIGHTS``,
or, where these depend on the model that draws the masks, have a function ``default_weights(model)``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import torch

from vidseg.errors import UsageError, did_you_mean
from vidseg.types import Detector, Tracker

_GROUPS = {"tracker": "vidseg.trackers", "detector": "vidseg.detectors"}


def installed(kind: str) -> list[str]:
    """Names of all installed trackers or detectors (``kind``), sorted."""
    return sorted(entry_points(group=_GROUPS[kind]).names)


def check_name(kind: str, name: str) -> None:
    """Raise a UsageError, with the allowed names and the closest, when ``kind`` has none called ``name``."""
    names = installed(kind)
    if name not in names:
        raise UsageError(f"unknown {kind} '{name}'{did_you_mean(name, names)}: available are {', '.join(names)}")


def weights_used(kind: str, name: str, options: Mapping[str, object], model: str) -> str | None:
    """Name or file of the weights that a tracker or detector would use, if any, where ``model`` draws the masks."""
    module = importlib.import_module(_entry(kind, name).module)
    chosen = options.get("weights") or options.get("model") or "auto"
    if chosen != "auto":
        return str(chosen)
    if hasattr(module, "default_weights"):
        return str(module.default_weights(model))
    default: str | None = getattr(module, "DEFAULT_WEIGHTS", None)
    return default


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
    tracker: Tracker = _build("tracker", name, options, device, dtype, offline)
    return tracker


def build_detector(
    name: str,
    options: Mapping[str, object] | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    offline: bool = False,
) -> Detector:
    """Build the detector called ``name``; errors as :func:`build_tracker`."""
    detector: Detector = _build("detector", name, options, device, dtype, offline)
    return detector


def _entry(kind: str, name: str) -> EntryPoint:
    check_name(kind, name)
    (entry,) = entry_points(group=_GROUPS[kind], name=name)
    return entry


def _build(
    kind: str,
    name: str,
    options: Mapping[str, object] | None,
    device: torch.device | str,
    dtype: torch.dtype,
    offline: bool,
) -> Any:
    build = _entry(kind, name).load()
    return build(dict(options or {}), device=torch.device(device), dtype=dtype, offline=offline)
