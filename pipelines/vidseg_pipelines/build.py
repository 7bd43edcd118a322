"""Which models segment, and where they run: one choice for all front doors, and what they load of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, TypedDict

import torch

from vidseg.compiling import check_compiler
from vidseg.errors import UsageError, did_you_mean
from vidseg.loading import load_sam
from vidseg.registry import build_detector, build_tracker, check_name
from vidseg.runtime import resolve_device, resolve_dtype
from vidseg.sam.model import SegmentAnything
from vidseg.sam.zoom import Zoom
from vidseg.types import Detector, Tracker
from vidseg_pipelines.refiner import Mode, RefineOptions, Refiner

_KINDS: Mapping[str, tuple[type, ...]] = {
    "tracker": (Tracker, str),
    "detector": (Detector, str, type(None)),
    "model": (SegmentAnything, str, Path),
}


@dataclass(frozen=True)
class Models:
    """What a segmenter works with."""

    tracker: Tracker
    sam: SegmentAnything
    refiner: Refiner
    detector: Detector | None = None


class ModelSettings(TypedDict, total=False):
    """The settings of :class:`ModelChoice`, which says what each does, as keywords."""

    tracker: str | Tracker
    model: str | Path | SegmentAnything
    refine: Mode
    zoom: Zoom
    keep_still: bool
    detector: str | Detector | None
    device: str | torch.device
    dtype: str | torch.dtype
    compile: bool
    tracker_options: Mapping[str, object] | None
    detector_options: Mapping[str, object] | None
    offline: bool


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Models by name, or as instances, which are taken as they are."""

    tracker: str | Tracker = "xmem"
    """Name of a registered tracker, or an instance that nobody else uses."""
    model: str | Path | SegmentAnything = "compact"
    """Name or file of weights of HQ-SAM or SAM 2, or an instance."""
    refine: Mode = "auto"
    """See :class:`vidseg_pipelines.refiner.RefineOptions`."""
    zoom: Zoom = "auto"
    """See :class:`vidseg_pipelines.refiner.RefineOptions`."""
    keep_still: bool = False
    """See :class:`vidseg_pipelines.refiner.RefineOptions`."""
    detector: str | Detector | None = None
    """What finds objects: name of a registered detector, or an instance; None: HQ-SAM's automatic masks."""
    device: str | torch.device = "auto"
    """Where named models run: auto, cpu, cuda, cuda:N or mps."""
    dtype: str | torch.dtype = "auto"
    """How precisely named models run: auto, float32, bfloat16 or float16."""
    compile: bool = False
    """Put the image encoder of a named model through torch.compile."""
    tracker_options: Mapping[str, object] | None = None
    """Settings of a named tracker."""
    detector_options: Mapping[str, object] | None = None
    """Settings of a named detector."""
    offline: bool = False
    """Never use the network: missing weights are an error."""

    def __post_init__(self) -> None:
        """Refuse what cannot be right before anything is loaded.

        Raises:
            UsageError: a mode that does not exist; no name and no instance; options of an instance.
        """
        self._refine_options()
        if not isinstance(self.compile, bool):
            raise UsageError(f"compile {self.compile!r}: True or False expected")
        for name, kinds in _KINDS.items():
            given, options = getattr(self, name), getattr(self, f"{name}_options", None)
            if options is not None and not isinstance(given, str):
                raise UsageError(f"{name}_options are for a {name} that is named, not for {given!r}")
            if options is not None and not isinstance(options, Mapping):
                raise UsageError(f"{name}_options {options!r}: a mapping of settings expected")
            if not isinstance(given, kinds):
                raise UsageError(f"{name} {given!r}: a name or a {kinds[0].__name__} expected")
        if self.compile and isinstance(self.model, SegmentAnything):
            raise UsageError("compile is for a model that is named; an instance has compile_encoder()")

    @classmethod
    def of(cls, where: str, settings: ModelSettings) -> Self:
        """From keywords that were given to ``where``.

        Raises:
            UsageError: a setting that does not exist, or a wrong one.
        """
        names = [field.name for field in fields(cls)]
        for name in settings.keys() - set(names):
            raise UsageError(f"{where}: unknown setting '{name}'{did_you_mean(name, names)}")
        return cls(**settings)

    def check(self) -> None:
        """Refuse names that are not there and places that cannot be, without loading anything (UsageError)."""
        for kind in ("tracker", "detector"):
            if isinstance(name := getattr(self, kind), str):
                check_name(kind, name)
        self._place()

    def load(self) -> Models:
        """Load what is named.

        Raises:
            UsageError: unknown names or wrong options. WeightsError: weights are missing or wrong.
        """
        self.check()
        sam = self.load_sam()
        refiner = Refiner(sam, self._refine_options())
        return Models(self.load_tracker(), sam, refiner, self.load_detector())

    def load_sam(self, progress: Callable[[int, int | None], None] | None = None) -> SegmentAnything:
        """What draws masks; ``progress`` is called while it is downloaded."""
        if not isinstance(self.model, (str, Path)):
            return self.model
        sam = load_sam(self.model, progress=progress, **self._place())
        if self.compile:
            sam.compile_encoder()
        return sam

    def load_tracker(self) -> Tracker:
        """What follows objects."""
        if not isinstance(self.tracker, str):
            return self.tracker
        return build_tracker(self.tracker, self.tracker_options, **self._place())

    def load_detector(self) -> Detector | None:
        """What finds objects; None: what draws masks does."""
        if not isinstance(self.detector, str):
            return self.detector
        return build_detector(self.detector, self.detector_options, **self._place())

    def _refine_options(self) -> RefineOptions:
        return RefineOptions(self.refine, zoom=self.zoom, keep_still=self.keep_still)

    def _place(self) -> dict[str, Any]:
        device, dtype = resolve_device(str(self.device)), str(self.dtype).removeprefix("torch.")
        if self.compile:
            check_compiler(device)
        return {"device": device, "dtype": resolve_dtype(dtype, device), "offline": self.offline}
