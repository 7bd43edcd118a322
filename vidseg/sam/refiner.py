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
from torch.nn import functional as F

from vidseg.errors import UsageError
from vidseg.masks.boxes import mask_box
from vidseg.masks.overlap import LogitWindow, resolve_overlaps
from vidseg.masks.paste import upsample_window
from vidseg.masks.rle import encode_window
from vidseg.sam.geometry import Geometry
from vidseg.sam.model import FrameFeatures, Sam
from vidseg.sam.prompts import Prompts
from vidseg.types import Frame, FrameMasks, Prompt, Rle, Tracks

Mode = Literal["auto", "box", "none"]
Clock = Callable[[str], AbstractContextManager[None]]
Size = tuple[int, int]

CERTAIN = 1e4
"""Logit of a mask that the user has given: it beats every drawn one."""
TRACKER_LOGIT = 8.0
"""Logit of a tracker's probability of 1, so that its masks can compete with decoder logits for a pixel."""


@dataclass(frozen=True, slots=True)
class RefineOptions:
    """How masks are redrawn. ``min_iou``: agreement (0..1) below which "auto" keeps the tracker's mask.

    ``mask_logit``: the tracker's probabilities become mask prompts clipped to +- this logit.
    """

    mode: Mode = "auto"
    min_iou: float = 0.85
    mask_logit: float = 8.0

    def __post_init__(self) -> None:
        """Refuse a mode that does not exist."""
        if self.mode not in get_args(Mode):
            raise UsageError(f"refine {self.mode!r}: allowed are {', '.join(get_args(Mode))}")


class Refiner:
    """Draws the final masks of frames. Holds no state between calls."""

    def __init__(self, sam: Sam, options: RefineOptions | None = None) -> None:
        self.sam = sam
        self.options = options or RefineOptions()

    @property
    def uses_sam(self) -> bool:
        """True when every frame must be encoded."""
        return self.options.mode != "none"

    def draw(self, features: FrameFeatures, prompts: Sequence[Prompt]) -> list[npt.NDArray[np.bool_]]:
        """Masks (H, W) for box and point prompts on one frame; mask prompts are handed through.

        A single click is ambiguous: the best of three candidates is taken, as in SAM.

        Raises:
            UsageError: nothing is found at a prompt.
        """
        masks: list[npt.NDArray[np.bool_]] = []
        for prompt in prompts:
            if prompt.mask is not None:
                masks.append(prompt.mask)
                continue
            boxes = None if prompt.box is None else np.array([prompt.box], np.float32)
            points = np.array([prompt.points], np.float32) if prompt.points else None
            labels = np.array([prompt.point_labels], np.int64) if prompt.points else None
            candidates: Literal["best", "single"] = "best" if boxes is None and len(prompt.points) == 1 else "single"
            (answer,) = self.sam.decode([features], [Prompts(boxes, points, labels)], candidates=candidates)
            mask = (answer.upsampled()[0, 0] > 0).cpu().numpy()
            if not mask.any():
                where = f"box {prompt.box}" if prompt.box else f"points {prompt.points}"
                raise UsageError(f"frame {prompt.frame_index}: no object is found at {where}; give another prompt")
            masks.append(mask)
        return masks

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

        ``features`` may be None per frame only in mode "none". ``given[i]`` maps object ids to masks (H, W) that are
        taken as they are on frame i. Masks of a frame are disjoint: a pixel goes to the highest logit. Objects without
        any pixel are left out. ``clock(stage)`` times the stages "decode" (network) and "paste".

        Raises:
            UsageError: mode "none" with a tracker that gives no masks.
        """
        given = given or [{} for _ in frames]
        logits: list[Tensor | None] = [None] * len(frames)
        if self.uses_sam:
            with clock("decode"):
                logits = self._decode(features, tracks)
        with clock("paste"):
            rows = zip(frames, features, tracks, logits, given, strict=True)
            return [self._paste(*row) for row in rows]

    def _decode(self, features: Sequence[FrameFeatures | None], tracks: Sequence[Tracks]) -> list[Tensor | None]:
        """Low-resolution logits (N, h, w) per frame; None for frames without objects."""
        busy = [i for i, t in enumerate(tracks) if len(t.ids)]
        encoded, prompts = [], []
        for i in busy:
            feature = features[i]
            if feature is None:
                raise UsageError(f"frame {tracks[i].frame_index} has not been encoded")
            encoded.append(feature)
            prompts.append(self._prompts(tracks[i], feature.geometry))
        answers = self.sam.decode(encoded, prompts)
        result: list[Tensor | None] = [None] * len(tracks)
        for i, answer in zip(busy, answers, strict=True):
            result[i] = answer.logits[:, 0]
        return result

    def _prompts(self, tracks: Tracks, geometry: Geometry) -> Prompts:
        boxes = tracks.boxes
        if self.options.mode == "box" or tracks.masks is None:
            return Prompts(boxes=boxes)
        limit = self.options.mask_logit
        floor = 1 / (1 + math.exp(limit))
        masks = torch.logit(_to_low_res(torch.from_numpy(tracks.masks), geometry, 0.0), floor)
        return Prompts(boxes=boxes, masks=masks.numpy())

    def _paste(
        self,
        frame: Frame,
        feature: FrameFeatures | None,
        tracks: Tracks,
        logits: Tensor | None,
        given: Mapping[int, npt.NDArray[np.bool_]],
    ) -> FrameMasks:
        height, width = frame.size
        own = None if tracks.masks is None else _tracker_logits(torch.from_numpy(tracks.masks))
        keep = self._keeps_tracker(logits, own, feature)
        windows: list[LogitWindow] = []
        for i, object_id in enumerate(tracks.ids.tolist()):
            if object_id in given:
                windows.append(LogitWindow(np.where(given[object_id], CERTAIN, -CERTAIN).astype(np.float32), 0, 0))
                continue
            layers: list[_Layer] = []
            if logits is not None and feature is not None and not keep[i]:
                layers.append(_Layer(logits[i], feature.geometry.padded, feature.geometry.resized))
            if own is not None and (not layers or self.options.mode == "auto"):
                layers.append(_Layer(own[i], (own.shape[1], own.shape[2]), (own.shape[1], own.shape[2])))
            if not layers:
                raise UsageError("--refine none needs a tracker that draws masks; this one gives boxes only")
            windows.append(_window(layers, frame.size))
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

    def _keeps_tracker(self, logits: Tensor | None, own: Tensor | None, feature: FrameFeatures | None) -> list[bool]:
        """Per object: does the redrawn mask disagree so much that the tracker's is kept?"""
        if logits is None or own is None or feature is None or self.options.mode == "box":
            return [False] * (0 if logits is None else len(logits))
        rows, columns = feature.geometry.low_res_frame
        a = _to_low_res(own, feature.geometry, -1.0)[:, :rows, :columns] > 0
        b = logits[:, :rows, :columns].cpu() > 0
        union = (a | b).flatten(1).sum(1)
        iou = (a & b).flatten(1).sum(1) / union.clamp(min=1)
        return [bool(v) for v in iou < self.options.min_iou]


