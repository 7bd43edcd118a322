"""The networks behind the page: a mask from a click, at once and then better."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from vidseg.sam.model import FrameFeatures
from vidseg.sam.zoom import Zoom
from vidseg.types import Frame, Prompt
from vidseg_pipelines.build import Models
from vidseg_pipelines.drawing import draw_prompts

Mask = npt.NDArray[np.bool_]

_FEATURES = 8  # frames whose features are kept


class PageEngine:
    """Networks, loaded when they are first needed. All calls come from one thread."""

    def __init__(self, load: Callable[[], Models]) -> None:
        self._load = load
        self._models: Models | None = None
        self._features: OrderedDict[tuple[str, int], FrameFeatures] = OrderedDict()

    @property
    def ready(self) -> bool:
        """Whether they are loaded."""
        return self._models is not None

    @property
    def models(self) -> Models:
        """What draws masks and what follows objects."""
        if self._models is None:
            self._models = self._load()
        return self._models

    def prepare(self, clip: str, frame: Frame) -> FrameFeatures:
        """Encode a frame, once: the features of the last frames are kept."""
        key = clip, frame.index
        if key not in self._features:
            (self._features[key],) = self.models.sam.encode([frame.rgb])
            while len(self._features) > _FEATURES:
                self._features.popitem(last=False)
        self._features.move_to_end(key)
        return self._features[key]

    def forget(self) -> None:
        """Encode frames anew: their numbers have changed."""
        self._features.clear()

    def draw(self, clip: str, frame: Frame, prompt: Prompt, shown: Mapping[int, Mask], zoom: Zoom) -> Mask:
        """The mask of one object from clicks or a box, see :func:`vidseg_pipelines.drawing.draw_prompts`.

        Raises:
            UsageError: nothing is found there.
        """
        features = self.prepare(clip, frame)
        return draw_prompts(self.models.sam, frame.rgb, features, [prompt], zoom, shown)[0]
