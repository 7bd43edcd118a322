"""Masks: run-lengths, boxes, palettes, annotation files and overlaps.

* ``rle``: ``encode(mask)``, ``encode_window(window, y0, x0, height, width)``, ``decode(rle)``, ``decode_window(rle)``,
  ``area(rle)``, ``bbox(rle)``, ``empty_rle(height, width)``, ``from_coco(object)`` (validates untrusted input).
* ``boxes``: ``mask_box(mask)``, ``box_iou(a, b)``, ``clip_boxes(boxes, width, height)``.
* ``palette``: ``davis_palette()``, ``color_of(object_id)``.
* ``polygons``: masks as polygons that keep their holes.
* ``files``: ``read_mask_values(path)``, the one rule for what the values of a mask file mean.
* ``annotation``: ``read_annotation(path, video) -> {object id: mask}``.
* ``overlap``: ``disjoint_masks(masks_by_id, frame_index)``.
* ``paste`` (needs torch): ``to_original_size``, ``upsample_window``, ``resolve_overlaps(windows, hw) -> label map``.
* ``frame_masks``: ``FrameMasks``, the result for one frame, and ``decode_label_map(ids, rles, hw)``.
* ``trust``: ``Signals``, what was measured of a mask, and ``trust(signals, score)``, how far it can be trusted.
"""

from __future__ import annotations

from vidseg.masks.annotation import read_annotation
from vidseg.masks.boxes import box_iou, clip_boxes, mask_box
from vidseg.masks.frame_masks import FrameMasks, decode_label_map
from vidseg.masks.overlap import disjoint_masks
from vidseg.masks.palette import color_of, davis_palette
from vidseg.masks.rle import area, bbox, decode, decode_window, empty_rle, encode, encode_window, from_coco

__all__ = [
    "FrameMasks",
    "area",
    "bbox",
    "box_iou",
    "clip_boxes",
    "color_of",
    "davis_palette",
    "decode",
    "decode_label_map",
    "decode_window",
    "disjoint_masks",
    "empty_rle",
    "encode",
    "encode_window",
    "from_coco",
    "mask_box",
    "read_annotation",
]
