"""IoU of all detections with all ground truths of one class on one image or video, for masks and for boundary bands.

An image is a tube of one frame. Pixels are pooled over the frames of a tube before the division (Yang et al., "Video
Instance Segmentation", ICCV 2019, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from vidseg.evaluation.patches import EMPTY, Patch, patch_of
from vidseg.masks.boundary import band_width, boundary_band
from vidseg.masks.rle import decode_window
from vidseg.types import Rle

Tube = tuple[Rle | None, ...]
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared: D detections and G ground truths, all of the same size and number of frames.

    ``bands``: the masks the ground truth's bands come from (``truths`` unless there are refined ones). ``crowd``: G
    flags. ``crowd_by_detection``: the mask IoU with a crowd is divided by the detection's area (COCO images) instead of
    by the union (tubes).
    """

    detections: tuple[Tube, ...]
    truths: tuple[Tube, ...]
    bands: tuple[Tube, ...]
    crowd: tuple[bool, ...]
    crowd_by_detection: bool


def mask_overlaps(group: Comparison) -> Matrix:
    """Mask IoU, float64 (D, G); two empty tubes have IoU 0."""
    d, g = len(group.detections), len(group.truths)
    common, area_d, area_g = np.zeros((d, g)), np.zeros(d), np.zeros(g)
    for dts, gts in zip(_by_frame(group.detections, d, g), _by_frame(group.truths, g, d), strict=True):
        here_d, here_g = _present(dts), _present(gts)
        coco_d, coco_g = _to_coco([dts[i] for i in here_d]), _to_coco([gts[i] for i in here_g])
        areas = coco_mask.area(coco_d).astype(float) if coco_d else np.zeros(0)
        area_d[here_d] += areas
        if coco_g:
            area_g[here_g] += coco_mask.area(coco_g)
        if coco_d and coco_g:
            share = coco_mask.iou(coco_d, coco_g, [1] * len(coco_g))  # common pixels / pixels of the detection, in C
            common[np.ix_(here_d, here_g)] += np.rint(share * areas[:, None])
    union = area_d[:, None] + area_g - common
    if group.crowd_by_detection:
        union = np.where(np.array(group.crowd, bool), area_d[:, None], union)
    return _divide(common, union)


def boundary_overlaps(group: Comparison, ratio: float) -> Matrix:
    """IoU of the boundary bands of ``ratio`` of the frame's diagonal, float64 (D, G), pooled over the frames."""
    d, g = len(group.detections), len(group.truths)
    common, area_d, area_g = np.zeros((d, g)), np.zeros(d), np.zeros(g)
    for dts, gts in zip(_by_frame(group.detections, d, g), _by_frame(group.bands, g, d), strict=True):
        bands_d, bands_g = [_band(rle, ratio) for rle in dts], [_band(rle, ratio) for rle in gts]
        area_d += [band.area for band in bands_d]
        area_g += [band.area for band in bands_g]
        common += np.array([[a.common(b) for b in bands_g] for a in bands_d]).reshape(d, g)
    return _divide(common, area_d[:, None] + area_g - common)


def both_overlaps(group: Comparison, ratio: float) -> tuple[Matrix, Matrix]:
    """(mask IoU, boundary score): the score is the smaller of mask IoU and band IoU, for crowds the mask IoU."""
    masks = mask_overlaps(group)
    if not masks.size:
        return masks, masks
    bands = np.minimum(masks, boundary_overlaps(group, ratio))
    return masks, np.where(np.array(group.crowd, bool), masks, bands)


def _by_frame(tubes: Sequence[Tube], count: int, others: int) -> list[tuple[Rle | None, ...]]:
    """Frames of tubes; nothing when there is nothing to compare."""
    return list(zip(*tubes, strict=True)) if count and others else []


def _present(frame: Sequence[Rle | None]) -> list[int]:
    return [i for i, rle in enumerate(frame) if rle is not None]


def _to_coco(rles: Sequence[Rle | None]) -> list[dict[str, object]]:
    return [{"size": [rle.height, rle.width], "counts": rle.counts} for rle in rles if rle is not None]


def _band(rle: Rle | None, ratio: float) -> Patch:
    if rle is None:
        return EMPTY
    window, top, left = decode_window(rle)
    if not window.size:
        return EMPTY
    return patch_of(boundary_band(window, band_width(rle.height, rle.width, ratio)), top, left)


def _divide(common: Matrix, union: Matrix) -> Matrix:
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
