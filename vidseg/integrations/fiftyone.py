"""Runs in FiftyOne, as detections with masks on the frames of a video, and back as prompts (pip install fiftyone).

import fiftyone as fo
from vidseg.integrations import fiftyone as vf

dataset = fo.Dataset("clips")
dataset.add_sample(vf.to_sample("runs/dog"))
prompts = vf.to_prompts(dataset.first(), "vidseg", frames=[0])
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from vidseg.errors import UsageError
from vidseg.types import Prompt


def to_sample(run: str | Path, field: str = "vidseg") -> Any:
    """A sample of the video of a run, whose frames carry its masks as ``fiftyone.Detections`` under ``field``.

    ``index`` is the id of the object, ``label`` its name, ``confidence`` its score.

    Raises:
        UsageError: fiftyone is not installed. InputError: no run.
    """
    from vidseg import read_run

    fo = _fiftyone()
    video = json.loads((Path(run) / "run.json").read_text("utf-8"))["input"]["path"]
    sample = fo.Sample(filepath=str(video))
    for masks in read_run(run):
        if masks.hw is None:
            continue
        height, width = masks.hw
        found = []
        for object_id, mask, y0, x0 in masks.windows():
            row = masks.ids.index(object_id)
            h, w = mask.shape
            found.append(
                fo.Detection(
                    label=masks.labels[row] or "object",
                    bounding_box=[x0 / width, y0 / height, w / width, h / height],
                    mask=mask,
                    confidence=float(masks.scores[row]),
                    index=object_id,
                )
            )
        sample.frames[masks.frame_index + 1] = fo.Frame(**{field: fo.Detections(detections=found)})
    return sample


def to_prompts(sample: Any, field: str = "vidseg", frames: Collection[int] | None = None) -> list[Prompt]:
    """Prompts from the detections of a sample's frames: masks where there are some, else boxes.

    Args:
        sample: of a video whose metadata has been computed (``sample.compute_metadata()``).
        field: where the detections are.
        frames: only these, counted from 0; default: the first frame of every object.

    Raises:
        UsageError: no detections there, or no metadata.
    """
    meta = sample.metadata
    if meta is None or not getattr(meta, "frame_width", None):
        raise UsageError("the size of the video is not known: call sample.compute_metadata() first")
    width, height = int(meta.frame_width), int(meta.frame_height)
    prompts: list[Prompt] = []
    seen: set[int] = set()
    for number in sorted(sample.frames):
        detections = getattr(sample.frames[number], field, None)
        for place, one in enumerate(detections.detections if detections is not None else (), 1):
            object_id = int(one.index if one.index is not None else place)
            if (number - 1 in frames) if frames is not None else (object_id not in seen):
                seen.add(object_id)
                prompts.append(_prompt(number - 1, object_id, one, width, height))
    if not prompts:
        raise UsageError(f"field {field!r}: no detections on these frames")
    return prompts


def _prompt(frame: int, object_id: int, one: Any, width: int, height: int) -> Prompt:
    x, y, w, h = one.bounding_box
    x1, y1 = round(x * width), round(y * height)
    if one.mask is None:
        return Prompt(frame, object_id, box=(x * width, y * height, (x + w) * width, (y + h) * height), label=one.label)
    mask = np.zeros((height, width), np.bool_)
    part = np.asarray(one.mask, np.bool_)[: height - y1, : width - x1]
    mask[y1 : y1 + part.shape[0], x1 : x1 + part.shape[1]] = part
    return Prompt(frame, object_id, mask=mask, label=one.label)


def _fiftyone() -> Any:
    try:
        return importlib.import_module("fiftyone")
    except ImportError as error:
        raise UsageError("this needs another package: pip install fiftyone") from error
