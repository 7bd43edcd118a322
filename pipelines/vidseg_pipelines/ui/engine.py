"""The networks behind the page: a mask from a click, at once and then better; objects followed through frames."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vidseg.loading import load_sam
from vidseg.masks.frame_masks import FrameMasks
from vidseg.registry import build_tracker, check_name
from vidseg.runtime import resolve_device, resolve_dtype
from vidseg.sam.model import FrameFeatures, SegmentAnything
from vidseg.sam.zoom import Zoom
from vidseg.types import Frame, Prompt, Tracker, VideoInfo
from vidseg_pipelines.drawing import draw_prompts
from vidseg_pipelines.refiner import Refiner
from vidseg_pipelines.segmenter import Segmenter

Mask = npt.NDArray[np.bool_]

_FEATURES = 8  # frames whose features are kept


@dataclass(frozen=True)
class ModelChoice:
    """Which networks the page works with; the fields are those of :class:`vidseg.config.RunConfig`."""

    tracker: str = "xmem"
    model: str = "compact"
    device: str = "auto"
    offline: bool = False

    def load(self) -> tuple[SegmentAnything, Tracker]:
        """The networks.

        Raises:
            UsageError: unknown names. WeightsError: missing weights.
        """
        device = resolve_device(self.device)
        dtype = resolve_dtype("auto", device)
        sam = load_sam(self.model, device=device, dtype=dtype, offline=self.offline)
        return sam, build_tracker(self.tracker, {}, device=device, dtype=dtype, offline=self.offline)

    def check(self) -> None:
        """Refuse what cannot be right before anything is loaded (UsageError)."""
        check_name("tracker", self.tracker)
        resolve_device(self.device)


class PageEngine:
    """Networks, loaded when they are first needed. All calls come from one thread."""

    def __init__(self, load: Callable[[], tuple[SegmentAnything, Tracker]]) -> None:
        self._load = load
        self._networks: tuple[SegmentAnything, Tracker] | None = None
        self._features: OrderedDict[tuple[str, int], FrameFeatures] = OrderedDict()

    @property
    def networks(self) -> tuple[SegmentAnything, Tracker]:
        """HQ-SAM and the tracker."""
        if self._networks is None:
            self._networks = self._load()
        return self._networks

    def prepare(self, clip: str, frame: Frame) -> FrameFeatures:
        """Encode a frame, once: the features of the last frames are kept."""
        key = clip, frame.index
        if key not in self._features:
            (self._features[key],) = self.networks[0].encode([frame.rgb])
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
        return draw_prompts(self.networks[0], frame.rgb, features, [prompt], zoom, shown)[0]

    def follow(
        self, info: VideoInfo, frames: Iterator[Frame], prompts: Sequence[Prompt], *, backward: bool = False
    ) -> Iterator[tuple[Frame, FrameMasks]]:
        """Follow objects from their masks through frames that come in order, or backwards, one result per frame.

        ``info.frame_count`` is the number of frames of the video.
        """
        sam, tracker = self.networks
        turned = (info.frame_count or 1) - 1

        def place(index: int) -> int:
            return turned - index if backward else index  # trackers see growing numbers only

        prompts = [replace(p, frame_index=place(p.frame_index)) for p in prompts]
        segmenter = Segmenter(tracker, sam, Refiner(sam), prompts=prompts, batch=1)
        segmenter.start(info)
        held: dict[int, Frame] = {}
        for frame in frames:
            held[place(frame.index)] = frame
            for given, masks in segmenter.step([replace(frame, index=place(frame.index))]):
                yield held.pop(given.index), replace(masks, frame_index=place(masks.frame_index))
        for given, masks in segmenter.finish():
            yield held.pop(given.index), replace(masks, frame_index=place(masks.frame_index))
