"""Automatic mask generation: a grid of clicks on the image and on crops of it, filtered by quality, without duplicates.

Segment Anything (Kirillov et al. 2023), section 5 and appendix B "Automatic mask generation details", as released.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidseg.errors import UsageError
from vidseg.masks import rle as run_lengths
from vidseg.masks.boxes import mask_box, suppress_boxes
from vidseg.masks.parts import without_small_parts
from vidseg.masks.paste import to_original_size
from vidseg.sam.config import QUALITY, Output
from vidseg.sam.geometry import check_image, click_grid
from vidseg.sam.mask_decoder import Candidates, stability_score
from vidseg.sam.model import FrameFeatures, SegmentAnything
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.types import Rle, ShapeRepr

OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]
Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Crop = tuple[int, int, int, int]

Upsample = Callable[[Int[Tensor, " n"]], Float[Tensor, "n h w"]]
Clicks = Callable[[Floats], tuple[Float[Tensor, "k m"], Upsample]]
"""For K clicks (x, y) in pixels of the crop: M qualities each, and a function that gives the logits at the size of the
crop for some of the K * M masks, so that masks of low quality are never upsampled."""
Encode = Callable[[Image], Clicks]

EDGE_PX = 20.0
"""A mask this close to the edge of a crop (but not of the image) is taken to be cut off."""


@dataclass(frozen=True, slots=True)
class AutomaticOptions:
    """Parameters of the official generator, with its names and defaults.

    ``point_grids``: per crop layer an array (P, 2) of points in 0..1, instead of ``points_per_side``. ``candidates``
    and ``output`` as in :meth:`Sam.decode`, "best" by predicted quality alone; None takes the best of three with the HQ
    branch, all three without.
    ``pred_iou_thresh`` None is 0.88, or for SAM 2 0.8.
    """

    points_per_side: int | None = 32
    points_per_batch: int = 64
    pred_iou_thresh: float | None = None
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    point_grids: tuple[Floats, ...] | None = None
    min_mask_region_area: int = 0
    candidates: Candidates | None = None
    output: Output | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if (self.points_per_side is None) == (self.point_grids is None):
            raise UsageError("give either points_per_side or point_grids")
        for name in ("points_per_side", "points_per_batch", "crop_n_points_downscale_factor"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} {value}: expected at least 1")
        if self.crop_n_layers < 0 or self.min_mask_region_area < 0 or not 0 <= self.crop_overlap_ratio < 1:
            raise UsageError(
                f"crop_n_layers {self.crop_n_layers}, min_mask_region_area {self.min_mask_region_area},"
                f" crop_overlap_ratio {self.crop_overlap_ratio}: expected at least 0, the ratio below 1"
            )
        if self.point_grids is not None and len(self.point_grids) != self.crop_n_layers + 1:
            raise UsageError(f"{len(self.point_grids)} point_grids: expected one per layer, {self.crop_n_layers + 1}")

    def grid(self, layer: int) -> Floats:
        """Points (P, 2) in 0..1 for crops of a layer, row by row."""
        if self.point_grids is not None:
            return self.point_grids[layer]
        assert self.points_per_side is not None, "guaranteed above"
        n = int(self.points_per_side / self.crop_n_points_downscale_factor**layer)
        return click_grid(n)


@dataclass(frozen=True, slots=True, repr=False)
class AutoMask(ShapeRepr):
    """One mask. ``bbox`` and ``crop_box`` are XYWH with w = last column - first column, as in the official records."""

    rle: Rle
    area: int
    bbox: tuple[int, int, int, int]
    predicted_iou: float
    point: tuple[float, float]
    stability_score: float
    crop_box: tuple[int, int, int, int]

    def record(self, mode: OutputMode = "binary_mask") -> dict[str, Any]:
        """The official dictionary; ``mode`` chooses the form of "segmentation"."""
        segmentation: object = self.rle.to_coco()
        if mode != "coco_rle":
            mask = run_lengths.decode(self.rle)
            segmentation = mask if mode == "binary_mask" else _uncompressed(mask)
        return {
            "segmentation": segmentation,
            "area": self.area,
            "bbox": list(self.bbox),
            "predicted_iou": self.predicted_iou,
            "point_coords": [list(self.point)],
            "stability_score": self.stability_score,
            "crop_box": list(self.crop_box),
        }


@dataclass(slots=True)
class _Found:
    """Masks of one or more crops: parallel lists; boxes are XYXY with inclusive ends, in the whole image."""

    rles: list[Rle] = field(default_factory=list)
    boxes: list[Floats] = field(default_factory=list)
    iou: list[float] = field(default_factory=list)
    points: list[Floats] = field(default_factory=list)
    stability: list[float] = field(default_factory=list)
    crops: list[Crop] = field(default_factory=list)

    def pick(self, keep: list[int]) -> _Found:
        """The given entries in the given order."""
        return _Found(*([getattr(self, f.name)[i] for i in keep] for f in fields(self)))

    def extend(self, other: _Found) -> None:
        """Append all entries of another."""
        for f in fields(self):
            getattr(self, f.name).extend(getattr(other, f.name))


def automatic_masks(sam: SegmentAnything, image: Image, options: AutomaticOptions | None = None) -> list[AutoMask]:
    """All masks of an RGB image (uint8, (H, W, 3)); an empty list when nothing is found."""
    options = options or AutomaticOptions()
    if options.pred_iou_thresh is None:
        options = replace(options, pred_iou_thresh=sam.config.quality)
    check_image(image)

    def encode(crop: Image) -> Clicks:
        (features,) = sam.encode([np.ascontiguousarray(crop)])
        return _clicks(sam, features, options)

    return generate(image, encode, options)


def generate(image: Image, encode: Encode, options: AutomaticOptions) -> list[AutoMask]:
    """The algorithm, for anything that answers clicks: ``encode`` is called once per crop."""
    found = _Found()
    crops = list(_crops(image.shape[0], image.shape[1], options))
    for crop, layer in crops:
        found.extend(_from_crop(image, crop, options.grid(layer), encode, options))
    if len(crops) > 1 and found.rles:  # prefer masks from smaller crops
        areas = np.array([(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in found.crops], np.float64)
        found = found.pick(suppress_boxes(np.stack(found.boxes), 1 / areas, options.crop_nms_thresh))
    if options.min_mask_region_area and found.rles:
        found = _clean(found, options)
    return [_auto_mask(found, i) for i in range(len(found.rles))]


def _clicks(sam: SegmentAnything, features: FrameFeatures, options: AutomaticOptions) -> Clicks:
    candidates: Candidates = options.candidates or ("best" if sam.config.hq else "all")

    def answer(points: Floats) -> tuple[Tensor, Upsample]:
        prompts = PromptBatch(points=points[:, None], labels=np.ones((len(points), 1), np.int64))
        (masks,) = sam.decode([features], [prompts], options.output, "single" if candidates == "single" else "all")
        logits, iou, g = masks.logits, masks.iou, features.geometry
        if candidates == "best":  # by predicted quality alone: parts of things are masks too
            best = iou.argmax(1, keepdim=True)
            logits, iou = logits.take_along_dim(best[..., None, None], 1), iou.take_along_dim(best, 1)
        low = logits.flatten(0, 1)
        return iou, lambda keep: to_original_size(low[keep], *g.between, g.original)

    return answer


def _crops(height: int, width: int, options: AutomaticOptions) -> Iterator[tuple[Crop, int]]:
    """Crop boxes (x1, y1, x2, y2) and their layer: the whole image, then overlapping 2x2, 4x4, ... tiles."""
    yield (0, 0, width, height), 0
    for layer in range(1, options.crop_n_layers + 1):
        n = 2**layer
        overlap = int(options.crop_overlap_ratio * min(height, width) * (2 / n))
        crop_w = math.ceil((overlap * (n - 1) + width) / n)
        crop_h = math.ceil((overlap * (n - 1) + height) / n)
        for i in range(n):
            for j in range(n):
                x, y = int((crop_w - overlap) * i), int((crop_h - overlap) * j)
                if x < width and y < height:  # images of a few pixels have fewer tiles
                    yield (x, y, min(x + crop_w, width), min(y + crop_h, height)), layer


def _from_crop(image: Image, crop: Crop, grid: Floats, encode: Encode, options: AutomaticOptions) -> _Found:
    x1, y1, x2, y2 = crop
    answer = encode(image[y1:y2, x1:x2])
    points = grid * np.array([x2 - x1, y2 - y1])
    found = _Found()
    for start in range(0, len(points), options.points_per_batch):
        batch = points[start : start + options.points_per_batch]
        found.extend(_filtered(*answer(batch), batch, crop, (image.shape[0], image.shape[1]), options))
    if not found.rles:
        return found
    return found.pick(suppress_boxes(np.stack(found.boxes), np.array(found.iou), options.box_nms_thresh))


def _filtered(
    iou: Tensor, upsample: Upsample, points: Floats, crop: Crop, size: tuple[int, int], options: AutomaticOptions
) -> _Found:
    """The masks of a batch that are good, stable and not cut off by the crop."""
    x1, y1 = crop[:2]
    candidates, iou = iou.shape[1], iou.flatten()
    keep = torch.arange(len(iou), device=iou.device)
    least = QUALITY if options.pred_iou_thresh is None else options.pred_iou_thresh
    if least > 0:
        keep = keep[iou > least]
    found = _Found()
    if not len(keep):
        return found
    logits, iou = upsample(keep), iou[keep]
    stability = stability_score(logits, options.stability_score_offset)
    if options.stability_score_thresh > 0:
        good = stability >= options.stability_score_thresh
        logits, iou, keep, stability = logits[good], iou[good], keep[good], stability[good]
    for i, mask in enumerate((logits > 0).cpu().numpy()):
        box = _inclusive_box(mask) + np.array([x1, y1, x1, y1])
        near_crop = np.abs(box - np.array(crop)) <= EDGE_PX
        near_image = np.abs(box - np.array([0, 0, size[1], size[0]])) <= EDGE_PX
        if (near_crop & ~near_image).any():
            continue
        found.rles.append(run_lengths.encode_window(mask, y1, x1, *size))
        found.boxes.append(box)
        found.iou.append(float(iou[i]))
        found.points.append(points[int(keep[i]) // candidates] + np.array([x1, y1]))
        found.stability.append(float(stability[i]))
        found.crops.append(crop)
    return found


def _inclusive_box(mask: npt.NDArray[np.bool_]) -> Floats:
    """[min x, min y, max x, max y]; zeros for an empty mask."""
    x1, y1, x2, y2 = mask_box(mask).astype(np.float64)
    return np.array([x1, y1, max(x2 - 1, 0), max(y2 - 1, 0)])


def _clean(found: _Found, options: AutomaticOptions) -> _Found:
    """Fill small holes and drop small islands, then suppress again; untouched masks win over changed ones."""
    cleaned = found.pick(list(range(len(found.rles))))
    untouched = np.ones(len(found.rles))
    for i, rle in enumerate(found.rles):
        mask, filled = without_small_parts(run_lengths.decode(rle), options.min_mask_region_area, holes=True)
        mask, dropped = without_small_parts(mask, options.min_mask_region_area, holes=False)
        if filled or dropped:
            untouched[i] = 0
            cleaned.rles[i] = run_lengths.encode(mask)
            cleaned.boxes[i] = _inclusive_box(mask)
    threshold = max(options.box_nms_thresh, options.crop_nms_thresh)
    return cleaned.pick(suppress_boxes(np.stack(cleaned.boxes), untouched, threshold))


def _auto_mask(found: _Found, i: int) -> AutoMask:
    x1, y1, x2, y2 = (int(v) for v in found.boxes[i])
    cx1, cy1, cx2, cy2 = found.crops[i]
    return AutoMask(
        rle=found.rles[i],
        area=run_lengths.area(found.rles[i]),
        bbox=(x1, y1, x2 - x1, y2 - y1),
        predicted_iou=found.iou[i],
        point=(float(found.points[i][0]), float(found.points[i][1])),
        stability_score=found.stability[i],
        crop_box=(cx1, cy1, cx2 - cx1, cy2 - cy1),
    )


def _uncompressed(mask: npt.NDArray[np.bool_]) -> dict[str, list[int]]:
    """COCO run-lengths as numbers: column by column, starting with background."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(changes, prepend=0, append=len(flat)).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}
