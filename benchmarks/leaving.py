"""Clips whose objects leave and come back, made of clips whose objects stay (``tracking_quality.py --leave``).

``cover``: the largest object is gone at once, behind background from frames where it is elsewhere. ``pan``: the camera
turns away from all objects, to the mirror image of the scene without them, and back; so they leave across the border of
the frame. Both begin after a third of the clip.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from vidseg_trackers.xmem.training.bank import Clip

U8 = npt.NDArray[np.uint8]
VOID = 255
PAN = 5
"""Frames in which the camera turns away from an object, or back."""


def leave(clip: Clip, how: str, frames: int) -> Clip:
    """``clip`` without its objects (``pan``), or its largest one (``cover``), for so many ``frames``."""
    start = len(clip.frames) // 3
    if how == "cover":
        return _covered(clip, start, start + frames)
    return _panned(clip, start, start + frames)


def _covered(clip: Clip, start: int, stop: int) -> Clip:
    ids, areas = np.unique(clip.labels[0][(clip.labels[0] > 0) & (clip.labels[0] != VOID)], return_counts=True)
    largest = clip.labels == ids[areas.argmax()]
    images, labels = clip.frames.copy(), clip.labels.copy()
    for t in range(start, min(stop, len(images))):
        images[t] = _without(clip.frames, largest, t)
        labels[t][largest[t]] = 0
    return Clip(f"{clip.name}/cover", images, labels)


def _panned(clip: Clip, start: int, stop: int) -> Clip:
    objects = (clip.labels > 0) & (clip.labels != VOID)
    images, labels, width = clip.frames.copy(), clip.labels.copy(), clip.labels.shape[2]
    for t in range(len(images)):
        turned = min(t - start + PAN, stop - 1 - t + PAN, PAN) / PAN  # away from ``start`` to ``stop``
        if turned > 0:
            x = round(turned * width)
            images[t] = np.hstack([clip.frames[t], _without(clip.frames, objects, t)[:, ::-1]])[:, x : x + width]
            labels[t] = np.hstack([clip.labels[t], np.zeros_like(labels[t])])[:, x : x + width]
    return Clip(f"{clip.name}/pan", images, labels)


def _without(images: U8, objects: npt.NDArray[np.bool_], t: int) -> U8:
    """Frame ``t`` without the pixels of ``objects`` and a margin: from the nearest frames that show what is behind."""
    margin = np.ones((2 * (images.shape[2] // 40) + 1,) * 2, np.uint8)
    picture, open_ = images[t].copy(), cv2.dilate(objects[t].astype(np.uint8), margin) > 0
    for s in sorted(range(len(images)), key=lambda s: abs(s - t))[1:]:
        here = open_ & (cv2.dilate(objects[s].astype(np.uint8), margin) == 0)
        picture[here] = images[s][here]
        open_ &= ~here
        if not open_.any():
            return picture
    small = (picture.shape[1] // 4, picture.shape[0] // 4)
    hole = cv2.dilate(
        cv2.resize(open_.astype(np.uint8), small, interpolation=cv2.INTER_NEAREST), np.ones((3, 3), np.uint8)
    )
    filled = cv2.inpaint(cv2.resize(picture, small, interpolation=cv2.INTER_AREA), hole, 3, cv2.INPAINT_TELEA)
    picture[open_] = cv2.resize(filled, picture.shape[1::-1])[open_]
    return picture
