"""From names or instances to the models that segment, for the front doors of Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from vidseg.errors import UsageError
from vidseg.loading import load_sam
from vidseg.registry import build_detector, build_tracker
from vidseg.runtime import resolve_device, resolve_dtype
from vidseg.sam.model import SegmentAnything
from vidseg.sam.zoom import Zoom
from vidseg.types import Detector, Tracker
from vidseg_pipelines.refiner import Mode, RefineOptions, Refiner


@dataclass(frozen=True)
class Models:
    """What a segmenter works with."""

    tracker: Tracker
    sam: SegmentAnything
    refiner: Refiner
    detector: Detector | None


def load_models(
    *,
    tracker: str | Tracker,
    model: str | Path | SegmentAnything,
    refine: Mode,
    zoom: Zoom,
    detector: str | Detector | None,
    device: str,
    dtype: str,
    tracker_options: Mapping[str, object] | None,
    detector_options: Mapping[str, object] | None,
    offline: bool,
) -> Models:
    """Load what is named; instances are taken as they are.

    Raises:
        UsageError: unknown names or wrong values; options of an instance. WeightsError: weights are missing or wrong.
    """
    for name, given, options in (("tracker", tracker, tracker_options), ("detector", detector, detector_options)):
        if options is not None and not isinstance(given, str):
            raise UsageError(f"{name}_options are for a {name} that is named, not for {given!r}")
    choice = RefineOptions(refine, zoom=zoom)
    place = resolve_device(device)
    where: dict[str, Any] = {"device": place, "dtype": resolve_dtype(dtype, place), "offline": offline}
    sam = load_sam(model, **where) if isinstance(model, (str, Path)) else model
    return Models(
        build_tracker(tracker, tracker_options, **where) if isinstance(tracker, str) else tracker,
        sam,
        Refiner(sam, choice),
        build_detector(detector, detector_options, **where) if isinstance(detector, str) else detector,
    )


def check_count(name: str, count: object, least: int) -> None:
    """Refuse what is no whole number of at least ``least`` (UsageError)."""
    if not isinstance(count, Integral) or isinstance(count, bool) or count < least:
        raise UsageError(f"{name} {count}: a whole number of at least {least} expected")
