"""From what a user says of one object on one frame, a box, clicks or both, to its mask.

A click names a thing, but not how large it is. So a new object is looked at on the whole frame and on crops around the
click; of what is drawn there, cut off by no crop, the candidate that promises most counts (its predicted quality, its
stability, and what the judge of objects says, :func:`vidseg.sam.objectness.promise`; less on small crops), and of it
the connected parts under the clicks. Then it is drawn anew, twice, from its box and the clicks on a crop around it: a
box says how large the thing is. The mean of both counts. Every look is two, at the image and at its mirror image, and
counts with the mean of both.

Clicks on an object that is followed already correct the mask that would be shown without them, which is a prompt with
the clicks. A click that agrees with that mask changes nothing. One on the object outside of it adds, and one on the
background inside of it takes away; the rest stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vidseg.errors import UsageError
from vidseg.masks.parts import Mask, parts_at
from vidseg.sam.config import Output
from vidseg.sam.model import FrameFeatures, SegmentAnything
from vidseg.sam.prompt_batch import PromptBatch
from vidseg.sam.zoom import LOGIT_LIMIT, Zoom, draw_closely, logits_of, to_low_res, zooms
from vidseg.types import Prompt
from vidseg_pipelines.click_views import Drawn, Points, best_view, keep_part, look_again

_DISC = 1 / 64
"""Radius of what a click on the background takes away at least, as a share of the frame's longer side."""
_MOST = 1 / 4
"""Share of an object that such a click takes away at most, unless it is a part of its own."""


def draw_object(
    sam: SegmentAnything,
    image: npt.NDArray[np.uint8],
    features: FrameFeatures,
    prompt: Prompt,
    zoom: Zoom,
    output: Output | None = None,
) -> Drawn:
    """A new object from its box, its clicks or both. ``output`` as in :meth:`Sam.decode`."""
    asked = prompt_batch_of(prompt)
    clicked, _ = _by_label(prompt)
    if prompt.box is not None or not clicked:
        logits, quality = draw_closely(sam, image, features, asked, zoom, output)
        return Drawn(logits[0, 0], float(quality[0, 0]))
    first = best_view(sam, image, features, asked, clicked, zoom, output)
    if not zooms(sam.config, zoom) or not first.mask.any():
        return first
    second = look_again(sam, image, first, asked, clicked, output)
    third = look_again(sam, image, second, asked, clicked, output)
    mean = (second.logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT) + third.logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)) / 2
    part = parts_at((mean > 0).cpu().numpy(), clicked)
    return Drawn(keep_part(mean, part), third.quality) if part.any() else third


def draw_prompts(
    sam: SegmentAnything,
    image: npt.NDArray[np.uint8],
    features: FrameFeatures,
    prompts: Sequence[Prompt],
    zoom: Zoom,
    shown: Mapping[int, Mask] | None = None,
) -> list[Mask]:
    """Masks (H, W) for the prompts on one frame; mask prompts are handed through.

    ``shown`` are the masks that followed objects would have without the prompts. What is drawn takes pixels from one of
    them only where that one was clicked, or, from a box, where it is the larger of the two.

    Raises:
        UsageError: nothing is found at a prompt, or its clicks leave nothing.
    """
    shown = shown or {}
    asked = {prompt.object_id for prompt in prompts}
    others = [mask for i, mask in shown.items() if i not in asked]
    masks: list[Mask] = []
    for prompt in prompts:
        if prompt.mask is not None:
            masks.append(prompt.mask)
            continue
        before = shown.get(prompt.object_id)
        where = f"object {prompt.object_id} on frame {prompt.frame_index}"
        clicked, cleared = _by_label(prompt)
        if before is not None and prompt.box is None:
            mask = correct(sam, image, features, prompt, before, zoom)
        elif prompt.box is None and not clicked:
            raise UsageError(f"{where}: at least one click must be on the object, which is not seen there")
        else:
            mask, before = draw_object(sam, image, features, prompt, zoom).mask, None
        for other in others:
            is_clicked = any(other[int(y), int(x)] for x, y in clicked)
            if not is_clicked and (clicked or cleared or other.sum() < mask.sum()):
                mask = mask & ~other if before is None else mask & (before | ~other)
        if not mask.any():
            what = f"box {prompt.box}" if prompt.box else f"points {prompt.points}"
            raise UsageError(f"{where}: no object is found at {what}; give another prompt")
        masks.append(mask)
    return masks


