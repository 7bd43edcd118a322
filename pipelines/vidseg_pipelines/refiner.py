"""From what a tracker knows to the final masks of a frame: prompting, gating, pasting, overlaps.

The paper's protocol ("box") prompts HQ-SAM with the tight box of the tracker's mask and takes what it draws (HQ-SAM,
section 4.1, DAVIS and YTVIS experiments). "auto" also gives the tracker's mask as a prompt and takes the mean of both
masks' logits, but only where they agree on what the object is. "none" leaves the tracker's masks as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vidseg.errors import UsageError
from vidseg.masks.boxes import mask_box
from vidseg.masks.overlap import LogitWindow, resolve_overlaps
from vidseg.masks.paste import upsample_window
from vidseg.masks.rle import encode_window
from vidseg.sam.model import FrameFeatures, SegmentAnything
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam.zoom import Crop, Zoom, check_zoom, cut_maps, logits_of, plan_crops, to_low_res
from vidseg.types import Frame, FrameMasks, Prompt, Rle, Tracks
from vidseg_pipelines.drawing import draw_prompts

Mode = Literal["auto", "box", "none"]
Clock = Callable[[str], AbstractContextManager[None]]
Size = tuple[int, int]

CERTAIN = 1e4
"""Logit of a mask that the user has given: it beats every drawn one."""
SMALL_CELLS = 32
"""Width and height of a small object in cells of the decoder's low-resolution mask (four pixels of its input)."""
TRACKER_LOGIT = 8.0
"""Logit of a tracker's probability of 1, so that its masks can compete with decoder logits for a pixel."""


@dataclass(frozen=True, slots=True)
class RefineOptions:
    """How masks are redrawn. ``min_iou``: agreement (0..1) below which "auto" keeps the tracker's mask.

    ``min_iou_small``: the same for objects of fewer than :data:`SMALL_CELLS` cells, which the decoder draws coarsely.
    ``mask_logit``: the tracker's probabilities become mask prompts clipped to +- this logit. ``zoom``: whether objects
    are drawn on crops around them, see :mod:`vidseg.sam.zoom`.
    """

    mode: Mode = "auto"
    min_iou: float = 0.7
    min_iou_small: float = 0.9
    mask_logit: float = 8.0
    zoom: Zoom = "auto"

    def __post_init__(self) -> None:
        """Refuse a mode or zoom that does not exist."""
        check_zoom(self.zoom)
        if self.mode not in get_args(Mode):
            raise UsageError(f"refine {self.mode!r}: allowed are {', '.join(get_args(Mode))}")


