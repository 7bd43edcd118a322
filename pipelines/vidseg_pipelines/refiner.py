"""From what a tracker knows to the final masks of a frame: prompting, gating, pasting, overlaps.

The paper's protocol ("box") prompts HQ-SAM with the tight box of the tracker's mask and takes what it draws (HQ-SAM,
section 4.1, DAVIS and YTVIS experiments). "auto" also gives the tracker's mask as a prompt and takes the mean of both
masks' logits, but only where they agree on what the object is. "none" leaves the tracker's masks as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vidseg.errors import UsageError
from vidseg.masks.frame_masks import FrameMasks
from vidseg.masks.paste import resolve_overlaps
from vidseg.masks.trust import Signals
from vidseg.sam.model import FrameFeatures, SegmentAnything
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam.zoom import Crop, Zoom, check_zoom, logits_of, plan_crops
from vidseg.types import Array, Frame, Prompt, Tracks
from vidseg_pipelines.decoder_views import Drawn, View
from vidseg_pipelines.drawing import draw_prompts
from vidseg_pipelines.mask_layers import LIMIT, Layer, layers_of, mean_window, reach, thin_parts, to_host
from vidseg_pipelines.mask_signals import Agreement, certainty, measured
from vidseg_pipelines.still_masks import StillMasks

Mode = Literal["auto", "box", "none"]
Clock = Callable[[str], AbstractContextManager[None]]
Size = tuple[int, int]

SMALL_CELLS = 32
"""Width and height of a small object in cells of the decoder's low-resolution mask (four pixels of its input)."""
TRACKER_LOGIT = LIMIT
"""Logit of a tracker's probability of 1, so that its masks can compete with decoder logits for a pixel."""


@dataclass(frozen=True, slots=True)
class RefineOptions:
    """How masks are redrawn. ``min_iou``: agreement (0..1) below which "auto" keeps the tracker's mask.

    ``min_iou_small``: the same for objects of fewer than :data:`SMALL_CELLS` cells, which the decoder draws coarsely.
    ``mask_logit``: the tracker's probabilities become mask prompts clipped to +- this logit. ``zoom``: whether objects
    are drawn on crops around them, see :mod:`vidseg.sam.zoom`. ``keep_still``: objects that neither move nor change are
    not drawn again, see :mod:`vidseg_pipelines.still_masks`.
    """

    mode: Mode = "auto"
    min_iou: float = 0.7
    min_iou_small: float = 0.9
    mask_logit: float = 8.0
    zoom: Zoom = "auto"
    keep_still: bool = False

    def __post_init__(self) -> None:
        """Refuse a mode or zoom that does not exist, and what is neither true nor false."""
        check_zoom(self.zoom)
        if self.mode not in get_args(Mode):
            raise UsageError(f"refine {self.mode!r}: allowed are {', '.join(get_args(Mode))}")
        if not isinstance(self.keep_still, bool):
            raise UsageError(f"keep_still {self.keep_still!r}: True or False expected")