def correct(
    sam: SegmentAnything,
    image: npt.NDArray[np.uint8],
    features: FrameFeatures,
    prompt: Prompt,
    before: Mask,
    zoom: Zoom,
) -> Mask:
    """The mask ``before`` (H, W) with the changes that the clicks of ``prompt`` ask for; maybe nothing is left."""
    clicked, cleared = _by_label(prompt)
    adding = [(x, y) for x, y in clicked if not before[int(y), int(x)]]
    removing = [(x, y) for x, y in cleared if before[int(y), int(x)]]
    mask = before
    for _ in range(2 if adding or removing else 0):  # the second time it sees what the first has changed
        low = to_low_res(torch.from_numpy(mask.astype(np.float32))[None], features.geometry, 0.0)
        asked = prompt_batch_of(prompt, logits_of(low, LOGIT_LIMIT))
        drawn = (sam.decode([features], [asked])[0].upsampled()[0, 0] > 0).cpu().numpy()
        taken = parts_at(before & ~drawn, removing)
        if taken.sum() > _MOST * before.sum():  # no correction: the click is looked at by itself
            taken = np.zeros_like(before)
        mask = (before & ~taken) | parts_at(drawn, adding)
    for place in adding:
        if not mask[int(place[1]), int(place[0])]:
            mask = mask | _at(sam, image, features, prompt, place, zoom)
    for place in removing:
        if mask[int(place[1]), int(place[0])]:
            mask = _without(mask, place, clicked, _at(sam, image, features, prompt, place, zoom))
    return mask


def prompt_batch_of(prompt: Prompt, masks: Float[Tensor, "1 h w"] | None = None) -> PromptBatch:
    """One user's prompt, with a mask of low resolution if there is one, as the decoder takes it."""
    return PromptBatch(
        boxes=None if prompt.box is None else np.array([prompt.box], np.float32),
        points=np.array([prompt.points], np.float32) if prompt.points else None,
        labels=np.array([prompt.point_labels], np.int64) if prompt.points else None,
        masks=masks,
    )


def _by_label(prompt: Prompt) -> tuple[Points, Points]:
    """Clicks on the object, clicks on the background."""
    pairs = list(zip(prompt.points, prompt.point_labels, strict=True))
    return [place for place, label in pairs if label == 1], [place for place, label in pairs if label == 0]


def _at(
    sam: SegmentAnything,
    image: npt.NDArray[np.uint8],
    features: FrameFeatures,
    prompt: Prompt,
    place: tuple[float, float],
    zoom: Zoom,
) -> Mask:
    """The thing at one place, whatever it is."""
    alone = Prompt(prompt.frame_index, prompt.object_id, points=(place,), point_labels=(1,))
    return draw_object(sam, image, features, alone, zoom).mask


def _without(mask: Mask, place: tuple[float, float], clicked: Points, thing: Mask) -> Mask:
    """The mask without what was clicked on as background: a part of its own, a smaller thing, at least a disc."""
    part = parts_at(mask, [place])
    if 2 * part.sum() < mask.sum() and not any(part[int(y), int(x)] for x, y in clicked):
        return mask & ~part
    if thing[int(place[1]), int(place[0])] and (mask & thing).sum() < _MOST * mask.sum():
        return mask & ~thing
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    radius = max(1.0, _DISC * max(mask.shape))
    return np.asarray(mask & ((x + 0.5 - place[0]) ** 2 + (y + 0.5 - place[1]) ** 2 > radius**2))