class Refiner:
    """Draws the final masks of frames. Holds no state between calls."""

    def __init__(self, sam: SegmentAnything, options: RefineOptions | None = None) -> None:
        self.sam = sam
        self.options = options or RefineOptions()

    @property
    def uses_sam(self) -> bool:
        """True when every frame must be encoded."""
        return self.options.mode != "none"

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
        clock: Clock = lambda stage: nullcontext(),
    ) -> list[FrameMasks]:
        """Final masks of several frames, all boxes in one decoder batch.

        ``features`` are those of frames that are encoded already; what else is needed, frames and crops, is encoded
        here. ``given[i]`` maps object ids to masks (H, W) that are taken as they are on frame i. Masks of a frame are
        disjoint: a pixel goes to the highest logit. Objects without any pixel are left out. ``clock(stage)`` times the
        stages "encode" and "decode" (networks) and "paste".

        Raises:
            UsageError: mode "none" with a tracker that gives no masks.
        """
        given = given or [{} for _ in frames]
        drawn: list[dict[int, _Drawn]] = [{} for _ in frames]
        if self.uses_sam:
            with clock("encode"):
                views = self._views(frames, features, tracks, given)
            with clock("decode"):
                drawn = self._decode(views, tracks)
        with clock("paste"):
            return [self._paste(*row) for row in zip(frames, tracks, drawn, given, strict=True)]

    def _views(
        self,
        frames: Sequence[Frame],
        features: Sequence[FrameFeatures | None],
        tracks: Sequence[Tracks],
        given: Sequence[Mapping[int, npt.NDArray[np.bool_]]],
    ) -> list[_View]:
        """What the objects of each frame are drawn on: all on the whole frame, or each on a crop of its own."""
        wanted: list[tuple[int, list[int], Crop, int | None]] = []
        for n, (frame, found) in enumerate(zip(frames, tracks, strict=True)):
            rows = [row for row, object_id in enumerate(found.ids.tolist()) if object_id not in given[n]]
            plan = plan_crops(found.boxes[rows], frame.size, self.sam.config, self._zoom) if rows else None
            if plan is not None:
                wanted += [(n, [row], crop, plan[1]) for row, crop in zip(rows, plan[0], strict=True)]
            elif rows:
                wanted.append((n, rows, Crop(0, 0, frame.size[1], frame.size[0]), None))
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
            _View(n, frames[n].size, rows, crop, feature)
            for (n, rows, crop, _), feature in zip(wanted, known, strict=True)
            if feature is not None
        ]

    @property
    def _zoom(self) -> Zoom:
        """The paper's protocol, "box", sees whole frames unless crops are asked for."""
        zoom = self.options.zoom
        return "never" if zoom == "auto" and self.options.mode == "box" else zoom

    def _decode(self, views: Sequence[_View], tracks: Sequence[Tracks]) -> list[dict[int, _Drawn]]:
        """By frame and row of its tracks: what the decoder drew."""
        prompts = [self._prompts(view, tracks[view.frame]) for view in views]
        result: list[dict[int, _Drawn]] = [{} for _ in tracks]
        for view, answer in zip(views, self.sam.decode([v.features for v in views], prompts), strict=True):
            for row, logits in zip(view.rows, answer.logits[:, 0], strict=True):
                result[view.frame][row] = _Drawn(logits, view)
        return result

    def _prompts(self, view: _View, tracks: Tracks) -> PromptBatch:
        boxes = view.crop.shift(tracks.boxes[view.rows])
        if self.options.mode == "box" or tracks.masks is None:
            return PromptBatch(boxes=boxes)
        masks = view.low_res(torch.from_numpy(tracks.masks), view.rows, 0.0)
        return PromptBatch(boxes=boxes, masks=logits_of(masks, self.options.mask_logit).numpy())

    def _paste(
        self,
        frame: Frame,
        tracks: Tracks,
        drawn: Mapping[int, _Drawn],
        given: Mapping[int, npt.NDArray[np.bool_]],
    ) -> FrameMasks:
        height, width = frame.size
        own = None if tracks.masks is None else _tracker_logits(torch.from_numpy(tracks.masks), tracks.exclusive)
        windows: list[LogitWindow] = []
        for i, object_id in enumerate(tracks.ids.tolist()):
            if object_id in given:
                windows.append(LogitWindow(np.where(given[object_id], CERTAIN, -CERTAIN).astype(np.float32), 0, 0))
                continue
            layers: list[_Layer] = []
            if i in drawn and not (self.options.mode == "auto" and self._keeps_tracker(drawn[i], own, i)):
                g = drawn[i].view.features.geometry
                layers.append(_Layer(drawn[i].logits, *g.between, drawn[i].view.crop))
            if own is not None and (not layers or self.options.mode == "auto"):
                size = (own.shape[1], own.shape[2])
                layers.append(_Layer(own[i], size, size, Crop(0, 0, width, height)))
            if not layers:
                raise UsageError("--refine none needs a tracker that draws masks; this one gives boxes only")
            windows.append(_window(layers))
        masks = resolve_overlaps(windows, height, width)
        kept = [i for i, mask in enumerate(masks) if mask.any()]
        boxes, rles = np.zeros((len(kept), 4), np.float32), []
        for row, i in enumerate(kept):
            y0, x0 = windows[i].y0, windows[i].x0
            boxes[row] = mask_box(masks[i]) + np.array([x0, y0, x0, y0], np.float32)
            rles.append(encode_window(masks[i], y0, x0, height, width))
        return FrameMasks(
            frame.index,
            frame.pts,
            frame.time_s,
            tuple(int(tracks.ids[i]) for i in kept),
            boxes,
            tracks.scores[kept],
            tuple(tracks.labels[i] if tracks.labels else None for i in kept),
            tuple[Rle, ...](rles),
            frame.gap,
            frame.name,
        )

    def _keeps_tracker(self, drawn: _Drawn, own: Tensor | None, row: int) -> bool:
        """Does the redrawn mask disagree so much that the tracker's is kept?"""
        if own is None:
            return False
        rows, columns = drawn.view.features.geometry.low_res_frame
        a = drawn.view.low_res(own, [row], -1.0)[0, :rows, :columns] > 0
        b = drawn.logits[:rows, :columns].cpu() > 0
        columns_of_b, rows_of_b = b.any(0).nonzero(), b.any(1).nonzero()
        few = max(len(columns_of_b), len(rows_of_b)) < SMALL_CELLS
        least = self.options.min_iou_small if few else self.options.min_iou
        return int((a & b).sum()) < least * max(1, int((a | b).sum()))