class Refiner:
    """Draws the final masks of frames. Holds no state between calls."""

    def __init__(self, sam: SegmentAnything, options: RefineOptions | None = None) -> None:
        self.sam = sam
        self.options = options or RefineOptions()

    @property
    def uses_sam(self) -> bool:
        """True when every frame must be encoded."""
        return self.options.mode != "none"

    def still_masks(self) -> StillMasks | None:
        """What :meth:`refine` keeps of the objects of one video; None: nothing is kept."""
        return StillMasks(self.sam.config) if self.options.keep_still and self.uses_sam else None

    def draw(
        self,
        frame: Frame,
        features: FrameFeatures,
        prompts: Sequence[Prompt],
        shown: Mapping[int, npt.NDArray[np.bool_]] | None = None,
    ) -> list[npt.NDArray[np.bool_]]:
        """Masks (H, W) for the prompts on one frame, see :func:`vidseg_pipelines.drawing.draw_prompts`."""
        return draw_prompts(self.sam, frame.rgb, features, prompts, self.options.zoom, shown)

    def refine(
        self,
        frames: Sequence[Frame],
        features: Sequence[FrameFeatures | None],
        tracks: Sequence[Tracks],
        given: Sequence[Mapping[int, npt.NDArray[np.bool_]]] | None = None,
        *,
        still: StillMasks | None = None,
        clock: Clock = lambda stage: nullcontext(),
    ) -> list[FrameMasks]:
        """Final masks of several frames, all boxes in one decoder batch.

        ``features`` are those of frames that are encoded already; what else is needed, frames and crops, is encoded
        here. ``given[i]`` maps object ids to masks (H, W) that are taken as they are on frame i. Masks of a frame are
        disjoint: a pixel goes to the highest logit. Objects without any pixel are left out. ``still``: what is kept of
        earlier frames. ``clock(stage)`` times the stages "encode" and "decode" (networks) and "paste".

        Raises:
            UsageError: mode "none" with a tracker that gives no masks.
        """
        given = given or [{} for _ in frames]
        logits = _tracker_logits(tracks)
        drawn: list[Drawn] = []
        if self.uses_sam:
            with clock("encode"):
                kept = [set[int]() for _ in frames] if still is None else still.look(frames, tracks, logits, given)
                views = self._views(frames, features, tracks, given, kept)
            with clock("decode"):
                drawn = self._decode(views, tracks)
            if still is not None:
                drawn += still.complete(drawn, kept, frames)
        with clock("paste"):
            layers, signals = self._layers(frames, drawn, tracks, logits, given)
            return _results(frames, tracks, layers, given, signals)

    def _views(
        self,
        frames: Sequence[Frame],
        features: Sequence[FrameFeatures | None],
        tracks: Sequence[Tracks],
        given: Sequence[Mapping[int, npt.NDArray[np.bool_]]],
        kept: Sequence[Collection[int]],
    ) -> list[tuple[View, FrameFeatures]]:
        """What the objects of each frame are drawn on: all on the whole frame, or each on a crop of its own.

        Objects with a mask, given or kept, are left out.
        """
        wanted: list[tuple[int, list[int], Crop, int | None]] = []
        for n, (frame, found) in enumerate(zip(frames, tracks, strict=True)):
            rows = [row for row, i in enumerate(found.ids.tolist()) if i not in given[n] and row not in kept[n]]
            plan = plan_crops(found.boxes[rows], frame.hw, self.sam.config, self._zoom) if rows else None
            if plan is not None:
                wanted += [(n, [row], crop, plan[1]) for row, crop in zip(rows, plan[0], strict=True)]
            elif rows:
                wanted.append((n, rows, Crop(0, 0, frame.hw[1], frame.hw[0]), None))
        known = [features[n] if side is None else None for n, _, _, side in wanted]
        missing = [k for k, feature in enumerate(known) if feature is None]
        for side in dict.fromkeys(wanted[k][3] for k in missing):
            group = [k for k in missing if wanted[k][3] == side]
            for start in range(0, len(group), len(frames)):
                part = group[start : start + len(frames)]
                pixels = [wanted[k][2].of(frames[wanted[k][0]].rgb) for k in part]
                for k, feature in zip(part, self.sam.encode(pixels, side), strict=True):
                    known[k] = feature
        return [
            (View(n, frames[n].hw, rows, crop, feature.geometry), feature)
            for (n, rows, crop, _), feature in zip(wanted, known, strict=True)
            if feature is not None
        ]

    @property
    def _zoom(self) -> Zoom:
        """The paper's protocol, "box", sees whole frames unless crops are asked for."""
        zoom = self.options.zoom
        return "never" if zoom == "auto" and self.options.mode == "box" else zoom

    def _decode(self, views: Sequence[tuple[View, FrameFeatures]], tracks: Sequence[Tracks]) -> list[Drawn]:
        """What the decoder draws on each view."""
        prompts = [self._prompts(view, tracks[view.frame]) for view, _ in views]
        answers = self.sam.decode([features for _, features in views], prompts)
        drawn = zip(views, answers, strict=True)
        return [Drawn(answer.logits[:, 0], view, answer.hq_iou) for (view, _), answer in drawn]

    def _prompts(self, view: View, tracks: Tracks) -> PromptBatch:
        boxes = view.crop.shift(tracks.boxes[view.rows])
        if self.options.mode == "box" or tracks.masks is None:
            return PromptBatch(boxes=boxes)
        masks = view.low_res(tracks.masks, 0.0)
        return PromptBatch(boxes=boxes, masks=logits_of(masks, self.options.mask_logit))

    def _layers(
        self,
        frames: Sequence[Frame],
        drawn: Sequence[Drawn],
        tracks: Sequence[Tracks],
        logits: Mapping[int, Float[Tensor, "N h w"]],
        given: Sequence[Mapping[int, npt.NDArray[np.bool_]]],
    ) -> tuple[list[dict[int, list[Layer]]], list[dict[int, Signals]]]:
        """By frame and object id: what the mask is made of, and what says whether it can be trusted.

        Objects with given masks are left out. Waits for the device once.
        """
        auto = self.options.mode == "auto"
        own = {} if self.options.mode == "box" else logits
        judged = [one for one in drawn if one.view.frame in logits]
        maps = [*own.values(), *(one.logits for one in drawn)]
        agreements = [one.agreement(logits[one.view.frame]) for one in judged]
        certain = [certainty(tracks[n], frames[n].hw) for n in logits]
        thin = {n: thin_parts(own[n]) for n in dict.fromkeys(one.view.frame for one in drawn) if n in own}
        reached = [*maps, *thin.values()]
        told = iter(to_host([*(part for one in reached for part in reach(one)), *agreements, *certain]))
        hits = [(next(told), next(told)) for _ in reached]
        agreed = {
            (one.view.frame, row): Agreement(*numbers)
            for one in judged
            for row, numbers in zip(one.view.rows, next(told).tolist(), strict=True)
        }
        signals = measured(tracks, dict(zip(logits, told, strict=True)), agreed)
        kept = {place for place, numbers in agreed.items() if auto and self._keeps_tracker(numbers)}
        found: list[dict[int, list[Layer]]] = [{row: [] for row in range(len(t.ids))} for t in tracks]
        for one, hit in zip(drawn, hits[len(own) : len(maps)], strict=True):
            geometry, n = one.view.geometry, one.view.frame
            for row, layer in zip(
                one.view.rows, layers_of(one.logits, *geometry.between, one.view.crop, *hit), strict=True
            ):
                if (n, row) not in kept:
                    found[n][row].append(layer)
        alone = {
            n: _of_frame(one, frames[n], *hit) for (n, one), hit in zip(thin.items(), hits[len(maps) :], strict=True)
        }
        for (n, probabilities), hit in zip(own.items(), hits, strict=False):
            for row, layer in enumerate(_of_frame(probabilities, frames[n], *hit)):
                if found[n][row] and layer.cell[1] < found[n][row][0].cell[1]:
                    layer = layer._replace(alone=alone[n][row])
                if auto or not found[n][row]:
                    found[n][row].append(layer)
        layers = [
            {i: parts for i, parts in zip(t.ids.tolist(), rows.values(), strict=True) if i not in masks}
            for t, rows, masks in zip(tracks, found, given, strict=True)
        ]
        return layers, signals

    def _keeps_tracker(self, agreed: Agreement) -> bool:
        """Does the redrawn mask disagree so much that the tracker's is kept?"""
        few = max(agreed.rows, agreed.columns) < SMALL_CELLS
        least = self.options.min_iou_small if few else self.options.min_iou
        return agreed.both < least * max(1, agreed.either)