def _tracker_logits(probabilities: Tensor) -> Tensor:
    """Probabilities (N, h, w) -> values > 0 where an object beats the background, highest where it beats all."""
    background = 1 - probabilities.sum(0, keepdim=True)
    return (probabilities - background) * TRACKER_LOGIT


def _to_low_res(maps: Tensor, geometry: Geometry, outside: float) -> Tensor:
    """Maps (N, h, w) of the whole frame at the decoder's low resolution; the padding gets the value ``outside``."""
    low, inside = geometry.low_res, geometry.low_res_frame
    maps = F.interpolate(maps[:, None], inside, mode="bilinear", align_corners=False, antialias=True)[:, 0]
    return F.pad(maps, (0, low[1] - inside[1], 0, low[0] - inside[0]), value=outside)


class _Layer(NamedTuple):
    """Logits (h, w) that cover ``padded``, of which ``resized`` is the frame; see :mod:`vidseg.masks.paste`."""

    logits: Tensor
    padded: Size
    resized: Size


def _window(layers: Sequence[_Layer], original: Size) -> LogitWindow:
    """Mean of the upsampled logits in the smallest window that surely holds every positive pixel of each layer.

    Of several layers none may outvote the others by sheer certainty: their logits are clipped.
    """
    bounds = [b for layer in layers if (b := _bounds(layer, original)) is not None]
    if not bounds:
        return LogitWindow(np.zeros((0, 0), np.float32), 0, 0)
    x1, y1, x2, y2 = (f(b[k] for b in bounds) for k, f in enumerate((min, min, max, max)))
    limit = math.inf if len(layers) == 1 else TRACKER_LOGIT
    parts = [
        upsample_window(logits.clamp(-limit, limit)[None], padded, resized, original, (x1, y1, x2, y2))[0].cpu()
        for logits, padded, resized in layers
    ]
    return LogitWindow((sum(parts[1:], parts[0]) / len(parts)).numpy(), y1, x1)


def _bounds(layer: _Layer, original: Size) -> tuple[int, int, int, int] | None:
    """Pixels (x1, y1, x2, y2) of the frame that a positive logit can reach; None when there is none."""
    positive = layer.logits > 0
    spans = []
    for axis in (0, 1):
        hits = positive.any(1 - axis).nonzero()[:, 0]
        if not len(hits):
            return None
        # Bilinear interpolation carries a value at most one cell far; the second step adds less than another one.
        cell = layer.padded[axis] / positive.shape[axis] * original[axis] / layer.resized[axis]
        start = max(0, math.floor((int(hits[0]) - 2) * cell))
        stop = min(original[axis], math.ceil((int(hits[-1]) + 3) * cell))
        if stop <= start:  # positive only in the padding
            return None
        spans.append((start, stop))
    (y1, y2), (x1, x2) = spans
    return x1, y1, x2, y2