@dataclass(frozen=True, slots=True)
class _View:
    """A frame of the batch, or a crop of it, and the rows of its tracks that are drawn there."""

    frame: int
    size: Size
    rows: list[int]
    crop: Crop
    features: FrameFeatures

    def low_res(self, maps: Tensor, rows: list[int], outside: float) -> Tensor:
        """Some of a tracker's maps (N, h, w) of the whole frame as the decoder sees this view."""
        geometry = self.features.geometry
        return to_low_res(cut_maps(maps[rows], self.size, self.crop), geometry, outside)


class _Drawn(NamedTuple):
    """Low-resolution logits (h, w) of one object and what they were drawn on."""

    logits: Tensor
    view: _View


def _tracker_logits(probabilities: Tensor, exclusive: bool) -> Tensor:
    """Probabilities (N, h, w) -> values > 0 where an object beats its background, highest where it beats all."""
    background = 1 - (probabilities.sum(0, keepdim=True) if exclusive else probabilities)
    return (probabilities - background) * TRACKER_LOGIT


class _Layer(NamedTuple):
    """Logits (h, w) that cover ``padded``, of which ``resized`` is ``crop``; see :mod:`vidseg.masks.paste`."""

    logits: Tensor
    padded: Size
    resized: Size
    crop: Crop


def _window(layers: Sequence[_Layer]) -> LogitWindow:
    """Mean of the upsampled logits in the smallest window that surely holds every positive pixel of each layer.

    Of several layers none may outvote the others by sheer certainty: their logits are clipped. Outside its crop a layer
    is as sure as that of the background.
    """
    bounds = [b for layer in layers if (b := _bounds(layer)) is not None]
    if not bounds:
        return LogitWindow(np.zeros((0, 0), np.float32), 0, 0)
    x1, y1, x2, y2 = (f(b[k] for b in bounds) for k, f in enumerate((min, min, max, max)))
    if len(layers) == 1:
        return LogitWindow(_upsampled(layers[0], (x1, y1, x2, y2)), y1, x1)
    total = np.zeros((y2 - y1, x2 - x1), np.float32)
    for layer in layers:
        crop = layer.crop
        part = max(x1, crop.x1), max(y1, crop.y1), min(x2, crop.x2), min(y2, crop.y2)
        values = np.full_like(total, -TRACKER_LOGIT)
        if part[0] < part[2] and part[1] < part[3]:
            clipped = layer._replace(logits=layer.logits.clamp(-TRACKER_LOGIT, TRACKER_LOGIT))
            values[part[1] - y1 : part[3] - y1, part[0] - x1 : part[2] - x1] = _upsampled(clipped, part)
        total += values
    total /= len(layers)
    return LogitWindow(total, y1, x1)


def _upsampled(layer: _Layer, window: tuple[int, int, int, int]) -> npt.NDArray[np.float32]:
    """Logits of a layer in a window (x1, y1, x2, y2) of the frame that lies in its crop."""
    x1, y1, x2, y2 = window
    left, top = layer.crop.x1, layer.crop.y1
    part = (x1 - left, y1 - top, x2 - left, y2 - top)
    return upsample_window(layer.logits[None], layer.padded, layer.resized, layer.crop.size, part)[0].cpu().numpy()


def _bounds(layer: _Layer) -> tuple[int, int, int, int] | None:
    """Pixels (x1, y1, x2, y2) of the frame that a positive logit can reach; None when there is none."""
    positive = layer.logits > 0
    spans = []
    for axis, (start, length) in enumerate(zip((layer.crop.y1, layer.crop.x1), layer.crop.size, strict=True)):
        hits = positive.any(1 - axis).nonzero()[:, 0]
        if not len(hits):
            return None
        # Bilinear interpolation carries a value at most one cell far; the second step adds less than another one.
        cell = layer.padded[axis] / positive.shape[axis] * length / layer.resized[axis]
        first = max(0, math.floor((int(hits[0]) - 2) * cell))
        last = min(length, math.ceil((int(hits[-1]) + 3) * cell))
        if last <= first:  # positive only in the padding
            return None
        spans.append((start + first, start + last))
    (y1, y2), (x1, x2) = spans
    return x1, y1, x2, y2