def _of_frame(maps: Shaped[Tensor, "N h w"], frame: Frame, rows: Array, columns: Array) -> list[Layer]:
    """Layers of maps that show the whole frame, as a tracker's do; see :func:`layers_of`."""
    size, (height, width) = (maps.shape[1], maps.shape[2]), frame.hw
    return layers_of(maps, size, size, Crop(0, 0, width, height), rows, columns)


def _tracker_logits(tracks: Sequence[Tracks]) -> dict[int, Float[Tensor, "N h w"]]:
    """By frame: values > 0 where an object beats its background, highest where it beats all."""
    result = {}
    for n, found in enumerate(tracks):
        if found.masks is not None and len(found.ids):
            background = 1 - (found.masks.sum(0, keepdim=True) if found.exclusive else found.masks)
            result[n] = (found.masks - background) * TRACKER_LOGIT
    return result


def _results(
    frames: Sequence[Frame],
    tracks: Sequence[Tracks],
    layers: Sequence[Mapping[int, Sequence[Layer]]],
    given: Sequence[Mapping[int, npt.NDArray[np.bool_]]],
    signals: Sequence[Mapping[int, Signals]],
) -> list[FrameMasks]:
    """Masks of all frames, whose label maps come from the device together."""
    windows = []
    for objects in layers:
        if not all(objects.values()):
            raise UsageError("--refine none needs a tracker that draws masks; this one gives boxes only")
        means = {i: mean_window(of_one) for i, of_one in objects.items()}
        windows.append({i: window for i, window in means.items() if window is not None})
    highest = max((int(found.ids.max()) for found in tracks if len(found.ids)), default=0)
    dtype = torch.uint8 if highest <= np.iinfo(np.uint8).max else torch.int32
    maps = to_host([resolve_overlaps(w, f.hw, dtype) for f, w in zip(frames, windows, strict=True) if w])
    results = []
    for frame, found, drawn, masks, told in zip(frames, tracks, windows, given, signals, strict=True):
        labels = maps.pop(0) if drawn else np.zeros(frame.hw, np.uint8 if dtype == torch.uint8 else np.int32)
        places = {i: window.place for i, window in drawn.items()}
        for i in reversed([i for i in found.ids.tolist() if i in masks]):  # of equals the first is in front
            labels[masks[i]] = i
            places[i] = (slice(None), slice(None))
        names = found.labels or (None,) * len(found.ids)
        ids = found.ids.tolist()
        results.append(FrameMasks.from_label_map(frame, labels, ids, found.scores, names, places, told))
    return results
